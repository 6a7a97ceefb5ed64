"""docs/tracing.md is true: its examples run, and its table is what kernels do today."""

import re
import shlex
import sys
from pathlib import Path

import pytest
from builders import as_traced, llama_3_8b_attention
from command_line import bifurcate

torch = pytest.importorskip("torch", reason="tracing needs PyTorch")

from simulator.counts.attention.registry import PLAIN_KERNELS  # noqa: E402

PAGE = (Path(__file__).parents[2] / "docs" / "tracing.md").read_text(encoding="utf-8")
MINE, FROM_PYTHON = re.findall(r"^```py\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
(SHOWN,) = re.findall(r"^```text\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
# | `kernel` | read was, is | written was, is | launches were, are |
ROW = re.compile(r"^\| `(\w+)` \|((?: [\d,]+ \|){6})$", re.MULTILINE)


def without_times(text: str) -> list[str]:
    """Return the words of a trace but for what follows from constants: times, shares, roofs."""
    plain = re.sub(r"[\d.]+ [µm]s|[\d.]+%|launch |memory |compute |bound by .*", " ", text)
    return plain.split()


def test_the_example_is_traced_as_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Operators, FLOPs, bytes, launches and tensors of the page's function are those shown."""
    (tmp_path / "mine.py").write_text(MINE, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    command, _, shown = SHOWN.partition("\n")
    printed = bifurcate(*shlex.split(command.removeprefix("$ bifurcate "))).text
    assert without_times(printed) == without_times(shown)
    assert len(without_times(shown)) > 150


def test_the_example_from_python_runs(capsys: pytest.CaptureFixture[str]) -> None:
    """The product of the page: 2 x 16 x 4096 x 14336 FLOPs, every matrix moved once."""
    exec(compile(FROM_PYTHON, "tracing.md", "exec"), {})  # noqa: S102 - our own document
    first, *_ = capsys.readouterr().out.splitlines()
    read = 2 * (16 * 4096 + 4096 * 14336)
    assert first == f"{2 * 16 * 4096 * 14336} {read} {2 * 16 * 14336} 1"


@pytest.mark.parametrize(("kernel", "figures"), ROW.findall(PAGE))
def test_the_table_says_what_kernels_do(kernel: str, figures: str) -> None:
    """The figures under *trace* are the account's, which equals a trace (tests/evidence)."""
    shape = llama_3_8b_attention(16, 8192, resident_blocks=132)
    seen = as_traced(PLAIN_KERNELS[kernel].operations(shape))
    sums = [
        sum(getattr(operation, field) for operation in seen)
        for field in ("bytes_read", "bytes_written", "launches")
    ]
    _, read, _, written, _, launches = (
        int(text.replace(",", "")) for text in figures.split("|")[:6]
    )
    assert sums == [read, written, launches]


def test_the_table_is_read_here() -> None:
    """Six kernels are compared."""
    assert len(ROW.findall(PAGE)) == 6
