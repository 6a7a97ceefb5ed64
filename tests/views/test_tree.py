"""What the tables of a tree say is what its plan holds."""

import pytest

import simulator
from simulator.answers.tree import TreePlan
from simulator.inputs.tree import tree_text
from simulator.inputs.workload import Workload
from simulator.units import format_si, format_time
from simulator.views.columns import View, stack
from simulator.views.explain import explain
from simulator.views.text import samples_phrase
from simulator.views.tree import tree_sentences, tree_view


def shown(view: View) -> str:
    """Return a view as plain text."""
    return stack(view).text(160)


def planned(tree: str = "system=2K,problem=512x8", **work: object) -> TreePlan:
    """Plan a tree for a multi-head model."""
    return simulator.tree("llama-2-7b", "a100", tree=tree, **work)


@pytest.mark.parametrize("layout", ["copies", "shared", "rebuilt"])
def test_every_choice_is_a_row(layout: str) -> None:
    """Each reading with its time and bytes; the baseline first, unless it is one of them."""
    result = planned(kv_layout=layout)
    lines = shown(tree_view(result)).splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("levels read once"))
    rows = lines[start + 1 : start + 1 + len(result.readings) + (layout != "shared")]
    if layout != "shared":
        baseline = rows.pop(0)
        assert baseline.startswith("none, ")
        assert f" {format_time(result.standard.step_s)} " in baseline
    for row, reading in zip(rows, result.readings, strict=True):
        assert row.startswith(", ".join(reading.split) or "none, one stored tree")
        assert f" {format_time(reading.result.step_s)} " in row
        assert f" {format_si(float(reading.result.totals.kv_bytes_read), 'B')} " in row


def test_every_level_has_its_rule() -> None:
    """What splitting saves and adds, from which length on, and what to do."""
    result = planned()
    _, _, text = shown(tree_view(result)).partition("What splitting each level brings")
    for rule in result.rules:
        row = next(line for line in text.splitlines() if line.startswith(f"{rule.level.name} "))
        assert f" {rule.readers:,} times " in row
        assert f" {format_si(rule.saved_bytes, 'B')} " in row
        assert f" {rule.added_launches:+,} " in row
        assert ("split" if rule.split else "join") in row
        assert ("too close to call" in row) == (rule.verdict == "too close to call")


def test_the_sentence_says_what_to_take() -> None:
    """The levels to split, how to ask for that, and what the neighbouring choices take."""
    result = planned()
    assert result.best.split
    text = " ".join(tree_sentences(result))
    assert f"--tree {tree_text(result.best.result.workload.tree)})" in text
    one = planned("3K")
    assert tree_sentences(one)[0].startswith("[bold]Split level1[/]: ")
    assert len(tree_sentences(one)) == 1
    alone = planned("3K", samples=1, execution="eager")
    assert "[bold]Split no level[/]" in tree_sentences(alone)[0]


def test_many_levels_show_the_best() -> None:
    """Of 2^5 choices the best sixteen are shown, and a line says how many are not."""
    text = shown(tree_view(planned("1K,64x2,64x2,64x2,64x2")))
    assert "16 more choices: --format csv or --json shows all." in text


@pytest.mark.parametrize(
    ("tree", "phrase"),
    [
        ("system=1", "16 sequences below system (1 token), 64 own tokens each"),
        ("1Kx2", "32 sequences (2 x 16) below 2 x level1 (1K tokens), 64 own tokens each"),
        (
            "a=2K,b=9x3",
            "48 sequences (3 x 16) below a (2K tokens) > 3 x b (9 tokens), 64 own tokens each",
        ),
    ],
)
def test_a_tree_is_said_in_plain_english(tree: str, phrase: str) -> None:
    """Levels from the root down, each with its branches."""
    assert samples_phrase(Workload(tree=tree)) == phrase


@pytest.mark.parametrize("tree", ["a=2K,b=512x8", "a=2K+b=512x8", "a=2K,b=512x8+", "a=300,b=9x2"])
def test_the_derivation_of_a_tree_adds_up(tree: str) -> None:
    """The numbers shown for the KV bytes of a tree, computed, are the result."""
    for model in ("llama-3.1-8b", "gemma-2-2b", "deepseek-v3"):
        result = simulator.estimate(model, tree=tree, attention="bifurcated")
        step = next(item for item in explain(result) if item.what == "KV bytes read")
        computed = eval(step.numbers.replace(" x ", " * "))  # noqa: S307 - our own numbers
        assert computed == result.totals.kv_bytes_read
        assert step.result.startswith(f"{computed:,.0f} B")


def test_no_level_is_split_of_what_does_not_fit() -> None:
    """810 GB of weights on 80 GB: the first sentence says that, and advises nothing."""
    result = simulator.tree("llama-3.1-405b", "h100", tree="system=2K,problem=512x8")
    (only,) = tree_sentences(result)
    assert only.startswith("[bold]No choice fits[/]: the fastest is 69")
    assert {rule.verdict for rule in result.rules} == {"neither fits"}
