"""Transfer fitted constants from measured GPUs to others, at another clock.

A kernel's constants depend on the library as much as on the GPU: FlashAttention-2 on one GPU says
more about FlashAttention-2 on another GPU than another library on that GPU does. This module writes
``simulator/timing/carried_kernels.json`` and, for named libraries, ``carried_libraries.json``.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from simulator.evidence.fit.solver import with_constants
from simulator.evidence.fit.stages import STAGES
from simulator.evidence.predict.calls import attention_kernel, is_fallback
from simulator.evidence.predict.groups import library_of
from simulator.inputs.hardware import HardwareProfile
from simulator.timing import constants
from simulator.timing.constants import GENERAL, Entry, Key, Variant, is_product_share
from simulator.timing.limits import BLOCKS_PER_SM, blocks_per_sm

# Reference clock and matrix rate of an SM for averages over GPUs: H100's.
REFERENCE_MHZ = 1980.0
REFERENCE_SM_TFLOPS = 7.5
# Constants of the whole program or its host, not of a kernel.
NOT_CARRIED = ("host_us_per_launch", "eager_launch_us", *constants.OF_ENGINES)
# The one kernel measured on A100 does not split its keys over blocks and reaches a quarter of the
# bandwidth: what a sane engine reaches on other cards is that of the others.
NO_GUIDE = {("a100-sxm-80gb", "latent_attention")}
# The constants in which decode attention kernels differ.
DECODE_ATTENTION = tuple(
    item.key for stage in STAGES if stage.kind == "decode_attention" for item in stage.free
)
# A library's own calls have the same host code everywhere.
CARRIED_BY_LIBRARY = "host_us_per_launch"
DIGITS = 3

ABOUT = (
    "Constants of kernels that GPUs without rows carry over from those with them; written by "
    "python tools/accuracy.py --carry from the profiles' fitted constants. At another clock, and "
    "of a kernel or a library, see simulator/timing/constants.py."
)


def kernels_of(table: pd.DataFrame, gpus: Iterable[HardwareProfile]) -> dict[tuple[str, str], str]:
    """Return the attention kernel of each GPU's libraries in rows of 16-bit decode attention.

    Kernels that a library only falls back to are left out: they have constants of their own.
    """
    known = {gpu.id: gpu for gpu in gpus}
    rows = table[table["gpu_id"].isin(list(known)) & (table["kv_dtype"] != "fp8")]
    named = {
        (str(gpu_id), library_of(str(framework)), attention_kernel(str(kernel), known[str(gpu_id)]))
        for gpu_id, framework, kernel in rows[["gpu_id", "framework", "kernel"]].to_numpy()
    }
    return {
        (gpu_id, library): kernel
        for gpu_id, library, kernel in sorted(named)
        if not is_fallback(kernel, known[gpu_id])
    }


def own_constants(gpu: HardwareProfile) -> dict[Key, float]:
    """Return a GPU's fitted constants of kernels.

    TensorRT-LLM's elementwise kernels are left out: it has few rows of many kernels.
    """
    return {
        key: figure.value
        for key, figure in constants.fitted_constants(gpu).items()
        if (key.name not in NOT_CARRIED or (key.library and key.name == CARRIED_BY_LIBRARY))
        and (key.library, key.kind) != ("trtllm", "elementwise")
    }


def averaged(
    gpus: Sequence[HardwareProfile], kernels: Mapping[tuple[str, str], str]
) -> dict[Key, Entry]:
    """Return the constants for any GPU: geometric means over GPUs, at the reference clock.

    Decode attention has constants for each kernel under its name, and for all kernels together.
    """
    found = _collected(gpus, kernels)
    told = [(own, {_rows_of(key) for key in own}) for own in map(own_constants, gpus)]

    def common(key: Key) -> bool:
        # What some GPU's rows of a format did not determine has no mean over all GPUs.
        return all(key in own or _rows_of(key) not in rows for own, rows in told)

    return {
        key: Entry(
            _rounded(float(np.exp(np.mean(np.log([value for value, _ in values]))))),
            f"{'geometric mean: ' if len(values) > 1 else ''}"
            + "; ".join(f"{_rounded(value):g} {text}" for value, text in values),
            REFERENCE_MHZ if _follows_clock(key) else 0.0,
            sm_tflops=REFERENCE_SM_TFLOPS if _follows_sm(key) else 0.0,
        )
        for key, values in sorted(found.items(), key=lambda pair: str(pair[0]))
        if not key.precision or common(key)
    }


def _collected(
    gpus: Sequence[HardwareProfile], kernels: Mapping[tuple[str, str], str]
) -> dict[Key, list[tuple[float, str]]]:
    """Return the values of each constant at the reference clock, each with its origin."""
    found: dict[Key, list[tuple[float, str]]] = {}
    for gpu in gpus:
        values = own_constants(gpu)
        libraries = [library for card, library in kernels if card == gpu.id]
        for key, value in values.items():
            by_library = key.library not in constants.ATTENTION_KERNELS
            if key.of(GENERAL) in DECODE_ATTENTION and not key.precision and by_library:
                continue
            of_library = key.library and key.kind in constants.OF_ARCHITECTURE
            if of_library or (gpu.id, key.kind) in NO_GUIDE:
                continue
            found.setdefault(key, []).append((_at_reference(key, value, gpu), gpu.name))
            # If a GPU has rows of only one library, that is vLLM.
            vllm = key.of(Variant("vllm"))
            one_library = key == key.of(GENERAL) and vllm not in values
            if one_library and key.kind in ("gemm", "prefill_attention"):
                found.setdefault(vllm, []).append(found[key][-1])
        for library in libraries:
            for key in DECODE_ATTENTION:
                if (value := values.get(key.of(Variant(library)), values.get(key, 0.0))) > 0:
                    kernel = kernels[gpu.id, library]
                    text = f"{gpu.name}, {library} {kernel}"
                    for each in (key.of(Variant(kernel)), key):
                        found.setdefault(each, []).append((_at_reference(key, value, gpu), text))
    return found


def _rows_of(key: Key) -> tuple[str, ...]:
    """Return what the rows that determine a constant have in common."""
    return constants.part_of(key), key.library, key.precision


def of_architecture(
    gpu: HardwareProfile, kernels: Mapping[tuple[str, str], str]
) -> dict[Key, Entry]:
    """Return the constants to transfer from a GPU to others of its architecture.

    Decode attention's also stand under the name of a kernel that only one library has.
    """
    clock = gpu.peak.boost_mhz
    per_w = _rounded(constants.published_tflops_per_w(gpu))
    values = own_constants(gpu)
    of_gpu = {library: kernel for (card, library), kernel in kernels.items() if card == gpu.id}
    for library, kernel in of_gpu.items():
        for key in DECODE_ATTENTION if list(of_gpu.values()).count(kernel) == 1 else ():
            value = values.get(key.of(Variant(library)), values.get(key))
            if value is not None:
                values.setdefault(key.of(Variant(kernel)), value)
    return {
        key: Entry(
            _rounded(_of_streams(key, value, gpu)),
            gpu.name,
            clock.value if clock and _follows_clock(key) and not is_product_share(key) else 0.0,
            per_w if is_product_share(key) else 0.0,
            # For relatives of the architecture: its own GPUs load alike.
            _rounded(constants.sm_tflops(gpu)) if _follows_sm(key) and key.kind is None else 0.0,
        )
        for key, value in values.items()
    }


def left_out(
    gpu: HardwareProfile,
    others: Sequence[HardwareProfile],
    kernels: Mapping[tuple[str, str], str],
    kin: Sequence[HardwareProfile] = (),
) -> HardwareProfile:
    """Return a GPU with constants transferred from others, as if it were never measured.

    Parameters
    ----------
    gpu
        The GPU.
    others, kernels
        The GPUs to average over, and the attention kernel of each one's libraries.
    kin
        Others of its architecture, whose constants come first, as in the timing model.
    """
    entries = averaged(others, kernels)
    for other in kin:
        own = of_architecture(other, kernels)
        entries |= {key: entry._replace(sm_tflops=0.0) for key, entry in own.items()}
    values = {str(key): entry.on(gpu, key) for key, entry in entries.items()}
    return with_constants(gpu.but(fitted={}), values)


def text(
    default: Mapping[Key, Entry],
    architectures: Mapping[str, Mapping[Key, Entry]],
    *,
    libraries: bool = False,
) -> str:
    """Write a file that the timing model reads.

    Parameters
    ----------
    default, architectures
        The constants for any GPU, and for those of an architecture.
    libraries
        Whether to write the constants of named libraries and kernels, or all others.
    """

    def listed(entries: Mapping[Key, Entry]) -> dict[str, Any]:
        chosen = {key: each for key, each in entries.items() if bool(key.library) == libraries}
        return {str(key): _told(each) for key, each in chosen.items()}

    of = {name: listed(entries) for name, entries in architectures.items()}
    return entry_lines({"about": ABOUT, "default": listed(default), "architecture": of})


def entry_lines(tables: Mapping[str, Any]) -> str:
    """Write tables as JSON, with each entry on a line."""
    written = json.dumps(tables, indent=1)
    return re.sub(r"\{[^{}]*\}", lambda entry: " ".join(entry[0].split()), written) + "\n"


def _told(entry: Entry) -> dict[str, float | str]:
    """Return one constant, with the conditions with which it scales."""
    figures = {
        name: float(f"{getattr(entry, name):g}")
        for name in ("value", "mhz", "sm_tflops", "tflops_per_w")
        if name == "value" or getattr(entry, name)
    }
    return {**figures, "source": entry.source}


def _follows_sm(key: Key) -> bool:
    """Return whether a constant follows an SM's matrix rate between architectures.

    Kernels are made to load as fast as an SM multiplies: tiles of products, and what a wave of a
    grouped product waits for (at K = 2048 16, 10 and 4.7 us on A100, H100 and B200 in 16 bits).
    Experts' weights with scales for each block are expanded before, at the clock of the SM; tiles
    of 4 bits follow neither, and the clock is nearer.
    """
    if (key.name, key.kind) == ("block_us", "experts"):
        return key.precision in ("", "fp8", "nvfp4")
    return key.name == "tile_gb_per_s" and key.precision in ("", "fp8", "fp8_block")


def _follows_clock(key: Key) -> bool:
    """Return whether a constant scales with the clock; a link has its own, and so has a load."""
    power = constants.clock_power(key)
    return key.kind != "collective" and power != 0 and not (power > 0 and _follows_sm(key))


def _at_reference(key: Key, value: float, gpu: HardwareProfile) -> float:
    """Return a constant at the reference clock; per-block ones for two resident blocks per SM."""
    if key.name == "block_gb_per_s":
        value *= blocks_per_sm(gpu.architecture) / BLOCKS_PER_SM
    if _follows_sm(key):
        value /= constants.sm_factor(key, REFERENCE_SM_TFLOPS, gpu)
    value = _of_streams(key, value, gpu)
    factor = constants.clock_factor(key, REFERENCE_MHZ, gpu) if _follows_clock(key) else 1.0
    return value / factor


def _of_streams(key: Key, value: float, gpu: HardwareProfile) -> float:
    """Return a constant; a share of bandwidth for a GPU whose memory streams as most do."""
    return value / constants.stream_factor(gpu) if key.name == "bandwidth_fraction" else value


def _rounded(value: float) -> float:
    """Round to the digits in the file."""
    return float(f"{value:.{DIGITS}g}")
