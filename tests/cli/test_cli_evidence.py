"""calibrate and validate as a user meets them."""

import json
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from simulator.cli.main import build, main
from simulator.evidence.fit.profile import profile_path
from simulator.inputs.hardware import load_hardware, read_profile
from simulator.resources import data_dir

HEAD = "gpu,m,n,k,latency_us"


def rows_file(folder: Path, *, bad: bool = False) -> Path:
    """Write products of one GPU, made up: 4 us and what 0.7 of the bandwidth takes."""
    lines = [HEAD]
    for n in (512, 2048, 8192):
        for k in (1024, 4096, 8192):
            for m in (1, 32, 512, 4096):
                moved = 2 * (n * k + m * k + m * n)
                flops = 2 * m * n * k
                time = 4 + max(moved / (0.7 * 300e9), flops / (0.6 * 121e12)) * 1e6
                lines.append(f"L4,{m},{n},{k},{time:.2f}")
    if bad:
        lines += ["L4,1,4096,4096,-1", "L4,1,8192,8192,2"]
    path = folder / "rows.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def run(*arguments: str) -> tuple[int, str, str]:
    """Run the command line and return its code, stdout and stderr."""
    result = CliRunner().invoke(build(), list(arguments))
    return result.exit_code, result.stdout, result.stderr


def test_calibrate_writes_a_profile_that_validate_uses(tmp_path: Path) -> None:
    """The way a user goes: fit, write, check, and the errors shrink."""
    rows, profile = str(rows_file(tmp_path)), str(tmp_path / "l4-mine.toml")
    code, _, said = run("calibrate", rows, "--gpu", "l4", "-o", profile)
    assert code == 0
    assert " constants of l4 to " in said
    errors = []
    for more in ([], ["--calibration", profile]):
        code, out, _ = run("validate", rows, "--gpu", "l4", "--json", *more)
        assert code == 0
        errors.append(json.loads(out)["median_ape"])
    assert errors[1] < min(0.12, errors[0])


def test_residuals_are_told_shape_by_shape(tmp_path: Path) -> None:
    """A shape whose rows take five times as long leads the table, a fifth of them when held out."""
    rows = rows_file(tmp_path)
    head, *lines = rows.read_text(encoding="utf-8").split()
    odd = ",2048,4096,"
    slow = [
        f"{line.rpartition(',')[0]},{5 * float(line.rpartition(',')[2]):.2f}"
        if odd in line
        else line
        for line in lines
    ]
    rows.write_text("\n".join([head, *slow]) + "\n", encoding="utf-8")
    _, out, _ = run("calibrate", str(rows), "--gpu", "l4", "--json")
    residuals = json.loads(out)["fits"][0]["residuals"]
    assert len(residuals) == 9
    assert sum(item["rows"] for item in residuals) == 36
    assert residuals[0]["shape"] == {"n": 2048, "k": 4096}
    assert residuals[0]["held_out_bias"] == pytest.approx(-0.8, abs=0.1)
    assert "n 2048, k 4096" in run("calibrate", str(rows), "--gpu", "l4")[1]


def test_refused_rows_are_listed_with_their_lines(tmp_path: Path) -> None:
    """On stderr, so that stdout stays data."""
    rows = str(rows_file(tmp_path, bad=True))
    code, out, said = run("validate", rows, "--json")
    assert code == 0
    assert json.loads(out)["refused"] == 2
    assert "line 38: latency_us is not a positive number" in said
    assert "line 39: implies" in said
    kept = json.loads(run("validate", rows, "--json", "--keep-suspect")[1])
    assert (kept["refused"], kept["predicted"]) == (1, 37)


