"""sweep: grids to CSV and parquet, equal to single answers, and never half-written."""

import io
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from command_line import bifurcate

import simulator
from simulator.answers.sweep import SEEN
from simulator.inputs.presets import load_model
from simulator.inputs.scenario import load_scenario, scenario_files
from simulator.views.estimate import MEMORY, STEP

HEAD = """\
schema_version = 1
title = "t"
description = "d"
question = "q"
sources = ["s"]
verdict = "mixed"
verdict_reason = "r"
"""
# CSV rounds figures to so many significant digits.
NINE_DIGITS = 5.1e-9


def scenario(folder: Path, text: str, name: str = "grid") -> Path:
    """Write a scenario file."""
    path = folder / f"{name}.toml"
    path.write_text(f'{HEAD}id = "{name}"\n{text}', encoding="utf-8")
    return path


def frame(text: str) -> pd.DataFrame:
    """Read a sweep's CSV."""
    return pd.read_csv(io.StringIO(text))


@pytest.mark.parametrize("name", sorted(scenario_files()))
def test_every_shipped_scenario_runs(name: str) -> None:
    """Every scenario sweeps to as many rows as it has points, speed-up and ratio all positive."""
    points = bifurcate("scenarios", "show", name, "--json").json["points"]
    done = bifurcate("sweep", name)
    table = frame(done.text)
    assert len(table) == points
    models = [load_model(model) for model in load_scenario(name).models]
    said = [f"{model.name}: {note}." for model in models for note in model.notes]
    assert done.err.splitlines() == said
    assert (table["speedup"] > 0).all()
    assert (table["kv_io_ratio"] >= 1).all()
    assert set(table["winner"]) <= {"standard", "bifurcated", "tie"}
    assert not table.duplicated().any()


def test_every_row_is_the_single_answer() -> None:
    """Each row of a sweep has the numbers that compare gives for its settings, as CSV has them."""
    for row in frame(bifurcate("sweep", "kv-heads-what-if").text).to_dict("records"):
        names = ("samples", "prompts", "context_tokens", "decoded_tokens", "query_tokens")
        settings = {name: int(row[name]) for name in (*names, "tensor_parallel")}
        settings |= {name: row[name] for name in ("kernel", "kv_layout", "execution")}
        settings |= {name: row[name] for name in ("weight_dtype", "kv_dtype")}
        result = simulator.compare(
            row["model"].split(" with ")[0], row["gpu"], kv_heads=int(row["kv_heads"]), **settings
        )
        assert row["speedup"] == pytest.approx(result.speedup, rel=NINE_DIGITS)
        assert row["winner"] == result.winner
        assert row["verdict"] == result.verdict
        for end in ("speedup_low", "speedup_high"):
            assert row[end] == pytest.approx(getattr(result, end), rel=NINE_DIGITS)
        for kind in ("standard", "bifurcated"):
            item = getattr(result, kind)
            assert row[f"{kind}_step_ms"] == pytest.approx(item.step_s * 1e3, rel=NINE_DIGITS)
            assert row[f"{kind}_step_ms_low"] == pytest.approx(
                item.step_low_s * 1e3, rel=NINE_DIGITS
            )
            assert row[f"{kind}_step_ms_high"] == pytest.approx(
                item.step_high_s * 1e3, rel=NINE_DIGITS
            )
            assert row[f"{kind}_kv_bytes_read"] == item.totals.kv_bytes_read
            assert row[f"{kind}_memory_bytes"] == pytest.approx(item.memory.total_bytes, rel=1e-12)
            assert row[f"{kind}_fits"] == item.memory.fits
            assert row[f"{kind}_bound"] == item.bound


