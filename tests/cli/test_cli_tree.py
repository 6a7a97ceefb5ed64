"""bifurcate tree, and trees as questions: JSON, rows, tables, and what is refused."""

import csv
import io

import pytest
from command_line import bifurcate

import simulator
from simulator.views.tree import tree_object

M = ("-m", "llama-3.1-8b")
TREE = ("--tree", "system=2K,problem=512x8")
FIGURES = [
    "step_ms",
    "tokens_per_s",
    "speedup_over_standard",
    "flops",
    "bytes_read",
    "bytes_written",
    "memory_traffic_bytes",
    "kv_bytes_read",
    "launches",
    "kv_bytes",
    "memory_bytes",
    "fits",
    "memory_verdict",
    "bound",
]
LEVEL = [
    "name",
    "tokens",
    "nodes",
    "readers",
    "split",
    "saved_bytes",
    "added_bytes",
    "added_launches",
    "gained_ms",
    "verdict",
    "fewer_bytes_from_tokens",
    "faster_from_tokens",
]


def test_the_answer_is_that_of_the_function() -> None:
    """Tree gives the numbers of simulator.tree, with the documented fields."""
    shown = bifurcate("tree", *M, *TREE, "-n", "4", "-g", "a100", "--json").json
    result = simulator.tree("llama-3.1-8b", "a100", tree="system=2K,problem=512x8", samples=4)
    assert shown == tree_object(result)
    assert list(shown) == [
        *("schema_version", "inputs", "standard", "best", "readings", "levels"),
        *("hardware", "notes"),
    ]
    assert list(shown["standard"]) == FIGURES
    for reading in (shown["best"], *shown["readings"]):
        assert list(reading) == ["split", "tree", *FIGURES]
    assert [list(level) for level in shown["levels"]] == [LEVEL] * 2


def test_a_reading_s_tree_can_be_asked_for() -> None:
    """The tree of each reading, given to estimate, is estimated as the reading says."""
    for reading in bifurcate("tree", *M, *TREE, "--json").json["readings"]:
        if reading["split"]:
            asked = ("--attention", "bifurcated", "--tree", reading["tree"], "--json")
            found = bifurcate("estimate", *M, *asked).json
            assert found["step_ms"] == reading["step_ms"]
            assert found["inputs"]["tree"] == reading["tree"]


def test_rows_are_the_readings() -> None:
    """CSV has a row for each choice, fastest first, with the workload."""
    rows = list(csv.DictReader(io.StringIO(bifurcate("tree", *M, *TREE, "--format", "csv").out)))
    assert {row["split"] for row in rows} == {"", "system", "problem", "system,problem"}
    assert {row["kv_layout"] for row in rows} == {"shared"}
    assert [row["context_tokens"] for row in rows] == ["2560"] * 4
    times = [float(row["step_ms"]) for row in rows]
    assert times == sorted(times)


def test_the_table_says_what_to_split() -> None:
    """A multi-head model splits both levels, and the table has every choice and both rules."""
    question = ("-m", "llama-2-7b", "-g", "a100", "--kv-layout", "copies", *TREE)
    text = bifurcate("tree", *question).text
    assert "128 sequences (8 x 16) below system (2K tokens) > 8 x problem (512 tokens)" in text
    assert "Split system and problem: " in text
    assert "(--attention bifurcated --tree system=2048,problem=512x8)" in " ".join(text.split())
    for name in ("none, a context copy each", "none, one stored tree", "system, problem"):
        assert f"\n{name} " in text
    assert "128 times" in text


def test_without_a_tree_the_context_is_the_level() -> None:
    """One level: split it, or read it for every sample."""
    shown = bifurcate("tree", *M, "--context", "4K", "--prompts", "2", "-n", "16", "--json").json
    assert [reading["split"] for reading in shown["readings"]] == [["context"], []]
    assert shown["best"]["tree"] == "context=4096x2"


def test_a_tree_is_a_question_like_any_other() -> None:
    """Compare and generate take a tree: fewer bytes once split, a shorter prefill once stored."""
    compared = bifurcate("compare", *M, *TREE, "--json").json
    # 128 x 2624 tokens, or 2048 + 8 x 512 + 128 x 64
    assert compared["kv_io_ratio"] == pytest.approx(128 * 2624 / (2048 + 4096 + 8192))
    request = ("generate", *M, *TREE, "--output-len", "8", "--json")
    stored, copies = bifurcate(*request).json, bifurcate(*request, "--kv-layout", "copies").json
    assert stored["standard"]["prefill_ms"] == stored["bifurcated"]["prefill_ms"]
    assert stored["standard"]["prefill_ms"] < copies["standard"]["prefill_ms"] / 2


def test_check_fails_where_nothing_fits() -> None:
    """--check exits with 3 where not even the stored tree fits."""
    big = ("tree", "-m", "llama-3-70b", "--tree", "8K,1Kx4")
    assert bifurcate(*big, "--check").code == 3
    assert bifurcate(*big, "--check", "--tp", "8").code == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--tree", "system=2Q"), "tokens = '2Q' is not a count"),
        (
            ("--tree", "a=1x2x3"),
            "'a=1x2x3' is not a level of a tree; write NAME=TOKENSxBRANCHES, such as problem=512x8",
        ),
        (("--tree", "a=1,,b=2"), "'' is not a level of a tree; write NAME=TOKENSxBRANCHES"),
        (("--tree", "a=1,a=2"), "two levels are named 'a'"),
        (("--tree", "a=0"), "tokens = '0' should be greater than or equal to 1"),
        (("--tree", "A=3"), "name = 'A' should be of a-z"),
        (("--tree", ",".join("1" * 9)), "9 levels; a tree has at most 8"),
        (("--tree", "1x1000000k,1x1000000k"), "prompts = "),
        ((*TREE, "--context", "8K"), "--context-tokens = 8192, but the tree makes it 2560"),
        ((*TREE, "--prompts", "2"), "--prompts = 2, but the tree makes it 8"),
        ((*TREE, "--kernel", "einsum"), "kernel 'einsum' has no form for a tree of 2 levels"),
        (("--context", "0"), "--context-tokens = 0: there is no shared level"),
        (("--accepted-tokens", "2"), "--accepted-tokens = 2 is more than --query-tokens = 1"),
        (("--query-tokens", "4", "--accepted-tokens", "0.5"), "greater than or equal to 1"),
        (("--accepted-tokens", "nan"), "--accepted-tokens = nan"),
    ],
)
def test_what_is_refused(options: tuple[str, ...], words: str) -> None:
    """One line says what is wrong with a tree."""
    done = bifurcate("tree", *M, *options)
    assert done.code == 1
    assert words in done.told
