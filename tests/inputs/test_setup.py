"""Reading a question: how a step is run, its sizes, and the limits that answers take beside it."""

from typing import Any

import numpy as np
import pytest
from builders import deepseek_v3, llama_2_7b, setups
from hypothesis import given

from simulator.errors import WorkloadError
from simulator.inputs.setup import ATTENTIONS, KV_LAYOUTS, Setup, ask, read_limits
from simulator.inputs.workload import Workload


def test_no_name_is_of_a_setup_and_of_a_workload() -> None:
    """Keywords are sorted into the two by their names."""
    assert not set(Setup.fields) & set(Workload.fields)


def test_keywords_are_sorted_into_setup_and_workload() -> None:
    """Whatever order they come in, and None is as if it were not given."""
    setup, work = ask(
        llama_2_7b(), samples=4, kernel="einsum", context_tokens="8k", execution=None, prompts=None
    )
    assert setup == Setup(kernel="einsum")
    assert work == Workload(samples=4, context_tokens=8000)


@pytest.mark.parametrize(
    ("own", "given", "weights", "cache"),
    [
        ("bf16", {}, "bf16", "bf16"),
        ("fp16", {}, "fp16", "fp16"),
        # Activations of low-precision weights are bf16, and so is the cache.
        ("fp8", {}, "fp8", "bf16"),
        ("bf16", {"weight_dtype": "int4"}, "int4", "bf16"),
        ("fp8", {"weight_dtype": "fp32"}, "fp32", "fp32"),
        ("bf16", {"kv_dtype": "fp8"}, "bf16", "fp8"),
        ("fp16", {"kv_dtype": "bfloat16"}, "fp16", "bf16"),
        ("bf16", {"weight_dtype": "float16"}, "fp16", "fp16"),
    ],
)
def test_formats_are_chosen_as_engines_do(
    own: Any, given: dict[str, str], weights: str, cache: str
) -> None:
    """Weights as the model has them, the cache as the activations, unless one is asked for."""
    setup, _ = ask(llama_2_7b(weights=own), **given)
    assert (setup.weight_dtype, setup.kv_dtype) == (weights, cache)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"sampels": 4}, "workload: unknown key 'sampels'; did you mean 'samples'?"),
        ({"kernl": "flash"}, "workload: unknown key 'kernl'; did you mean 'kernel'?"),
        ({"samples": 0}, "workload: samples = 0 should be greater than or equal to 1"),
        ({"tensor_parallel": 0}, "workload: tensor_parallel = 0 should be greater than or equal"),
        ({"execution": "grap"}, "execution = 'grap' is not one of graph, compiled, eager"),
        ({"gpu_memory_utilization": 1.1}, "gpu_memory_utilization = 1.1 is not in (0, 1]"),
        ({"accepted_tokens": 2}, "accepted_tokens = 2 is more than query_tokens = 1"),
    ],
)
def test_what_cannot_be_asked_is_one_line(settings: dict[str, Any], words: str) -> None:
    """It names the field, the value and what is valid, of a setup as of a workload."""
    with pytest.raises(WorkloadError) as caught:
        ask(deepseek_v3(), **settings)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@given(setups())
def test_standard_attention_keeps_its_cache_in_one_way(setup: Setup) -> None:
    """Read again, as copies, or rebuilt; bifurcated attention keeps one context whatever is asked.

    A setup under another attention has the layout that it keeps.
    """
    ways = [setup.rereads, setup.copies, setup.rebuilds]
    assert sum(ways) == (0 if setup.bifurcated else 1)
    if not setup.bifurcated:
        assert KV_LAYOUTS[ways.index(True)] == setup.kv_layout
    assert setup.under("bifurcated") == setup.but(attention="bifurcated", kv_layout="shared")
    assert setup.under("standard") == setup.but(attention="standard")
    assert [setup.under(attention).attention for attention in ATTENTIONS] == list(ATTENTIONS)


def test_a_grid_is_a_workload_of_arrays() -> None:
    """What is not given has a workload's default; axes of their own make the full grid."""
    samples, contexts = np.ix_(np.array([1.0, 2.0, 3.0]), np.array([10.0, 20.0]))
    grid = Workload.grid(samples=samples, context_tokens=contexts, prompts=2)
    assert grid.decoded_tokens == Workload().decoded_tokens
    assert grid.tree == ()
    assert np.asarray(grid.sequences).tolist() == [[2], [4], [6]]
    assert np.broadcast(grid.samples, grid.context_tokens).shape == (3, 2)
    with pytest.raises(WorkloadError, match="unknown size 'sample'; did you mean 'samples'"):
        Workload.grid(sample=samples)


def test_setups_and_workloads_never_change() -> None:
    """They are handed on as they are, and another is made where one differs."""
    setup, work = ask(llama_2_7b())
    for item, field in ((setup, "kernel"), (work, "samples")):
        with pytest.raises(AttributeError, match="frozen"):
            setattr(item, field, 1)
    assert (setup.but(kernel="ideal").kernel, setup.kernel) == ("ideal", "flash")
    assert (work.but(samples=3).samples, work.samples) == (3, 16)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"output_tokens": 1.5}, "output_tokens = 1.5 is not a whole number, such as 8192 or 8K"),
        ({"output_tokens": True}, "output_tokens = True is not a whole number"),
        ({"target_step_ms": "soon"}, "target_step_ms = 'soon' is not a number"),
        ({"tensor_parallel_sizes": [1, "two"]}, "tensor_parallel_sizes = 'two' is not a whole"),
    ],
)
def test_a_limit_is_a_number(given: dict[str, Any], words: str) -> None:
    """The error names what was given, also of a list."""
    with pytest.raises(WorkloadError) as caught:
        read_limits(**given)
    assert words in str(caught.value)


def test_limits_are_read_as_sizes_and_seconds() -> None:
    """Sizes may be text, milliseconds become seconds, and what is None is left out."""
    assert read_limits(
        output_tokens="1K", target_step_ms=15, target_kv_heads=["1", 8], success_rate=None
    ) == {"output_tokens": 1024, "target_step_s": 0.015, "target_kv_heads": [1, 8]}
