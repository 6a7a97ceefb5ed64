"""Count the bytes of memory that tensors actually cover.

A tensor's size says how many elements it shows, not how many are stored: an expanded dimension
shows the same memory again (stride 0), a sliding window shows its elements several times, a slice
shows a part of its storage, and two tensors may be views of the same memory.
"""

from collections.abc import Iterable, Sequence
from math import prod

import numpy as np
from torch import Tensor

from simulator.evidence.kernels.layout import storage_of

# (size, stride) of the steps between runs, stride descending.
Steps = tuple[tuple[int, int], ...]
# Runs of adjacent bytes: the first byte, the length of each run, and the steps between them.
Runs = tuple[int, int, Steps]
# More runs of overlapping views are not worth the memory: 8 bytes each, in several arrays.
_MOST_RUNS = 2**24


def touched_bytes(tensors: Iterable[Tensor]) -> int:
    """Count the distinct bytes that tensors cover together.

    Exact, unless views of one storage overlap in an irregular pattern of more than 16 million runs;
    then each is counted separately, but never more than the storage between their ends.
    """
    by_storage: dict[int, set[Runs]] = {}
    for tensor in tensors:
        if tensor.numel():
            by_storage.setdefault(storage_of(tensor), set()).add(_runs(tensor))
    return sum(_count(list(views)) for views in by_storage.values())


def _runs(tensor: Tensor) -> Runs:
    """Return the bytes a tensor covers; views of one storage may differ in dtype."""
    width = length = tensor.element_size()
    apart: list[tuple[int, int]] = []
    pairs = zip(tensor.stride(), tensor.shape, strict=True)
    for stride, size in sorted((stride * width, size) for stride, size in pairs if size > 1):
        if stride <= length:  # the next run begins in this one or right after it
            length += (size - 1) * stride
        else:
            apart.insert(0, (size, stride))
    return int(tensor.storage_offset()) * width, length, tuple(apart)


def _count(views: Sequence[Runs]) -> int:
    """Count the bytes in the union of views of one storage."""
    ends = [start + _reach(length, steps) for start, length, steps in views]
    first, end = min(start for start, _, _ in views), max(ends)
    outer = views[0][2][:1]
    inner = [(start, length, steps[1:]) for start, length, steps in views]
    reach = max(start - first + _reach(length, steps) for start, length, steps in inner)
    if outer and all(steps[:1] == outer for _, _, steps in views) and reach <= outer[0][1]:
        # All advance through memory together, without overlapping each other's next step.
        return outer[0][0] * _count(inner)
    counts = [prod(size for size, _ in steps) for _, _, steps in views]
    if sum(counts) > _MOST_RUNS:
        sizes = (count * view[1] for count, view in zip(counts, views, strict=True))
        return min(end - first, sum(sizes))
    starts = np.concatenate([_starts(start, steps) for start, _, steps in views])
    lengths = np.repeat([length for _, length, _ in views], counts)
    order = np.argsort(starts)
    starts = starts[order]
    farthest = np.maximum.accumulate(starts + lengths[order])
    # Each run adds what it has beyond the farthest end of those before it.
    starts[1:] = np.maximum(starts[1:], farthest[:-1])
    return int(np.sum(farthest - starts))


def _reach(length: int, steps: Steps) -> int:
    """Return the distance from the first byte of runs to one past the last."""
    return length + sum((size - 1) * stride for size, stride in steps)


def _starts(start: int, steps: Steps) -> "np.ndarray":
    """Return where each run begins."""
    starts = np.array([start])
    for size, stride in steps:
        starts = np.add.outer(starts, stride * np.arange(size)).ravel()
    return starts
