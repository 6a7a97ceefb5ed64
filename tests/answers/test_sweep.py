"""Grids: what a scenario becomes, and what cannot be run."""

from typing import Any

import numpy as np
import pytest
from builders import asked, gpu, mistral_7b

from simulator.answers.compare import compare
from simulator.answers.estimate import Question
from simulator.answers.sweep import NUMERIC_AXES, POINTS_AT_ONCE, Grid, Sweep, prepare_sweep
from simulator.answers.verdict import TIE_MARGIN, winner_of
from simulator.errors import SimulatorError
from simulator.inputs.hardware import load_hardware
from simulator.inputs.presets import load_model
from simulator.inputs.scenario import Scenario, load_scenario, scenario_files
from simulator.inputs.workload import Workload


def _scenario(models: Any = "mistral-7b", gpus: Any = "h100-sxm", **workload: Any) -> Scenario:
    return Scenario.read(
        {
            "schema_version": 1,
            "id": "made-up",
            "title": "t",
            "description": "d",
            "question": "q",
            "sources": "s",
            "verdict": "mixed",
            "verdict_reason": "r",
            "models": models,
            "gpus": gpus,
            "workload": workload,
        }
    )


def test_every_combination_of_names_is_a_grid() -> None:
    """Models, KV heads, GPUs and named settings multiply; numbers stay one grid under each."""
    sweep = prepare_sweep(
        _scenario(
            models=["llama-2-7b", "codellama-7b"],
            gpus=["h100-sxm", "l4"],
            kv_heads=[1, 8],
            kernel=["flash", "einsum"],
            samples=[1, 4, 16],
            context_tokens=["1K", "2K"],
        )
    )
    assert len(sweep.grids) == 2 * 2 * 2 * 2
    assert sweep.points == 16 * 6
    assert {grid.model.kv_heads for grid in sweep.grids} == {1, 8}
    assert sweep.grids[0].axes["context_tokens"] == (1024, 2048)
    assert not sweep.skipped


def test_a_sweep_chooses_the_form_of_latent_attention_at_each_point() -> None:
    """Every column is that of the faster of both forms, as ``compare`` chooses it."""
    work = {"samples": [2, 20, 400], "context_tokens": ["1K", "30K"], "kv_layout": "shared"}

    def columns(form: str) -> dict[str, Any]:
        scenario = _scenario("deepseek-v3", "h200", latent_form=form, **work)
        [block] = prepare_sweep(scenario).blocks()
        return block

    auto, absorbed, mixed = (columns(form) for form in ("auto", "absorbed", "mixed"))
    better = mixed["bifurcated_step_ms"] < absorbed["bifurcated_step_ms"]
    assert list(better) == [False, False, False, False, True, True]
    for name in auto.keys() - {"latent_form", "standard_bound", "bifurcated_bound"}:
        if isinstance(auto[name], np.ndarray):
            wanted = np.where(better, mixed[name], absorbed[name])
            np.testing.assert_array_equal(auto[name], wanted, err_msg=name)
    for point in (0, 5):
        answer = compare(
            Question(
                load_model("deepseek-v3"),
                load_hardware("h200"),
                *asked(
                    samples=int(auto["samples"][point]),
                    context_tokens=int(auto["context_tokens"][point]),
                    kv_layout="shared",
                    weight_dtype="fp8_block",
                ),
            )
        )
        assert auto["speedup"][point] == pytest.approx(answer.speedup, rel=1e-12)
        assert auto["verdict"][point] == answer.verdict


def test_a_form_that_a_model_does_not_have_is_skipped() -> None:
    """Of two models, only one has latent attention."""
    models = ["mistral-7b", "deepseek-v3"]
    sweep = prepare_sweep(_scenario(models, latent_form="mixed"))
    assert [grid.model.name for grid in sweep.grids] == ["deepseek-v3"]
    assert sweep.skipped == ("latent_form = mixed: mistral-7b has no latent attention",)


def test_what_is_not_given_has_the_question_s_default() -> None:
    """As a single question has it; every numeric axis is there."""
    (grid,) = prepare_sweep(_scenario()).grids
    defaults = {axis: (Workload.fields[axis],) for axis in NUMERIC_AXES}
    assert grid.axes == defaults


def test_engines_spellings_of_formats_are_read() -> None:
    """A scenario may say float8, as configuration files do."""
    sweep = prepare_sweep(_scenario(kv_dtype=["bfloat16", "fp8_e4m3"]))
    assert [grid.setup.kv_dtype for grid in sweep.grids] == ["bf16", "fp8"]
    rows = list(sweep.blocks())
    bytes_read = [float(row["standard_kv_bytes_read"][0]) for row in rows]
    assert bytes_read[0] == 2 * bytes_read[1]


def test_what_cannot_be_run_is_skipped_and_said_once() -> None:
    """The rest of the grid is computed."""
    sweep = prepare_sweep(
        _scenario(models=["mistral-7b", "deepseek-v3"], kernel=["flash", "sdpa_math"])
    )
    assert len(sweep.grids) == 3
    (reason,) = sweep.skipped
    assert "caches a latent vector" in reason


