"""The map of vLLM's rule is what the shipped constants give, and its cells are those of compare."""

from functools import cache
from pathlib import Path

import pandas as pd
import pytest

import simulator
from simulator.answers.rules import LEAST_PREFIX_TOKENS, LEAST_REQUESTS
from simulator.answers.verdict import TIE_MARGIN
from tools import cascade_rule, refresh

DOCS = Path(__file__).parents[2] / "docs"


def test_the_page_is_current() -> None:
    """The page is what tools/refresh.py would write today."""
    files = refresh.generated()
    assert DOCS / "cascade_rule.md" in files
    stale = [path.name for path, text in files.items() if path.read_text("utf-8") != text]
    assert stale == [], "run python tools/refresh.py"


@pytest.mark.parametrize("gpu", ["a100-sxm-80gb", "h100-sxm"])
@pytest.mark.parametrize("kv_heads", [32, 8, 1])
@pytest.mark.parametrize(
    ("samples", "context_tokens"), [(1, 128), (7, 65536), (8, 256), (16, 32768), (128, 4096)]
)
def test_a_cell_is_an_answer_of_compare(
    gpu: str, kv_heads: int, samples: int, context_tokens: int
) -> None:
    """The map's loss at a cell is what compare --rule vllm says the rule's choice costs there."""
    cells = _points().set_index(["gpu", "kv_heads", "samples", "context"])
    cell = cells.loc[gpu, kv_heads, samples, context_tokens]
    rule = simulator.compare(
        "llama-2-7b",
        gpu,
        kv_heads=kv_heads,
        samples=samples,
        context_tokens=context_tokens,
        rule="vllm",
    ).rule
    assert rule is not None
    assert cell["shares"] == (rule.choice == "bifurcated")
    assert cell["loss"] == pytest.approx(rule.cost_share, rel=1e-12)


@cache
def _points() -> pd.DataFrame:
    return cascade_rule.points()


def test_every_difference_has_a_cause() -> None:
    """Cells have a cause where the rule loses more than a tie, and the cause is of its choice."""
    cells = _points()
    lost = cells["fits"] & (cells["loss"] >= TIE_MARGIN)
    assert ((cells["cause"] != "") == lost).all()
    assert (cells[lost]["shares"] == (cells[lost]["cause"] == cascade_rule.EARLY)).all()
    assert (cells[cells["cause"] == cascade_rule.SHORT]["context"] < LEAST_PREFIX_TOKENS).all()
    assert (cells[cells["cause"] == cascade_rule.FEW]["samples"] < LEAST_REQUESTS).all()
