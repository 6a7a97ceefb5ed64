"""Predict rows of whole steps, and of batches of serving engines, as ordinary questions.

A row of a step states attention, storage and execution; an unknown kernel counts as a fused one. A
row of a batch is a whole request, with its time divided by its tokens.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import pandas as pd

from simulator.counts.memory import kv_cache_bytes, memory, weights_bytes
from simulator.counts.transformer import check_split, decode_operations
from simulator.errors import WorkloadError
from simulator.evidence.predict import groups
from simulator.inputs.hardware import HardwareProfile
from simulator.inputs.model import ModelShape
from simulator.inputs.setup import ConstantsChoice, Setup, ask
from simulator.inputs.workload import Workload
from simulator.timing.constants import Rates, rates
from simulator.timing.interval import uncertainty
from simulator.timing.limits import resident_blocks
from simulator.timing.request import GenerationTime, generation_time, request_interval
from simulator.timing.step import decode_time
from simulator.units import GIGA

if TYPE_CHECKING:
    import numpy as np

# Decoded tokens of rows that do not state them: half of 128 new ones.
DECODED_TOKENS = 64
# Words in the names of kernels with logits in memory; others are fused.
_UNFUSED: Mapping[str, str] = {"einsum": "einsum", "math": "sdpa_math", "ideal": "ideal"}


def step_group(row: "pd.Series[Any]") -> groups.Group:
    """Return the whole decode step of a row as a group."""
    shape, setup, work = _step(row)
    gpu = groups.profile(str(row["gpu_id"]))
    blocks = resident_blocks(gpu)
    whole = setup.but(gpu_memory_utilization=1.0)
    needs = memory(shape, whole, work, card_bytes=gpu.memory_bytes, resident_blocks=blocks)
    return groups.Group(
        kind="decode_step",
        **groups.of_program(row),
        operations=decode_operations(shape, setup, work, resident_blocks=blocks),
        execution=setup.execution,
        setup=setup,
        oom=(not needs.fits,),
    )


def _step(row: "pd.Series[Any]") -> tuple[ModelShape, Setup, Workload]:
    """Read a row of a step as a model, a setup and a workload."""
    shape = groups.model(str(row["model"]))
    if int(row["expand_kv"]) == 1:
        shape = shape.with_kv_heads(shape.heads)
    ranks = int(row["tensor_parallel"])
    check_ranks(shape, str(row["gpu_id"]), ranks)
    name = str(row["kernel"]).lower()
    setup, work = ask(
        shape,
        prompts=_given(row, "prompts", 1),
        samples=int(row["samples"]),
        context_tokens=int(row["context_tokens"]),
        decoded_tokens=_given(row, "decoded_tokens", DECODED_TOKENS),
        attention=str(row["attention"]),
        kernel=next((kernel for word, kernel in _UNFUSED.items() if word in name), "flash"),
        kv_layout=str(row["kv_layout"]),
        execution=str(row["execution"]),
        weight_dtype=str(row["weights_dtype"]),
        tensor_parallel=ranks,
    )
    return shape, setup, work


def check_ranks(shape: ModelShape, gpu_id: str, ranks: int) -> None:
    """Refuse to split a model over GPUs if heads do not divide or there is no link.

    Parameters
    ----------
    shape
        The model.
    gpu_id
        Its GPU; the group has ``ranks`` of them.

    Raises
    ------
    WorkloadError
        If heads do not divide, or the GPU has no link.
    """
    check_split(shape, ranks)
    if ranks > 1 and groups.profile(gpu_id).link_bytes_per_s(ranks) is None:
        raise WorkloadError(f"{gpu_id} has no link in its profile for {ranks} GPUs")


def _given(row: "pd.Series[Any]", column: str, otherwise: int) -> int:
    """Return a size that a row may omit."""
    value = row.get(column)
    return otherwise if value is None or pd.isna(value) else int(cast("float", value))


# Model, setup, and one request, whose output tokens are its decoded tokens at the end.
_Batch = tuple[ModelShape, Setup, Workload]


@dataclass(frozen=True, kw_only=True)
class BatchGroup(groups.Group):
    """A batch of an engine: the model's time of a request, and the engine's per step."""

    batch: _Batch
    _known: dict[Any, float] = field(default_factory=dict, repr=False, compare=False)

    def predict(self, gpu: HardwareProfile, choice: ConstantsChoice = "auto") -> "np.ndarray":
        """Return the predicted time of a step. [s]."""
        gpu_rates = rates(gpu, choice, variants=self.variants)
        used = groups.constants_of_gpu(gpu, choice)
        if used not in self._known:
            self._known[used] = float(self._whole(gpu_rates).total_s)
        return self._of_step(self._known[used], gpu_rates)

    def interval(
        self, gpu: HardwareProfile, choice: ConstantsChoice = "auto"
    ) -> groups.Ends | None:
        """Return the interval of the GPU's time, plus the engine's fitted overhead. [s]."""
        gpu_rates = rates(gpu, choice, variants=self.variants)
        _, setup, _ = self.batch
        last = uncertainty(decode_time(*self.batch, gpu_rates), gpu_rates, setup)
        low, high = request_interval(self._whole(gpu_rates), gpu_rates, setup, last)
        return self._of_step(low, gpu_rates), self._of_step(high, gpu_rates)

    def parts(self, gpu: HardwareProfile, choice: ConstantsChoice = "auto") -> None:
        """Return None: the engine's overhead has no parts."""

    def _whole(self, gpu_rates: Rates) -> GenerationTime:
        """Return the time of the whole batch, prefill included."""
        *_, work = self.batch
        return generation_time(*self.batch, gpu_rates, output_tokens=work.decoded_tokens)

    def _of_step(self, whole_s: Any, gpu_rates: Rates) -> "np.ndarray":
        """Return a step's share of a batch's time, with what the engine adds. [s]."""
        *_, work = self.batch
        return self.column(whole_s / work.decoded_tokens + gpu_rates.step_s)


def batch_group(row: "pd.Series[Any]") -> BatchGroup:
    """Return an end-to-end row as a group, if its batch fits the card."""
    shape = groups.model(str(row["model"]))
    setup, work = ask(
        shape,
        prompts=int(row["batch"]),
        samples=1,
        context_tokens=int(row["input_len"]),
        decoded_tokens=int(row["output_len"]),
        weight_dtype=str(row["weight_dtype"]),
        kv_dtype="bf16",
        tensor_parallel=int(row["tp"]),
    )
    check_ranks(shape, str(row["gpu_id"]), setup.tensor_parallel)
    needed = float(weights_bytes(shape, setup)) + float(kv_cache_bytes(shape, setup, work))
    if needed > groups.profile(str(row["gpu_id"])).peak.memory_gb.value * GIGA:
        raise ValueError("the batch does not fit the card at once: it was run in parts")
    return BatchGroup(kind="end_to_end", **groups.of_program(row), batch=(shape, setup, work))
