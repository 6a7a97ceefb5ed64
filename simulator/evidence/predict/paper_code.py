"""The paper's own decode step, operation by operation: what its published table timed.

An account of gpt-fast-parallel-sampling at 2e10003 (generate.py, model.py) in bytes per rank, one
rate per kind of operation, and the harness' own habits:

* Attention runs over the allocated length, context + 128 slots rounded up to 8; the flash kernels
  alone stop at the current position.
* ``expand_kv`` repeats the KV heads to all query heads on every step; ``rebuilt`` concatenates the
  whole cache on every step.
* The step is (run - prefill) / 128 for 127 steps, and prefill is timed without synchronising: what
  the GPU has not finished of it when the host returns is charged to the steps.
* A compiled run holds two sets of caches: the graph keeps those of the first run.
"""

from dataclasses import dataclass

from simulator.inputs.dtypes import DTYPE_BYTES
from simulator.inputs.model import ModelShape

NEW_TOKENS = 128
STEPS_RUN = 127
CACHE_BYTES = 2  # caches and activations are bf16
# torch.cat of an expanded input uses a slow strided kernel up to this many output elements.
STRIDED_CAT_ELEMENTS = 2**31
# Kernels of a layer outside attention: two norms of 8, rotary of 9 for queries and for keys, four
# products and the cache write, MLP and residuals (eager); what Inductor leaves of them (compiled).
EAGER_KERNELS, COMPILED_KERNELS = 45, 9
EAGER_KERNELS_OUTSIDE_LAYERS = 20
# Passes over the activations of a layer.
EAGER_ACTIVATION_PASSES, COMPILED_ACTIVATION_PASSES = 60, 25
# Repeated keys and values that an SDPA call holds at once beside the cache: inferred from the cells
# that ran out of memory (64 samples of 8K fit rebuilt, 128 do not; FlashAttention-2 fits 256).
SDPA_HELD_COPIES, FLASH_HELD_COPIES = 4, 1.25
# Of the memory the driver reports, what context and fragmentation leave.
USABLE_MEMORY = 0.97
# Share of L2 within which a context read for every sample is read from memory once.
L2_SHARE = 0.6

