"""An explanation's formulas, evaluated with the numbers shown, give the totals shown."""

import ast
import operator
import re
from collections.abc import Callable
from typing import Any

import pytest
from builders import REAL_MODELS, gemma_4_e2b, mimo_v2, round_gpu
from hypothesis import given, settings
from hypothesis import strategies as st

import simulator
from simulator.answers.estimate import Estimate, Question, estimate
from simulator.answers.scaled import FAMILIES as FORMS_OF
from simulator.errors import SimulatorError
from simulator.inputs.presets import load_model
from simulator.inputs.setup import Setup
from simulator.inputs.workload import Workload
from simulator.timing.interval import FAMILIES
from simulator.views.explain import Step, explain, explain_objects
from simulator.views.text import KERNELS, interval_phrase

OPERATORS: dict[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Mult: operator.mul,
}
# Written values are rounded to three digits.
ROUNDED = 6e-3
UNITS = {
    "": 1,
    "k": 1e3,
    "M": 1e6,
    "G": 1e9,
    "T": 1e12,
    "m": 1e-3,
    "µ": 1e-6,
    "Gi": 2**30,
    "Mi": 2**20,
}
MODELS = ("llama-3.1-8b", "starcoder", "mixtral-8x7b", "deepseek-v3", "gpt-oss-20b", "gemma-2-9b")
WORKLOADS: tuple[dict[str, Any], ...] = (
    {},
    {"prompts": 3, "samples": 5, "context_tokens": 1000, "decoded_tokens": 0},
    {"samples": 7, "context_tokens": 30000, "decoded_tokens": 5000, "kv_dtype": "int4"},
    {"query_tokens": 4, "kernel": "ideal"},
    {"tensor_parallel": 8, "context_tokens": 100, "decoded_tokens": 200},
    {"execution": "eager"},
    {"data_parallel": 2, "pipeline_parallel": 3, "prompts": 14, "samples": 3},
)


def value(text: str) -> float:
    """Evaluate a product of sums written with x."""

    def walk(node: ast.expr) -> float:
        if isinstance(node, ast.BinOp):
            return OPERATORS[type(node.op)](walk(node.left), walk(node.right))
        assert isinstance(node, ast.Constant), text
        return float(node.value)  # type: ignore[arg-type]

    return walk(ast.parse(text.replace(" x ", " * "), mode="eval").body)


def quantity(text: str) -> float:
    """Read a quantity as a person does: 1.21 GB, 15.4 µs, 3,000 GB/s, 74.5 GiB."""
    match = re.match(r"([\d,.]+) ?(Gi|Mi|[kMGTmµ]?)(?=B|s|FLOP|$)", text.strip())
    assert match, text
    return float(match.group(1).replace(",", "")) * UNITS[match.group(2)]


def steps(result: Estimate) -> dict[str, Step]:
    """Return an explanation by what each step derives."""
    return {step.what: step for step in explain(result)}


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("work", WORKLOADS, ids=str)
@pytest.mark.parametrize("attention", ["standard", "bifurcated"])
def test_formulas_evaluate_to_the_totals(model: str, work: dict[str, Any], attention: str) -> None:
    """KV bytes and attention FLOPs, evaluated from the numbers shown, are the totals exactly."""
    try:
        result = simulator.estimate(model, "h100-sxm", attention=attention, **work)
    except SimulatorError:
        pytest.skip("this model cannot be split so")
    derived = steps(result)
    assert value(derived["KV bytes read"].numbers) == result.totals.kv_bytes_read
    [flops] = [step for what, step in derived.items() if what.startswith("Attention FLOPs")]
    total = attention_flops(result)
    assert value(flops.numbers) == pytest.approx(total, rel=1e-12)
    for name in ("KV bytes read", "Weight bytes read"):
        exact, rounded = derived[name].result.split(" = ")
        assert quantity(rounded) == pytest.approx(quantity(exact), rel=ROUNDED)
    shown = quantity(derived["Weight bytes read"].result.split(" = ")[0])
    assert shown == pytest.approx(float(result.totals.weight_bytes_read), abs=0.5)


