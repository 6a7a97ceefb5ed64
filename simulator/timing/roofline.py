"""The time of one operation: the only place that turns counts into time.

    t = launches x launch + serial work + overlapped(bytes / bandwidth, FLOPs / rate)

A launch takes a fixed time, and items processed one by one take serial time. Then the operation
takes as long as its slower roof, or longer if the two do not fully overlap:

    overlapped(x, y) = (x^p + y^p)^(1/p)

from their sum (p = 1) to the larger (p infinite). Bytes that stay in L2 are read at L2 bandwidth,
no kernel reads the KV cache faster than its thread blocks can stream, and more thread blocks than
SMs run in waves.

A library cuts the result [M, N] of a matrix product into tiles, one thread block each, and chooses
the fastest tile size. Fewer tiles than SMs would leave SMs idle, so the inner dimension K of each
tile is split over several blocks, whose partial results are added up; more tiles run in waves, the
last of which may not be full.

    t = waves x (K / splits + start) x overlapped(2 x tile rows x tile columns / rate of an SM,
                                                  tile bytes / load rate of an SM)

with the start and end of a tile as a length of K, and (tile rows x element + tile columns x weight)
bytes per step of K: activations in the format of the product, weights in their stored format.

A kernel that splits nothing (CUTLASS's of plain 8 bits) chooses its tiles by M alone, and writes
its result while no tile is multiplied. That is all of its start and end:

    t = waves x K x overlapped(...) + result bytes / bandwidth

The products of experts are grouped: rows of every visited expert have tiles of their own, nothing
is split, and a wave takes a time more that grows with K, which explains rows better than loading
does:

    t = waves x (K x 2 x tile rows x tile columns / rate of an SM + block_us x walked)

where walked is (K + start) / (2048 + start): kernels differ in what a tile's start and end take.

Where it is known which tile a kernel takes, its blocks run several at a time on an SM: they load
from L2, and wait together.

    t = larger of waves x larger of (multiplying, loading) and waves of resident blocks x wait

References
----------
S. Williams, A. Waterman, D. Patterson, "Roofline: an insightful visual performance model for
multicore architectures", CACM 52(4), 2009.
"""

from dataclasses import replace
from functools import lru_cache
from math import inf, log2
from typing import Literal, NamedTuple

from simulator.counts.operation import Operation
from simulator.inputs.dtypes import DTYPE_BYTES
from simulator.inputs.setup import Execution
from simulator.numeric import Numeric, ceil_div, floor_div, maximum, minimum, square_root, where
from simulator.timing.constants import Rates
from simulator.timing.limits import prefill_tiles, read_in_pairs, unsplit_tiles

# A kernel's launch hides the first tile of keys of its blocks, 128 tokens of K and V in 16 bits:
# measured calls take equally long for 2 and for 128 tokens.
FIRST_TILE_BYTES = 128 * 2 * 128 * 2
# The width of heads whose thread blocks fill an SM: wider ones take longer, narrower ones share it
# (H100 and B200: calls of many short sequences, 64 to 512 wide).
BLOCK_WIDTH = 128
# The same of a causal call (B200: calls of one token take equally long for heads of 64 to 256).
PREFILL_BLOCK_WIDTH = 256
# Rows and columns of tiles: three of the libraries' sizes, which predict unseen products as well
# as six.
TILES = ((64, 64), (128, 128), (256, 128))
# Those of grouped products: libraries also have one for experts with few rows.
GROUPED_TILES = ((16, 128), *TILES)
# A tile of no more rows than this multiplies only those that it has.
LEAST_ROWS = 64
# Where the kernel's tile is known: blocks that an SM runs at once, so that they wait together; the
# share of L2's bandwidth that their loads reach; the share of the memory's that loads of weights
# shorter than a line reach; and the step of K that ``block_us`` is for. One value serves all cards:
# by itself, Triton's tile of 64 x 64 x 32 reaches 0.6, 0.7 and 0.8 of L2's bandwidth on A100, L40S
# and H100, and 0.62, 0.68 and 0.68 of the memory bandwidth that its tile of 16 x 32 x 64 reaches
# (aiconfigurator rows).
RESIDENT, L2_SHARE, SHORT_SHARE, LINE_BYTES, STEP_K = 4, 0.75, 0.67, 128, 64
# Numbers of blocks that may share the inner dimension of a tile.
SPLITS = (2, 8)
# The small tile of an unsplit kernel loads only the rows that the product has, but at least those
# of an MMA.
UNSPLIT_ROWS = 16
# The K at which a wave of a grouped product takes ``block_us``.
GROUPED_K = 2048
# A split product writes its partial results in fp32 and reads them again.
PARTIAL_BYTES = 2 * 4
# The power with which multiplying a tile overlaps with loading it, and with its exponentials.
_TILE_OVERLAP = 4
# The largest group whose rows show that a message goes around all GPUs.
RING = 8
# The powers from which 2, 4 and infinity are nearer than the power before.
_SQUARES_FROM, _FOURTHS_FROM, _LARGER_FROM = 1.5, 3.0, 8.0
_NUMBER = (int, float)

