"""Plain PyTorch's operations around attention: folding copies, merges, rebuilt caches."""

from simulator.counts.attention.shape import AttentionShape, several
from simulator.counts.attention.way import PARTIAL_BYTES
from simulator.counts.operation import Kind, Operation, streamed
from simulator.numeric import Numeric, where


def rebuild(shape: AttentionShape) -> Operation:
    """Return the concatenation of the context with every sample's decoded tokens, K and V."""
    read = shape.cached_bytes(shape.stored_context_tokens) + shape.decoded_bytes
    written = shape.context_copy_bytes * shape.samples + shape.decoded_bytes
    return streamed("kv_concatenate", read, written, launches=2, kind="copy", kv_bytes_read=read)


def moved(
    name: str, read: Numeric, written: Numeric, *, launches: Numeric = 1, kind: Kind = "elementwise"
) -> Operation:
    """Return kernels with the given traffic, if they are launched at all.

    Parameters
    ----------
    name, kind
        Name and kind of the operation.
    read, written
        Traffic of all its kernels together. [bytes]
    launches
        Number of kernels; 0 for none.
    """
    exists = where(launches > 0, 1, 0)
    return streamed(name, read * exists, written * exists, launches=launches, kind=kind)


def copied(name: str, copied_bytes: Numeric, needed: Numeric) -> Operation:
    """Return one copy.

    Parameters
    ----------
    copied_bytes
        Bytes it reads, and bytes it writes. [bytes]
    needed
        1 where there is one, else 0.
    """
    each = copied_bytes * needed
    return streamed(name, each, each, launches=needed, kind="copy")


def query_fold(shape: AttentionShape, needed: Numeric, level: str = "") -> Operation:
    """Return the copy that folds samples and groups into rows, where a view cannot.

    Parameters
    ----------
    needed
        1 where there is one, else 0.
    level
        Suffix of the operation's name that marks a tree's level.
    """
    return copied(f"query_fold{level}", shape.query_bytes, needed)


def unfold(shape: AttentionShape, needed: Numeric) -> Operation:
    """Return the copy that unfolds outputs where no merge does it."""
    return copied("attention_unfold", shape.output_bytes, needed)


def merge(shape: AttentionShape, states: Numeric) -> Operation:
    """Return the float32 merge: weights from the log-sum-exps, then one pass per state.

    Concatenate, softmax; the first output times its weight starts a float32 sum; the others are
    added, the last one with a cast to the outputs' type.
    """
    needed = where(states > 1, 1, 0)
    lse_bytes = shape.rows * PARTIAL_BYTES
    output, wide = shape.output_bytes, shape.rows * shape.value_width * PARTIAL_BYTES
    further = states - 1
    read = 2 * states * lse_bytes + output + lse_bytes + further * (wide + output + lse_bytes)
    written = 2 * states * lse_bytes + wide * further + output
    return streamed(
        "attention_merge",
        read * needed,
        written * needed,
        launches=(2 + states) * needed,
        kind="combine",
        # All of it was just written.
        scratch_bytes=read * needed,
    )


def folds_by_copy(shape: AttentionShape, sharers: Numeric) -> Numeric:
    """Return 1 where folding samples and a group's heads into rows needs a copy."""
    folded = sharers * shape.query_tokens
    strided = 1 if shape.sliced_queries else several(shape.kv_heads)
    return several(folded) * strided * several(shape.group)


def merges_by_copy(shape: AttentionShape) -> Numeric:
    """Return 1 where merging prompts with KV heads, and samples with groups, needs a copy.

    Several query tokens are already rows of their group.
    """
    rows = shape.group * shape.query_tokens
    return several(shape.samples) * several(shape.kv_heads) * several(rows * shape.prompts)