def attention_flops(result: Estimate) -> float:
    """Add up the FLOPs of attention."""
    kinds = ("attention", "latent_attention")
    return float(sum(op.flops * op.repeat for op in result.operations if op.kind in kinds))


@pytest.mark.parametrize(
    "work",
    [{"samples": 200}, {"samples": 9, "prompts": 3}, {"tree": "1K,500x2,60x2", "samples": 9}],
)
def test_formulas_of_the_mixed_form_evaluate_to_the_totals(work: dict[str, Any]) -> None:
    """KV bytes and FLOPs of an expanded context and absorbed own tokens."""
    result = simulator.estimate(
        "deepseek-v3", "h100-sxm", attention="bifurcated", latent_form="mixed", **work
    )
    derived = steps(result)
    assert value(derived["KV bytes read"].numbers) == result.totals.kv_bytes_read
    flops = derived["Attention FLOPs (mixed form)"]
    assert value(flops.numbers) == pytest.approx(attention_flops(result), rel=1e-12)


def test_the_samples_from_which_mixing_pays_are_shown() -> None:
    """At published peaks, an H100's 87, halved by two query tokens."""
    name = "Samples from which a shared context is read faster expanded than absorbed"
    asked = {"attention": "bifurcated", "latent_form": "mixed", "constants": "peak"}
    for queries, samples in ((1, "87 samples"), (2, "43 samples")):
        result = simulator.estimate("deepseek-v3", "h100-sxm", query_tokens=queries, **asked)
        assert steps(result)[name].result.startswith(samples)
    assert name not in steps(simulator.estimate("llama-3.1-8b", attention="bifurcated"))


@settings(max_examples=40, deadline=None)
@given(
    model=st.sampled_from(REAL_MODELS),
    samples=st.integers(1, 300),
    prompts=st.integers(1, 5),
    context=st.integers(0, 40000),
    own=st.integers(0, 6000),
    attention=st.sampled_from(["standard", "bifurcated"]),
)
def test_formulas_evaluate_whatever_is_asked(
    model: Any, samples: int, prompts: int, context: int, own: int, attention: Any
) -> None:
    """The KV formula gives the total for any sizes, also beyond a window."""
    work = Workload(samples=samples, prompts=prompts, context_tokens=context, decoded_tokens=own)
    result = estimate(Question(model, round_gpu(), Setup(attention=attention), work))
    assert value(steps(result)["KV bytes read"].numbers) == result.totals.kv_bytes_read


FORMS = {name: form(load_model("llama-2-7b")).but(name=name) for name, form in FORMS_OF.items()}


@pytest.mark.parametrize(
    "model", [gemma_4_e2b(), mimo_v2(), *FORMS.values()], ids=lambda model: model.name
)
@pytest.mark.parametrize("ranks", [1, 8])
def test_formulas_of_layers_that_differ_evaluate_to_the_totals(model: Any, ranks: int) -> None:
    """Each kind of layer has its own width, over one GPU or several, in a tree too."""
    for work in (
        {"samples": 16, "context_tokens": 32_768, "attention": "standard"},
        {"samples": 16, "context_tokens": 32_768, "attention": "bifurcated"},
        {"samples": 12, "tree": "1K,500x2,60x2", "attention": "bifurcated"},
    ):
        try:
            result = simulator.estimate(model, "h100-sxm", tensor_parallel=ranks, **work)
        except SimulatorError:
            pytest.skip("this kernel takes no such levels")
        derived = steps(result)
        assert value(derived["KV bytes read"].numbers) == result.totals.kv_bytes_read
        [flops] = [step for what, step in derived.items() if what.startswith("Attention FLOPs")]
        assert value(flops.numbers) == pytest.approx(attention_flops(result), rel=1e-12)