SOURCE = "fitted to the 8K tables of bifurcated-attn-icml-2024/gpt-fast-parallel-sampling @ 2e10003"
# Shares of the published bandwidth, but for the last five: times [us] and [ns], and GB/s.
CONSTANTS: dict[str, tuple[float, float, float]] = {
    # Name: value, least, most.
    "harness_weights_fraction": (0.683, 0.5, 1),
    "harness_flash_fraction": (0.757, 0.3, 1),
    "harness_repeat_fraction": (0.331, 0.1, 1),
    "harness_strided_cat_fraction": (0.200, 0.03, 1),
    "harness_cat_fraction": (0.591, 0.1, 1),
    "harness_pass_fraction": (0.939, 0.3, 1),
    "harness_product_fraction": (0.999, 0.3, 1),
    "harness_fused_read_fraction": (0.291, 0.2, 1),
    "harness_fused_copy_fraction": (0.754, 0.3, 1),
    "harness_fused_pass_fraction": (0.999, 0.2, 1),
    "harness_host_us": (14.8, 8, 20),
    "harness_kernel_us": (3.15, 1, 6),
    "harness_graph_kernel_us": (0.5, 0.3, 4),
    "harness_sampling_ns": (0.52, 0.02, 3),
    "harness_block_gb_per_s": (13.0, 8, 200),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One cell of the table: what was decoded and how."""

    model: ModelShape
    context_tokens: int
    samples: int
    bifurcated: bool
    kernel: str
    rebuilt: bool
    compiled: bool
    expand_kv: bool
    weights_dtype: str
    ranks: int


@dataclass(slots=True)
class Account:
    """Bytes of one layer by kind of operation, and kernels launched.

    Attributes
    ----------
    values_bytes, values_blocks
        The product of weights with the context's values, whose few thread blocks each walk through
        all of it: one for each KV head and half of the head's width.
    """

    flash: float = 0
    repeat: float = 0
    strided_cat: float = 0
    cat: float = 0
    passes: float = 0
    product: float = 0
    fused_read: float = 0
    fused_copy: float = 0
    fused_pass: float = 0
    values_bytes: float = 0
    values_blocks: float = 1
    kernels: float = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sizes:
    """Bytes per layer that recur: facts of section 4.3 in the paper's symbols."""

    group: int  # p = h / g
    samples: int
    context: float  # K and V of the context, once
    decoded: float  # K and V of one sample's decode buffer
    cache: float  # K and V of one sample, allocated length
    logits: float
    context_logits: float
    position: float  # K and V of one sample up to the current position


def _sizes(cell: Cell) -> _Sizes:
    """Return the recurring sizes of a cell."""
    model = cell.model
    heads = model.heads // cell.ranks
    kv_heads = max(1, model.kv_heads // cell.ranks)
    token = 2 * kv_heads * model.head_dim * CACHE_BYTES
    allocated = -(-(cell.context_tokens + NEW_TOKENS) // 8) * 8
    row = heads * cell.samples * CACHE_BYTES
    return _Sizes(
        group=heads // kv_heads,
        samples=cell.samples,
        context=token * cell.context_tokens,
        decoded=token * NEW_TOKENS,
        cache=token * allocated,
        logits=row * (cell.context_tokens + NEW_TOKENS),
        context_logits=row * cell.context_tokens,
        position=token * (cell.context_tokens + NEW_TOKENS / 2),
    )


def account(cell: Cell, l2_bytes: float) -> Account:
    """Return the account of one layer's attention."""
    size = _sizes(cell)
    if cell.bifurcated:
        layer = _bifurcated_compiled(cell, size) if cell.compiled else _bifurcated(cell, size)
    elif cell.compiled:
        layer = _standard_compiled(cell, size)
    else:
        layer = _standard(cell, size, l2_bytes)
    if DTYPE_BYTES.get(cell.weights_dtype, 2) < CACHE_BYTES and not cell.compiled:
        layer.kernels += 8  # each of four matrices is widened and its result scaled
    if cell.ranks > 1:
        layer.kernels += 4
    return layer


def _standard(cell: Cell, size: _Sizes, l2_bytes: float) -> Account:
    """Eager: rebuild, repeat, then flash or the math path."""
    layer = Account()
    b, p = cell.samples, size.group
    if cell.rebuilt:
        reads = size.context if size.context / 2 <= L2_SHARE * l2_bytes else b * size.context
        moved = reads + b * size.decoded + b * size.cache
        # One sample's expanded context is contiguous; larger outputs take plain copies.
        strided = b > 1 and b * size.cache / 2 / CACHE_BYTES < STRIDED_CAT_ELEMENTS
        if strided:
            layer.strided_cat += moved
        else:
            layer.cat += moved
        layer.kernels += 2
    widened = p if cell.expand_kv else 1
    if cell.expand_kv:
        layer.repeat += b * size.cache * (1 + p)
        layer.kernels += 2
    if cell.kernel != "sdpa-math":
        layer.flash += b * size.position * widened
        layer.kernels += 1
        return layer
    layer.passes += b * size.cache * p  # keys times the root of the scale, read and written
    layer.product += b * size.cache * p + 2 * size.logits
    layer.passes += 4 * size.logits  # mask and softmax
    layer.kernels += 9
    return layer


def _standard_compiled(cell: Cell, size: _Sizes) -> Account:
    """Compiled math path: a one-row product is a fused multiply and sum over the model's own KV."""
    layer = Account(kernels=4)
    if cell.rebuilt:
        layer.fused_copy += 2 * cell.samples * size.cache * size.group
        return layer
    layer.fused_read += cell.samples * size.cache
    layer.fused_pass += 2 * size.logits
    return layer


def _bifurcated(cell: Cell, size: _Sizes) -> Account:
    """Eager: repeats, four products, and five passes over the concatenated logits."""
    b = cell.samples
    widened = size.group if cell.expand_kv else 1
    layer = Account(kernels=12)
    if cell.expand_kv:
        layer.repeat += (size.context + b * size.decoded) * (1 + size.group)
        layer.kernels += 4
    layer.product += widened * (size.context / 2 + b * size.decoded) + 2 * size.logits
    layer.values_bytes = widened * size.context / 2
    layer.values_blocks = _values_blocks(cell)
    # Of grouped heads the logits have five dimensions, which the strided kernel does not take.
    if cell.expand_kv:
        layer.strided_cat += 2 * size.logits
    else:
        layer.cat += 2 * size.logits
    layer.passes += 6 * size.logits  # scale, bias, softmax: each reads and writes
    return layer


def _bifurcated_compiled(cell: Cell, size: _Sizes) -> Account:
    """Compiled: passes fused; with one row per head the products are fused too."""
    b, p = cell.samples, size.group
    layer = Account(kernels=8)
    layer.fused_pass += 2.5 * size.logits
    if cell.expand_kv and b == 1:
        layer.fused_read += size.context + size.decoded
        layer.product += 2 * size.context_logits
        return layer
    widened = p if cell.expand_kv else 1
    layer.product += widened * size.context / 2
    layer.values_bytes = widened * size.context / 2
    layer.values_blocks = _values_blocks(cell)
    if cell.expand_kv:
        layer.fused_copy += size.context * (1 + p)
        layer.fused_read += b * size.decoded
        layer.product += 2 * size.context_logits
    else:
        layer.product += b * size.decoded + 2 * size.logits
    return layer


def _values_blocks(cell: Cell) -> float:
    """Return the thread blocks of <w,V>: tiles of 64 columns for each head that is multiplied."""
    heads = cell.model.heads if cell.expand_kv else cell.model.kv_heads
    return max(1, heads // cell.ranks) * max(1, cell.model.head_dim // 64)


def memory_bytes(cell: Cell, weights_bytes: float) -> float:
    """Return the memory a cell needs. [bytes]."""
    size = _sizes(cell)
    b, layers = cell.samples, cell.model.layers
    shared = cell.bifurcated or cell.rebuilt
    caches = layers * (size.context + b * size.decoded if shared else b * size.cache)
    if cell.compiled:
        caches *= 2
    held = 0.0
    if not cell.bifurcated and (cell.expand_kv or cell.rebuilt):
        repeated = b * size.cache * (size.group if cell.expand_kv else 1)
        copies = FLASH_HELD_COPIES if cell.kernel == "flash2" else SDPA_HELD_COPIES
        # Compiled over its own caches, nothing repeated is ever written.
        held = 0.0 if cell.compiled and not cell.rebuilt else copies * repeated
    elif cell.bifurcated:
        held = 4 * size.logits
        if cell.expand_kv:
            held += size.group * (size.context + b * size.decoded)
    return weights_bytes + caches + held
