"""Whatever is asked in Python: an answer that physics allows, or an error of the package."""

import inspect
import math
from typing import Any

import pytest
from fuzzing import VALUES, fuzzed, time_is_over
from hypothesis import given
from hypothesis import strategies as st

import simulator
from simulator.counts.attention.registry import algorithms
from simulator.counts.memory import kv_cache_bytes
from simulator.inputs.dtypes import DTYPES
from simulator.inputs.hardware import profile_files
from simulator.inputs.presets import presets
from simulator.inputs.setup import (
    CONSTANTS_CHOICES,
    ENGINES,
    EXECUTIONS,
    KV_LAYOUTS,
    LATENT_FORMS,
    ROUTINGS,
    Setup,
)
from simulator.inputs.workload import Workload

# A caller's file may say what can hardly be true.
pytestmark = pytest.mark.filterwarnings("default::simulator.errors.OwnFileWarning")

ROUNDING = 1 + 1e-9
MODELS, GPUS = sorted(presets()), sorted(profile_files())
# Mostly ordinary questions: sizes of every magnitude, any way of running a step.
GRID = st.fixed_dictionaries(
    {
        "context_tokens": st.sampled_from([0, 1, 127, 128, 1000, 8192, 131072, 10**6]),
        "samples": st.sampled_from([1, 2, 7, 16, 64, 300, 4096]),
        "decoded_tokens": st.sampled_from([0, 1, 64, 4096]),
        "prompts": st.sampled_from([1, 1, 2, 33]),
        "kernel": st.sampled_from((*algorithms(), "vllm-cascade", "flashinfer", "trtllm-cascade")),
        "kv_layout": st.sampled_from(KV_LAYOUTS),
    },
    optional={
        "execution": st.sampled_from(EXECUTIONS),
        "weight_dtype": st.sampled_from(DTYPES),
        "kv_dtype": st.sampled_from(DTYPES),
        "query_tokens": st.sampled_from([1, 4]),
        "tensor_parallel": st.sampled_from([1, 2, 8, 16]),
        "routing": st.sampled_from(ROUTINGS),
        "latent_form": st.sampled_from(LATENT_FORMS),
        "constants": st.sampled_from(CONSTANTS_CHOICES),
        "engine": st.sampled_from(ENGINES),
        "gpu_memory_utilization": st.sampled_from([0.01, 0.5, 1]),
    },
)
ANSWERS = (
    *(simulator.estimate, simulator.compare, simulator.generate, simulator.plan, simulator.serve),
    *(simulator.tree, simulator.tradeoff, simulator.quality),
)
READERS = (simulator.load_model, simulator.load_hardware, simulator.load_scenario)


@fuzzed
@given(st.sampled_from(MODELS), st.sampled_from(GPUS), GRID)
def test_every_layout_way_of_attention_and_gpu(
    model: str, gpu: str, settings: dict[str, Any]
) -> None:
    """Figures are finite, times within their intervals, and no byte is served for nothing."""
    if time_is_over():
        return
    try:
        found = simulator.compare(model, gpu, **settings)
    except simulator.SimulatorError:
        return
    for one in (found.standard, found.copies, found.bifurcated):
        if one is not None:
            _is_possible(one)
    assert 0 < found.speedup < math.inf
    assert found.speedup_low <= found.speedup * ROUNDING
    assert found.speedup <= found.speedup_high * ROUNDING
    if found.standard.setup.latent_form == found.bifurcated.setup.latent_form:
        assert found.kv_io_ratio * ROUNDING >= 1
    further_call = (settings["kernel"], settings.get("execution")) == ("flash", "eager")
    if found.copies is not None and not further_call:
        assert found.standard.step_s <= found.copies.step_s * ROUNDING


def _is_possible(one: simulator.Estimate) -> None:
    """Check a step against what its card has published."""
    assert 0 < one.step_low_s <= one.step_s * ROUNDING
    assert one.step_s < math.inf
    assert one.step_s <= one.step_high_s * ROUNDING
    assert one.interval_known == (one.step_high_s < math.inf)
    totals, bandwidth = one.totals, one.gpu.memory_bandwidth_bytes_per_s
    moved = float(totals.bytes_read + totals.bytes_written)
    low, traffic = one.memory_traffic_bytes_low, one.memory_traffic_bytes
    once = kv_cache_bytes(one.model, one.setup.but(attention="bifurcated"), one.workload)
    assert float(totals.weight_bytes_read) <= low * ROUNDING
    assert low <= traffic * ROUNDING
    assert traffic <= moved * ROUNDING < math.inf
    assert one.step_low_s * ROUNDING >= low / bandwidth
    assert one.step_s * ROUNDING >= traffic / bandwidth
    if one.model.indexer is None and one.setup.tensor_parallel == 1 and not one.setup.mixed:
        assert float(once) <= low * ROUNDING
    needs = one.memory
    assert needs.low_bytes <= needs.total_bytes <= needs.high_bytes < math.inf
    assert float(needs.total_bytes) >= float(needs.weights_bytes + needs.kv_bytes)


@fuzzed
@given(st.sampled_from(ANSWERS), st.sampled_from(MODELS), st.data())
def test_calls_from_python(answer: Any, model: str, data: st.DataObject) -> None:
    """Keywords with any values: an answer, or an error of the package that says which."""
    if time_is_over():
        return
    own = [name for name, item in inspect.signature(answer).parameters.items() if item.kind == 3]
    names = st.sampled_from([*own, "gpu", *Setup.fields, *Workload.fields, "kv_heads"])
    given_ = data.draw(st.dictionaries(names, VALUES | st.lists(VALUES, max_size=2), max_size=3))
    told = ""
    try:
        answer(model, **given_)
    except simulator.SimulatorError as problem:
        told = str(problem)
    assert "\n" not in told


@fuzzed
@given(st.sampled_from(READERS), VALUES)
def test_names_from_python(read: Any, value: Any) -> None:
    """Anything in the place of a name or path."""
    told = ""
    try:
        read(value)
    except simulator.SimulatorError as problem:
        told = str(problem)
    assert "\n" not in told
