"""The tiles of a matrix product: how many, in which waves, and how they share the inner dimension.

A library cuts the result [rows, columns] into tiles, a thread block for each, and picks the size of
tile that is done first. Fewer tiles than SMs leave SMs idle, so the inner dimension of each is
split over several blocks, whose partial results are then added up; more tiles run in waves, of
which the last is not full.

    t = waves x depth / splits x norm(2 x tile rows x tile columns / rate of an SM,
                                      tile bytes / load rate of an SM)

of (tile rows x element + tile columns x weight) bytes for each step of the depth: activations in
the format that is multiplied, weights as they are stored.
"""

import math

from simulator.counts.operation import Operation
from simulator.inputs.dtypes import DTYPE_BYTES
from simulator.numeric import Numeric, ceil_div, maximum, minimum, where
from simulator.timing.constants import Rates
from simulator.timing.limits import peak_flops_per_s
from simulator.timing.norm import norm

# Rows and columns of a tile: of those that libraries have, three that predict unseen products as
# well as six do.
TILES = ((64, 64), (128, 128), (256, 128))
# A tile of fewer rows than this multiplies no more than it has.
LEAST_ROWS = 64
# Blocks that may share the inner dimension of a tile: none, or one of these.
SPLITS = (2, 8)
# A split product writes its partial results in fp32, and reads them again.
PARTIAL_BYTES = 2 * 4
# How multiplying and loading a tile overlap.
_POWER = 4


def tiled(operation: Operation, gpu: Rates, memory_s: Numeric) -> tuple[Numeric, Numeric]:
    """Return what splitting costs a product, and the time of its tiles. [s].

    Of the ways to split it, the one taken makes the whole operation shortest, whose bytes take
    ``memory_s`` meanwhile.
    """
    overlap, sms = gpu.overlap[operation.kind], gpu.gpu.sm_count
    rate = gpu.flops_per_s(operation.kind, operation.dtype) / sms
    element = DTYPE_BYTES[peak_flops_per_s(gpu.gpu, operation.dtype)[1]]
    stored = operation.weight_element_bytes
    weight_element = DTYPE_BYTES[operation.dtype] if stored is None else stored
    walked = operation.k * operation.launches
    partial_bytes = PARTIAL_BYTES * operation.m * operation.n
    # Tiles in a column of tiles, in a row of them, and the time of each for all of the depth.
    tiles = []
    for rows, columns in TILES:
        multiplied = minimum(operation.m, rows) if rows == LEAST_ROWS else rows
        multiply_s = 2 * columns * multiplied / rate
        load_s = (rows * element + columns * weight_element) / gpu.tile_bytes_per_s
        down, across = ceil_div(operation.m, rows), ceil_div(operation.n, columns)
        tiles.append((down, across, walked * norm(multiply_s, load_s, _POWER)))

    def all_tiles_s(splits: int) -> Numeric:
        shortest: Numeric = math.inf
        for down, across, cost in tiles:
            seconds = twice_waves(down * (across * splits), sms) * (cost / (2 * splits))
            shortest = minimum(shortest, seconds)
        return shortest

    best_split: Numeric = 0.0
    best_tiles = all_tiles_s(1)
    best_total = norm(memory_s, best_tiles, overlap)
    for splits in SPLITS:
        tiles_s = all_tiles_s(splits)
        partials_s = splits * partial_bytes / gpu.l2_bandwidth_bytes_per_s
        split_s = operation.launches * (gpu.split_k_s + partials_s)
        total = split_s + norm(memory_s, tiles_s, overlap)
        better = total < best_total
        best_total = minimum(total, best_total)
        best_split = where(better, split_s, best_split)
        best_tiles = where(better, tiles_s, best_tiles)
    return best_split, best_tiles


def twice_waves(blocks: Numeric, sms: int) -> Numeric:
    """Return how many waves a number of thread blocks takes, times two.

    Never less than one; the last counts half as full as it is and half as a whole one: blocks do
    not all end together.

    >>> twice_waves(50, 100), twice_waves(100, 100), twice_waves(150, 100)
    (2.0, 2.0, 3.5)
    """
    return maximum(blocks / sms, 1.0) - blocks // -sms
