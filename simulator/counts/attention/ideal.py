"""The ideal kernel: it reads every key it needs once, and nothing else."""

from simulator.counts.attention.shape import AttentionShape, CachePart
from simulator.counts.attention.way import Way
from simulator.counts.operation import Operation


class Ideal(Way):
    """Queries, keys and values read once, outputs written once: equations 5 and 6 of the paper."""

    def standard(self, shape: AttentionShape, *, rereads: bool) -> list[Operation]:
        """Return one kernel in which each sequence reads all its keys."""
        return [_one_kernel(shape, shape.whole(rereads=rereads))]

    def bifurcated(self, shape: AttentionShape) -> list[Operation]:
        """Return one kernel that reads the context once, or each split level of a tree.

        Own tokens take a second one if they are absorbed and the context is expanded.
        """
        if shape.expanded is None:
            return [_one_kernel(shape, *shape.parts)]
        *shared, own = shape.parts
        return [
            _one_kernel(shape.expanded, *shared),
            _one_kernel(shape, own, name="attention_suffix"),
        ]


def _one_kernel(shape: AttentionShape, *parts: CachePart, name: str = "attention") -> Operation:
    """Return attention over several parts of the cache in one kernel."""
    kv_bytes = shape.cached_bytes(sum(part.caches * part.tokens for part in parts))
    repeated_bytes = shape.cached_bytes(sum(part.repeated_tokens for part in parts))
    return Operation(
        name=name,
        kind=shape.kind,
        flops=shape.flops(sum(part.tokens for part in parts)),
        bytes_read=shape.query_bytes + kv_bytes,
        bytes_written=shape.output_bytes,
        kv_bytes_read=kv_bytes,
        reused_bytes=repeated_bytes,
        reused_footprint_bytes=shape.cached_bytes(sum(part.stored_tokens for part in parts)),
        together_bytes=repeated_bytes,
        dtype=shape.dtype,
    )