@pytest.mark.parametrize("kernel", ["einsum", "sdpa_math"])
def test_other_kernels_do_not_pretend_to_a_formula(kernel: str) -> None:
    """Where the kernel makes passes of its own, the total stands without a false formula."""
    result = simulator.estimate("llama-3.1-8b", kernel=kernel, execution="eager")
    step = steps(result)["KV bytes read"]
    assert kernel in step.numbers
    assert quantity(step.result.split(" = ")[0]) == result.totals.kv_bytes_read


def test_the_paper_is_cited_by_equation() -> None:
    """Standard attention cites equation 5 of the paper, bifurcated equation 6."""
    for attention, number in (("standard", "5"), ("bifurcated", "6")):
        step = steps(simulator.estimate("llama-2-7b", attention=attention))["KV bytes read"]
        assert "2403.08845" in step.reference
        assert f"equation {number}" in step.reference


def test_a_latent_cache_is_not_called_keys_and_values() -> None:
    """The paper's equation holds with the one vector that DeepSeek caches instead of both."""
    for model, kept in (("deepseek-v3", "the latent cache instead of K"), ("llama-2-7b", "K")):
        result = simulator.estimate(model, attention="bifurcated")
        assert f"equation 6, {kept} and V" in steps(result)["KV bytes read"].reference


def test_memory_adds_up_as_written() -> None:
    """The memory written sums to within its rounding of what it may take."""
    result = simulator.estimate("llama-2-70b", "h100-sxm", samples=32)
    step = steps(result)["Memory of one GPU"]
    needs, room = step.numbers.split(" <= ")
    total = sum(quantity(part) for part in needs.split(" + "))
    capacity, card = room.split(", of ")
    of_card, share = card.split(" a share of ")
    assert quantity(of_card) * float(share) == pytest.approx(quantity(capacity), abs=0.1 * 2**30)
    least, most = (quantity(part) for part in step.result[14:].removesuffix(" short").split(" to "))
    assert step.result.startswith("does not fit, ")
    assert least < total - quantity(capacity) < most


def test_the_largest_operations_are_explained() -> None:
    """The operations explained are the four that take most of the step."""
    result = simulator.estimate("llama-3.1-8b")
    times = {
        operation.name: operation.repeat * float(time.device_s)
        for operation, time in result.time.calls
    }
    longest = sorted(times, key=lambda name: -times[name])[:4]
    told = [what.split()[2].rstrip(",") for what in steps(result) if what.startswith("Time of ")]
    assert told[:-1] == longest  # the last is the time of the step


def test_only_constants_with_a_part_in_the_answer_are_listed() -> None:
    """Eager constants are listed for eager execution only, link constants for groups only."""
    graph = " ".join(steps(simulator.estimate("llama-3.1-8b")))
    eager = " ".join(steps(simulator.estimate("llama-3.1-8b", execution="eager")))
    group = " ".join(steps(simulator.estimate("llama-3.1-8b", tensor_parallel=2)))
    assert "host_us_per_launch" in eager
    assert "host_us_per_launch" not in graph
    assert "link_fraction" in group
    assert "link_fraction" not in graph


@pytest.mark.parametrize(("gpu", "over"), [("l40s", " over PCIe"), ("h100-sxm", "")])
def test_traffic_between_gpus_divides_as_written(gpu: str, over: str) -> None:
    """Bytes over the rate shown are the time shown, at the little eight GPUs have over PCIe."""
    result = simulator.estimate(
        "llama-3.1-8b", gpu, samples=1024, context_tokens=64, tensor_parallel=8
    )
    numbers = steps(result)["Time of mlp_all_reduce, one of 32 calls"].numbers
    found = re.search(r"link ([\d.]+) (ms|µs) \(([\d.]+) MB / ([\d.]+) GB/s(.*)\)", numbers)
    assert found
    time, unit, megabytes, rate, path = found.groups()
    seconds = float(time) * {"ms": 1e-3, "µs": 1e-6}[unit]
    assert float(megabytes) * 1e6 / (float(rate) * 1e9) == pytest.approx(seconds, rel=0.05)
    assert path == over


