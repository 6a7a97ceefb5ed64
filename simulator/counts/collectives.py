"""Traffic between the GPUs of a tensor-parallel group."""

from simulator.counts.operation import Operation
from simulator.numeric import Numeric


def all_reduce(name: str, *, message_bytes: Numeric, ranks: int, repeat: int) -> list[Operation]:
    """Return an all-reduce of ``message_bytes`` on every rank; nothing on a single GPU.

    A ring, and every algorithm of least traffic, sends ``2 (ranks - 1) / ranks`` of the message
    over each rank's link in each direction (Patarasuk and Yuan, 2009).
    """
    return _collective(name, message_bytes, 2 * (ranks - 1) / ranks, ranks, repeat)


def all_gather(name: str, *, gathered_bytes: Numeric, ranks: int, repeat: int) -> list[Operation]:
    """Return an all-gather that leaves ``gathered_bytes`` on every rank; nothing on one GPU."""
    return _collective(name, gathered_bytes, (ranks - 1) / ranks, ranks, repeat)


def _collective(
    name: str, message_bytes: Numeric, share: float, ranks: int, repeat: int
) -> list[Operation]:
    """Return one collective whose every rank sends ``share`` of the message."""
    if ranks == 1:
        return []
    return [
        Operation(
            name=name,
            kind="collective",
            bytes_read=message_bytes,
            bytes_written=message_bytes,
            link_bytes=message_bytes * share,
            ranks=ranks,
            repeat=repeat,
        )
    ]
