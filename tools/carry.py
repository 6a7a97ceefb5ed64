"""Carry fitted constants over from measured GPUs to others, at another clock.

A kernel's constants are the library's as much as the GPU's: FlashAttention-2 on one GPU says more
about FlashAttention-2 on another than another library there does. The file
``simulator/timing/carried_kernels.toml`` is written from here.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from simulator.evidence.fit.solver import with_constants
from simulator.evidence.predict.calls import attention_kernel
from simulator.evidence.predict.groups import library_of
from simulator.inputs.hardware import HardwareProfile
from simulator.timing.carried import Entry, clock_factor
from simulator.timing.constants import HARNESS_PREFIX, VARIANTS, is_of_low_precision
from simulator.timing.slots import BLOCKS_PER_SM, blocks_per_sm

# The clock at which constants of several GPUs are averaged.
REFERENCE_MHZ = 1980.0
# Constants of decode attention: each kernel's own, whatever library calls it.
ATTENTION_NAMES = (
    "attention_launch_us",
    "combine_launch_us",
    "copy_launch_us",
    "split_us",
    "sequence_us",
    "attention_block_us",
    "attention_bandwidth_fraction",
    "block_gb_per_s",
    "l2_gb_per_s",
    "l2_fraction",
)
# Constants of a whole program or its host; and those of few rows of one library's many kernels.
NOT_CARRIED = ("host_us_per_launch", "eager_launch_us", "step_us", "trtllm_elementwise_")
DIGITS = 3

HEADER = """\
# Constants of kernels that GPUs without rows carry over from those with them; written by
# python tools/accuracy.py --carry from the profiles' fitted constants. At another clock, see
# simulator/timing/carried.py; of a kernel or a library, simulator/timing/constants.py.
"""


def kernels_of(table: pd.DataFrame, gpus: Iterable[HardwareProfile]) -> dict[tuple[str, str], str]:
    """Return the attention kernel of each GPU's libraries in rows of 16-bit decode attention."""
    known = {gpu.id: gpu for gpu in gpus}
    rows = table[table["gpu_id"].isin(list(known)) & (table["kv_dtype"] != "fp8")]
    return {
        (str(gpu_id), library_of(str(framework))): attention_kernel(str(kernel), known[str(gpu_id)])
        for gpu_id, framework, kernel in rows[["gpu_id", "framework", "kernel"]]
        .drop_duplicates()
        .itertuples(index=False)
    }


def own_constants(gpu: HardwareProfile) -> dict[str, float]:
    """Return a GPU's fitted constants of kernels, without those of whole programs."""
    return {
        name: figure.value
        for name, figure in gpu.fitted.items()
        if not any(part in name for part in (HARNESS_PREFIX, *NOT_CARRIED))
    }


def averaged(
    gpus: Sequence[HardwareProfile], kernels: Mapping[tuple[str, str], str]
) -> dict[str, Entry]:
    """Return the constants for any GPU: geometric means over GPUs, at the reference clock.

    Decode attention has constants for each kernel under its name, and for all kernels together.
    """
    found: dict[str, list[tuple[float, str]]] = {}
    for gpu in gpus:
        values = own_constants(gpu)
        libraries = [library for card, library in kernels if card == gpu.id]
        # Where a GPU has rows of one library alone, that is vLLM.
        of_one = {name for name in values if name.startswith(("gemm", "prefill"))}
        for name, value in values.items():
            variant, base = _split(name)
            if base in ATTENTION_NAMES and not is_of_low_precision(name):
                continue
            found.setdefault(name, []).append((_at_reference(base, value, gpu), gpu.name))
            if base in of_one and not variant and f"vllm_{name}" not in values:
                found.setdefault(f"vllm_{name}", []).append(found[name][-1])
        for library in libraries:
            for base in ATTENTION_NAMES:
                if (value := values.get(f"{library}_{base}", values.get(base, 0.0))) > 0:
                    kernel = kernels[gpu.id, library]
                    text = f"{gpu.name}, {library} {kernel}"
                    for name in (f"{kernel}_{base}", base):
                        found.setdefault(name, []).append((_at_reference(base, value, gpu), text))
    # A constant that one GPU's 8-bit rows did not determine is missing there: no mean over all.
    low_precision = [
        {name for name in own_constants(gpu) if is_of_low_precision(name)} for gpu in gpus
    ]
    common = set.intersection(*filter(None, low_precision)) if any(low_precision) else set()
    return {
        name: Entry(
            _rounded(float(np.exp(np.mean(np.log([value for value, _ in values]))))),
            f"{'geometric mean: ' if len(values) > 1 else ''}"
            + "; ".join(f"{_rounded(value):g} {text}" for value, text in values),
            REFERENCE_MHZ,
        )
        for name, values in sorted(found.items())
        if name in common or not is_of_low_precision(name)
    }