Roof = Literal["launch", "memory", "compute", "link"]
ROOFS: tuple[Roof, ...] = ("launch", "memory", "compute", "link")


class OperationTime(NamedTuple):
    """Time of one call of an operation, and its parts.

    Attributes
    ----------
    launch_s
        Fixed time of its launches, and serial time of items processed one by one.
    memory_s, compute_s, link_s
        Time under each roof; these overlap more or less.
    host_s
        Time the host needs to launch it.
    stream_s
        Time under the roofs: that of the slowest, and what it does not hide.
    overlap
        The power with which the times under the roofs add.
    waiting_s
        What of ``compute_s`` thread blocks wait for their loads.
    """

    launch_s: Numeric
    memory_s: Numeric
    compute_s: Numeric
    link_s: Numeric
    host_s: Numeric
    stream_s: Numeric = 0.0
    overlap: float = inf
    waiting_s: Numeric = 0.0

    @property
    def by_roof(self) -> tuple[Numeric, Numeric, Numeric]:
        """What each roof asks for: blocks that mostly wait for loads are bound by memory. [s]."""
        memory_s, compute_s = self.memory_s, self.compute_s
        if is_used(self.waiting_s):
            waits = 2 * self.waiting_s > compute_s
            memory_s = where(waits, maximum(memory_s, compute_s), memory_s)
            compute_s = where(waits, compute_s - self.waiting_s, compute_s)
        return memory_s, compute_s, self.link_s

    @property
    def runs(self) -> bool:
        """Whether the GPU runs it: it takes any time."""
        return any(map(is_used, self[:4]))

    @property
    def device_s(self) -> Numeric:
        """Time on the GPU. [s]."""
        return self.launch_s + self.stream_s

    @property
    def bound(self) -> Roof:
        """The roof that bounds the time, of a single point."""
        parts = (self.launch_s, *self.by_roof)
        return max(zip(parts, ROOFS, strict=True), key=lambda pair: pair[0])[1]


def operation_time(operation: Operation, gpu: Rates, execution: Execution) -> OperationTime:
    """Return the time of one call of an operation on a GPU.

    Parameters
    ----------
    operation
        The operation, whose numeric fields may be arrays.
    gpu
        The GPU's rates.
    execution
        How it is launched: outside a CUDA graph each launch takes longer on the device, and also
        time on the host.
    """
    gpu = gpu.of(operation)
    operation = of_fullest_part(operation)
    if operation.kind == "quantise" and not gpu.quantises(operation.dtype):
        return OperationTime(0.0, 0.0, 0.0, 0.0, 0.0)
    eager = execution == "eager"
    launch_s = gpu.launch_s[operation.kind] + (gpu.eager_launch_s if eager else 0.0)
    fixed_s = operation.launches * launch_s + _serial_s(operation, gpu)
    memory_s = _memory_s(operation, gpu)
    waiting_s: Numeric = 0.0
    if is_used(operation.groups) and gpu.choice != "peak":
        compute_s, waiting_s = _grouped_s(operation, gpu)
    elif is_used(operation.m) and gpu.tile_bytes_per_s < inf:
        split_s, compute_s = _tiled(operation, gpu, memory_s)
        fixed_s = fixed_s + split_s
    else:
        compute_s = _compute_s(operation, gpu)
    link_s, overlap = _link_s(operation, gpu), gpu.overlap[operation.kind]
    return OperationTime(
        launch_s=fixed_s,
        memory_s=memory_s,
        compute_s=compute_s,
        link_s=link_s,
        host_s=operation.launches * gpu.host_s_per_launch if eager else 0.0,
        stream_s=_stream_s(memory_s, compute_s, link_s, overlap),
        overlap=overlap,
        waiting_s=waiting_s,
    )


