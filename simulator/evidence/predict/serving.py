"""Predict rows of serving benchmarks: the time per output token (TPOT) that users see under load.

A client keeps N requests in flight. Each time one ends, another begins, and its prefill interrupts
the N - 1 that decode. While a request decodes its O - 1 tokens after the first, every other one
begins once, so

    TPOT = step(N) + (N - 1) x prefill of one prompt / (O - 1),

with the step at the mean context of a request, as :func:`simulator.timing.batching.closed_loop` has
it. Rows do not tell O - 1 from O: the median error of 1,800 is 10.27 or 10.26 %.

Constants are those of questions, of no particular engine: those of an engine's own kernels predict
these rows no better.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from simulator.counts.operation import Operation
from simulator.counts.transformer import decode_operations, prefill_operations
from simulator.errors import SimulatorError
from simulator.evidence.predict.groups import (
    Ends,
    Group,
    Prepared,
    library_of,
    model,
    numbers,
    profile,
)
from simulator.evidence.predict.steps import check_ranks
from simulator.inputs.dtypes import DTYPE_BYTES
from simulator.inputs.hardware import HardwareProfile
from simulator.inputs.model import ModelShape
from simulator.inputs.setup import ConstantsChoice, Setup
from simulator.inputs.workload import Workload
from simulator.numeric import maximum
from simulator.timing.constants import rates
from simulator.timing.interval import uncertainty, unknown_regime
from simulator.timing.limits import resident_blocks
from simulator.timing.step import step_time

if TYPE_CHECKING:
    import numpy as np

# Columns that rows of one group share.
_ALIKE = [
    *("gpu_id", "framework", "model", "weights_dtype", "kv_dtype"),
    *("tensor_parallel", "expert_parallel"),
]
# Columns of what is not predicted, with the largest value that is, and what it says.
_OTHERWISE = {
    "speculative": (0, "speculative decoding"),
    "disaggregated": (0, "prefill and decode on separate GPUs"),
    "nodes": (1, "several nodes"),
    "attention_dp": (1, "data-parallel attention"),
}
_BITS = 8


def prepare(rows: pd.DataFrame) -> Prepared:
    """Turn serving rows into a group for each GPU, engine, model, format and parallelism."""
    skipped: dict[Any, str] = {}
    told = rows["expert_parallel"] if "expert_parallel" in rows else pd.Series(1, rows.index)
    parts = pd.to_numeric(told, errors="coerce").fillna(1).clip(lower=1)  # 0: not told
    rows = rows.assign(expert_parallel=parts.astype(int))
    for name, (most, what) in _OTHERWISE.items():
        if name in rows:
            beyond = pd.to_numeric(rows[name], errors="coerce") > most
            skipped.update(dict.fromkeys(rows.index[beyond], f"{what} is not predicted"))
    groups: list[Group] = []
    for _, part in rows.drop(index=list(skipped)).groupby(_ALIKE, sort=True):
        try:
            groups.append(_group(part))
        except SimulatorError as problem:
            skipped.update(dict.fromkeys(part.index, str(problem)))
    return Prepared(groups, skipped)


def weights_asked(shape: ModelShape, dtype: str) -> str:
    """Return the format to ask for where a row names the width of the weights.

    ``auto``, the checkpoint's own, if most of its weights are as wide: ``fp4`` rows of gpt-oss are
    in MXFP4, ``fp8`` rows of DeepSeek-V3 have scales of blocks.

    >>> from simulator.inputs.presets import load_model
    >>> weights_asked(load_model("gpt-oss-120b"), "nvfp4")
    'auto'
    >>> weights_asked(load_model("deepseek-v3"), "nvfp4")
    'nvfp4'
    """
    own = shape.weights.of("experts" if shape.experts else "mlp").dtype
    if dtype not in DTYPE_BYTES:  # auto, or the name of a scheme
        return dtype
    return "auto" if _width(own) == _width(dtype) else dtype


def _width(dtype: str) -> int:
    """Return the bits of a value, without its scales."""
    return int(_BITS * DTYPE_BYTES[dtype])


def _group(rows: pd.DataFrame) -> Group:
    """Return rows that differ only in lengths and concurrency as a group."""
    first = rows.iloc[0]
    shape, ranks = model(str(first["model"])), int(first["tensor_parallel"])
    gpu = profile(str(first["gpu_id"]))
    check_ranks(shape, gpu.id, ranks)
    setup = Setup(
        weight_dtype=weights_asked(shape, str(first["weights_dtype"])),
        kv_dtype=str(first["kv_dtype"]),
        tensor_parallel=ranks,
        expert_parallel=int(first["expert_parallel"]) if shape.experts else 1,
        engine=library_of(str(first["framework"])) or "vllm",
    ).of(shape)
    ratio = numbers(rows, "length_ratio")
    context, output = ratio * numbers(rows, "input_len"), ratio * numbers(rows, "output_len")
    users = numbers(rows, "concurrency")
    work = Workload.grid(
        prompts=users, samples=1, context_tokens=context, decoded_tokens=output / 2
    )
    return ServingGroup(
        kind="serving",
        gpu_id=gpu.id,
        index=rows.index,
        operations=decode_operations(shape, setup, work, resident_blocks=resident_blocks(gpu)),
        setup=setup,
        shape=shape,
        prefill=prefill_operations(shape, setup, work.but(prompts=1)),
        prefills=(users - 1) / maximum(output - 1, 1),
    )


@dataclass(frozen=True, kw_only=True)
class ServingGroup(Group):
    """Users of one deployment: a decode step, and its share of other requests' prefill.

    Attributes
    ----------
    shape
        The model.
    prefill
        Operations that prefill one prompt of each row.
    prefills
        Prefills of other requests for each step.
    """

    shape: ModelShape
    prefill: list[Operation]
    prefills: "np.ndarray"

    def predict(self, gpu: HardwareProfile, choice: ConstantsChoice = "auto") -> "np.ndarray":
        """Return the predicted times per output token. [s]."""
        others = self.prefills * self.prefill_s(gpu, choice)
        return self.column(self.step_s(gpu, choice) + others)

    def step_s(self, gpu: HardwareProfile, choice: ConstantsChoice = "auto") -> "np.ndarray":
        """Return the times of a decode step alone. [s]."""
        return super().predict(gpu, choice)

    def prefill_s(self, gpu: HardwareProfile, choice: ConstantsChoice = "auto") -> "np.ndarray":
        """Return the times to prefill one prompt. [s]."""
        gpu_rates = rates(gpu, choice, variants=self.variants)
        return self.column(step_time(self.prefill, gpu_rates, self.execution).total_s)

    def interval(
        self, gpu: HardwareProfile, choice: ConstantsChoice = "auto", *, served: bool = True
    ) -> Ends | None:
        """Return the interval of each time, None where no rows tell it. [s].

        The errors of step and prefill add up: both are of the same kernels and the same engine,
        whose own spread counts unless ``served`` is false.
        """
        gpu_rates = rates(gpu, choice, variants=self.variants)
        if self.setup is None or unknown_regime(self.shape, gpu_rates, self.setup):
            return None
        low, high = self.column(0.0), self.column(0.0)
        for operations, times in ((self.operations, 1.0), (self.prefill, self.prefills)):
            step = step_time(operations, gpu_rates, self.execution)
            found = uncertainty(operations, step, gpu_rates, self.setup, served=served)
            low, high = low + times * found.low_s, high + times * found.high_s
        return self.column(low), self.column(high)

    def parts(
        self, gpu: HardwareProfile, choice: ConstantsChoice = "auto"
    ) -> dict[str, "np.ndarray"] | None:
        """Return the time of the step by bound, and that of prefill. [s]."""
        others = self.prefills * self.prefill_s(gpu, choice)
        return {**(super().parts(gpu, choice) or {}), "prefill": others}
