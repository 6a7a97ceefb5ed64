"""A new way of attention is one file and one line: everything that is asked answers with it."""

from dataclasses import replace
from typing import Any

import pytest
import toy_way
from builders import SLOTS, asked, attention_only, by_name, mistral_7b, model, step_operations
from plot_studies import study

from simulator import api
from simulator.answers import frames
from simulator.answers.estimate import Question, estimate
from simulator.answers.sweep import prepare_sweep
from simulator.counts.attention import registry
from simulator.counts.memory import kv_cache_bytes, workspace_bytes
from simulator.counts.operation import total
from simulator.errors import WorkloadError
from simulator.inputs.hardware import load_hardware
from simulator.inputs.scenario import load_scenario
from simulator.inputs.setup import Setup
from simulator.inputs.workload import Workload

# The model of tests/golden/test_golden_step.py: 2 layers of 4 heads in 2 groups of width 2.
WORK = {"samples": 2, "context_tokens": 4, "decoded_tokens": 3, "kernel": "linear"}
# As everywhere: the norm before attention, and its residual, are not part of it.
AROUND = ("attention_norm", "attention_residual")


@pytest.fixture(autouse=True)
def _added(monkeypatch: pytest.MonkeyPatch) -> None:
    toy_way.add(monkeypatch)


def _counted(**settings: Any) -> dict[str, tuple[float, ...]]:
    return {
        name: (each.flops, each.bytes_read, each.bytes_written, each.launches, each.repeat)
        for name, each in by_name(step_operations(model(), **WORK, **settings)).items()
        if name.startswith(("attention", "query_fold", "kv_con")) and name not in AROUND
    }


def test_its_fused_form_is_counted() -> None:
    """FLOPs, bytes and launches by hand, as those of tests/golden/test_golden_step.py."""
    # Queries and outputs of 8 rows are 32 bytes each; K and V of a token 16.
    standard = {"attention": (448, 32 + 14 * 16, 32, 1, 2)}
    assert _counted(attention="standard") == standard
    assert _counted(attention="bifurcated") == {
        "attention_context": (256, 32 + 4 * 16, 32, 1, 2),
        "attention_suffix": (192, 32 + 6 * 16, 32, 1, 2),
        "attention_sum": (0, 2 * 32, 32, 1, 2),
    }
    # What every way has in common: the cache that a step concatenates anew.
    rebuilt = _counted(attention="standard", kv_layout="rebuilt")
    assert rebuilt == {"kv_concatenate": (0, 10 * 16, 14 * 16, 2, 2), **standard}


def test_its_plain_form_is_counted() -> None:
    """Logits of 8 rows: 4 x 2 bytes a row of the context, 3 x 2 of own tokens, 7 x 2 of both."""
    assert _counted(attention="standard", execution="eager") == {
        "attention_scores": (224, 32 + 112, 112, 1, 2),
        "attention_values": (224, 112 + 112, 32, 1, 2),
    }
    assert _counted(attention="bifurcated", execution="eager") == {
        "query_fold": (0, 32, 32, 1, 2),
        "attention_scores_context": (128, 32 + 32, 64, 1, 2),
        "attention_values_context": (128, 64 + 32, 32, 1, 2),
        "attention_scores_suffix": (96, 32 + 48, 48, 1, 2),
        "attention_values_suffix": (96, 48 + 48, 32, 1, 2),
        "attention_sum": (0, 64, 32, 1, 2),
    }


def test_its_workspace_is_counted() -> None:
    """Queries and two outputs of 16 x 32 x 128 values, two hidden vectors, gate and up of 16.

    In plain PyTorch also logits of 16 x 32 rows against 8192 + 64 keys.
    """
    hidden = 16 * 2 * (2 * 4096 + 2 * 16)
    rows = 3 * 16 * 32 * 128 * 2
    logits = 16 * 32 * (8192 + 64) * 2
    for execution, held in (("graph", 0), ("eager", logits)):
        setup = Setup(attention="bifurcated", kernel="linear", execution=execution)
        found = workspace_bytes(attention_only(32, 8), setup, Workload(), resident_blocks=SLOTS)
        assert found == hidden + rows + held