def _stream_s(memory_s: Numeric, compute_s: Numeric, link_s: Numeric, overlap: float) -> Numeric:
    """Return the time under the roofs, given that under each. [s]."""
    streaming = overlapped(memory_s, compute_s, overlap) if is_used(compute_s) else memory_s
    return overlapped(streaming, link_s, overlap) if is_used(link_s) else streaming


def of_fullest_part(operation: Operation) -> Operation:
    """Return a grouped product as it is on the GPU with the most tokens, for which others wait.

    Any other operation is returned as it is.

    Tokens choose groups at random. So the rows of a part, and the groups with rows that it holds,
    vary binomially, and the fullest of n parts lies as far above the mean as the largest of n
    normal variables.
    """
    if operation.parts == 1 or operation.even:
        return operation
    far = _largest_of(operation.parts)
    rows, visited = operation.m, operation.groups
    most_rows = rows + far * square_root(rows * (1 - 1 / operation.parts))
    spread = square_root(visited * maximum(1 - visited / operation.held, 0.0))
    more, more_groups = (
        most_rows / rows,
        minimum(1 + far * spread / visited, operation.held / visited),
    )
    weights = operation.weight_bytes_read
    return replace(
        operation,
        flops=operation.flops * more,
        bytes_read=(operation.bytes_read - weights) * more + weights * more_groups,
        bytes_written=operation.bytes_written * more,
        weight_bytes_read=weights * more_groups,
        m=most_rows,
        groups=visited * more_groups,
    )


@lru_cache
def _largest_of(variables: int) -> float:
    """Return the expected largest of some standard normal variables (Blom, 1958).

    >>> round(_largest_of(2), 2), round(_largest_of(8), 2), round(_largest_of(64), 2)
    (0.59, 1.43, 2.34)
    """
    from statistics import NormalDist

    return NormalDist().inv_cdf((variables - 3 / 8) / (variables + 1 / 4))


def overlapped(first: Numeric, second: Numeric, power: float) -> Numeric:
    """Add two times that overlap: ``(x^p + y^p)^(1/p)`` for p of 1, 2, 4 or infinity.

    Parameters
    ----------
    first, second
        Numbers or arrays. [s]
    power
        p; other values are rounded to the nearest of these, which need only square roots.

    Examples
    --------
    >>> overlapped(3.0, 4.0, 1), overlapped(3.0, 4.0, 2), overlapped(3.0, 4.0, 100)
    (7.0, 5.0, 4.0)
    """
    if power >= _LARGER_FROM:
        return maximum(first, second)
    if power < _SQUARES_FROM:
        return first + second
    first, second = first * first, second * second
    if power < _FOURTHS_FROM:
        return square_root(first + second)
    return square_root(square_root(first * first + second * second))


def overlap_power(power: float) -> float:
    """Return the nearest of the powers 1, 2, 4 and infinity to a fitted one.

    >>> overlap_power(1.2), overlap_power(1.7), overlap_power(3), overlap_power(16)
    (1, 2, 4, inf)
    """
    if power >= _LARGER_FROM:
        return inf
    return 1 if power < _SQUARES_FROM else 2 if power < _FOURTHS_FROM else 4


def _serial_s(operation: Operation, gpu: Rates) -> Numeric:
    """Return the serial time of items processed one by one. [s]."""
    seconds: Numeric = 0.0
    if is_used(operation.sequences):
        seconds = seconds + operation.sequences * gpu.sequence_s[operation.kind]
    if is_used(operation.held):
        # Half of a choice's time comes with each of its two products.
        seconds = seconds + operation.held * gpu.group_s + operation.m * (gpu.visit_s / 2)
    if is_used(operation.splits):
        seconds = seconds + operation.splits * gpu.split_s
    if is_used(operation.link_bytes):
        nodes = gpu.gpu.nodes(operation.ranks)
        inside, across = _hops(operation.ranks / nodes), _hops(nodes)
        if operation.route != "around":
            inside, across = 1.0, min(across, 1.0)
        passed_s = inside * gpu.hop_s + across * gpu.network_hop_s
        seconds = seconds + operation.exchanges * passed_s
    return seconds


