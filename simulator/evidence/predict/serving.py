"""Predict rows of serving benchmarks: the time per output token (TPOT) that users see under load.

A client keeps N requests in flight. Each time one ends, another begins, and its prefill interrupts
the N - 1 that decode. While a request decodes its O - 1 tokens after the first, every other one
begins once, so

    TPOT = step(N) + (N - 1) x prefill of one prompt / (O - 1),

with the step at the mean context of a request, as :func:`simulator.timing.batching.closed_loop` has
it. Rows do not tell O - 1 from O: the median error of 1,800 is 10.27 or 10.26 %.

An engine that prefills all waiting prompts before it decodes keeps requests of equal lengths that
begin together in lockstep: they also end together. Each then waits for (N + 1) / 2 prefills on
average, and sees (N - 1) / 2 while it decodes. A row whose measured time to first token (TTFT) is
three quarters of (N + 1) / 2 prefills or more is taken to be so; in either case a request takes N
prefills and its steps.

Constants are those of questions, of no particular engine: those of an engine's own kernels predict
these rows no better.
"""

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from simulator.counts.operation import Operation
from simulator.counts.transformer import decode_operations, prefill_operations
from simulator.errors import SimulatorError
from simulator.evidence.predict import groups
from simulator.evidence.predict.steps import check_ranks
from simulator.evidence.rows.kinds import VALUES
from simulator.evidence.rows.refusals import CLOCK_HEADROOM, of_bad_series
from simulator.inputs.dtypes import DTYPE_BYTES
from simulator.inputs.hardware import HardwareProfile
from simulator.inputs.model import ModelShape
from simulator.inputs.setup import ConstantsChoice, Engine, Setup
from simulator.inputs.workload import Workload
from simulator.numeric import maximum
from simulator.timing.constants import Variant, rates, served_s
from simulator.timing.interval import uncertainty, unknown_regime, with_engine
from simulator.timing.limits import resident_blocks
from simulator.timing.step import step_time
from simulator.units import MILLISECOND

# Columns that rows of one group share.
_ALIKE = [
    *("gpu_id", "framework", "model", "weights_dtype", "kv_dtype"),
    *("tensor_parallel", "expert_parallel"),
]
_BITS = 8
# Engines that decode nothing while prompts wait, unless told to (SGLang: --enable-mixed-chunk).
_PREFILL_FIRST = ("sglang",)
# The share of the wait in lockstep from which on a row is taken to be in it: others' are a half.
LOCKED = 0.75
# Columns of a series: rows of one client, of which many or none have their prompts cached.
_SERIES = ["source", "gpu_id", "framework", "version", "model", "weights_dtype"]
IMPOSSIBLE = (
    "faster, alone or as a series, than published peaks allow if so many requests are in flight "
    "and each prompt is prefilled: prompts may be cached, or fewer requests in flight"
)


def prepare(rows: pd.DataFrame) -> groups.Prepared:
    """Turn serving rows into a group for each GPU, engine, model, format and parallelism.

    Rows that contradict what they say are skipped, with their series: see ``IMPOSSIBLE``.
    """
    skipped: dict[Any, str] = {}
    told = rows["expert_parallel"] if "expert_parallel" in rows else pd.Series(1, rows.index)
    parts = pd.to_numeric(told, errors="coerce").fillna(1).clip(lower=1)  # 0: not told
    rows = rows.assign(expert_parallel=parts.astype(int))
    for name, (most, what) in VALUES["served_otherwise"].items():
        if name in rows:
            beyond = pd.to_numeric(rows[name], errors="coerce") > most
            skipped.update(dict.fromkeys(rows.index[beyond], f"{what} is not predicted"))
    found: list[ServingGroup] = []
    for _, part in rows.drop(index=list(skipped)).groupby(_ALIKE, sort=True):
        try:
            found.append(_group(part))
        except SimulatorError as problem:
            skipped.update(dict.fromkeys(part.index, str(problem)))
    if len(doubtful := _contradictory(rows, found)):
        skipped = {**dict.fromkeys(doubtful, IMPOSSIBLE), **skipped}
        left = [rows.loc[group.index.difference(doubtful, sort=False)] for group in found]
        found = [_group(part) for part in left if len(part)]
    return groups.Prepared([*found], skipped)


def _contradictory(rows: pd.DataFrame, found: "list[ServingGroup]") -> pd.Index:
    """Return the labels of rows faster than published peaks allow, and of series with many."""
    bound = pd.Series(0.0, rows.index)
    for group in found:
        # Those that may run in lockstep have less to wait for.
        queued_s = np.where(group.queued_s == 0, 0, np.inf)
        locked = replace(group, queued_s=queued_s, _known={})
        bound[group.index] = locked.predict(groups.profile(group.gpu_id), "peak")
    fast = rows["time_s"] < bound / CLOCK_HEADROOM
    return rows.index[fast | of_bad_series(fast, [rows[name] for name in _SERIES])]


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