def test_a_step_is_estimated_with_its_interval() -> None:
    """Of standard attention it does what the ideal kernel does, so its time is the same."""
    linear, ideal = (
        api.estimate("mistral-7b", samples=4, kernel=kernel) for kernel in ("linear", "ideal")
    )
    assert linear.step_low_s < linear.step_s < linear.step_high_s
    assert linear.step_s == ideal.step_s
    assert (linear.step_low_s, linear.step_high_s) == (ideal.step_low_s, ideal.step_high_s)
    both = api.compare("mistral-7b", samples=4, kernel="linear")
    assert both.speedup_low < both.speedup < both.speedup_high
    assert both.bifurcated.totals.launches == linear.totals.launches + 2 * 32
    assert api.generate("mistral-7b", samples=4, kernel="linear", output_tokens=9).total_s > 0


def test_its_spread_widens_the_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    """A way that says that it is no engine's kernel is less sure."""
    question = mistral_7b(), load_hardware("h100-sxm"), *asked(kernel="linear")
    engine = estimate(Question(*question)).uncertainty
    toy_way.add(monkeypatch, replace(toy_way.LINEAR, spread="unfused"))
    own = estimate(Question(*question)).uncertainty
    assert own.total_s == engine.total_s
    assert own.low_s <= engine.low_s  # unfused code is slower only
    assert own.high_s > engine.high_s


def test_its_formula_is_that_of_every_single_pass() -> None:
    """Inherited: cached tokens of a prompt in the paper's symbols, none of a rebuilt cache."""
    formula = registry.find_way("linear").kv_formula
    assert formula(Setup(attention="standard")) == "b (m_c + m_d)"
    assert formula(Setup(attention="standard", kv_layout="shared")) == "b (m_c + m_d)"
    assert formula(Setup(attention="bifurcated")) == "(m_c + b m_d)"
    assert formula(Setup(attention="standard", kv_layout="rebuilt")) == ""
    assert formula(Setup(attention="bifurcated", kv_layout="rebuilt")) == "(m_c + b m_d)"


def test_a_tree_is_read_node_by_node() -> None:
    """A tree needs nothing of its own: each node is read once, and parts are added up."""
    setup = Setup(attention="bifurcated", kernel="linear")
    work = Workload(tree="system=2K,problem=512x8", samples=4)
    question = {**setup.as_dict(), **work.as_dict()}
    operations = by_name(step_operations(mistral_7b(), **question))
    read = total(operations.values()).kv_bytes_read
    assert read == kv_cache_bytes(mistral_7b(), setup, work)
    outputs = 32 * 32 * 128 * 2
    assert operations["attention_sum"].bytes_read == 3 * outputs
    plan = api.tree("mistral-7b", tree="system=2K,problem=512x8", samples=4, kernel="linear")
    assert len(plan.readings) == 4


def test_a_way_may_refuse(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it says that it cannot serve is the error of whoever asks."""

    class Picky(toy_way.Linear):
        def refusal(self, model: object, work: Workload) -> str:  # noqa: ARG002
            return "linear serves no more than one sample" if work.samples > 1 else ""

    toy_way.add(monkeypatch, Picky(name="linear"))
    assert api.estimate("gpt2", kernel="linear", samples=1).step_s > 0
    with pytest.raises(WorkloadError, match=r"^linear serves no more than one sample$"):
        api.estimate("gpt2", kernel="linear", samples=2)


def test_sweeps_and_figures_have_it() -> None:
    """A scenario may name it, and the figure of all kernels draws it."""
    scenario = load_scenario("code-sampling-8k")
    sizes = {"samples": 4, "context_tokens": 8192, "decoded_tokens": 64}
    workload = {**sizes, "kernel": ("flash", "linear")}
    sweep = prepare_sweep(scenario.but(workload=workload))
    assert not sweep.skipped
    rows = {(block["model"], block["kernel"]): block["speedup"] for block in sweep.blocks()}
    alone = api.compare("llama-2-7b", kernel="linear", **sizes)
    assert rows["llama-2-7b", "linear"].tolist() == pytest.approx([alone.speedup])
    assert "linear" in set(frames.by_kernel(study("gain, and standard ends"))["kernel"])
