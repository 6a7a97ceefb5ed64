"""The process that runs under ncu: it calls every kernel once with a cold L2, after a marker.

The marker comes before a cell's inputs are made, so that the last marker always belongs to the cell
that this process died in. :mod:`simulator.evidence.measure.counters` starts it.
"""

import faulthandler
import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from simulator.evidence.kernels import find_kernel
from simulator.evidence.kernels.layout import attention_inputs
from simulator.evidence.measure.cells import AttentionCell
from simulator.evidence.measure.device import TORCH_DTYPES, open_device

_FLUSH_FACTOR = 4
_MARKER_CYCLES = 100
# A cell that takes longer, compiling included, counts as hung, and the process ends. [s]
_PATIENCE_S = 120


def main(until: float, path: str) -> None:
    """Call the kernels of the cells in a JSON file: always the first, the others until a time.

    Parameters
    ----------
    until
        By the clock of :func:`time.time`. [s]
    """
    faulthandler.dump_traceback_later(_PATIENCE_S, exit=True)
    device = open_device("cuda")
    # It is read, not written: dirty lines would be written back during the kernel.
    flush = device.normal((_FLUSH_FACTOR * device.l2_bytes // 4,), torch.float32)
    for index, fields in enumerate(json.loads(Path(path).read_text(encoding="utf-8"))):
        if index and time.time() >= until:
            break
        faulthandler.dump_traceback_later(_PATIENCE_S, exit=True)
        with _counted():
            torch.cuda._sleep(_MARKER_CYCLES)  # type: ignore[no-untyped-call]  # noqa: SLF001
        cell = AttentionCell(**fields)
        call_it = True
        try:
            inputs = attention_inputs(
                cell, cell.implementation.layout, TORCH_DTYPES[cell.dtype], device.normal
            )
            ready = find_kernel(cell.kernel).ready(inputs)
            arguments = ready.arrange(inputs)
            ready.run(*arguments)  # loads and compiles
        except Exception:  # noqa: BLE001  (its row says so: no kernels after its marker)
            call_it = False
        if call_it:
            torch.sum(flush)
            with _counted():
                ready.run(*arguments)
        inputs = arguments = ready = None  # type: ignore[assignment]
        device.release()
    faulthandler.cancel_dump_traceback_later()


@contextmanager
def _counted() -> Iterator[None]:
    """Let ncu see the kernels of a block, and no others."""
    runtime: Any = torch.cuda.cudart()  # type: ignore[no-untyped-call]
    torch.cuda.synchronize()
    runtime.cudaProfilerStart()
    yield
    torch.cuda.synchronize()
    runtime.cudaProfilerStop()


if __name__ == "__main__":
    with torch.no_grad():
        main(float(sys.argv[1]), sys.argv[2])
