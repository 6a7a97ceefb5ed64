"""Tidy frames of a step's operations: where time and bytes go, and which roof each is under."""

from typing import TYPE_CHECKING, Any

from simulator.answers.estimate import Estimate, estimate
from simulator.answers.study import Study
from simulator.timing.constants import Key
from simulator.units import MILLISECOND

if TYPE_CHECKING:
    import pandas as pd

# Parts of a step in the order of its operations: what sharing the context changes comes first.
PARTS = (
    "attention, context",
    "attention, own tokens",
    "attention, merging",
    "projections",
    "MLP",
    "output layer",
    "small kernels",
    "GPU to GPU",
    "waiting for host",
)
_MLP, _OUTPUT = ("mlp_", "expert", "shared_expert", "router"), ("lm_head", "embedding", "sampling")


def part_of(name: str, kind: str) -> str:
    """Return the part of a step that an operation belongs to.

    >>> part_of("attention_suffix", "attention"), part_of("mlp_up", "gemm")
    ('attention, own tokens', 'MLP')
    """
    if kind == "collective":
        return "GPU to GPU"
    if kind == "combine":
        return "attention, merging"
    if kind == "attention":
        return "attention, own tokens" if "suffix" in name else "attention, context"
    if name.startswith(_OUTPUT):
        return "output layer"
    if kind == "gemm":
        return "MLP" if name.startswith(_MLP) else "projections"
    return "small kernels"


def operations(study: Study) -> "pd.DataFrame":
    """Break the step that is asked about down into its operations, for every way of attention.

    Returns
    -------
    pandas.DataFrame
        A row for each ``variant`` and ``operation``, all its calls together: ``part`` of
        ``PARTS``, ``kind``, ``time_ms``, ``bytes`` [bytes], ``flops`` [FLOP], ``bound``; the roofs
        over it, as published and as achieved (``peak_flops_per_s``, ``flops_per_s``,
        ``peak_bytes_per_s``, ``bytes_per_s``); and of the whole step ``step_ms`` and ``fits``.

    Raises
    ------
    WorkloadError
        If the question cannot be run.
    """
    import pandas as pd

    results = {"standard": study.estimate("standard"), "bifurcated": study.estimate("bifurcated")}
    if study.workload.kv_layout == "copies":
        results["shared_storage"] = estimate(
            study.model,
            study.gpu,
            study.workload.model_copy(update={"attention": "standard", "kv_layout": "shared"}),
            constants=study.constants,
            memory_utilization=study.memory_utilization,
        )
    return pd.DataFrame(
        [row for variant, result in results.items() for row in _rows(variant, result)]
    )


def _rows(variant: str, result: Estimate) -> list[dict[str, Any]]:
    """Return a row for each operation, and one for the time the GPU waits for the host."""
    time = result.time
    step = {"variant": variant, "step_ms": result.step_s / MILLISECOND}
    step["fits"] = bool(result.memory.fits)
    rows = []
    for operation, seconds in zip(result.operations, time.operations, strict=True):
        if not operation.launches:
            continue
        gpu = result.rates.of(operation)
        rows.append(
            {
                **step,
                "operation": operation.name,
                "part": part_of(operation.name, operation.kind),
                "kind": operation.kind,
                "time_ms": float(operation.repeat * seconds.device_s) / MILLISECOND,
                "bytes": float(operation.repeat * operation.bytes_moved),
                "flops": float(operation.repeat * operation.flops),
                "bound": seconds.bound,
                "dtype": operation.dtype,
                "peak_flops_per_s": gpu.flops_per_s(operation.kind, operation.dtype)
                / gpu.constants[Key("flops_fraction", operation.kind)].value,
                "flops_per_s": gpu.flops_per_s(operation.kind, operation.dtype),
                "peak_bytes_per_s": gpu.gpu.memory_bandwidth_bytes_per_s,
                "bytes_per_s": gpu.bandwidth_bytes_per_s[operation.kind],
            }
        )
    waiting = float(time.total_s - time.device_s - time.collective_s) / MILLISECOND
    if waiting > 0:
        wait = {"operation": "host", "part": "waiting for host", "kind": "host"}
        rows.append(
            {**step, **wait, "time_ms": waiting, "bytes": 0.0, "flops": 0.0, "bound": "launch"}
        )
    return rows
