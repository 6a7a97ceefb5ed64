"""``bifurcate plot``: files of every form, names, scenarios and options, and what goes wrong."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import plotly.graph_objects as go
import pytest
from command_line import bifurcate

from simulator.views.plots.registry import FIGURES

QUESTION = ("-m", "llama-2-7b", "-g", "h100-sxm", "-n", "16", "--context", "8K")
PNG_MAGIC, NARROW = b"\x89PNG\r\n\x1a\n", 390


def plotly_file(path: Path, *arguments: str) -> go.Figure:
    """Run ``plot`` to a JSON file and read it as Plotly does."""
    done = bifurcate("plot", *arguments, "-o", str(path))
    assert done.code == 0, done.err
    return go.Figure(json.loads(path.read_text(encoding="utf-8")))


def test_the_list_names_every_figure() -> None:
    """``--list`` is one line for each figure, with what it shows."""
    lines = bifurcate("plot", "--list").text.splitlines()
    assert [line.split()[0] for line in lines] == list(FIGURES)
    assert all(len(line.split()) > 4 for line in lines)


def test_every_process_writes_the_same_figure(tmp_path: Path) -> None:
    """A figure of panels is the same bytes whatever order a process keeps its sets in."""
    command = "from simulator.cli.main import main; main()"
    written = set()
    for seed in ("1", "2"):
        path = tmp_path / f"{seed}.json"
        subprocess.run(
            [sys.executable, "-c", command, "plot", "kv-heads", *QUESTION, "-o", str(path)],
            env={**os.environ, "PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
        )
        written.add(path.read_bytes())
    assert len(written) == 1


def test_an_unknown_figure_names_the_nearest() -> None:
    """A figure that is not known is an error with the nearest name."""
    done = bifurcate("plot", "rooflines", *QUESTION)
    assert (done.code, done.out) == (1, "")
    assert done.told.startswith("error: unknown figure 'rooflines'; did you mean 'roofline'?")
    assert "--list" in done.told


def test_without_a_figure_it_says_where_they_are_listed() -> None:
    """No figure is a misuse of the command line."""
    done = bifurcate("plot")
    assert done.code == 2
    assert "--list" in done.err


def test_a_page_stands_alone(tmp_path: Path) -> None:
    """A page has plotly.js in it, the finding as its title, and calls no other host."""
    path = tmp_path / "page.html"
    done = bifurcate("plot", "memory", *QUESTION, "-o", str(path))
    assert done.code == 0, done.err
    page = path.read_text(encoding="utf-8")
    finding = done.err.partition(": ")[2].strip()
    assert f"<title>{finding}</title>" in page
    assert "width=device-width" in page
    assert "plotly.js v" in page
    assert "<script src" not in page
    assert "<link" not in page
    assert '"showSendToCloud": false' in page


def test_the_default_file_is_named_for_the_figure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without ``-o`` the page is FIGURE.html, in the current folder."""
    monkeypatch.chdir(tmp_path)
    assert bifurcate("plot", "roofline", *QUESTION).code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["roofline.html"]


def test_json_is_plotlys(tmp_path: Path) -> None:
    """A .json file is a figure that Plotly reads back, of the question asked."""
    made = plotly_file(tmp_path / "a.json", "latency-samples", *QUESTION)
    assert "llama-2-7b on H100" in made.layout.title.text
    assert {trace.name for trace in made.data} >= {"standard", "bifurcated"}


def test_a_scenario_is_drawn_at_its_middle_and_options_replace_its_own(tmp_path: Path) -> None:
    """A scenario's own point is the middle of its axes; an option given beside it counts."""
    made = plotly_file(tmp_path / "a.json", "operations", "code-sampling-8k")
    assert "32 samples, 8K-token context" in made.layout.title.text
    options = (
        "-n",
        "6",
        "-m",
        "mistral-7b-v0.2",
        "-g",
        "a40",
        "--kv-dtype",
        "fp8",
        "--kernel",
        "einsum",
    )
    made = plotly_file(tmp_path / "a.json", "operations", "code-sampling-8k", *options)
    for word in ("mistral-7b-v0.2 on A40", "6 samples", "einsum kernel", "fp8 KV"):
        assert word in made.layout.title.text