@pytest.mark.parametrize("command", ["validate", "calibrate"])
def test_rows_of_another_gpu_say_whose_they_are(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is predicted or fitted: an error, after a line with the GPU of the rows."""
    with pytest.raises(SystemExit) as stop:
        main([command, "sample", "--gpu", "h100-sxm"])
    captured = capsys.readouterr()
    assert stop.value.code == 1
    assert captured.out == ""
    told, error, *_ = captured.err.splitlines()
    assert told == "left out: 48 rows of other GPUs: l4 (48)"
    assert error.startswith("error: no row")
    assert "h100-sxm" in error


def test_rows_of_no_known_gpu_are_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The reason, then the error."""
    path = tmp_path / "rows.csv"
    path.write_text(f"{HEAD}\ntpu-v5,1,4096,4096,20\n", encoding="utf-8")
    with pytest.raises(SystemExit) as stop:
        main(["validate", str(path)])
    assert stop.value.code == 1
    assert capsys.readouterr().err.splitlines()[:2] == [
        "skipped 1 row: no profile of GPU tpu-v5",
        "error: no row could be predicted",
    ]


def test_a_profile_of_ones_own_is_of_the_card_that_it_names(tmp_path: Path) -> None:
    """Rows of an L4 are its rows, whatever the file's name is; a second fit is the first again."""
    first, second = (str(tmp_path / name) for name in ("mine.toml", "again.toml"))
    assert run("calibrate", "sample", "-g", "l4", "-o", first)[0] == 0
    code, _, said = run("calibrate", "sample", "-g", first, "-o", second)
    assert (code, "other GPUs" in said) == (0, False)
    assert read_profile(first).id == "mine"
    assert read_profile(second).fitted == read_profile(first).fitted
    ways = (["-g", first], ["--calibration", first], ["-g", "l4", "--calibration", first])
    errors = {json.loads(run("validate", "sample", "--json", *way)[1])["p90_ape"] for way in ways}
    assert len(errors) == 1
    assert errors.pop() < 0.05


def test_a_card_of_one_s_own_is_calibrated_as_the_pages_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its file lies in a folder, rows have its name; so does the fit, which lies beside it."""
    cards, rows = tmp_path / "cards", tmp_path / "rows.csv"
    cards.mkdir()
    card = profile_path("l4").read_text(encoding="utf-8").replace('"L4"', '"Z9"')
    (cards / "mine.toml").write_text(card.replace('"l4"', '"mine"'), encoding="utf-8")
    sample = Path(__file__).parents[2] / "sample_rows" / "synthetic_l4_gemm.csv"
    text = sample.read_text(encoding="utf-8").replace("synthetic,l4,", "synthetic,Z9,")
    rows.write_text(text, encoding="utf-8")
    monkeypatch.setenv("BIFURCATE_HARDWARE_PATH", str(cards))
    fitted = str(cards / "mine-fitted.toml")
    for name in ("mine", str(cards / "mine.toml")):
        assert run("calibrate", str(rows), "-g", name, "-o", fitted)[0] == 0
    first = read_profile(fitted).fitted
    assert first
    for name in ("mine-fitted", fitted):
        code, _, said = run("calibrate", str(rows), "-g", name, "-o", str(tmp_path / "again.toml"))
        assert (code, "other GPUs" in said) == (0, False)
        assert read_profile(tmp_path / "again.toml").fitted == first


def test_a_calibration_that_no_row_would_use_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A profile of another card, or of one that nobody knows, is not ignored without a word."""
    unknown = tmp_path / "mine.toml"
    text = profile_path("l4").read_text(encoding="utf-8")
    unknown.write_text(text.replace('"l4"', '"mine"').replace('"L4"', '"Z9"'), encoding="utf-8")
    for profile, told in (
        (profile_path("h100-sxm"), "no row is of h100-sxm"),
        (unknown, "'Z9' is none that is known\nhint: use BIFURCATE_HARDWARE_PATH=FOLDER with the"),
    ):
        with pytest.raises(SystemExit) as stop:
            main(["validate", "sample", "--calibration", str(profile)])
        assert stop.value.code == 1
        assert told in capsys.readouterr().err


def runs(folder: Path, times_ms: dict[int, float], **more: object) -> list[str]:
    """Write results of `vllm bench serve`, one file for each number of users."""
    paths = []
    for users, time_ms in times_ms.items():
        result = {
            "backend": "openai",
            "model_id": "llama-3.1-8b",
            "max_concurrency": users,
            "completed": 100,
            "total_input_tokens": 100 * 1024,
            "total_output_tokens": 100 * 256,
            "mean_tpot_ms": time_ms,
            "mean_ttft_ms": 50.0,
            **more,
        }
        path = folder / f"run{users}.json"
        path.write_text(json.dumps(result), encoding="utf-8")
        paths.append(str(path))
    return paths


# Some 1.5 ms more than an H100 takes for these steps, in each of them.
SLOW_MS = {1: 8.0, 8: 9.1, 32: 12.6, 64: 17.0}


def test_a_users_runs_tell_the_time_of_their_engine(tmp_path: Path) -> None:
    """Fit, write, check: errors shrink, and what was fitted to kernels stays."""
    paths, profile = runs(tmp_path, SLOW_MS), str(tmp_path / "mine.toml")
    asked = ["--gpu", "h100-sxm", "--engine", "vllm"]
    code, out, said = run("calibrate", *paths, *asked, "-o", profile)
    assert code == 0, said
    assert "vllm_served_step_us" in out
    assert "% without" in out
    shipped, own = (load_hardware(name).fitted for name in ("h100-sxm", profile))
    assert own.keys() - shipped.keys() == {"vllm_served_step_us"}
    assert all(own[name] == figure for name, figure in shipped.items())
    errors = []
    for more in ([], ["--calibration", profile]):
        check = ["validate", *paths, "--gpu", "h100-sxm", "--engine", "vllm", "--json", *more]
        errors.append(json.loads(run(*check)[1])["median_ape"])
    assert errors[1] < errors[0] / 4
    # Another engine, and none, have nothing of it.
    shown = [
        json.loads(
            run(*f"serve -m llama-3.1-8b -g {profile} --users 8 --json --engine".split(), each)[1]
        )
        for each in ("vllm", "sglang", "none")
    ]
    times = [answer["points"][0]["tpot_ms"] for answer in shown]
    assert times[0] > times[1] + 1
    assert times[2] == pytest.approx(times[1], rel=0.05)
    assert [any("vLLM adds" in note for note in answer["notes"]) for answer in shown] == [1, 0, 0]
    # Tables of several loads say it too, once.
    for lists in (
        "serve --context 1K,2K --users 8",
        "generate -n 1,2 --users 8",
        "plan --requests-per-s 1,2",
    ):
        command, *asked = lists.split()
        table = run(command, "-m", "llama-3.1-8b", "-g", profile, *asked)[1]
        assert table.count("- On H100 SXM5 80GB, vLLM adds") == 1


@pytest.mark.parametrize(
    ("more", "engine", "words"),
    [
        ({}, (), "4 rows do not name their engine"),
        ({"backend": "lmdeploy"}, ("--engine", "vllm"), "4 rows are of lmdeploy"),
        ({"engine": "vllm", "accept_length": 2.5}, (), "speculative decoding is not predicted"),
        ({"gpu": "l4"}, ("--engine", "vllm"), "-g can be l4"),
        ({"max_concurrency": None}, (), "max_concurrency is not given"),
    ],
)
def test_runs_that_tell_nothing_of_an_engine_are_refused_in_a_line(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    more: dict[str, object],
    engine: tuple[str, ...],
    words: str,
) -> None:
    """The reason is in the error."""
    with pytest.raises(SystemExit) as stop:
        main(["calibrate", *runs(tmp_path, SLOW_MS, **more), "-g", "h100-sxm", *engine])
    assert stop.value.code == 1
    said = capsys.readouterr().err
    assert said.count("error:") == 1
    assert words in said


def test_runs_faster_than_predicted_have_no_engine_s_time(tmp_path: Path) -> None:
    """No engine saves time: it is said, and nothing is written but the profile as it was."""
    profile = tmp_path / "mine.toml"
    fast = {users: 0.75 * time_ms for users, time_ms in SLOW_MS.items()}
    asked = ["--gpu", "h100-sxm", "--engine", "vllm", "-o", str(profile)]
    code, out, said = run("calibrate", *runs(tmp_path, fast), *asked)
    assert code == 0
    assert "wrote 0 constants" in said
    assert "less than predicted" in " ".join(out.split())
    assert load_hardware(str(profile)).fitted == load_hardware("h100-sxm").fitted


def test_sample_rows_say_that_they_are_synthetic() -> None:
    """In the name of each file, and in each of its rows."""
    files = sorted(data_dir("sample_rows").iterdir())
    assert len(files) == 3
    for path in files:
        assert path.name.startswith("synthetic_")
        lines = path.suffix == ".jsonl"
        rows = pd.read_json(path, lines=True) if lines else pd.read_csv(path)
        assert set(rows["source"]) == {"synthetic"}
        assert set(rows["gpu"]) == {"l4"}


def test_sample_rows_are_found_again() -> None:
    """Calibrating them gives the constants they were made with, within three errors or 5 %.

    Without the rows of kernels, all that is missing counts as the engine's.
    """
    truth = {
        "gemm_launch_us": 5.0,
        "gemm_bandwidth_fraction": 0.70,
        "attention_bandwidth_fraction": 0.72,
        "vllm_served_step_us": 4000.0,
        "vllm_served_sequence_us": 150.0,
    }
    files = ("sample", "sample-runs")
    fits = json.loads(run("calibrate", *files, "--gpu", "l4", "--json")[1])["fits"]
    found = {name: told for fit in fits for name, told in fit["constants"].items()}
    for name, true in truth.items():
        told = found[name]
        assert abs(told["value"] - true) <= max(3 * told["stderr"], 0.05 * true), name
    assert fits[-1]["held_out"]["median_ape"] < fits[-1]["without"]["median_ape"] / 5
    alone = json.loads(run("calibrate", files[1], "--gpu", "l4", "--json")[1])["fits"][0]
    step = "vllm_served_step_us"
    assert alone["constants"][step]["value"] > 1.5 * found[step]["value"]


@pytest.mark.parametrize("suffix", [".csv", ".html", ".json", ".parquet"])
def test_validate_writes_what_the_suffix_says(tmp_path: Path, suffix: str) -> None:
    """Rows with predictions, a figure, or the report; nothing else is left behind."""
    output = tmp_path / f"out{suffix}"
    code, _, said = run("validate", str(rows_file(tmp_path)), "-o", str(output))
    assert code == 0, said
    assert output.stat().st_size > 0
    if suffix == ".csv":
        header = output.read_text(encoding="utf-8").splitlines()[0].split(",")
        ends = {"predicted_latency_us_low", "predicted_latency_us_high", "inside"}
        assert {"m", "latency_us", "predicted_latency_us", "ape"} | ends <= set(header)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["validate", "nowhere.csv"], "cannot read nowhere.csv: no such file"),
        (["calibrate", "nowhere.csv", "--gpu", "l4"], "cannot read nowhere.csv"),
        (["calibrate", "nowhere.csv", "--gpu", "a31x"], "unknown GPU 'a31x'"),
        (["validate", "rows.csv", "-o", "out.pdf"], "cannot tell a format from 'out.pdf'"),
    ],
)
def test_mistakes_are_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 1, a line and a hint on stderr, nothing on stdout."""
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    captured = capsys.readouterr()
    assert stop.value.code == 1
    assert captured.out == ""
    assert message in captured.err
    assert len(captured.err.strip().splitlines()) == 2


def test_the_figure_is_a_page_beside_the_rows(tmp_path: Path) -> None:
    """--figure goes with -o: one page that carries its library and asks for nothing."""
    rows, figure = tmp_path / "out.csv", tmp_path / "figure.html"
    code, out, said = run(
        "validate", str(rows_file(tmp_path)), "-o", str(rows), "--figure", str(figure), "--json"
    )
    assert code == 0, said
    page = figure.read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>")
    assert "src=" not in page.partition("<body")[0]
    assert len(rows.read_text(encoding="utf-8").splitlines()) == 1 + json.loads(out)["predicted"]


def test_the_figure_as_plotly_s_json(tmp_path: Path) -> None:
    """--figure x.json is the figure, not the report that -o x.json is; its footer has a hash."""
    figure = tmp_path / "figure.json"
    code, _, said = run("validate", str(rows_file(tmp_path)), "--figure", str(figure))
    assert code == 0, said
    layout = json.loads(figure.read_text(encoding="utf-8"))["layout"]
    assert "Profile l4, hash " in layout["annotations"][-1]["text"].replace("<br>", " ")


def test_what_was_written_reads_back_as_rows(tmp_path: Path) -> None:
    """The rows with their predictions are rows of measurements: sizes whole, times as numbers."""
    first, second = tmp_path / "out.csv", tmp_path / "again.csv"
    assert run("validate", str(rows_file(tmp_path, bad=True)), "-o", str(first))[0] == 0
    assert run("validate", str(first), "-o", str(second))[0] == 0
    header, line = first.read_text(encoding="utf-8").splitlines()[:2]
    assert dict(zip(header.split(","), line.split(","), strict=False))["m"] == "1"
    ours = [path.read_text(encoding="utf-8").splitlines() for path in (first, second)]
    # A header, 36 rows, and the two refused ones with their outcome.
    assert len(ours[0]) == len(ours[1]) == 39
    assert ",predicted" in ours[0][-3]
    assert all("refused: " in line for line in ours[0][-2:])


def test_groups_are_by_one_thing_and_by_several(tmp_path: Path) -> None:
    """Kind, kernel, regime and head shape each have groups, and each group's rows add up."""
    path = tmp_path / "rows.csv"
    path.write_text(
        "gpu,kernel,batch,q_heads,kv_heads,head_dim,kv_len,latency_us\n"
        "L40S,fa2,1,32,8,128,128,9\n"
        "L40S,fa2,64,32,8,128,4096,1600\n"
        "L40S,fa3,64,32,32,64,4096,3000\n"
    )
    report = json.loads(run("validate", str(path), "--json")[1])
    by: dict[str, dict[str, int]] = {}
    for group in report["groups"]:
        by.setdefault(group["by"], {})[group["value"]] = group["rows"]
    assert by["kind"] == {"decode_attention": 3}
    assert by["kernel"] == {"fa2": 2, "fa3": 1}
    assert by["head_shape"] == {"32/8 x 128": 2, "32/32 x 64": 1}
    assert by["regime"] == {"launch": 1, "memory cold": 2}
    assert "framework" not in by
    assert all(sum(values.values()) == 3 for values in by.values())


def test_the_worst_rows_say_what_the_model_makes_of_them(tmp_path: Path) -> None:
    """File and line, both times, and the parts of the prediction; no column that says nothing."""
    path = tmp_path / "rows.csv"
    path.write_text("gpu,m,n,k,latency_us,note\nL4,1,4096,4096,900,\nL4,1,4096,4096,160,\n")
    worst = json.loads(run("validate", str(path), "--json")[1])["worst"]
    assert [row["line"] for row in worst] == [2, 3]
    assert all(str(path) == row["file"] for row in worst)
    assert "note" not in worst[0]
    launch, memory = worst[0]["reason"].split(" + ")[:2]
    assert launch.startswith("launch ")
    assert memory.startswith("memory ")