def test_columns_are_named_as_in_other_answers() -> None:
    """A figure of a sweep has the name that it has in estimate and compare, behind its kind."""
    header = bifurcate("sweep", "one-sample").text.splitlines()[0].split(",")
    known = {column.key for column in (*STEP, *MEMORY)}
    for kind in ("standard_", "bifurcated_"):
        names = [name.removeprefix(kind) for name in header if name.startswith(kind)]
        assert {"step_ms", "memory_bytes", "fits", "bound"} < set(names) < known
    assert set(header) > {"speedup", "speedup_low", "speedup_high", "kv_io_ratio", "verdict"}


def test_csv_and_parquet_hold_the_same(tmp_path: Path) -> None:
    """A sweep to stdout and to CSV is the same text, and to parquet the same table.

    CSV has whole numbers to the last digit, others to nine digits.
    """
    pytest.importorskip("pyarrow")
    csv_file, parquet_file = tmp_path / "grid.csv", tmp_path / "grid.PARQUET"
    done = bifurcate("sweep", "code-sampling-8k", "-o", str(csv_file))
    assert (done.code, done.out, done.err) == (0, "", f"wrote 22 points to {csv_file}\n")
    assert bifurcate("sweep", "code-sampling-8k", "-o", str(parquet_file)).code == 0
    assert csv_file.read_text(encoding="utf-8") == bifurcate("sweep", "code-sampling-8k").text
    table = pd.read_csv(csv_file)
    whole = pd.read_parquet(parquet_file)
    pd.testing.assert_frame_equal(table, whole, check_dtype=False, rtol=NINE_DIGITS, atol=0)
    for name in table.select_dtypes("int"):
        assert (table[name] == whole[name]).all()
    figures = csv_file.read_text(encoding="utf-8").replace("\n", ",").split(",")
    digits = [text.replace(".", "").lstrip("0") for text in figures if re.match(r"\d+\.\d+$", text)]
    assert max(map(len, digits)) == 9
    assert {"true", "false"} & set(figures)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["grid.PARQUET", "grid.csv"]


@pytest.mark.parametrize("command", ["sweep one-sample", "validate rows.csv"])
def test_parquet_without_pyarrow_names_the_way_out(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without pyarrow one line says what to install, before any work, and no file is left."""
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    done = bifurcate(*command.split(), "-o", str(tmp_path / "out.parquet"))
    assert done.code == 1
    assert "pip install 'bifurcated-attention-simulator[parquet]'" in done.told
    assert list(tmp_path.iterdir()) == []


def test_dry_run_counts_and_writes_nothing(tmp_path: Path) -> None:
    """--dry-run says how many points there are."""
    target = tmp_path / "grid.csv"
    done = bifurcate("sweep", "code-sampling-8k", "--dry-run", "-o", str(target))
    assert (done.code, done.out) == (0, "")
    assert done.err == "22 points in 2 combinations of settings\n"
    assert not target.exists()


def test_what_cannot_run_is_named_and_left_out(tmp_path: Path) -> None:
    """Combinations that cannot be run are named on stderr; the others are computed."""
    path = scenario(
        tmp_path,
        'models = ["deepseek-v3", "gpt2"]\ngpus = ["h200-sxm"]\n'
        '[workload]\nkernel = ["flash", "sdpa_math"]\nsamples = [1, 2]\n',
    )
    done = bifurcate("sweep", str(path))
    table = frame(done.text)
    assert len(table) == 6
    assert done.err.startswith("skipped: deepseek-v3")
    assert "sdpa_math" in done.err


def test_nothing_to_run_is_an_error(tmp_path: Path) -> None:
    """A grid of which nothing can be run is refused."""
    path = scenario(
        tmp_path,
        'models = ["deepseek-v3"]\ngpus = ["h200-sxm"]\n[workload]\nkernel = "sdpa_math"\n',
    )
    done = bifurcate("sweep", str(path))
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith("error: deepseek-v3 caches a latent vector")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('models = ["gpt2"]\ngpus = ["l4"]\n[workload]\nsample = 3\n', "did you mean 'samples'?"),
        ('models = ["gpt2"]\ngpus = ["l4"]\nsamples = 3\n[workload]\n', "under [workload]"),
        ('models = ["gpt2"]\ngpus = ["l4"]\n[workload]\nsamples = [1, 1]\n', "listed twice"),
        ('models = ["gpt2"]\ngpus = ["l4"]\n[workload]\nsamples = []\n', "empty"),
        ('models = ["gpt-2x"]\ngpus = ["l4"]\n[workload]\n', "did you mean 'gpt2'?"),
        ('models = ["gpt2"]\n[workload]\n', "gpus is missing"),
    ],
)
def test_a_wrong_scenario_is_refused(text: str, words: str, tmp_path: Path) -> None:
    """A scenario with a wrong key, value or name is refused in one line, and nothing is written."""
    target = tmp_path / "out.csv"
    done = bifurcate("sweep", str(scenario(tmp_path, text)), "-o", str(target))
    assert (done.code, done.out) == (1, "")
    assert words in done.told
    assert not target.exists()


@pytest.fixture
def _heeds_interrupts() -> Iterator[None]:
    """Where a shell runs the tests in the background it has them ignore SIGINT, children too."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_heeds_interrupts")