def of_architecture(gpu: HardwareProfile, *, bandwidth: bool) -> dict[str, Entry]:
    """Return the constants that a GPU carries over to others of its architecture.

    Parameters
    ----------
    bandwidth
        Whether to include shares of the published bandwidth.
    """
    clock = gpu.peak.boost_mhz
    return {
        name: Entry(_rounded(value), gpu.name, clock.value if clock else 0.0)
        for name, value in own_constants(gpu).items()
        if bandwidth or not name.endswith("bandwidth_fraction")
    }


def left_out(
    gpu: HardwareProfile, others: Sequence[HardwareProfile], kernels: Mapping[tuple[str, str], str]
) -> HardwareProfile:
    """Return a GPU with the constants that others carry over to it, as if it was never measured."""
    values = {
        name: entry.value * clock_factor(name, entry.mhz, gpu)
        for name, entry in averaged(others, kernels).items()
    }
    share = BLOCKS_PER_SM / blocks_per_sm(gpu)
    for name in values:
        if name.endswith("block_gb_per_s"):
            values[name] *= share
    return with_constants(gpu.model_copy(update={"fitted": {}}), values)


def text(default: Mapping[str, Entry], architectures: Mapping[str, Mapping[str, Entry]]) -> str:
    """Write the file that the timing model reads."""
    lines = [HEADER, "[default]"]
    lines += [_line(name, entry) for name, entry in default.items()]
    for name, entries in architectures.items():
        lines += ["", f'[architecture."{name}"]']
        lines += [_line(constant, entry) for constant, entry in entries.items()]
    return "\n".join(lines) + "\n"


def _line(name: str, entry: Entry) -> str:
    """Write one constant, with the clock where it follows the clock."""
    clock = f", mhz = {entry.mhz:g}" if _follows_clock(name) and entry.mhz else ""
    return f'{name} = {{ value = {entry.value:g}{clock}, source = "{entry.source}" }}'


def _follows_clock(name: str) -> bool:
    """Return whether a constant depends on the clock; a link has a clock of its own."""
    return not _split(name)[1].startswith(("collective", "link")) and name.endswith(
        ("_us", "_gb_per_s")
    )


def _at_reference(base: str, value: float, gpu: HardwareProfile) -> float:
    """Return a constant at the reference clock; one of a block as if two blocks shared an SM."""
    clock = gpu.peak.boost_mhz
    if base == "block_gb_per_s":
        value *= blocks_per_sm(gpu) / BLOCKS_PER_SM
    if clock is None or not _follows_clock(base):
        return value
    return value / clock_factor(base, REFERENCE_MHZ, gpu)


def _split(name: str) -> tuple[str, str]:
    """Return a constant's variant and the rest of its name."""
    variant = next((item for item in reversed(VARIANTS) if name.startswith(f"{item}_")), "")
    return variant, name.removeprefix(f"{variant}_")


def _rounded(value: float) -> float:
    """Round to the digits that are written."""
    return float(f"{value:.{DIGITS}g}")
