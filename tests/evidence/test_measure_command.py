"""``bifurcate measure`` as a user runs it, killed in the middle too."""

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from simulator.cli import main

CODE = "import sys; from simulator.cli import main; main(sys.argv[1:])"
# As if torch were not installed.
WITHOUT_TORCH = """\
import sys
from importlib.machinery import PathFinder
find = PathFinder.find_spec
PathFinder.find_spec = lambda name, *rest: None if name.startswith("torch") else find(name, *rest)
"""


def bifurcate(*arguments: str, code: str = CODE) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    command = [sys.executable, "-c", code, "measure", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


class Here:
    """The command run in this process: as fast as the command itself."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the command to its end."""
        with pytest.raises(SystemExit) as stop:
            main(["measure", *arguments])
        out, err = self._capsys.readouterr()
        return subprocess.CompletedProcess(arguments, int(str(stop.value.code)), out, err)


@pytest.fixture
def here(capsys: pytest.CaptureFixture[str]) -> Here:
    """Run the command in this process."""
    return Here(capsys)


def keys_in(folder: Path) -> list[str]:
    """The cells that have a row."""
    keys = []
    for path in folder.glob("*.csv"):
        with path.open(newline="") as stream:
            keys += [row["cell"] for row in csv.DictReader(stream)]
    return keys


def the_line(done: subprocess.CompletedProcess[str]) -> str:
    """The line of an error with its hint, and nothing on stdout."""
    assert done.stdout == ""
    starts = [line.startswith("error: ") for line in done.stderr.splitlines()]
    assert sum(starts) == 1
    assert "Traceback" not in done.stderr
    return "; ".join(
        line.removeprefix("hint: ") for line in done.stderr.splitlines()[starts.index(True) :]
    )


def test_a_killed_run_goes_on_where_it_was(tmp_path: Path) -> None:
    """kill -9 in the middle: every whole row stays, none is measured twice, none is lost."""
    pytest.importorskip("torch")
    folder = tmp_path / "rows"
    options = ["--device", "cpu", "-o", str(folder), "--only", "attention", "--repeats", "3"]
    for kernel in ("standard_einsum", "standard_flash", "bifurcated_einsum", "bifurcated_flash"):
        options += ["--kernel", kernel]
    command = [sys.executable, "-c", CODE, "measure", *options]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as running:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and running.poll() is None:
            if folder.exists() and len(keys_in(folder)) >= 5:
                break
            time.sleep(0.005)
        os.kill(running.pid, signal.SIGKILL)
    before = {path.name: path.read_bytes() for path in folder.glob("*.csv")}
    kept = keys_in(folder)
    assert 5 <= len(kept) < 32
    # What a kill in the middle of a line would have left.
    with (folder / "shared_prefix_attention.csv").open("ab") as stream:
        stream.write(b"bifurcate measure 0.1.0,CPU,tor")
    done = bifurcate(*options, "--json")
    assert done.returncode == 0, done.stderr
    assert "torn last line" in done.stderr
    result = json.loads(done.stdout)
    assert (result["cells"], result["done"], result["stopped"]) == (32, 32, None)
    keys = keys_in(folder)
    assert (len(keys), len(set(keys))) == (32, 32)
    for name, content in before.items():
        assert (folder / name).read_bytes().startswith(content[: content.rfind(b"\n") + 1])


def test_a_missing_gpu_is_one_line(here: Here, tmp_path: Path) -> None:
    """On a machine without CUDA the command says so and what to try, and makes no folder."""
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("there is one")
    done = here("-o", str(tmp_path / "rows"))
    assert done.returncode == 1
    assert "--device cpu" in the_line(done)
    assert not (tmp_path / "rows").exists()


def test_without_torch_one_line_says_how_to_get_it(tmp_path: Path) -> None:
    """torch is an extra: the error names it, and a dry run works all the same."""
    code = WITHOUT_TORCH + CODE
    done = bifurcate("-o", str(tmp_path / "rows"), code=code)
    assert done.returncode == 1
    assert "bifurcated-attention-simulator[torch]" in the_line(done)
    dry = bifurcate("--dry-run", "--only", "memory", "--json", code=code)
    assert dry.returncode == 0, dry.stderr
    assert len(json.loads(dry.stdout)["cells"]) == 35


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["--device", "tpu"], 2, "'tpu' is not one of cuda, cpu"),
        (["--device", "cpu", "--mode", "graph"], 1, "needs CUDA"),
        (["--kernel", "bifurcated_flsh", "--dry-run"], 1, "did you mean 'bifurcated_flash'"),
        (["--kernel", "vllm_cascade", "--device", "cpu"], 1, "vllm_cascade runs on CUDA only"),
        (["--kernel", "vllm_cascade", "--dtype", "fp32", "--dry-run"], 1, "bf16 or fp16, not fp32"),
        (["code-samplin-8k", "--dry-run"], 1, "did you mean 'code-sampling-8k'"),
        (["mla-deepseek-v3", "--dry-run"], 1, "nothing to measure"),
        (["--dry-run", "--gpu", "h100sxm"], 1, "did you mean"),
        (["--only", "atention"], 2, "did you mean 'attention'"),
        (["--repeats", "0"], 2, "repeats"),
    ],
)
def test_mistakes_are_one_line(
    here: Here, arguments: list[str], code: int, text: str, tmp_path: Path
) -> None:
    """A wrong word is answered with the right one and the usual exit code."""
    done = here("-o", str(tmp_path / "rows"), *arguments)
    assert done.returncode == code
    assert text in the_line(done)


