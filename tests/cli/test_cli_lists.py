"""Questions with lists of sizes, without a scenario, and with the model as the first word."""

from pathlib import Path

import pandas as pd
import pytest
from command_line import bifurcate

import simulator
from simulator.views.plan import plan_object

LISTS = ("-n", "2,8", "--context", "1K,4K")
# The single questions of these lists, the last one fastest.
SINGLE = [
    (("--context", context, "-n", samples), (samples, context))
    for context in ("1K", "4K")
    for samples in ("2", "8")
]


@pytest.mark.parametrize("command", ["estimate", "compare", "generate", "plan"])
def test_a_list_is_answered_as_its_questions_are(command: str) -> None:
    """The JSON of lists is the list of the answers to each question alone."""
    cards = ("-g", "l4") if command == "plan" else ()
    listed = bifurcate(command, "mistral-7b", *LISTS, *cards, "--json").json
    alone = [bifurcate(command, "mistral-7b", *one, *cards, "--json").json for one, _ in SINGLE]
    assert listed == alone


@pytest.mark.parametrize("command", ["estimate", "compare", "generate", "plan"])
def test_a_table_of_a_list_has_a_row_for_each_question(command: str) -> None:
    """Each row names its sizes; generate has one for each kind of attention."""
    cards = ("-g", "l4") if command == "plan" else ()
    text = bifurcate(command, "mistral-7b", *LISTS, *cards).text
    assert "4 questions, 64 own" in text or "4 questions, 256 output tokens each" in text
    rows = [line.split()[:2] for line in text.splitlines() if line.lstrip()[:2] in ("1K", "4K")]
    times = 2 if command == "generate" else 1
    assert rows == [[context, samples] for _, (samples, context) in SINGLE for _ in range(times)]


def test_csv_of_a_list_has_the_rows_of_all_answers() -> None:
    """compare writes those of each question; estimate one for each, the whole step."""
    listed = bifurcate("compare", "mistral-7b", *LISTS, "--format", "csv").text.splitlines()
    alone = [
        bifurcate("compare", "mistral-7b", *one, "--format", "csv").text.splitlines()
        for one, _ in SINGLE
    ]
    assert listed == [alone[0][0], *(row for rows in alone for row in rows[1:])]
    steps = bifurcate("estimate", "mistral-7b", *LISTS, "--format", "csv").text.splitlines()
    assert len(steps) == 1 + len(SINGLE)


def test_check_needs_all_answers_of_a_list() -> None:
    """One question of a list that does not fit is enough for the exit code."""
    asked = ("estimate", "llama-2-7b", "-g", "l4", "--context", "4K", "--check")
    assert bifurcate(*asked, "-n", "1").code == 0
    assert bifurcate(*asked, "-n", "1,64", "--kv-layout", "copies").code == 3


def test_a_swept_question_is_the_grid_of_its_answers(tmp_path: Path) -> None:
    """Without a scenario, sweep computes each combination as compare does, on every GPU."""
    path = tmp_path / "grid.csv"
    assert bifurcate("sweep", "mistral-7b", *LISTS, "-g", "l4,h100", "-o", str(path)).code == 0
    grid = pd.read_csv(path)
    assert len(grid) == 2 * len(SINGLE)
    for one, (samples, context) in SINGLE:
        answer = bifurcate("compare", "mistral-7b", *one, "-g", "l4", "--json").json
        tokens = 1024 * int(context.removesuffix("K"))
        row = grid[
            (grid.gpu == "l4") & (grid.samples == int(samples)) & (grid.context_tokens == tokens)
        ]
        assert float(row.speedup.iloc[0]) == pytest.approx(answer["speedup"], rel=1e-6)


def test_a_batch_size_alone_is_single_sequences_in_a_sweep_too() -> None:
    """The number of samples of a grid follows the rule of questions."""
    text = bifurcate("sweep", "gpt2", "--context", "256", "--batch-size", "2,4").text
    header, *rows = [line.split(",") for line in text.splitlines()]
    assert [row[header.index("samples")] for row in rows] == ["1", "1"]
    assert [row[header.index("prompts")] for row in rows] == ["2", "4"]


def test_options_replace_those_of_a_scenario() -> None:
    """A sweep of a scenario with one sample is the part of its grid with one sample."""
    text = bifurcate("sweep", "code-sampling-8k", "-n", "4").text
    rows = bifurcate("sweep", "code-sampling-8k").text.splitlines()
    column = rows[0].split(",").index("samples")
    assert text.splitlines() == [
        rows[0],
        *(row for row in rows[1:] if row.split(",")[column] == "4"),
    ]


@pytest.mark.parametrize("command", ["explore", "report"])
def test_pages_answer_a_question(command: str, tmp_path: Path) -> None:
    """They start from the question; the model may be the first word."""
    path = tmp_path / "page.html"
    asked = (command, "gpt2", "-n", "2,4", "--context", "256", "-g", "l4", "-o", str(path))
    done = bifurcate(*asked)
    assert done.code == 0, done.err
    page = path.read_text(encoding="utf-8")
    assert "gpt2" in page
    assert "l4" in page


def test_a_figure_of_lists_spans_them(tmp_path: Path) -> None:
    """plot draws a question with lists as it draws a scenario."""
    path = tmp_path / "figure.json"
    asked = ("latency-samples", "gpt2", "-n", "2,64", "--context", "256", "-o", str(path))
    assert bifurcate("plot", *asked).code == 0
    assert path.stat().st_size > 0


