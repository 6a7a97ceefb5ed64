"""How-to pages: code to copy is exact, and the way to the pages is short."""

import re
from pathlib import Path
from typing import Any

import pytest
from builders import asked, llama_2_7b

from simulator import load_hardware
from simulator.answers.compare import compare
from simulator.inputs.setup import ENGINES

CHECKOUT = Path(__file__).parents[2]
HOW_TO = CHECKOUT / "docs" / "how-to"


def links(page: Path) -> set[Path]:
    """Return the pages that a page links to."""
    found = re.findall(r"\]\(([^)\s#]+\.md)[^)]*\)", page.read_text(encoding="utf-8"))
    return {(page.parent / link).resolve() for link in found if "://" not in link}


@pytest.mark.parametrize("page", sorted(HOW_TO.glob("*.md")), ids=lambda page: page.stem)
def test_every_page_is_two_clicks_from_readme(page: Path) -> None:
    """README leads to every how-to through one page at most."""
    first = links(CHECKOUT / "README.md")
    assert page in first.union(*map(links, first))


@pytest.mark.parametrize("engine", ENGINES)
def test_compare_names_the_page_of_the_engine(engine: str) -> None:
    """Where reading once pays, the answer names the engine's page, and that page is there."""
    question = {"samples": 64, "context_tokens": 8192, "engine": engine}
    result = compare(llama_2_7b(), load_hardware("h200-sxm"), *asked(**question))
    assert result.winner == "bifurcated"
    named = re.findall(r"docs/how-to/\S+\.md", result.how)
    assert named
    assert all((CHECKOUT / page).exists() for page in named)


def test_flashinfers_example_is_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a stand-in of its wrapper, the example is plain attention over joined caches."""
    torch: Any = pytest.importorskip("torch", reason="the example needs PyTorch")
    from library_stand_ins import install_flashinfer, versions

    install_flashinfer(monkeypatch, versions("flashinfer", "plan")[-1])
    text = (HOW_TO / "flashinfer.md").read_text(encoding="utf-8")
    found = re.search(r"^```py\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert found
    code = found.group(1).replace('"cuda"', '"cpu"').replace("torch.bfloat16", "torch.float64")
    scope: dict[str, Any] = {}
    exec(compile(code, "flashinfer.md", "exec"), scope)  # noqa: S102 - our own documents
    size = scope["PAGE"] * scope["CONTEXT_PAGES"]
    for sample in (0, scope["SAMPLES"] - 1):
        own = slice(sample * 64, sample * 64 + 64)
        keys, values = (
            torch.cat([pool.flatten(0, 1)[:size], pool.flatten(0, 1)[size:][own]])
            .repeat_interleave(4, dim=1)
            .transpose(0, 1)
            for pool in (scope["keys"], scope["values"])
        )
        query = scope["query"][sample].unsqueeze(1)
        weights = (query @ keys.transpose(1, 2) / 128**0.5).softmax(-1)
        torch.testing.assert_close(scope["output"][sample], (weights @ values).squeeze(1))