def _compute_s(operation: Operation, gpu: Rates) -> Numeric:
    """Return the time of its FLOPs. [s].

    The last wave of thread blocks ends with its longest block, half of which on average runs alone.
    """
    if not is_used(operation.flops):
        return 0.0
    rate = gpu.flops_per_s(operation.kind, operation.dtype)
    flops = operation.flops * operation.tile_rows_per_row
    if is_used(operation.longest_block_flops):
        longest = operation.longest_block_flops * prefill_tiles(gpu.gpu, operation.kind)
        flops = flops + longest * (gpu.sm_count / 2)
    seconds = flops / rate
    if is_used(operation.head_width):
        # Four FLOPs for each element of a head give a logit, and softmax takes its exponential.
        logits = flops / (4 * operation.head_width)
        seconds = overlapped(seconds, logits / gpu.exponentials_per_s, _TILE_OVERLAP)
    return seconds


def stored_ends_s(operation: Operation, time: OperationTime, gpu: Rates) -> tuple[Numeric, Numeric]:
    """Return how much shorter and longer an operation may be that reads keys stored once. [s].

    It is shortest if the thread blocks of a wave read such keys together. It is longest if each
    reads alone, and L2 keeps nothing of keys of twice its size. No public row tells which; where
    rows of the card have told, both ends are zero.

    Parameters
    ----------
    operation, time, gpu
        An operation with ``together_bytes``, its time, and the GPU's rates.
    """
    gpu = gpu.of(operation)
    if gpu.keeping_up_measured:
        return 0.0, 0.0
    footprint, l2_bytes = operation.reused_footprint_bytes, gpu.l2_bytes[operation.kind]
    shortest, longest = (
        _stream_s(_in_blocks(operation, gpu, seconds), time.compute_s, time.link_s, time.overlap)
        for seconds in (
            _stored_s(operation, gpu, _held_share(footprint, l2_bytes), 1.0),
            _stored_s(operation, gpu, _left_share(footprint, l2_bytes), 0.0),
        )
    )
    return maximum(time.stream_s - shortest, 0.0), maximum(longest - time.stream_s, 0.0)


def _memory_s(operation: Operation, gpu: Rates) -> Numeric:
    """Return the time of its bytes. [s]."""
    kind = operation.kind
    bandwidth = gpu.bandwidth_bytes_per_s[kind]
    if operation.tile is not None and gpu.choice != "peak":
        step_bytes = operation.tile.depth * DTYPE_BYTES[operation.weights or operation.dtype]
        bandwidth = bandwidth * where(step_bytes < LINE_BYTES, SHORT_SHARE, 1.0)
    if operation.together_bytes is not None and is_used(operation.reused_bytes):
        share = _held_share(operation.reused_footprint_bytes, gpu.l2_bytes[kind])
        seconds = _stored_s(operation, gpu, share, gpu.keeping_up)
    elif is_used(operation.reused_bytes) or is_used(operation.scratch_bytes):
        cached = cached_bytes(operation, gpu)
        seconds = (operation.bytes_moved - cached) / bandwidth
        seconds = seconds + cached / _l2_bandwidth(operation, gpu)
    else:
        seconds = operation.bytes_moved / bandwidth
    return _in_blocks(operation, gpu, seconds)


def _stored_s(operation: Operation, gpu: Rates, share: Numeric, keeping_up: float) -> Numeric:
    """Return the time of reads of keys that are stored once for many thread blocks. [s].

    The keys that L2 holds are read from there. Blocks that read the others together get them from
    memory once, while L2 passes them on at the rate of a plain stream; alone, each reads memory.
    ``share`` is the share of the keys that L2 holds, ``keeping_up`` that of the others that the
    blocks of a wave read together.
    """
    bandwidth = gpu.bandwidth_bytes_per_s[operation.kind]
    stream = max(gpu.l2_stream_bytes_per_s, bandwidth)
    scratch = _scratch_cached(operation, gpu)
    moved = operation.bytes_moved - scratch
    together_s = maximum((moved - operation.together_bytes) / bandwidth, moved / stream)
    others_s = keeping_up * together_s + (1.0 - keeping_up) * (moved / bandwidth)
    cache_bandwidth = _l2_bandwidth(operation, gpu)
    reused = operation.reused_bytes
    held_s = (moved - reused) / bandwidth + reused / cache_bandwidth
    return share * held_s + (1.0 - share) * others_s + scratch / cache_bandwidth