@pytest.mark.parametrize(
    ("how", "code", "line"),
    [
        (signal.SIGINT, 130, "error: interrupted\n"),
        (signal.SIGTERM, 128 + 15, ""),
        (signal.SIGKILL, -9, ""),
    ],
)
def test_an_interrupted_sweep_leaves_the_earlier_file(
    how: signal.Signals, code: int, line: str, tmp_path: Path
) -> None:
    """Stopped half-way, a sweep leaves no file under the final name, or the earlier one whole."""
    samples = ", ".join(map(str, range(1, 1200)))
    contexts = ", ".join(map(str, range(1, 12000, 3)))
    path = scenario(
        tmp_path,
        'models = ["llama-2-7b"]\ngpus = ["h100-sxm"]\n'
        f"[workload]\nsamples = [{samples}]\ncontext_tokens = [{contexts}]\n",
    )
    target = tmp_path / "out.csv"
    target.write_text("earlier", encoding="utf-8")
    command = [sys.executable, "-m", "simulator", "sweep", str(path), "-o", str(target)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            deadline = time.monotonic() + 60
            while not any(part.stat().st_size for part in tmp_path.glob(".out.csv.*")):
                assert process.poll() is None, process.communicate()
                assert time.monotonic() < deadline
                time.sleep(0.02)
            process.send_signal(how)
            _, errors = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == code
    assert errors == line
    assert target.read_text(encoding="utf-8") == "earlier"
    if how != signal.SIGKILL:
        assert list(tmp_path.glob(".out.csv.*")) == []


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_an_end_that_is_not_known_is_missing(tmp_path: Path, suffix: str) -> None:
    """Files say nothing where JSON says null, and keep the ends that are known."""
    text = """
models = ["mixtral-8x7b"]
gpus = ["mi300x", "h100-sxm"]
[workload]
samples = [4, 8]
context_tokens = "8K"
"""
    path = tmp_path / f"points.{suffix}"
    assert bifurcate("sweep", str(scenario(tmp_path, text)), "-o", str(path)).code == 0
    table = pd.read_csv(path) if suffix == "csv" else pd.read_parquet(path)
    known = table["gpu"] == "h100-sxm"
    for name in ("standard", "bifurcated"):
        assert list(table[f"{name}_step_ms_high"].isna()) == list(~known)
        assert not table[f"{name}_step_ms_low"].isna().any()
    for end in ("speedup_low", "speedup_high"):
        assert list(table[end].isna()) == list(~known)
    assert set(table["verdict"][~known]) == {"not known"}
    assert "inf" not in table.to_csv()


LOADS = ("--users", "1,16", "--requests-per-s", "0.5,4,1000")


@pytest.mark.parametrize(
    "asked",
    [
        ("-n", "1,8", "--input-len", "2K,8K", "--output-len", "128", "--cached-tokens", "1K"),
        ("--tree", "system=4K,own=512", "-n", "2", "--max-num-seqs", "64", "--tp", "2"),
    ],
)
def test_every_row_under_load_is_a_point_of_serve(asked: tuple[str, ...]) -> None:
    """Each load of each point has what serve tells of it, and no column where serve is silent."""
    question = ("llama-3.1-8b", "-g", "l40s", *asked, *LOADS)
    table = frame(bifurcate("sweep", *question).text)
    points = frame(bifurcate("serve", *question, "--format", "csv").text)
    named = ["samples", "context_tokens", "output_tokens", "cached_tokens"]
    named += ["concurrency", "arrivals_per_s"]
    assert len(table) == 5 * len(table[["samples", "context_tokens"]].drop_duplicates())
    seen = list(SEEN)
    for kind in ("standard", "bifurcated"):
        told = points[points["attention"] == kind][[*named, *seen]]
        found = table[[*named, *(f"{kind}_{name}" for name in seen)]].set_axis(told.columns, axis=1)
        silent = found["saturates"].isna()
        assert list(silent) == list((table["samples"] == 1) & (kind == "bifurcated"))
        found, nothing = found[~silent], found[silent]
        found, told = (one.sort_values(named, ignore_index=True) for one in (found, told))
        pd.testing.assert_frame_equal(found, told, check_dtype=False, rtol=NINE_DIGITS)
        assert nothing[seen].isna().all(axis=None)


def test_a_sweep_under_load_is_the_same_from_python() -> None:
    """The arguments of simulator.serve; beside the steps of the same points, once for each load."""
    options = ("--users", "2,4", "--cached-tokens", "1K", "--max-num-seqs", "64")
    table = frame(bifurcate("sweep", "code-sampling-8k", "-n", "4,8", *options).text)
    scenario = load_scenario("code-sampling-8k")
    asked = scenario.but(workload=scenario.workload | {"samples": (4, 8)})
    load = {"users": [2, 4], "cached_tokens": "1K", "most_sequences": 64}
    grid = simulator.prepare_sweep(asked, **load)
    assert len(table) == grid.points == 8
    whole = grid.to_frame().replace("", None)
    pd.testing.assert_frame_equal(table, whole, check_dtype=False, rtol=NINE_DIGITS, atol=0)
    steps = frame(bifurcate("sweep", "code-sampling-8k", "-n", "4,8").text)
    pd.testing.assert_frame_equal(table[::2][[*steps]].reset_index(drop=True), steps)


def test_steps_of_a_scenario_are_one_request_under_load() -> None:
    """Of 16 or 32 tokens decoded, a request of 32 has all."""
    table = frame(bifurcate("sweep", "long-document-qa", "--users", "4").text)
    steps = frame(bifurcate("sweep", "long-document-qa").text)
    assert set(steps["decoded_tokens"]) == {16, 32}
    assert set(table["decoded_tokens"]) == set(table["output_tokens"]) == {32}
    assert 2 * len(table) == len(steps)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ("--cached-tokens 1K", "--cached-tokens belongs to a load; give users or --requests-per-s"),
        ("--users 4 --decoded-tokens 8", "--decoded-tokens is for one step"),
        ("--users 4 --prompts 2", "error: --prompts = 2: a request has one prompt"),
        ("--tp 5,7", "error: nothing can run, for 2 reasons, first: --tensor-parallel-size = 5"),
        ("--users 4 --input-len 1K --cached-tokens 2K", "--cached-tokens = 2,048 is not"),
        ("--users 0", "--users = 0 is not positive"),
        (f"--users {','.join(map(str, range(1, 20_002)))}", "20,001 points under load are more"),
    ],
)
def test_what_is_no_load_is_refused_in_one_line(asked: str, words: str) -> None:
    """Before anything is written."""
    done = bifurcate("sweep", "gpt2", *asked.split())
    assert (done.code, done.out) == (1, "")
    assert words in done.told
