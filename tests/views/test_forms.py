"""In a notebook every answer shows itself and becomes a frame with the columns of its CSV."""

import io
from collections.abc import Callable
from copy import deepcopy
from html import unescape
from pathlib import Path
from re import sub
from typing import Any

import pandas as pd
import pytest
from command_line import bifurcate

import simulator
from simulator.answers.answer import Answer
from simulator.views.forms import VIEWS

MODEL = ("-m", "llama-2-7b")
LOAD = {"requests_per_s": 2, "tpot_ms": 40}
SUCCESS = {"success_rate": 0.05, "target_step_ms": 40}
QUESTIONS: list[tuple[str, tuple[str, ...], Callable[[], Answer], str]] = [
    ("estimate", (), lambda: simulator.estimate("llama-2-7b"), "Step"),
    ("compare", (), lambda: simulator.compare("llama-2-7b"), "Bifurcated wins"),
    (
        "generate",
        ("--attention", "bifurcated"),
        lambda: simulator.generate("llama-2-7b", attention="bifurcated"),
        "tokens/s",
    ),
    ("plan", ("-g", "l4"), lambda: simulator.plan("llama-2-7b", "l4"), "l4"),
    (
        "plan",
        ("-g", "l40s", "--requests-per-s", "2", "--tpot-ms", "40"),
        lambda: simulator.plan("llama-2-7b", "l40s", **LOAD),
        "requests",
    ),
    ("serve", (), lambda: simulator.serve("llama-2-7b"), "TTFT"),
    ("tree", (), lambda: simulator.tree("llama-2-7b"), "split"),
    ("tradeoff", (), lambda: simulator.tradeoff("llama-2-7b"), "1 KV head"),
    (
        "quality",
        ("--success-rate", "0.05", "--target-step-ms", "40"),
        lambda: simulator.quality("llama-2-7b", **SUCCESS),
        "pass@",
    ),
]


@pytest.mark.parametrize(
    ("command", "options", "ask", "words"), QUESTIONS, ids=[item[0] for item in QUESTIONS]
)
def test_an_answer_is_its_csv_and_its_table(
    command: str, options: tuple[str, ...], ask: Callable[[], Any], words: str
) -> None:
    """The frame has the CSV's columns and figures; HTML and text say what the terminal says."""
    answer = ask()
    frame = answer.to_frame()
    told = pd.read_csv(io.StringIO(bifurcate(command, *MODEL, *options, "--format", "csv").out))
    assert list(frame.columns) == list(told.columns)
    assert len(frame) == len(told) > 0
    for name in told.dropna(axis="columns", how="all").select_dtypes("number"):
        assert frame[name].astype(float).to_numpy() == pytest.approx(
            told[name].to_numpy(), rel=1e-8, nan_ok=True
        )
    page = answer._repr_html_()
    assert page.startswith("<pre")
    said = unescape(sub(r"<[^>]+>", "", page))
    assert words in said
    assert str(answer).split() == said.split()


@pytest.mark.parametrize(
    "ask", [ask for _, _, ask, _ in QUESTIONS], ids=[item[0] for item in QUESTIONS]
)
def test_an_answer_has_a_short_name_and_is_itself(ask: Callable[[], Any]) -> None:
    """Arrays deep inside decide no equality, and a name fills a line."""
    answer = ask()
    assert repr(answer).startswith(f"<{type(answer).__name__}: ")
    assert len(repr(answer)) < 80
    assert answer == answer  # noqa: PLR0124
    assert (answer == deepcopy(answer)) is False
    assert len({answer, answer}) == 1


def test_the_parts_of_an_answer_fill_no_pages() -> None:
    """A point of a load, an option of a plan: not every constant of their card."""
    curve = simulator.serve("llama-2-7b", samples=2, users=4)
    option = simulator.plan("llama-2-7b", "l40s", **LOAD).options[0]
    for part in (curve.points[0], option):
        assert len(repr(part)) < 20_000


def test_a_sweep_is_its_csv() -> None:
    """A sweep's frame has the columns and the points of what the command writes."""
    sweep = simulator.prepare_sweep("one-sample")
    assert f"{sweep.points} points in" in sweep._repr_html_()
    frame = sweep.to_frame()
    told = pd.read_csv(io.StringIO(bifurcate("sweep", "one-sample").out))
    assert list(frame.columns) == list(told.columns)
    assert frame["standard_step_ms"].to_numpy() == pytest.approx(told["standard_step_ms"], rel=1e-8)


def test_every_answer_has_a_view() -> None:
    """What derives from the base class is shown, and the public functions return nothing else."""
    assert set(VIEWS) == {answer.__name__ for answer in Answer.__subclasses__()}
    # A plan has two questions; sweeps and the fits of training runs have files of their own.
    assert len(VIEWS) == len(QUESTIONS) - 1 + 3


def test_fits_of_training_runs_show_themselves(tmp_path: Path) -> None:
    """A scaling law and a pooled table of studies do so as well."""
    path = tmp_path / "runs.csv"
    sizes = [(size, group) for size in (1e8, 1e9, 1e10) for group in (1, 32)]
    losses = [(f"{n:.0f}", g, 1.7 + 400 * (n / 1.1 ** (g > 1)) ** -0.34) for n, g in sizes]
    lines = ["parameters,group_size,loss", *(",".join(map(str, run)) for run in losses)]
    path.write_text("\n".join(lines), encoding="utf-8")
    law = simulator.fit_scaling_law(path)
    assert len(law.to_frame()) == len(sizes)
    assert "<pre" in law._repr_html_()


def test_names_in_files_are_no_markup() -> None:
    """A model's name cannot put a tag into the page."""
    model = simulator.load_model("gpt2").but(name="<img src=x>")
    page = simulator.estimate(model)._repr_html_()
    assert "<img" not in page
    assert "&lt;img src=x&gt;" in page