def _l2_bandwidth(operation: Operation, gpu: Rates) -> float:
    """Return the bandwidth of L2, which is no smaller than that of memory. [bytes/s]."""
    kind = operation.kind
    return max(gpu.l2_bandwidth_bytes_per_s[kind], gpu.bandwidth_bytes_per_s[kind])


def _in_blocks(operation: Operation, gpu: Rates, seconds: Numeric) -> Numeric:
    """Return the time of its bytes, given what its thread blocks and their waves take. [s]."""
    if paired := read_in_pairs(gpu.gpu, operation.kind):
        above, most = paired
        again = where(operation.query_rows <= most, operation.kv_bytes_read, 0.0)
        moved = operation.bytes_moved + where(operation.query_rows > above, again, 0.0)
        # The second block of a pair gets the keys from L2.
        seconds = maximum(seconds, moved / _l2_bandwidth(operation, gpu))
    if (sm_rate := gpu.sm_bytes_per_s[operation.kind]) < inf:
        seconds = overlapped(seconds, operation.bytes_moved / (sm_rate * gpu.sm_count), 4)
    if operation.effective_blocks is not None:
        # A block waits for each of its loads, hardly shorter from L2 than from memory.
        hidden_bytes = operation.effective_blocks * FIRST_TILE_BYTES
        waiting_bytes = maximum(operation.kv_bytes_read - hidden_bytes, 0.0)
        blocks_s = waiting_bytes / (
            operation.effective_blocks * gpu.block_bytes_per_s[operation.kind]
        )
        seconds = overlapped(seconds, blocks_s, gpu.overlap[operation.kind])
    if is_used(operation.thread_blocks):
        waves = further_waves(operation, gpu)
        # Blocks start and end while others stream.
        seconds = overlapped(seconds, waves * gpu.block_s[operation.kind], 2)
    if is_used(operation.serial_steps):
        steps_s = operation.serial_steps * gpu.serial_s[operation.kind]
        if is_used(operation.thread_blocks):
            # Blocks that wait for their own last step share an SM with no others.
            steps_s = steps_s * (_twice_waves(operation.thread_blocks, gpu.sm_count) / 2)
        seconds = overlapped(seconds, steps_s, 2)
    return seconds


def further_waves(operation: Operation, gpu: Rates) -> Numeric:
    """Return the waves of thread blocks after the first, in blocks that fill an SM."""
    blocks = operation.thread_blocks
    if operation.kind == "prefill_attention":
        blocks = blocks * maximum(operation.head_width / PREFILL_BLOCK_WIDTH, 1.0)
    elif is_used(operation.head_width):
        blocks = blocks * (operation.head_width / BLOCK_WIDTH)
    return maximum(blocks / gpu.sm_count - 1, 0.0)


def cached_bytes(operation: Operation, gpu: Rates, *, most: bool = False) -> Numeric:
    """Return the bytes of an operation that the L2 cache serves. [bytes].

    Of data that a later call reads again, all if their footprint fits, none if it is twice the
    cache's capacity, linear in between. Of keys stored once for many thread blocks, what L2 holds,
    and of the rest what the blocks of a wave read together, as far as they keep up.

    Parameters
    ----------
    operation, gpu
        One operation, and the GPU's rates.
    most
        Whether all blocks of a wave keep up, unless rows of the card have told: as at the lower end
        of an interval (:func:`stored_ends_s`).
    """
    gpu = gpu.of(operation)
    cached, l2_bytes = _scratch_cached(operation, gpu), gpu.l2_bytes[operation.kind]
    if is_used(operation.reused_bytes):
        used, footprint = operation.reused_bytes, operation.reused_footprint_bytes
        if operation.together_bytes is None:
            return cached + used * _left_share(footprint, l2_bytes)
        share = _held_share(footprint, l2_bytes)
        keeping_up = 1.0 if most and not gpu.keeping_up_measured else gpu.keeping_up
        together = operation.together_bytes * keeping_up
        cached = cached + used * share + together * (1.0 - share)
    return cached


