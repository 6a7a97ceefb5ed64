"""Small CSV files are read with care: bad rows by line number, bad files in one line."""

from pathlib import Path

import pytest

from simulator.errors import MeasurementError
from simulator.inputs.csv_files import (
    Family,
    are_one_law,
    families_of,
    read_problem_counts,
    read_training_runs,
)


def write(folder: Path, text: str) -> Path:
    """Write a file."""
    path = folder / "rows.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_bad_rows_are_named_and_good_ones_kept(tmp_path: Path) -> None:
    """Each refusal has the line an editor shows; blank lines and comments are no rows."""
    path = write(
        tmp_path,
        "\ufeffrun,parameters,heads,kv_heads,loss\n"
        "a,1.3e9,16,16,2.5\n"
        "# a comment\n"
        "\n"
        "b,1.3e9,16,3,2.5\n"
        "c,-1,16,16,2.5\n"
        "d,1e9,16,16,nan\n"
        "e,1e9,16.5,16,2.5\n"
        "f,1e9,16,,2.5\n"
        "g,one,16,1,2.5\n"
        "h,1e9,16\n"
        "i, 1e9 ,16.0,1,2.6\n",
    )
    table = read_training_runs(path)
    assert [run.line for run in table.rows] == [2, 12]
    assert [(row.line, row.reason) for row in table.refused] == [
        (5, "heads = 16 is not a multiple of kv_heads = 3"),
        (6, "parameters = -1 is not a number from 1e-18 to 1e+18"),
        (7, "loss = nan is not a number from 1e-18 to 1e+18"),
        (8, "heads = 16.5 is not a whole number from 1 to 1e+09"),
        (9, "none of family, kv_heads and group_size is given"),
        (10, "parameters = 'one' is not a number"),
        (11, "3 cells for 5 columns"),
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "empty"),
        ("parameters,kv_heads\n1,1\n", "no column 'loss'"),
        ("params,kv_heads,loss\n1,1,1\n", "is 'params' a misspelling of it"),
        ("loss,parameters,loss\n1,1,1\n", "'loss' appears twice"),
        ("parameters,kv_heads,loss\n1,1,0\n", "no row that can be used; line 2: loss = 0"),
        ("parameters,kv_heads,loss\n", "no row that can be used"),
        ('parameters,kv_heads,loss\n1,1,"2\n', "cannot read"),
    ],
)
def test_bad_files_are_refused(tmp_path: Path, text: str, words: str) -> None:
    """One line says what is wrong with a file."""
    with pytest.raises(MeasurementError, match=words) as problem:
        read_training_runs(write(tmp_path, text))
    assert "\n" not in str(problem.value)


def test_a_missing_file_or_no_text(tmp_path: Path) -> None:
    """A file that is not there, a folder, and bytes that are no text."""
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\x00parameters")
    for path in (tmp_path / "nowhere.csv", tmp_path, tmp_path / "bytes"):
        with pytest.raises(MeasurementError, match="cannot read"):
            read_training_runs(path)


def test_families_by_heads(tmp_path: Path) -> None:
    """Multi-head and multi-query by the heads; between them by heads per KV head."""
    text = "parameters,heads,kv_heads,loss\n1,12,12,3\n1,12,3,3\n1,12,1,3\n2,40,40,2\n2,40,10,2\n"
    families = families_of(read_training_runs(write(tmp_path, text)).rows)
    assert [family.name for family in families] == [
        "multi-head",
        "4 heads per KV head",
        "multi-query",
        "multi-head",
        "4 heads per KV head",
    ]


def test_families_by_kv_heads_where_that_joins_more(tmp_path: Path) -> None:
    """Eight KV heads at every size are one family, whatever the heads."""
    text = "parameters,heads,kv_heads,loss\n1,16,8,3\n2,32,8,2\n3,64,8,1\n3,64,64,1\n"
    families = families_of(read_training_runs(write(tmp_path, text)).rows)
    assert [family.name for family in families] == ["8 KV heads"] * 3 + ["multi-head"]


def test_families_without_heads(tmp_path: Path) -> None:
    """Group sizes, or KV heads, alone."""
    text = "parameters,group_size,loss\n1,1,3\n1,8,3\n"
    families = families_of(read_training_runs(write(tmp_path, text)).rows)
    assert families == (
        Family(name="multi-head", group_size=1),
        Family(name="8 heads per KV head", group_size=8),
    )
    text = "parameters,kv_heads,loss\n1,16,3\n1,1,3\n"
    families = families_of(read_training_runs(write(tmp_path, text)).rows)
    assert [family.position(16) for family in families] == [0, 1]


def test_contradicting_columns_are_refused(tmp_path: Path) -> None:
    """A group size that is not heads / kv_heads."""
    text = "parameters,heads,kv_heads,group_size,loss\n1,16,4,8,3\n1,16,4,4,3\n1,16,,4,3\n"
    table = read_training_runs(write(tmp_path, text))
    assert [row.reason for row in table.refused] == ["group_size = 8 is not heads / kv_heads = 4"]
    assert table.rows[1].kv_heads == 4


def test_problem_counts(tmp_path: Path) -> None:
    """More right than tried, a problem twice, no name: refused with the line."""
    text = "problem,samples,correct\na,10,3\nb,10,11\na,5,5\n,5,5\nc,0,0\nd,10.0,0\n"
    table = read_problem_counts(write(tmp_path, text))
    assert [(row.problem, row.samples, row.correct) for row in table.rows] == [
        ("a", 10, 3),
        ("d", 10, 0),
    ]
    assert [row.reason for row in table.refused] == [
        "correct = 11 is more than samples = 10",
        "problem 'a' is in line 2 already",
        "problem is missing",
        "samples = 0 is not a whole number from 1 to 1e+09",
    ]


def test_families_by_name(tmp_path: Path) -> None:
    """Any name; heads beside it tell groups apart; MHA and MQA are what they are elsewhere."""
    text = (
        "family,parameters,heads,kv_heads,loss,tokens,matched_by\n"
        "MHA,1,16,,3,0,FFN width\nMQA,1,,,3,5e9,query heads\nMLA,1,,,3,,nothing\n"
        "GQA-4,1,16,4,3,,how: not said\nGQA-2,1,16,2,3,,\nGQA,1,,,3,,\n"
    )
    runs = read_training_runs(write(tmp_path, text)).rows
    families = families_of(runs)
    assert families[0] == Family(name="multi-head", group_size=1)
    assert families[1] == Family(name="multi-query", kv_heads=1)
    assert families[2] == Family(name="MLA")
    assert [family.name for family in families[3:]] == [
        "4 heads per KV head",
        "8 heads per KV head",
        "multi-group",
    ]
    assert [run.tokens for run in runs[:3]] == [None, 5e9, None]
    assert [run.matched_by for run in runs[:4]] == ["mlp", "heads", "nothing", "unknown"]
    assert not are_one_law(runs)
    assert are_one_law(runs[2:])
