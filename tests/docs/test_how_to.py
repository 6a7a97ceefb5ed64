"""How-to pages: code to copy is exact, and the way to the pages is short."""

import re
from pathlib import Path
from typing import Any

import pytest
from builders import asked, llama_2_7b
from command_line import bifurcate

from simulator import load_hardware
from simulator.answers.compare import compare
from simulator.answers.estimate import Question
from simulator.inputs.scenario import scenario_files
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
    result = compare(Question(llama_2_7b(), load_hardware("h200-sxm"), *asked(**question)))
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


def test_the_papers_equations_lead_to_code() -> None:
    """Each equation has a row, whose files and functions are there."""
    text = (CHECKOUT / "docs" / "equations.md").read_text(encoding="utf-8")
    section = text.partition("## The paper's equations")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| ([0-9E][^|]*) \|(.*)\|$", section, re.MULTILINE)
    assert ", ".join(name for name, _ in rows) == "1, 2, 3, 4, 5, 6, E.1, E.2"
    named = re.findall(r"`((?:counts|evidence)/[a-z_/]+\.py)`(?:: `(\w+)`)?", section)
    assert len(named) >= len(rows)
    for path, function in named:
        code = (CHECKOUT / "simulator" / path).read_text(encoding="utf-8")
        assert f"def {function}" in code if function else code


def test_every_scenario_has_a_place_among_the_loads() -> None:
    """ "Which scenario is mine?" names each, once."""
    text = (CHECKOUT / "docs" / "scenarios.md").read_text(encoding="utf-8")
    section = text.partition("## Which scenario is mine?")[2].partition("\n## ")[0]
    named = [name for name in re.findall(r"`([a-z0-9-]+)`", section) if name in scenario_files()]
    assert sorted(named) == sorted(scenario_files())


def test_the_steps_of_calibrating_run_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each indented command of the page answers, in one folder."""
    monkeypatch.chdir(tmp_path)
    text = (HOW_TO / "calibrate.md").read_text(encoding="utf-8")
    commands = re.findall(r"^    bifurcate (.*)$", text, re.MULTILINE)
    assert [command.split()[0] for command in commands] == [
        *("calibrate", "validate", "compare"),
        *("calibrate", "validate", "serve"),
    ]
    for command in commands:
        done = bifurcate(*command.split())
        assert done.code == 0, done.err


@pytest.mark.parametrize(
    "sizes", [(1, 4, 4, 32, 5, 1), (3, 6, 2, 64, 40, 9), (16, 8, 1, 128, 300, 33)]
)
def test_the_code_to_copy_is_exact_for_any_heads(sizes: tuple[int, ...]) -> None:
    """Multi-head, multi-group, multi-query; one sample, one own token: as in one softmax."""
    torch: Any = pytest.importorskip("torch", reason="the example needs PyTorch")
    text = (HOW_TO / "pytorch.md").read_text(encoding="utf-8")
    found = re.search(r"^```python\n(.*?)^samples, heads", text, re.MULTILINE | re.DOTALL)
    assert found
    scope: dict[str, Any] = {}
    exec(compile(found.group(1), "pytorch.md", "exec"), scope)  # noqa: S102 - our own documents
    samples, heads, kv_heads, width, context_tokens, own_tokens = sizes
    double = {"dtype": torch.float64}
    query = torch.randn(samples, heads, width, **double)
    context = torch.randn(2, kv_heads, context_tokens, width, **double)
    own = torch.randn(2, samples, kv_heads, own_tokens, width, **double)
    keys, values = (
        torch.cat([shared.expand(samples, -1, -1, -1), part], dim=2).repeat_interleave(
            heads // kv_heads, dim=1
        )
        for shared, part in zip(context, own, strict=True)
    )
    weights = (torch.einsum("bhk,bhmk->bhm", query, keys) / width**0.5).softmax(-1)
    expected = torch.einsum("bhm,bhmk->bhk", weights, values)
    torch.testing.assert_close(scope["bifurcated"](query, *context, *own), expected)


def test_the_index_has_every_page() -> None:
    """Each document is one click from the index."""
    index = CHECKOUT / "docs" / "README.md"
    assert {*(CHECKOUT / "docs").rglob("*.md")} - {index} <= links(index)
