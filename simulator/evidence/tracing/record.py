"""What a trace is: an ordered list of operations, and their sums."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class TracedOperation:
    """One operator that does work on the device.

    Attributes
    ----------
    name
        The operator, without namespace and overload: ``bmm``, ``_to_copy``, ``copy_``.
    flops
        Floating-point operations of matrix products, two per multiply-add, as
        ``torch.utils.flop_counter`` counts them. [FLOP]
    bytes_read, bytes_written
        Memory the operator touches, each element once however often it is used. [bytes]
    launches
        Kernels launched.
    module
        Path of the innermost ``torch.nn.Module`` it ran in, empty outside of modules.
    called_by
        The operator the code called, where that one is made of several kernels.
    shapes
        Its tensors, for people: ``[16, 4, 128] bf16, ... -> [16, 4, 64] bf16``.
    dtype
        Type of the first tensor it reads, without ``torch.``; empty if it reads none.
    sizes
        Sizes of the tensors it reads.
    """

    name: str
    flops: int
    bytes_read: int
    bytes_written: int
    launches: int
    module: str = ""
    called_by: str = ""
    shapes: str = ""
    dtype: str = ""
    sizes: tuple[tuple[int, ...], ...] = ()

    @property
    def bytes_moved(self) -> int:
        """Bytes read and written. [bytes]."""
        return self.bytes_read + self.bytes_written


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceTotals:
    """Sums over operations."""

    flops: int
    bytes_read: int
    bytes_written: int
    launches: int
    calls: int

    @property
    def bytes_moved(self) -> int:
        """Bytes read and written. [bytes]."""
        return self.bytes_read + self.bytes_written


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """What a function did, operator by operator, in order.

    Attributes
    ----------
    operations
        Operators that do work on the device.
    views
        Operators that only look at memory differently, or only allocate it; they cost nothing on
        the device.
    """

    operations: tuple[TracedOperation, ...]
    views: int

    @property
    def totals(self) -> TraceTotals:
        """Sums over all operations."""
        return _total(self.operations)

    @property
    def flops(self) -> int:
        """Floating-point operations of matrix products. [FLOP]."""
        return self.totals.flops

    @property
    def bytes_read(self) -> int:
        """Bytes read. [bytes]."""
        return self.totals.bytes_read

    @property
    def bytes_written(self) -> int:
        """Bytes written. [bytes]."""
        return self.totals.bytes_written

    @property
    def launches(self) -> int:
        """Kernels launched."""
        return self.totals.launches

    def grouped(self, by: Callable[[TracedOperation], str] | None = None) -> dict[str, TraceTotals]:
        """Sum the operations that share a key, in order of first appearance.

        Parameters
        ----------
        by
            Maps an operation to its key; by default its name. ``lambda op: op.module`` groups by
            module.
        """
        groups: dict[str, list[TracedOperation]] = {}
        for operation in self.operations:
            key = operation.name if by is None else by(operation)
            groups.setdefault(key, []).append(operation)
        return {key: _total(operations) for key, operations in groups.items()}


def _total(operations: tuple[TracedOperation, ...] | list[TracedOperation]) -> TraceTotals:
    """Sum operations."""
    return TraceTotals(
        flops=sum(operation.flops for operation in operations),
        bytes_read=sum(operation.bytes_read for operation in operations),
        bytes_written=sum(operation.bytes_written for operation in operations),
        launches=sum(operation.launches for operation in operations),
        calls=len(operations),
    )