def _scratch_cached(operation: Operation, gpu: Rates) -> Numeric:
    """Return the bytes of partial results that are still in L2 when the next kernel reads them."""
    scratch = operation.scratch_bytes
    return scratch * _left_share(scratch, gpu.l2_bytes[operation.kind]) if is_used(scratch) else 0.0


def _held_share(footprint: Numeric, l2_bytes: float) -> Numeric:
    """Return the share of keys stored once that L2 can hold: as much as its capacity.

    So a longer context never costs more of these than as many private keys would.
    """
    return minimum(1.0, l2_bytes / maximum(footprint, 1.0))


def _left_share(footprint: Numeric, l2_bytes: float) -> Numeric:
    """Return the share of a footprint that is still in L2 once all of it was read.

    A streaming footprint evicts lines gradually.
    """
    return minimum(1.0, maximum(0.0, 2.0 - footprint / l2_bytes))


def _hops(members: float) -> float:
    """Return how many members of a group a part of a message passes.

    A ring passes all; a tree takes over where it is faster. Rows of up to 8 GPUs show a ring, so a
    level of the tree cannot take less than a third of the hops to 8.

    >>> _hops(1), _hops(8), _hops(64)
    (0.0, 7.0, 14.0)
    """
    return min(members - 1.0, (RING - 1) / log2(RING) * log2(members))


def _link_s(operation: Operation, gpu: Rates) -> Numeric:
    """Return the time of its traffic to other GPUs. [s].

    An all-reduce takes the fastest way: each GPU sends its whole message to all others, or parts to
    each of them and around again, or the switch adds up. Messages go in chunks, and with the best
    size of a chunk the pipeline takes ``t + 2 sqrt(t x chunk)`` for what streams in ``t``.
    """
    if not is_used(operation.link_bytes):
        return 0.0
    ranks = operation.ranks
    seconds = operation.link_bytes / gpu.link_bytes_per_s(ranks, operation.route)
    if operation.exchanges == 2 and gpu.gpu.nodes(ranks) == 1:  # noqa: PLR2004
        whole_s = seconds * ranks / 2
        seconds = minimum(whole_s, seconds + gpu.exchange_s)
        if gpu.gpu.link_sums:
            sent = operation.link_bytes * (ranks + 1) / (2 * (ranks - 1))
            seconds = minimum(seconds, gpu.exchange_s + sent / gpu.switch_bytes_per_s)
    return seconds + 2 * square_root(seconds * gpu.chunk_s)


def _tiled(operation: Operation, gpu: Rates, memory_s: Numeric) -> tuple[Numeric, Numeric]:
    """Return the cost of splitting a product, and the time of its tiles. [s].

    It takes the split that makes the whole operation shortest, given that its bytes take
    ``memory_s`` at the same time.
    """
    overlap, sms = gpu.overlap[operation.kind], gpu.sm_count
    rate = gpu.flops_per_s(operation.kind, operation.dtype) / sms
    element = DTYPE_BYTES[gpu.peak_flops_per_s[operation.dtype][1]]
    weight_element = DTYPE_BYTES[operation.weights or operation.dtype]
    partial_bytes = PARTIAL_BYTES * operation.m * operation.n
    unsplit = gpu.precision_of(operation) == "fp8"
    sizes = unsplit_tiles(gpu.gpu) if unsplit else [(0, *size) for size in TILES]
    start_k = 0.0 if unsplit else gpu.tile_start_k
    # Tiles per column, tiles per row, the time of each tile per step of K, and the rows above which
    # an unsplit kernel takes them.
    tiles = []
    for above, rows, columns in sizes:
        filled: Numeric = minimum(operation.m, rows) if rows == LEAST_ROWS else rows
        loaded = maximum(filled, UNSPLIT_ROWS) if unsplit else rows
        load_s = (loaded * element + columns * weight_element) / gpu.tile_bytes_per_s
        tile_s = overlapped(2 * columns * filled / rate, load_s, _TILE_OVERLAP)
        down, across = ceil_div(operation.m, rows), ceil_div(operation.n, columns)
        tiles.append((down, across, operation.launches * tile_s, above))

    def all_tiles_s(splits: int) -> Numeric:
        # A product of no rows takes no time.
        shortest: Numeric = 0.0 if unsplit else inf
        # Half the steps of K, because waves are counted twice.
        half_steps = (operation.k / splits + start_k) / 2
        for down, across, cost, above in tiles:
            seconds = _twice_waves(down * (across * splits), sms) * (half_steps * cost)
            if unsplit:
                shortest = where(operation.m > above, seconds, shortest)
            else:
                shortest = minimum(shortest, seconds)
        return shortest

    best_split: Numeric = 0.0
    best_tiles = all_tiles_s(1)
    if unsplit:
        written_s = operation.bytes_written / gpu.bandwidth_bytes_per_s[operation.kind]
        best_tiles = best_tiles + written_s
    best_total = overlapped(memory_s, best_tiles, overlap)
    for splits in () if unsplit else SPLITS:
        tiles_s = all_tiles_s(splits)
        partials_s = splits * partial_bytes / gpu.l2_bandwidth_bytes_per_s[operation.kind]
        split_s = operation.launches * (gpu.split_k_s + partials_s)
        total = split_s + overlapped(memory_s, tiles_s, overlap)
        better = total < best_total
        best_total = minimum(total, best_total)
        best_split = where(better, split_s, best_split)
        best_tiles = where(better, tiles_s, best_tiles)
    return best_split, best_tiles