def test_every_step_is_whole() -> None:
    """Every step says what it derives, its result and its reference; as objects too."""
    result = simulator.compare("deepseek-v3", tensor_parallel=8).bifurcated
    derived = explain(result)
    assert all(step.what and step.result and step.reference for step in derived)
    assert [item["what"] for item in explain_objects(result)] == [step.what for step in derived]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, ["products -", "attention -", "norms"]),
        ({"attention": "bifurcated"}, ["bifurcated attention from standard's constants"]),
        ({"execution": "eager"}, ["host -"]),
        ({"execution": "compiled"}, ["plain PyTorch code"]),
        ({"constants": "peak"}, ["what published peaks leave out"]),
        ({"tensor_parallel": 2}, ["collectives -"]),
        ({"model": "mixtral-8x7b"}, ["products of experts -"]),
        (
            {"model": "deepseek-v3", "attention": "bifurcated"},
            ["latent attention -", "bifurcated latent attention from standard's constants"],
        ),
    ],
)
def test_the_interval_is_derived_error_by_error(settings: dict[str, Any], words: list[str]) -> None:
    """Every error that has a part in the interval is named, with its size each way."""
    result = simulator.estimate(**{"model": "mistral-7b", "samples": 1} | settings)
    (step,) = (item for item in explain(result) if item.what.startswith("Interval"))
    assert "80%" in step.what
    assert [word for word in words if word not in step.numbers] == []
    assert step.result == interval_phrase(result.step_low_s, result.step_high_s)


def test_every_kind_of_kernel_has_a_name() -> None:
    """Whatever a step is made of, its errors can be told."""
    assert KERNELS.keys() == set(FAMILIES)


def test_an_interval_that_is_not_known_is_not_derived() -> None:
    """It says why, and names no errors that would seem to make an upper end."""
    result = simulator.estimate("llama-3.1-405b", "h100-sxm", tensor_parallel=16)
    (step,) = (item for item in explain(result) if item.what.startswith("Interval"))
    assert step.numbers == "no rows are of more than 8 GPUs"
    assert step.result.startswith("at least ")


def test_constants_are_of_the_format_that_they_are_fitted_in() -> None:
    """Four-bit products are not called 8-bit ones."""
    derived = steps(simulator.estimate("llama-3.1-8b", "b200-sxm", weight_dtype="nvfp4"))
    assert any("nvfp4 gemm" in what for what in derived)
    assert not any("8-bit" in what for what in derived)


@pytest.mark.parametrize("attention", ["standard", "bifurcated"])
def test_selected_tokens_are_explained_apart_from_their_scores(attention: str) -> None:
    """DeepSeek-V3.2 attends to 2,048 of 8,256 tokens; no mixed form is told of."""
    result = simulator.estimate("deepseek-v3.2", "h200-sxm", attention=attention, samples=9)
    derived = steps(result)
    [flops] = [step for what, step in derived.items() if what.startswith("Attention FLOPs")]
    selected = [op for op in result.operations if op.kind == "sparse_attention"]
    total = sum(float(op.flops) * op.repeat for op in selected)
    assert value(flops.numbers) == pytest.approx(total, rel=1e-12)
    assert not any("expanded" in what for what in derived)


def test_drafts_are_left_out_of_the_attention_that_is_derived() -> None:
    """GLM-4.5 checks three tokens: the FLOPs derived are those of its 92 layers."""
    result = simulator.estimate("glm-4.5", "h200-sxm", tensor_parallel=8, query_tokens=3)
    derived = steps(result)
    [flops] = [step for what, step in derived.items() if what.startswith("Attention FLOPs")]
    layers = [op for op in result.operations if op.name == "attention"]
    assert value(flops.numbers) == pytest.approx(sum(op.flops * op.repeat for op in layers))
    assert any(op.name == "attention_draft" for op in result.operations)
    assert "see the operations" in derived["KV bytes read"].numbers