def _group(rows: pd.DataFrame) -> "ServingGroup":
    """Return rows that differ only in lengths and concurrency as a group."""
    first = rows.iloc[0]
    shape, ranks = groups.model(str(first["model"])), int(first["tensor_parallel"])
    gpu = groups.profile(str(first["gpu_id"]))
    check_ranks(shape, gpu.id, ranks)
    setup = Setup.read(
        {
            "weight_dtype": weights_asked(shape, str(first["weights_dtype"])),
            "kv_dtype": str(first["kv_dtype"]),
            "tensor_parallel": ranks,
            "expert_parallel": int(first["expert_parallel"]) if shape.experts else 1,
            "engine": groups.library_of(str(first["framework"])) or "vllm",
        }
    ).of(shape)
    ratio = groups.numbers(rows, "length_ratio")
    context = ratio * groups.numbers(rows, "input_len")
    output = ratio * groups.numbers(rows, "output_len")
    users = groups.numbers(rows, "concurrency")
    ttft_ms = groups.numbers(rows, "ttft_ms") if "ttft_ms" in rows else np.nan
    together = (ratio == 1) & (groups.numbers(rows, "lengths_vary") == 0)
    together &= groups.library_of(str(first["framework"])) in _PREFILL_FIRST
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
        users=users,
        later_tokens=maximum(output - 1, 1),
        queued_s=np.where(together, ttft_ms, 0.0) * MILLISECOND,
    )


@dataclass(frozen=True, kw_only=True)
class ServingGroup(groups.Group):
    """Users of one deployment: a decode step, and its share of other requests' prefill.

    Attributes
    ----------
    shape
        The model.
    prefill
        Operations that prefill one prompt of each row.
    users
        Requests in flight, N.
    later_tokens
        Tokens of an answer after its first.
    queued_s
        Measured times to first token of rows that may run in lockstep, nan where not told; 0 for
        others. [s]
    """

    shape: ModelShape
    prefill: list[Operation]
    users: "np.ndarray"
    later_tokens: "np.ndarray"
    queued_s: "np.ndarray"
    _known: dict[Any, "tuple[np.ndarray, np.ndarray]"] = field(
        default_factory=dict, repr=False, compare=False
    )

    @property
    def variant(self) -> Variant:
        """The variant of the constants that its rows tell: those of its engine."""
        return Variant(self.engine)

    @property
    def engine(self) -> Engine:
        """Whose time the steps have beside that of the GPU."""
        return self.setup.engine if self.setup else "none"

    def predict(self, gpu: HardwareProfile, choice: ConstantsChoice = "auto") -> "np.ndarray":
        """Return the predicted times per output token. [s]."""
        one_s, _, after = self.prefills(gpu, choice)
        return self.column(self.step_s(gpu, choice) + after * one_s)

    def step_s(self, gpu: HardwareProfile, choice: ConstantsChoice = "auto") -> "np.ndarray":
        """Return the times of a decode step alone, with what the engine adds to it. [s]."""
        step_s, _ = self._on_gpu(gpu, choice)
        return self.column(step_s + self._engine_s(gpu, choice))

    def _engine_s(self, gpu: HardwareProfile, choice: ConstantsChoice) -> "np.ndarray":
        """Return what the engine adds to a step. [s]."""
        (step_s, _), (sequence_s, _) = served_s(gpu, choice, self.engine)
        return step_s + sequence_s * self.users

    def _on_gpu(
        self, gpu: HardwareProfile, choice: ConstantsChoice
    ) -> "tuple[np.ndarray, np.ndarray]":
        """Return the times of a step and of one prompt's prefill on the GPU alone. [s]."""
        used = groups.constants_of_gpu(gpu, choice)
        if used not in self._known:
            gpu_rates = rates(gpu, choice)
            prefill_s = step_time(self.prefill, gpu_rates, self.execution).total_s
            self._known[used] = super().predict(gpu, choice), self.column(prefill_s)
        return self._known[used]

    def first_token_s(self, gpu: HardwareProfile, choice: ConstantsChoice = "auto") -> "np.ndarray":
        """Return the times to first token: prefills up to one's own, and a step. [s]."""
        one_s, before, _ = self.prefills(gpu, choice)
        return self.column(self.step_s(gpu, choice) + before * one_s)

    def prefills(
        self, gpu: HardwareProfile, choice: ConstantsChoice = "auto"
    ) -> "tuple[np.ndarray, np.ndarray, np.ndarray]":
        """Return the time of one prompt's prefill [s], and how many a request waits for.

        First those up to its own, then those of others for each token after the first.
        """
        _, one_s = self._on_gpu(gpu, choice)
        in_lockstep = (self.users + 1) / 2
        before = np.where(self.queued_s > LOCKED * in_lockstep * one_s, in_lockstep, 1.0)
        return one_s, before, (self.users - before) / self.later_tokens

    def interval(
        self, gpu: HardwareProfile, choice: ConstantsChoice = "auto", *, served: bool = True
    ) -> groups.Ends | None:
        """Return the interval of each time, None where no rows tell it. [s].

        The errors of step and prefill add up: both are of the same kernels and the same engine,
        whose own spread counts unless ``served`` is false.
        """
        gpu_rates = rates(gpu, choice, variants=self.variants)
        if self.setup is None or unknown_regime(self.shape, gpu_rates, self.setup):
            return None
        low, high = self.column(0.0), self.column(0.0)
        _, _, after = self.prefills(gpu, choice)
        for operations, times in ((self.operations, 1.0), (self.prefill, after)):
            step = step_time(operations, gpu_rates, self.execution)
            found = uncertainty(step, gpu_rates, self.setup, served=served)
            if served and operations is self.operations:
                found = with_engine(found, gpu_rates, self.engine, self.users)
            low, high = low + times * found.low_s, high + times * found.high_s
        return self.column(low), self.column(high)

    def parts(
        self, gpu: HardwareProfile, choice: ConstantsChoice = "auto"
    ) -> dict[str, "np.ndarray"] | None:
        """Return the time of the step by bound, that of the engine, and that of prefill. [s]."""
        one_s, _, after = self.prefills(gpu, choice)
        engine_s = self._engine_s(gpu, choice)
        on_gpu = super().parts(gpu, choice) or {}
        return {**on_gpu, "engine": engine_s, "prefill": after * one_s}
