"""Count the bytes of memory that tensors actually cover.

A tensor's size says how many elements it shows, not how many are stored: an expanded dimension
shows the same memory again (stride 0), a sliding window shows its elements several times, a slice
shows a part of its storage, and two tensors may be views of the same memory.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce
from math import gcd, prod

from torch import Tensor

from simulator.evidence.kernels.layout import storage_of

# Above this many bits, an exact bitmap of overlapping views is not worth its memory.
_LARGEST_BITMAP = 2**30


@dataclass(frozen=True, slots=True)
class Region:
    """A set of addresses: ``offset`` plus every sum of ``index * stride``, index below size."""

    offset: int
    dims: tuple[tuple[int, int], ...]  # (size, stride), stride descending, no size 1, no stride 0

    @property
    def extent(self) -> int:
        """Distance from the first address to one past the last."""
        return 1 + sum((size - 1) * stride for size, stride in self.dims)


def touched_bytes(tensors: Iterable[Tensor]) -> int:
    """Count the distinct bytes that tensors cover together.

    Exact, unless views of one storage overlap in an irregular pattern over more than 128 MiB;
    then each is counted separately, but never more than the storage between their ends.
    """
    by_storage: dict[int, list[Region]] = {}
    for tensor in tensors:
        if tensor.numel():
            by_storage.setdefault(storage_of(tensor), []).append(_region(tensor))
    return sum(_count(regions) for regions in by_storage.values())


def _region(tensor: Tensor) -> Region:
    """Return the bytes a tensor covers; views of one storage may differ in dtype."""
    width = tensor.element_size()
    dims = [
        (size, stride * width)
        for size, stride in zip(tensor.shape, tensor.stride(), strict=True)
        if size > 1 and stride
    ]
    dims += [(width, 1)] if width > 1 else []
    # From the outermost in memory to the innermost.
    dims.sort(key=lambda dim: dim[1], reverse=True)
    return Region(int(tensor.storage_offset()) * width, tuple(dims))


def _count(regions: Iterable[Region]) -> int:
    """Count the addresses in the union of regions."""
    distinct = sorted(set(regions), key=lambda region: region.offset)
    total, cluster, end = 0, [distinct[0]], distinct[0].offset + distinct[0].extent
    for region in distinct[1:]:
        if region.offset >= end:
            total += _count_cluster(cluster)
            cluster = []
        cluster.append(region)
        end = max(end, region.offset + region.extent)
    return total + _count_cluster(cluster)


def _count_cluster(regions: list[Region]) -> int:
    """Count the addresses of regions whose ranges overlap."""
    if len(regions) == 1 and _apart(regions[0]):
        return prod(size for size, _ in regions[0].dims)
    start = min(region.offset for region in regions)
    extent = max(region.offset + region.extent for region in regions) - start
    regions = [Region(region.offset - start, region.dims) for region in regions]
    outer = regions[0].dims[:1]
    inner = [Region(region.offset, region.dims[1:]) for region in regions]
    reach = max(region.offset + region.extent for region in inner)
    if outer and all(region.dims[:1] == outer for region in regions) and reach <= outer[0][1]:
        # All advance through memory together, without overlapping each other's next step.
        return outer[0][0] * _count(inner)
    unit = _common_unit(regions)
    if unit > 1:
        return unit * _count([_in_units(region, unit) for region in regions])
    if extent <= _LARGEST_BITMAP:
        return reduce(int.__or__, (_bitmap(region) for region in regions)).bit_count()
    return min(extent, sum(prod(size for size, _ in region.dims) for region in regions))


def _apart(region: Region) -> bool:
    """Return whether no two indices lead to the same address."""
    reach = 1
    for size, stride in reversed(region.dims):
        if stride < reach:
            return False
        reach += (size - 1) * stride
    return True


def _common_unit(regions: list[Region]) -> int:
    """Return the length of the runs that all regions consist of, 1 if there are none."""
    runs = {region.dims[-1][0] for region in regions if region.dims and region.dims[-1][1] == 1}
    if len(runs) != 1 or not all(region.dims and region.dims[-1][1] == 1 for region in regions):
        return 1
    steps = [region.offset for region in regions]
    steps += [stride for region in regions for _, stride in region.dims[:-1]]
    return gcd(*runs) if all(step % next(iter(runs)) == 0 for step in steps) else 1


def _in_units(region: Region, unit: int) -> Region:
    """Return a region in runs of ``unit`` addresses instead of single ones."""
    return Region(
        region.offset // unit, tuple((size, stride // unit) for size, stride in region.dims[:-1])
    )


def _bitmap(region: Region) -> int:
    """Return the region as the bits of one number."""
    bits = 1
    for size, stride in reversed(region.dims):
        # Double the existing copies, then add the remainder.
        copies, repeated = 1, bits
        while copies * 2 <= size:
            repeated |= repeated << (copies * stride)
            copies *= 2
        bits = repeated | (repeated << ((size - copies) * stride))
    return bits << region.offset
