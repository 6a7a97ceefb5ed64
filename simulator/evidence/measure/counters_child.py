"""What runs under ncu: every kernel once with a cold L2, a marker in front of each.

Not for use by hand: :mod:`simulator.evidence.measure.counters` starts it.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch

from simulator.evidence.kernels import find_kernel
from simulator.evidence.measure.cells import KNOWN_KERNELS
from simulator.evidence.measure.device import TORCH_DTYPES, open_device
from simulator.evidence.measure.inputs import Sizes, attention_inputs

_FLUSH_FACTOR = 4
_MARKER_CYCLES = 100


def main(path: str) -> None:
    """Call the kernels of the cells in a JSON file."""
    device = open_device("cuda")
    # Reading, not writing: dirty lines would be written back on the kernel's account.
    flush = device.normal((_FLUSH_FACTOR * device.l2_bytes // 4,), torch.float32)
    runtime: Any = torch.cuda.cudart()  # type: ignore[no-untyped-call]
    for cell in json.loads(Path(path).read_text(encoding="utf-8")):
        sizes = Sizes(**{name: cell[name] for name in Sizes.__dataclass_fields__})
        call_it = True
        try:
            inputs = attention_inputs(
                sizes,
                KNOWN_KERNELS[cell["kernel"]].layout,
                TORCH_DTYPES[cell["dtype"]],
                device.normal,
            )
            ready = find_kernel(cell["kernel"]).ready(inputs)
            arguments = ready.arrange(inputs)
            ready.run(*arguments)  # loads and compiles
        except Exception:  # noqa: BLE001  (its row says so: no kernels after its marker)
            call_it = False
        torch.sum(flush)
        device.synchronize()
        runtime.cudaProfilerStart()
        torch.cuda._sleep(_MARKER_CYCLES)  # type: ignore[no-untyped-call]  # noqa: SLF001
        if call_it:
            ready.run(*arguments)
        device.synchronize()
        runtime.cudaProfilerStop()
        inputs = arguments = ready = None  # type: ignore[assignment]
        device.release()


if __name__ == "__main__":
    with torch.no_grad():
        main(sys.argv[1])