def test_a_grid_is_about_one_step_of_a_request() -> None:
    """A list of output lengths says no single step, so a grid refuses it."""
    done = bifurcate("sweep", "gpt2", "--output-len", "64,1K")
    assert done.code == 2
    assert "--output-tokens says which step" in done.told


def test_a_plan_for_each_group_is_of_that_group() -> None:
    """Each value of --tp is planned for, not the first one again."""
    asked = ("llama-3.1-8b", "--tp", "1,2", "-g", "l4", "-n", "4", "--attention", "standard")
    plans = bifurcate("plan", *asked, "--json").json
    assert [{row["tensor_parallel"] for row in each["options"]} for each in plans] == [{1}, {2}]


def test_lists_under_load_are_one_table() -> None:
    """A row for each combination: of a plan its best option, of a curve each of its points."""
    options = ("-m", "gpt2", "-n", "2,4", "--input-len", "512", "--output-len", "64", "-g", "l4")
    text = bifurcate("plan", *options, "--requests-per-s", "1", "--gpus", "1").text
    rows = [line.split() for line in text.splitlines() if " l4 " in line]
    assert [row[0] for row in rows] == ["2", "4"]
    rates = ("--requests-per-s", "1,40", "--gpus", "1")
    text = bifurcate("plan", *options, *rates).text
    rows = [line.split() for line in text.splitlines() if " l4 " in line]
    assert [row[:2] for row in rows] == [["2", "1"], ["2", "40"], ["4", "1"], ["4", "40"]]
    listed = bifurcate("plan", *options[:2], *options[4:], *rates, "--json").json
    single = {"context_tokens": 512, "output_tokens": 64, "tensor_parallel_sizes": 1}
    assert listed == [
        plan_object(simulator.plan("gpt2", "l4", requests_per_s=rate, **single)) for rate in (1, 40)
    ]
    for load, values in {"--users": ("4", "8"), "--requests-per-s": ("0.5", "2")}.items():
        text = bifurcate("serve", *options, load, ",".join(values), "--attention", "standard").text
        cells = [line.split() for line in text.splitlines() if "standard" in line]
        found = [(row[0], row[row.index("standard") + 1]) for row in cells]
        assert found == [(samples, value) for samples in ("2", "4") for value in values]


def test_percentiles_that_are_not_known_say_so() -> None:
    """In the table of a curve: known at a low rate, not near the capacity, endless beyond."""
    options = ("-m", "llama-3.1-8b", "--input-len", "2K", "--attention", "standard", "--json")
    points = bifurcate("serve", *options, "--requests-per-s", "1,1000").json["points"]
    assert points[0]["ttft_ms_p50"] < points[0]["ttft_ms_p90"] < points[0]["ttft_ms_p99"]
    assert points[1]["ttft_ms_p50"] is points[1]["ttft_ms"] is None
    near = str(0.9 / points[1]["utilisation"] * 1000)
    asked = ("--requests-per-s", f"1,{near},1000", "--percentile", "90")
    text = bifurcate("serve", *options[:-1], *asked).text
    rows = [line for line in text.splitlines() if line.startswith("standard ")]
    assert f"{points[0]['ttft_ms_p90']:.3g}"[:3] in rows[0]
    assert ("not known" in rows[1], "grows" in rows[2]) == (True, True)
    mean = bifurcate("serve", *options[:-1], "--requests-per-s", "1000").text
    assert mean.count("grows") == 3, "TTFT, TPOT, and its interval"
    assert "inf" not in mean


def test_a_card_with_rows_of_products_alone_says_so_under_load() -> None:
    """As in one step: the H200's attention is that of other cards."""
    told = bifurcate("serve", "-m", "llama-3.1-8b", "-g", "h200", "--users", "1").text
    assert "Constants fitted to rows measured on H200 SXM 141GB (its products alone)." in told


def test_a_note_that_is_not_of_all_rows_says_of_which() -> None:
    """On one H100 no row settles the stored context; half of the heads' caches fit in L2."""
    lines = bifurcate("estimate", "-m", "llama-3.1-8b", "--tp", "1,2").text.splitlines()
    notes = [line.removeprefix("- ") for line in lines if line.startswith("- ")]
    assert "Constants fitted to rows measured on H100 SXM5 80GB." in notes
    assert (
        "With tensor parallel 2: FLOPs, bytes and memory are those of one GPU of the group."
        in notes
    )
    assert any(note.startswith("With tensor parallel 1: No public row settles") for note in notes)


def test_a_plan_says_where_only_some_constants_are_fitted() -> None:
    """The column of the table has what the note says; JSON keeps its word."""
    asked = ("plan", "-m", "llama-3.1-8b", "-g", "h200", "--gpus", "1")
    assert " fitted in part " in bifurcate(*asked).text
    assert {row["constants"] for row in bifurcate(*asked, "--json").json["options"]} == {"fitted"}


def test_a_plan_without_prices_starts_the_option_that_it_names() -> None:
    """An L4 has no comparable price: the fastest option is named, and vLLM's line is of it."""
    asked = ("--input-len", "256", "--requests-per-s", "2", "--tpot-ms", "60")
    text = bifurcate("plan", "-m", "llama-3.2-3b", "-g", "l4", *asked).text
    assert "16 x l4 (2 replicas of TP8)" in text
    assert "To start each of 2 servers" in text
    assert "--tensor-parallel-size 8 " in text
