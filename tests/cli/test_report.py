"""bifurcate report: one page, written whole or not at all."""

from __future__ import annotations

import html
import re
import shlex
from typing import TYPE_CHECKING

import pytest
from command_line import bifurcate

from simulator.views.plots import registry

if TYPE_CHECKING:
    from pathlib import Path

# A scenario and GPUs that take little time.
QUICK = ("one-sample", "-m", "gpt2", "-g", "l4", "-g", "h100-sxm")


@pytest.fixture
def _one_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw one figure: the rest of the page is what is looked at."""
    name = next(iter(registry.FIGURES))
    monkeypatch.setattr(registry, "FIGURES", {name: registry.FIGURES[name]})


def commands(page: str) -> list[str]:
    """Return the commands that a page gives to reproduce it."""
    found = re.search(r"<pre><code>(bifurcate .*?)</code></pre>", page, re.DOTALL)
    assert found
    return html.unescape(found.group(1)).splitlines()


@pytest.mark.usefixtures("_one_figure")
def test_a_page_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command writes one page, says so on stderr, and keeps stdout empty."""
    monkeypatch.chdir(tmp_path)
    done = bifurcate("report", *QUICK, "-o", "answer.html")
    assert (done.text, done.err) == ("", "wrote answer.html\n")
    assert [path.name for path in tmp_path.iterdir()] == ["answer.html"]
    page = (tmp_path / "answer.html").read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>")
    assert page.endswith("</html>\n")


def test_the_command_on_the_page_writes_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first command a page gives writes it again, byte for byte; the others answer."""
    monkeypatch.chdir(tmp_path)
    options = ("-n", "4", "--context", "2K", "--output-len", "16", "--dtype", "fp8")
    more = ("--target-step-ms", "2.5", "--price-per-hour", "1.5", "--constants", "carried")
    last = ("--gpu-memory-utilization", "0.8", "--date", "3 May 'x'")
    bifurcate("report", *QUICK, *options, *more, *last, "-o", "my page.html")
    first = (tmp_path / "my page.html").read_text(encoding="utf-8")
    report, *others = commands(first)
    (tmp_path / "my page.html").unlink()
    assert bifurcate(*shlex.split(report)[1:]).code == 0
    assert (tmp_path / "my page.html").read_text(encoding="utf-8") == first
    assert others
    for line in others:
        assert bifurcate(*shlex.split(line)[1:]).code == 0, line


@pytest.mark.usefixtures("_one_figure")
def test_the_commands_give_the_numbers_of_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What compare answers to the page's command is what the page says."""
    monkeypatch.chdir(tmp_path)
    bifurcate("report", "kv-heads-what-if", "-g", "h100-sxm", "-o", "p.html")
    page = (tmp_path / "p.html").read_text(encoding="utf-8")
    compares = [line for line in commands(page) if line.startswith("bifurcate compare")]
    assert len(compares) == 3
    for line in compares:
        answer = bifurcate(*shlex.split(line)[1:], "--json").json
        cell = f"{answer['speedup']:.2f} <small>{answer['speedup_low']:.2f} to"
        assert cell in page, line


@pytest.mark.usefixtures("_one_figure")
def test_a_scenario_by_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of one's own is reported on, and its text stands in the page."""
    monkeypatch.chdir(tmp_path)
    text = bifurcate("scenarios", "show", "one-sample", "--json").json
    workload = "\n".join(f"{key} = {value!r}" for key, value in text["workload"].items())
    (tmp_path / "mine.toml").write_text(
        'schema_version = 1\nid = "mine"\ntitle = "A <b>bold</b> load"\ndescription = "d"\n'
        'question = "q?"\nsources = ["ours"]\nverdict = "gain"\nverdict_reason = "r"\n'
        f'models = ["gpt2"]\ngpus = ["l4"]\n\n[workload] # mine & yours\n{workload}\n',
        encoding="utf-8",
    )
    assert bifurcate("report", "mine.toml", "-g", "l4", "-o", "p.html").code == 0
    page = (tmp_path / "p.html").read_text(encoding="utf-8")
    assert "A &lt;b&gt;bold&lt;/b&gt; load" in page
    assert "# mine &amp; yours" in page
    assert "The scenario expects “gain” (stated); the model says “no gain”." in page


@pytest.mark.usefixtures("_one_figure")
def test_a_question_is_reported_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a scenario the options of a question are answered, and nothing is expected."""
    monkeypatch.chdir(tmp_path)
    question = (
        "-m",
        "llama-3.1-8b",
        "-g",
        "l40s",
        "-n",
        "12",
        "--context",
        "4K",
        "--kv-heads",
        "4",
    )
    assert bifurcate("report", *question, "-o", "p.html").code == 0
    page = (tmp_path / "p.html").read_text(encoding="utf-8")
    assert "<h1>llama-3.1-8b with 4 KV heads: 12 sequences from a 4K-token context, 64 own" in page
    assert "expects" not in page.partition('id="decision"')[0].partition("<header>")[2]
    assert "Where the scenario comes from" not in page
    assert "The whole grid" not in page
    report, compare = commands(page)
    assert bifurcate(*shlex.split(report)[1:]).code == 0
    assert (tmp_path / "p.html").read_text(encoding="utf-8") == page
    answer = bifurcate(*shlex.split(compare)[1:], "--json").json
    assert answer == bifurcate("compare", *question, "--json").json


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("one-sampel", "-o", "p.html"), 1, "did you mean 'one-sample'?"),
        (("missing.toml", "-o", "p.html"), 1, "missing.toml"),
        (("one-sample", "-o", "p.pdf"), 1, "cannot write p.pdf: a report is a page, .html"),
        (("one-sample", "-o", "p"), 1, ".html"),
        (("one-sample", "-o", "no/such/folder/p.html"), 1, "cannot write no/such/folder/p.html"),
        (("one-sample", "-g", "h1000", "-o", "p.html"), 1, "h1000"),
        (("one-sample", "-m", "lama-2-7b", "-o", "p.html"), 1, "llama-2-7b"),
        (("one-sample", "-n", "0", "-o", "p.html"), 1, "samples"),
        (("one-sample", "--target-step-ms", "0", "-o", "p.html"), 1, "--target-step-ms"),
        (("one-sample", "--price-per-hour", "-3", "-o", "p.html"), 1, "--price-per-hour"),
        (("one-sample", "--gpu-memory-utilization", "2", "-o", "p.html"), 1, "2.0"),
        (("one-sample", "--constants", "best", "-o", "p.html"), 2, "auto, carried, peak"),
        (("-o", "p.html"), 2, "give a scenario (see 'bifurcate scenarios'), or a model"),
        (("-m", "gpt2", "--layers", "3", "-o", "p.html"), 2, "pages and grids name their models"),
        (("-m", "lama-2-7b", "-o", "p.html"), 1, "llama-2-7b"),
        (("-m", "gpt2", "--tp", "7", "-o", "p.html"), 1, "7"),
    ],
)
def test_bad_input_is_one_line(
    arguments: tuple[str, ...],
    code: int,
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What cannot be done is said in one line that names it, and no file is left."""
    monkeypatch.chdir(tmp_path)
    done = bifurcate("report", *arguments)
    assert done.code == code
    assert done.out == ""
    assert words in done.told
    assert list(tmp_path.iterdir()) == []


def test_an_error_leaves_the_page_there_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page is replaced when the new one is whole, not before."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "p.html").write_text("old", encoding="utf-8")
    assert bifurcate("report", "one-sample", "-g", "nothing", "-o", "p.html").code == 1
    assert (tmp_path / "p.html").read_text(encoding="utf-8") == "old"