def test_a_scenario_equals_its_question(tmp_path: Path) -> None:
    """The same question, as a scenario's point and as options, is the same figure."""
    scenario = plotly_file(tmp_path / "a.json", "operations", "code-sampling-8k", "-n", "16")
    question = plotly_file(tmp_path / "b.json", "operations", *QUESTION, "--kv-layout", "copies")
    assert scenario.to_plotly_json()["data"] == question.to_plotly_json()["data"]


def test_output_tokens_of_a_scenario_can_be_replaced(tmp_path: Path) -> None:
    """A request's length sets where the timeline ends."""
    made = plotly_file(
        tmp_path / "a.json", "generation", "code-sampling-8k", "--output-len", "1000"
    )
    line = next(trace for trace in made.data if trace.name == "bifurcated")
    assert max(line.x) == 999


def test_gpus_given_are_the_ones_compared(tmp_path: Path) -> None:
    """More than one GPU is a comparison of those alone; a price goes for every one."""
    made = plotly_file(
        tmp_path / "a.json", "cost", *QUESTION, "-g", "l40s", "-g", "a40", "--price-per-hour", "1"
    )
    assert sorted(made.layout.yaxis.ticktext) == ["a40", "h100-sxm", "l40s"]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("memory", *QUESTION, "-o", "a.gif"), 1, ".svg"),
        (("memory", *QUESTION, "-o", "nowhere/a.html"), 1, "cannot write"),
        (("memory", "no-such-scenario"), 1, "scenario"),
        (("memory",), 2, "or a model and its sizes"),
        (("memory", "code-sampling-8k", "--layers", "3"), 2, "--layers"),
        (("memory", "code-sampling-8k", "--kv-heads", "7"), 1, "--kv-heads"),
        (("memory", *QUESTION, "--width", "5"), 2, "width"),
        (("memory", *QUESTION, "--prompts", "0"), 1, "prompts"),
        (("latency-context", "-m", "llama-2-7b", "--kernel", "flas"), 2, "flash"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    arguments: tuple[str, ...],
    code: int,
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each error names what was wrong, in one line, and leaves no file."""
    monkeypatch.chdir(tmp_path)
    done = bifurcate("plot", *arguments)
    assert done.code == code
    assert words in done.told
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("problem", "words"),
    [
        ("Kaleido requires Google Chrome to be installed.", "chromium"),
        ("Image export requires the Kaleido package; pip install kaleido", "[images]"),
    ],
)
def test_without_a_browser_it_says_what_to_install(
    problem: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An image without a browser, or without kaleido, is one line and offers a page instead."""

    def fail(*_: object, **__: object) -> bytes:
        raise RuntimeError(problem)

    monkeypatch.setattr(go.Figure, "to_image", fail)
    path = tmp_path / "a.png"
    path.write_bytes(b"before")
    done = bifurcate("plot", "memory", *QUESTION, "-o", str(path))
    assert done.code == 1
    assert words in done.told
    assert ".html" in done.told
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


def test_a_png_has_the_size_asked_for(tmp_path: Path) -> None:
    """With a browser an image is written, in the form for its width."""
    pytest.importorskip("kaleido", reason="kaleido is not installed")
    if not any(map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))):
        pytest.skip("no browser is installed")
    path = tmp_path / "a.png"
    done = bifurcate(
        "plot", "memory", *QUESTION, "-o", str(path), "--width", str(NARROW), "--height", "700"
    )
    assert done.code == 0, done.err
    data = path.read_bytes()
    assert data.startswith(PNG_MAGIC)
    assert [int.from_bytes(data[at : at + 4], "big") for at in (16, 20)] == [NARROW, 700]
