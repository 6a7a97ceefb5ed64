"""Reading prefix trees: their text, their levels, and what a workload takes from them."""

from typing import Any

import pytest
from builders import without

from simulator.errors import ScenarioError, WorkloadError
from simulator.inputs.presets import load_model
from simulator.inputs.scenario import Scenario, load_scenario, scenario_files
from simulator.inputs.setup import ask
from simulator.inputs.tree import Level, read_tree, tree_text
from simulator.inputs.workload import Workload


@pytest.mark.parametrize(
    ("text", "levels"),
    [
        ("2K", [("level1", 2048, 1, True)]),
        ("system=2k", [("system", 2000, 1, True)]),
        ("a=1,b=2x3", [("a", 1, 1, True), ("b", 2, 3, True)]),
        ("a=1+b=2*3", [("a", 1, 1, False), ("b", 2, 3, True)]),
        ("a=1,b=2x3+", [("a", 1, 1, True), ("b", 2, 3, False)]),
        ("a=1,b=2x3,", [("a", 1, 1, True), ("b", 2, 3, True)]),
        (" a = 1.5K , few-shot_2.b = 2 x 3 ", [("a", 1536, 1, True), ("few-shot_2.b", 2, 3, True)]),
        ("1,2,3x2", [("level1", 1, 1, True), ("level2", 2, 1, True), ("level3", 3, 2, True)]),
    ],
)
def test_a_text_is_its_levels(text: str, levels: list[tuple[str, int, int, bool]]) -> None:
    """Names and branches may be left out; a comma or the end splits, a plus joins."""
    read = read_tree(text)
    assert [(each.name, each.tokens, each.branches, each.split) for each in read] == levels
    assert read_tree(tree_text(read)) == read


def test_levels_may_be_tables() -> None:
    """A list of tables or of levels says the same as a text."""
    tables: list[dict[str, Any]] = [
        {"name": "system", "tokens": "2K", "split": False},
        {"name": "problem", "tokens": 512, "branches": 8},
    ]
    read = read_tree(tables)
    assert read == read_tree("system=2K+problem=512x8")
    assert read_tree(list(read)) == read


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ("a", "'a': tokens = 'a' is not a count"),
        (",a=1", "'' is not a level of a tree; write NAME=TOKENSxBRANCHES"),
        ("a=1;b=2", "is not a level of a tree; write NAME=TOKENSxBRANCHES"),
        ("a=1x0", "branches = '0' should be greater than or equal to 1"),
        ("a=1.5", "'1.5' is not a whole number"),
        ("Café=1", "name = 'Café' should be of a-z, 0-9, '-' and '.', no sign first"),
        ("a=99999999999", "should be less than or equal to 1000000000"),
        ([{"name": "a", "tokes": 3}], "level 1: unknown key 'tokes'; did you mean 'tokens'?"),
        ([{"name": "a", "tokens": 3}, 4], "level 2: "),
        (7, "a tree is text such as system=2K,problem=512x8, not 7"),
    ],
)
def test_what_is_no_tree_is_refused(data: Any, words: str) -> None:
    """One line names the level and what is wrong with it."""
    with pytest.raises(WorkloadError) as caught:
        ask(load_model("gpt2"), tree=data)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_workload_takes_its_sizes_from_the_tree() -> None:
    """The context is a path from root to sample, prompts are the nodes of the last level."""
    work = Workload(tree="system=2K,shots=1Kx3,problem=512x8")
    assert (work.context_tokens, work.prompts) == (2048 + 1024 + 512, 24)
    # As long as they agree, sizes may be given too: what a workload says of itself is read again.
    assert Workload(**work.as_dict()) == work
    assert work.as_dict()["tree"] == "system=2048,shots=1024x3,problem=512x8"
    assert Workload(samples=4).as_dict(changed=True) == {"samples": 4}
    assert Workload(tree="").tree == ()
    assert Workload(tree="").context_tokens == Workload().context_tokens


def test_splitting_names_levels() -> None:
    """Only the levels named are split, and a level that is not there is an error."""
    work = Workload(tree="system=2K,problem=512x8")
    assert tree_text(work.splitting(["problem"]).tree) == "system=2048+problem=512x8"
    assert tree_text(work.splitting([]).tree) == "system=2048+problem=512x8+"
    with pytest.raises(WorkloadError, match="unknown level 'sytem'; did you mean 'system'"):
        work.splitting(["sytem"])


def test_levels_never_change() -> None:
    """A level is a value: equal where its fields are, usable as a key."""
    assert len({Level(name="a", tokens=1), Level(name="a", tokens="1")}) == 1  # type: ignore[arg-type]


@pytest.mark.parametrize("accepted", [1, 2.5, 4])
def test_accepted_tokens_move_a_step_forward(accepted: float) -> None:
    """Samples of all prompts times what each keeps; no more than it processed."""
    work = Workload(samples=5, prompts=3, query_tokens=4, accepted_tokens=accepted)
    assert work.forward_tokens == 15 * accepted
    assert work.but(query_tokens=1).forward_tokens == 15


def scenario(**workload: Any) -> Scenario:
    """Build a scenario around a workload."""
    shipped = without(load_scenario("apps-tree"), "workload")
    return Scenario(**shipped, workload=workload)


def test_a_tree_is_an_axis_of_a_scenario() -> None:
    """One tree or a list of them, kept as text."""
    trees = ["a=1K,b=2x3", "2K+512x8"]
    assert scenario(tree=trees).axes["tree"] == ("a=1024,b=2x3", "level1=2048+level2=512x8")
    assert scenario(tree=trees[0]).workload["tree"] == "a=1024,b=2x3"
    assert [cell["tree"] for cell in scenario(tree=trees, samples=[1, 2]).cells()][::2] == [
        "a=1024,b=2x3",
        "level1=2048+level2=512x8",
    ]


@pytest.mark.parametrize(
    ("workload", "words"),
    [
        ({"tree": "1K", "context_tokens": 5}, "context_tokens: the tree says so; leave it out"),
        ({"tree": "1K", "prompts": [1, 2], "context_tokens": 5}, "context_tokens and prompts: "),
        ({"tree": ["1K", "a=b"]}, "tokens = 'b' is not a count"),
        ({"tree": ["1K", "1024"]}, "'level1=1024' is listed twice"),
        ({"accepted_tokens": 0.5}, "greater than or equal to 1"),
    ],
)
def test_a_scenario_s_tree_is_checked(workload: dict[str, Any], words: str) -> None:
    """Sizes beside a tree, a tree twice, and what is no tree are refused."""
    with pytest.raises(ValueError, match="workload") as caught:
        scenario(**workload)
    assert words in str(caught.value)


def test_shipped_trees_load(tmp_path: Any) -> None:
    """Some shipped scenarios are trees, and a broken one is an error in one line."""
    assert any("tree" in load_scenario(name).workload for name in scenario_files())
    path = tmp_path / "apps-tree.toml"
    text = scenario_files()["apps-tree"].read_text(encoding="utf-8")
    path.write_text(text.replace("problem=512x2", "problem=512y2"), encoding="utf-8")
    with pytest.raises(ScenarioError, match="'512y2' is not a count") as caught:
        load_scenario(path)
    assert "\n" not in str(caught.value)
