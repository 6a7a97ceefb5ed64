"""explore: the page is written whole, and bad input is one line."""

from pathlib import Path

import pytest
from command_line import bifurcate

SMALL = ("explore", "code-sampling-8k", "-m", "gpt2", "-g", "l4")


def test_a_page_is_written(tmp_path: Path) -> None:
    """The page is where it was asked for, stdout stays empty, and stderr says what it offers."""
    path = tmp_path / "page.html"
    done = bifurcate(*SMALL, "-m", "llama-3.1-8b", "-o", str(path))
    assert done.text == ""
    assert done.err == f"wrote {path}: 2 models, 1 GPU; open it in a browser\n"
    assert path.read_text(encoding="utf-8").startswith("<!doctype html>")


def test_the_same_command_writes_the_same_bytes(tmp_path: Path) -> None:
    """A page has no date and no chance in it: it can be kept under version control."""
    first, second = tmp_path / "first.html", tmp_path / "second.html"
    for path in (first, second):
        assert bifurcate(*SMALL, "-o", str(path)).code == 0
    assert first.read_bytes() == second.read_bytes()


def test_what_is_left_out_is_said(tmp_path: Path) -> None:
    """A model whose heads do not divide over the GPUs starts on fewer, and stderr says so."""
    path = tmp_path / "page.html"
    asked = ("gqa-small-batch-tp8", "-m", "gpt2", "-g", "a100-sxm-40gb")
    done = bifurcate("explore", *asked, "-o", str(path))
    assert done.code == 0
    assert "skipped: tensor_parallel = 8 does not divide the 12 heads" in done.err


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (
            ("explore", "code-sampling-8"),
            "unknown scenario or model 'code-sampling-8'; did you mean",
        ),
        ((*SMALL, "-m", "llama-9"), "unknown model 'llama-9'"),
        ((*SMALL, "-g", "h100sxm9"), "unknown GPU 'h100sxm9'"),
        ((*SMALL, "-o", "page.png"), "cannot write page.png: a page goes to .html"),
        ((*SMALL, "-o", "nowhere/page.html"), "cannot write nowhere/page.html: No such file"),
        (
            (*SMALL, "--gpu-memory-utilization", "2"),
            "--gpu-memory-utilization = 2.0 is not in (0, 1]",
        ),
        (("explore", "gqa-small-batch-tp8", "-g", "l4x"), "unknown GPU 'l4x'"),
    ],
)
def test_bad_input_is_one_line(
    arguments: tuple[str, ...], complaint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What cannot be done is said in one line, with code 1, and nothing is written."""
    monkeypatch.chdir(tmp_path)
    done = bifurcate(*arguments)
    assert done.code == 1
    assert complaint in done.told
    assert list(tmp_path.iterdir()) == []
