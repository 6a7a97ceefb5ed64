"""The math path of PyTorch's ``F.scaled_dot_product_attention`` (2.5 and newer).

Compiled, its repeats and scaling are fused into its products, so it becomes the einsum. Its
bifurcated form is the einsum too.
"""

from collections.abc import Sequence
from dataclasses import replace

from simulator.counts.attention.einsum import Einsum, bifurcated_einsum, product, product_flops
from simulator.counts.attention.plain import moved
from simulator.counts.attention.shape import AttentionShape, several
from simulator.counts.attention.way import PARTIAL_BYTES, PlainKernel
from simulator.counts.operation import Operation
from simulator.inputs.model import ModelShape
from simulator.inputs.setup import Setup
from simulator.inputs.workload import Workload
from simulator.numeric import Numeric

FLOAT_BYTES = PARTIAL_BYTES  # it computes in float32
_CACHE_READS = ("kv_bytes_read", "reused_bytes", "reused_footprint_bytes", "together_bytes")


class SdpaMath(Einsum):
    """The math path: everything in float32, KV heads repeated to query heads."""

    def plain(self, shape: AttentionShape, setup: Setup) -> list[Operation]:
        """Return the kernels that PyTorch launches."""
        if setup.bifurcated:
            return bifurcated_einsum(shape)
        return standard_math(shape, rereads=setup.rereads)

    def held_bytes(self, shape: AttentionShape, setup: Setup) -> Numeric:
        """Return the size of the float32 cache, its repeats, scaled keys and logits together."""
        if setup.bifurcated or not setup.eager:
            return super().held_bytes(shape, setup)
        cache = shape.cached_bytes(shape.sequences * shape.tokens)
        wide = cache * (FLOAT_BYTES / shape.kv_bytes)
        held = (wide if shape.kv_bytes != FLOAT_BYTES else 0) + wide * shape.group / 2
        repeated = wide * shape.group if shape.group > 1 else 0
        return held + repeated + 2 * shape.rows * shape.tokens * FLOAT_BYTES

    def refusal(self, model: ModelShape, work: Workload) -> str:
        """Refuse latent caches and prefix trees."""
        if model.latent is not None:
            return (
                f"{model.name} caches a latent vector, which kernel {self.name!r} cannot read; "
                "use ideal, flash or einsum"
            )
        return super().refusal(model, work)


def standard_math(shape: AttentionShape, *, rereads: bool = False) -> list[Operation]:
    """Return the math path in plain PyTorch.

    It casts 16-bit inputs to float32, the whole cache included, repeats KV heads to query heads,
    scales both queries and keys, and guards the softmax against rows without keys: softmax, test
    for -inf, all, fill, where. It also casts the weights back, for an unused second result. With
    several query tokens, the mask over all keys becomes numbers (two fills, where) and is added.

    Parameters
    ----------
    rereads
        Whether the samples read one stored context.
    """
    tokens, group = shape.tokens, shape.group
    cast = int(shape.activation_bytes != FLOAT_BYTES)
    # Float32 throughout.
    queries, outputs = (shape.rows * w * FLOAT_BYTES for w in (shape.key_width, shape.value_width))
    logits = shape.rows * tokens * FLOAT_BYTES
    repeated = shape.sequences * tokens * shape.heads * FLOAT_BYTES
    keys, values = repeated * shape.key_width, repeated * shape.value_width
    once = (keys + values) // group
    # One byte per logit and per row for the test for -inf, and a number to fill with.
    flags = shape.rows * tokens + shape.rows + FLOAT_BYTES
    whole = shape.whole(rereads=rereads)
    of_keys, of_values = (product(shape, whole, keys=keys) for keys in (True, False))
    stored = of_keys.kv_bytes_read + of_values.kv_bytes_read

    masked = several(shape.query_tokens)
    pairs, element = shape.query_tokens * tokens, shape.activation_bytes
    mask = pairs * element
    apart = masked * several(shape.heads)
    folds = apart * several(shape.sequences)
    operations = [
        moved("attention_mask", pairs + 2 * element, mask + 2 * element, launches=3 * masked),
        moved("attention_query_cast", shape.query_bytes, queries, launches=cast),
        moved("kv_cast", stored, once, launches=2 * int(shape.kv_bytes != FLOAT_BYTES)),
        moved("attention_query_scale", queries, queries),
        moved("kv_repeat", once, keys + values, launches=2 * several(group), kind="copy"),
        moved("attention_key_scale", keys, keys),
        moved("query_fold_tokens", queries, queries, launches=folds, kind="copy"),
        _product(shape, queries + keys, logits, keys=True),
        moved("attention_mask_add", logits + mask, logits, launches=masked),
        moved("attention_softmax", 3 * logits + flags, 2 * logits + flags, launches=5),
        moved("attention_weights_cast", logits, shape.logits_bytes(tokens), launches=cast),
        _product(shape, logits + values, outputs, keys=False),
        moved("attention_output_cast", outputs, shape.output_bytes, launches=cast),
        moved(
            "attention_arrange", shape.output_bytes, shape.output_bytes, launches=apart, kind="copy"
        ),
    ]
    # The operations that read the cache itself, not a copy of it.
    if shape.kv_bytes != FLOAT_BYTES:
        readers = {"kv_cast": [of_keys, of_values]}
    elif shape.heads > shape.kv_heads:
        readers = {"kv_repeat": [of_keys, of_values]}
    else:
        readers = {"attention_key_scale": [of_keys], "attention_values": [of_values]}
    return [replace(each, **_cache_reads(readers.get(each.name, []))) for each in operations]


def _product(shape: AttentionShape, read: Numeric, written: Numeric, *, keys: bool) -> Operation:
    """Return one of the two products, in float32."""
    name = "attention_scores" if keys else "attention_values"
    operation = moved(name, read, written, kind="attention")
    return replace(operation, flops=product_flops(shape, shape.tokens, keys=keys), dtype="fp32")


def _cache_reads(products: Sequence[Operation]) -> dict[str, Numeric]:
    """Return what some products read of the cache together; nothing for no product."""
    reads: dict[str, Numeric] = {}
    for name in _CACHE_READS if products else ():
        values = [getattr(each, name) for each in products]
        reads[name] = None if values[0] is None else sum(values)
    return reads


PLAIN_MATH = (PlainKernel("standard_math", "standard", "sdpa_math", "copies", standard_math),)