def test_a_kernel_computes_the_prompts_that_it_can_take() -> None:
    """vLLM's cascade attention shares one prefix of all prompts: of two and more there is none."""
    kernels = {"kernel": ["flash", "vllm-cascade"]}
    sweep = prepare_sweep(_scenario("llama-2-7b", prompts=[4, 1, 2], **kernels))
    asked = [(grid.setup.kernel, list(grid.axes["prompts"])) for grid in sweep.grids]
    assert asked == [("flash", [4, 1, 2]), ("vllm-cascade", [1])]
    nothing = (
        "prompts = 2: kernel 'vllm-cascade' reads once what all prompts share, and several share "
        "nothing; use flashinfer"
    )
    assert sweep.skipped == (nothing,)
    none_left = prepare_sweep(_scenario("llama-2-7b", prompts=[4, 2], **kernels))
    assert [grid.setup.kernel for grid in none_left.grids] == ["flash"]
    assert none_left.skipped == (nothing,)


def test_contexts_that_are_stored_already_are_no_requests() -> None:
    """Of 1K, 2K and 8K tokens of which 4K are stored, the last alone has a prefill."""
    scenario = _scenario("llama-2-7b", samples=[1], context_tokens=["1K", "8K", "2K"])
    sweep = prepare_sweep(scenario, users=[4], cached_tokens="4K")
    assert [list(grid.axes["context_tokens"]) for grid in sweep.grids] == [[8192]]
    (reason,) = sweep.skipped
    assert "between 0 and 2,047" in reason


def test_nothing_left_is_an_error_that_says_why() -> None:
    """One line: how many reasons, and the first."""
    with pytest.raises(
        SimulatorError, match=r"^nothing can run, for 2 reasons, first: .*= 3 does not divide"
    ):
        prepare_sweep(_scenario(tensor_parallel=[3, 5]))


def test_unknown_names_are_errors() -> None:
    """A mistyped model or GPU stops the sweep before it starts."""
    with pytest.raises(SimulatorError, match=r"mistral-7b"):
        prepare_sweep(_scenario(models="mistal-7b"))
    with pytest.raises(SimulatorError, match=r"h100-sxm"):
        prepare_sweep(_scenario(gpus="h100-sxmm"))


def _grid(axes: dict[str, list[int]], **settings: Any) -> Grid:
    setup, work = asked(**settings)
    return Grid(model=mistral_7b(), gpu=gpu(), setup=setup, workload=work, axes=axes)


def test_blocks_are_bounded() -> None:
    """However long the axes, no block is larger than asked, and none is missing."""
    axes = {
        "prompts": [1],
        "samples": list(range(1, 101)),
        "context_tokens": list(range(0, 5000, 50)),
        "decoded_tokens": list(range(1, 31)),
        "query_tokens": [1],
    }
    sweep = Sweep(grids=(_grid(axes),), with_tree=False, skipped=())
    sizes = [len(block["speedup"]) for block in sweep.blocks()]
    assert sum(sizes) == sweep.points == 300_000
    assert max(sizes) <= POINTS_AT_ONCE
    # Not in crumbs either: ten blocks would be the fewest.
    assert len(sizes) <= 20


def test_columns_say_what_was_asked() -> None:
    """Names, settings and sizes of every point, and both kinds of attention."""
    axes = {"samples": [1, 2], "context_tokens": [10]}
    grid = _grid(axes, kernel="einsum", execution="eager")
    (block,) = Sweep(grids=(grid,), with_tree=False, skipped=()).blocks()
    said = {name: block[name] for name in ("model", "gpu", "kv_heads", "kernel", "execution")}
    assert said == {
        "model": "Mistral-7B",
        "gpu": "round",
        "kv_heads": 8,
        "kernel": "einsum",
        "execution": "eager",
    }
    assert block["samples"].tolist() == [1, 2]
    assert block["context_tokens"].tolist() == [10, 10]
    assert block["samples"].dtype == np.int64
    both = {name.partition("_")[2] for name in block if name.startswith("standard_")}
    assert both == {name.partition("_")[2] for name in block if name.startswith("bifurcated_")}
    assert {"step_ms", "tokens_per_s", "kv_bytes_read", "memory_bytes", "fits", "bound"} <= both


def test_winners_point_by_point() -> None:
    """The faster that fits; close is a tie; if only one fits it wins however slow."""
    margin = TIE_MARGIN
    found: Any = winner_of(
        np.array([2, 0.5, 1 + margin / 2, 0.5, 2, 2]),
        np.array([True, True, True, False, True, False]),
        np.array([True, True, True, True, False, False]),
    )
    assert found.tolist() == [
        "bifurcated",
        "standard",
        "tie",
        "bifurcated",
        "standard",
        "bifurcated",
    ]


@pytest.mark.parametrize("name", sorted(scenario_files()))
def test_every_shipped_scenario_runs(name: str) -> None:
    """All of its points have a finite time and a speed-up, and none of its names is unknown."""
    sweep = prepare_sweep(load_scenario(name))
    points = 0
    for block in sweep.blocks():
        assert np.isfinite(block["speedup"]).all()
        assert (block["standard_step_ms"] > 0).all()
        points += len(block["speedup"])
    assert points == sweep.points