def test_another_library_that_is_not_installed_is_named(
    here: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line with how to get it, before a GPU is looked for; a dry run works without it."""
    monkeypatch.setitem(sys.modules, "flashinfer", None)
    arguments = ["-o", str(tmp_path / "rows"), "--kernel", "flashinfer_cascade"]
    done = here(*arguments)
    assert done.returncode == 1
    assert the_line(done).endswith("not installed; pip install flashinfer-python")
    dry = here(*arguments, "--only", "attention", "--dry-run", "--json")
    assert dry.returncode == 0, dry.stderr
    cells = json.loads(dry.stdout)["cells"]
    assert len(cells) == 3 * 6 * 9 * 2
    assert all("flashinfer_cascade" in cell["cell"] for cell in cells)
    assert not (tmp_path / "rows").exists()


def test_a_dry_run_shows_predictions_and_makes_nothing(here: Here, tmp_path: Path) -> None:
    """Cells with predicted times and memory as CSV; no folder appears."""
    folder = tmp_path / "rows"
    done = here(
        "--dry-run", "-o", str(folder), "--gpu", "a100-sxm-80gb", "--kernel", "bifurcated_flash",
        "--only", "attention", "--format", "csv",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader(done.stdout.splitlines()))
    assert len(rows) == 3 * 6 * 9 * 2
    assert all(float(row["predicted_us"]) > 0 for row in rows)
    assert all(float(row["predicted_memory_bytes"]) > 0 for row in rows)
    assert not folder.exists()


def test_a_dry_run_for_people_names_groups(here: Here, tmp_path: Path) -> None:
    """The table has one line per group, and its title says how long it will take."""
    done = here("--dry-run", "-o", str(tmp_path), "--only", "step", "--gpu", "h100-sxm")
    assert done.returncode == 0, done.stderr
    assert "minutes" in done.stdout.splitlines()[0]
    assert "step llama-2-7b" in done.stdout


def test_counters_say_when_they_cannot_be_had(here: Here, tmp_path: Path) -> None:
    """Without CUDA or ncu, rows are measured and one line says that there are no counters."""
    pytest.importorskip("torch")
    folder = tmp_path / "rows"
    done = here("--device", "cpu", "-o", str(folder), "--only", "gemm", "--hardware-counters")
    assert done.returncode == 0, done.stderr
    assert "no hardware counters" in done.stderr
    assert len(keys_in(folder)) == 10


def test_what_failed_is_measured_again_when_asked(
    here: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``--retry error`` replaces the error rows of what is asked for, and no others."""
    pytest.importorskip("torch")
    from simulator.evidence.kernels import KERNELS

    folder = str(tmp_path)
    options = ["--device", "cpu", "-o", folder, "--repeats", "3", "--only", "attention"]
    options += ["--kernel", "bifurcated_flash", "--kernel", "standard_flash"]

    def broken(*_: object) -> object:
        raise ValueError("a bug")

    with monkeypatch.context() as patched:
        for name in ("bifurcated_flash", "standard_flash"):
            code = f"simulator.evidence.kernels.{KERNELS[name].attention}"
            patched.setattr(f"{code}.{name}", broken)
        assert here(*options).returncode == 0
    assert statuses_in(tmp_path) == {"error": 16}
    assert here(*options).returncode == 0
    assert statuses_in(tmp_path) == {"error": 16}
    done = here(*options[:-2], "--retry", "error", "--retry", "wrong")
    assert "8 rows are measured again" in done.stderr
    assert statuses_in(tmp_path) == {"error": 8, "ok": 8}
    keys = keys_in(tmp_path)
    assert len(keys) == len(set(keys)) == 16


def test_after_a_broken_device_retry_is_left_out(
    here: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same command with ``--retry`` would forget the row of what breaks it, and never go on."""
    pytest.importorskip("torch")
    from simulator.evidence.measure.device import CpuDevice

    def broken(*_: object) -> None:
        raise RuntimeError("an illegal memory access")

    for name in ("normal", "check_usable"):
        monkeypatch.setattr(CpuDevice, name, broken)
    options = ["--device", "cpu", "-o", str(tmp_path), "--only", "gemm"]
    first, again = here(*options), here(*options, "--retry", "error")
    assert (first.returncode, again.returncode) == (1, 1)
    assert "run the same command again" in the_line(first)
    assert ("without --retry" in first.stderr, "without --retry" in again.stderr) == (False, True)


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_says_how_much_is_done_and_left(
    monkeypatch: pytest.MonkeyPatch, *, terminal: bool
) -> None:
    """A bar on a terminal, a line elsewhere: cells, time left, and what has just been measured."""
    pytest.importorskip("torch")
    from simulator.cli.measure import _progress
    from simulator.evidence.measure.runner import Progress

    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: terminal, raising=False)
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("TERM", "xterm")
    with _progress(10) as show:
        show(Progress(done=4, total=10, seconds_left=75.0, group="gemm m16"))
    shown = stream.getvalue()
    assert ("4/10" in shown, "4 of 10 cells" in shown) == (terminal, not terminal)
    assert "1:15 min left" in shown
    assert "gemm m16" in shown


def test_a_folder_of_another_card_keeps_its_failed_rows(here: Here, tmp_path: Path) -> None:
    """``--retry`` takes no row out of a folder that the run is then refused."""
    pytest.importorskip("torch")
    options = ["--device", "cpu", "-o", str(tmp_path), "--only", "attention"]
    options += ["--kernel", "standard_flash", "--memory-limit", "1K"]
    assert here(*options).returncode == 0
    assert statuses_in(tmp_path) == {"oom": 8}
    path = tmp_path / "environment.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"name": "NVIDIA Other"}))
    done = here(*options, "--retry", "oom")
    assert (done.returncode, "has rows of NVIDIA Other" in the_line(done)) == (1, True)
    assert statuses_in(tmp_path) == {"oom": 8}


def statuses_in(folder: Path) -> Counter[str]:
    """How many rows of attention kernels have each status."""
    with (folder / "shared_prefix_attention.csv").open(newline="") as stream:
        return Counter(row["status"] for row in csv.DictReader(stream))


def test_counters_alone_time_nothing(here: Here, tmp_path: Path) -> None:
    """``--only counters`` leaves timing out; a dry run of it lists the kernels it would count."""
    pytest.importorskip("torch")
    folder = tmp_path / "rows"
    done = here("--device", "cpu", "-o", str(folder), "--only", "counters")
    assert done.returncode == 0, done.stderr
    assert "no hardware counters: they need CUDA" in done.stderr
    assert keys_in(folder) == []
    dry = here("--only", "counters", "--dry-run", "--kernel", "bifurcated_flash", "--json")
    cells = json.loads(dry.stdout)["cells"]
    assert {cell["kind"] for cell in cells} == {"attention"}
    assert len(cells) == 3 * 6  # KV heads x samples of the first stage, each once


def test_an_interrupt_keeps_the_rows_and_says_how_to_go_on(
    here: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C ends with code 130; the environment record is closed with the rows so far."""
    pytest.importorskip("torch")
    from simulator.evidence.measure import runner

    measured = runner.run

    def interrupted(*arguments: Any, **options: Any) -> Iterator[runner.Progress]:
        for number, progress in enumerate(measured(*arguments, **options)):
            if number == 3:
                raise KeyboardInterrupt
            yield progress

    monkeypatch.setattr(runner, "run", interrupted)
    folder = tmp_path / "rows"
    done = here("--device", "cpu", "-o", str(folder), "--only", "gemm")
    assert done.returncode == 130
    assert "the same command goes on" in done.stderr
    assert done.stdout == ""
    (entry,) = json.loads((folder / "environment.json").read_text())["runs"]
    assert entry["rows"] == len(keys_in(folder)) == 3
    assert entry["ended_at"]