def _grouped_s(operation: Operation, gpu: Rates) -> tuple[Numeric, Numeric]:
    """Return the time of the tiles of a grouped product, and what of it they wait. [s].

    Each group begins a new tile. Groups of unequal size leave half a tile empty on average.
    """
    groups = maximum(operation.groups, 1)
    rows_each = operation.m / groups
    sms, flops_each = gpu.sm_count, 2 * operation.k
    rate = gpu.flops_per_s(operation.kind, operation.dtype) / sms
    walked = (operation.k + gpu.group_start_k) / (GROUPED_K + gpu.group_start_k)
    wait_s = gpu.block_s[operation.kind] * walked

    def blocks(rows: Numeric, columns: Numeric) -> Numeric:
        if operation.even:
            down = groups * ceil_div(rows_each, rows)
        else:
            down = maximum(groups, operation.m / rows + groups / 2)
        return down * ceil_div(operation.n, columns)

    if operation.tile is not None:
        rows, columns, depth = operation.tile
        element = DTYPE_BYTES[gpu.peak_flops_per_s[operation.dtype][1]]
        loaded = (minimum(rows_each, rows) + columns) * operation.k * element
        load_s = loaded * sms / (L2_SHARE * gpu.l2_stream_bytes_per_s)
        tile_s = maximum(rows * columns * flops_each / rate, load_s)
        tiles = blocks(rows, columns)
        waits = maximum(tiles / (RESIDENT * sms), 1.0) * wait_s * (STEP_K / depth)
        tiles_s = _twice_waves(tiles, sms) / 2 * tile_s
        return maximum(tiles_s, waits), where(waits > tiles_s, waits, 0.0)
    shortest: Numeric = inf
    waiting: Numeric = 0.0
    for rows, columns in GROUPED_TILES:
        multiplied = minimum(rows_each, rows) if rows <= LEAST_ROWS else rows
        tile_s = multiplied * columns * flops_each / rate + wait_s
        waves = _twice_waves(blocks(rows, columns), sms) / 2
        waiting = where(waves * tile_s < shortest, waves * wait_s, waiting)
        shortest = minimum(shortest, waves * tile_s)
    return shortest, waiting


def _twice_waves(blocks: Numeric, sms: int) -> Numeric:
    """Return twice the number of waves that some thread blocks take.

    At least one wave; the last counts as the mean of its actual fill and a full wave, because
    blocks do not all end together.

    >>> _twice_waves(50, 100), _twice_waves(100, 100), _twice_waves(150, 100)
    (2.0, 2.0, 3.5)
    """
    return maximum(blocks / sms, 1.0) - floor_div(blocks, -sms)


def is_used(value: Numeric) -> bool:
    """Return whether a field is anything but a plain zero; arrays always are."""
    return not (isinstance(value, _NUMBER) and value == 0)
