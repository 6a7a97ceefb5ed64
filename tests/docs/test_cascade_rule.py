"""The map of vLLM's rule is what the shipped constants give, and its cells are those of compare."""

from functools import cache
from pathlib import Path
from typing import Any

import pytest

import simulator
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
    page = cascade_rule
    (panel,) = (item for item in _panels() if (item.gpu, item.kv_heads) == (gpu, kv_heads))
    where = page.CONTEXTS.index(context_tokens), page.SAMPLES.index(samples)
    rule = simulator.compare(
        "llama-2-7b",
        gpu,
        kv_heads=kv_heads,
        samples=samples,
        context_tokens=context_tokens,
        rule="vllm",
    ).rule
    assert rule is not None
    assert bool(panel.shares[where]) == (rule.choice == "bifurcated")
    assert panel.loss[where] == pytest.approx(rule.cost_share, rel=1e-12)


@cache
def _panels() -> tuple[Any, ...]:
    return tuple(cascade_rule.panels())


def test_every_difference_has_one_cause() -> None:
    """The causes divide the cells in which the rule differs: none is missed or counted twice."""
    page = cascade_rule
    for panel in _panels():
        masks = list(page.causes(panel).values())
        assert (sum(mask.astype(int) for mask in masks) == panel.differs).all()
