"""One stay on a lent GPU, tried on the CPU: it ends in time, goes on, and says what went wrong."""

import importlib.util
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

import pytest

pytest.importorskip("torch")

from simulator.evidence.measure.store import locked

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "measure_session.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("measure_session", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def stay(out: Path, *options: str, given: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
    """A stay without tests, as a user starts it."""
    command = [sys.executable, str(SCRIPT), str(out), "--test-minutes", "0", *options]
    command += ["--", "--device", "cpu", "--only", "gemm", "--repeats", "3", *given]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def test_a_later_stay_goes_on_from_a_copy_of_the_rows(tmp_path: Path) -> None:
    """Nothing is measured twice, and the log has both stays."""
    first = stay(tmp_path / "out")
    assert first.returncode == 0, first.stdout
    rows = (tmp_path / "out" / "cpu" / "gemm.csv").read_bytes()
    assert len(rows.splitlines()) == 11
    second = stay(tmp_path / "new", "--rows", str(tmp_path / "out"))
    assert second.returncode == 0, second.stdout
    assert (tmp_path / "new" / "cpu" / "gemm.csv").read_bytes() == rows
    assert "10 of 10 cells" in second.stdout
    log = (tmp_path / "new" / "session.log").read_text()
    assert log.count("session: nothing failed") == 2
    # Few files, for a small way home: rows by kind, the environment, the log.
    assert sorted(path.name for path in (tmp_path / "new").rglob("*") if path.is_file()) == [
        "environment.json",
        "gemm.csv",
        "session.log",
    ]


def test_what_cannot_start_is_said_and_no_success(tmp_path: Path) -> None:
    """A wrong option of measure: its line is in the output, and the code is not 0."""
    done = stay(tmp_path, given=["--kernel", "bifurcated_flsh"])
    assert done.returncode == 1
    assert "did you mean 'bifurcated_flash'" in done.stdout
    assert "measuring gave up" in done.stdout


# Only the packages named, and what PyTorch brings with it.
ALONE = """
import importlib.metadata, runpy, sys

class Gone:
    def __init__(self, kept):
        self.found = {
            module
            for module, names in importlib.metadata.packages_distributions().items()
            if not kept & {name.lower().replace("_", "-") for name in names}
        }

    def find_spec(self, name, *_):
        if name.partition(".")[0] in self.found:
            raise ModuleNotFoundError(f"No module named {name!r}")

_, kept, *sys.argv = sys.argv
sys.meta_path.insert(0, Gone(set(kept.split(","))))
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_the_guides_wheels_are_all_that_measuring_needs(tmp_path: Path) -> None:
    """With the packages of the guide's ``pip download`` and PyTorch, rows are measured."""
    guide = (SCRIPT.parents[1] / "docs" / "measuring.md").read_text()
    _, _, after = guide.partition("-d wheels \\\n")
    listed, _, _ = after.partition("python -m pip install")
    wheels = {word.partition("==")[0] for word in listed.replace("\\", " ").split()}
    assert "pydantic" in wheels
    with_torch = {"torch", "numpy", "sympy", "mpmath", "networkx", "jinja2", "markupsafe"}
    with_torch |= {"filelock", "fsspec", "setuptools"}
    options = ["measure", "--device", "cpu", "--only", "gemm", "-o", str(tmp_path / "rows")]
    command = [sys.executable, "-c", ALONE, ",".join(sorted(wheels | with_torch))]
    command += [str(SCRIPT.parents[1] / "cli.py"), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "10 of 10 cells" in done.stdout


def a_session(script: ModuleType, folder: Path, *, seconds: float) -> object:
    """A stay of so many seconds."""
    return script.Session(out=folder, deadline=time.monotonic() + seconds)


@pytest.mark.parametrize(
    ("codes", "rows", "expected", "runs"),
    [
        ([0], [0, 5], True, 1),
        # Two kernels break the device, each in a process of its own.
        ([1, 1, 0], [0, 3, 3, 7, 7, 9], True, 3),
        # One kills the process, at first in a batch, then alone, and has its row before the third.
        ([-11, -11, 0], [0, 0, 0, 0, 0, 9], True, 3),
        # A process that ends without a row three times would do so for ever.
        ([1, 1, 1, 1], [0, 3, 3, 3, 3, 3, 3, 3], False, 4),
    ],
)
def test_a_broken_device_is_gone_on_from_while_rows_come(
    script: ModuleType,
    tmp_path: Path,
    codes: list[int],
    rows: list[int],
    runs: int,
    *,
    expected: bool,
) -> None:
    """Run again after each process that left a row, and no more after one that did not."""
    session = a_session(script, tmp_path, seconds=600)
    ended, seen = iter(codes), iter(rows)
    commands = []

    def run(command: Sequence[str], *, limit_s: float) -> tuple[int, str]:
        assert 0 < limit_s < 600
        commands.append(command)
        return next(ended), ""

    session.run = run
    cells: Callable[[Path], int] = lambda _: next(seen)  # noqa: E731
    given = ["--retry", "error", "--skip-oom"]
    found = script.measure(session, tmp_path, given, reserve_s=60.0, cells=cells)
    assert (found, len(commands)) == (expected, runs)
    # What has failed in this stay is not tried again by the next process of it.
    assert ["--retry" in command for command in commands] == [True] + [False] * (runs - 1)
    assert all("--skip-oom" in command for command in commands)
    limit_min = float(commands[0][commands[0].index("--time-limit") + 1])
    assert 7 < limit_min < 8.2  # of 10: a minute for counters, and what a group may take longer


def test_what_hangs_is_ended_in_time(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command that does not even heed an interrupt is killed, and its output so far is kept."""
    monkeypatch.setattr(script, "END_S", 1.0)
    session = a_session(script, tmp_path, seconds=3.0)
    code = "import signal, time\nsignal.signal(2, signal.SIG_IGN)\n"
    code += "print('here', flush=True)\ntime.sleep(60)"
    start = time.monotonic()
    ended, text = session.run([sys.executable, "-c", code], limit_s=60.0)
    assert time.monotonic() - start < 3
    assert ended != 0
    assert text == "here\n"
    assert "here" in (tmp_path / "session.log").read_text()


def test_what_a_command_leaves_behind_is_ended_with_it(script: ModuleType, tmp_path: Path) -> None:
    """A process that outlives its parent holds neither the output nor the card."""
    session = a_session(script, tmp_path, seconds=60)
    left = "import time; time.sleep(50)"
    code = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {left!r}]); print('x')"
    start = time.monotonic()
    assert session.run([sys.executable, "-c", code], limit_s=40.0) == (0, "x\n")
    assert time.monotonic() - start < 20


def test_counters_that_are_refused_twice_are_not_asked_for_again(
    script: ModuleType, tmp_path: Path
) -> None:
    """Once may be chance; and what stopped at the time limit goes on the next time."""
    said = "no more hardware counters: ncu failed"
    for text, done in ((said, 0), ("time limit reached", 0), (said, 1)):
        session = a_session(script, tmp_path, seconds=600)
        session.run = lambda *_, text=text, **__: (0, text)
        script.count(session, tmp_path, [], "card")
        assert session.said("session: counters done on card") == done


def test_counting_that_is_cut_short_is_not_refused(script: ModuleType, tmp_path: Path) -> None:
    """What was interrupted at the end of a stay goes on in the next, however often that happens."""
    for _ in range(3):
        session = a_session(script, tmp_path, seconds=100)

        def run(command: Sequence[str], *, limit_s: float, session: object = session) -> object:
            assert limit_s > 0
            assert command.count("--only") == 1  # whatever was to be timed
            session.deadline -= 90
            return 130, "interrupted: the rows are safe"

        session.run = run
        assert script.count(session, tmp_path, ["--only", "gemm"], "card")
    assert session.said("session: counters done on card") == 0
    assert session.said("session: counters refused on card") == 0


def test_a_stay_that_is_ended_ends_what_it_runs(tmp_path: Path) -> None:
    """As ``timeout`` ends it, or Ctrl-C: nothing keeps the GPU or the folder of rows."""
    command = [sys.executable, str(SCRIPT), str(tmp_path), "--test-minutes", "0"]
    command += ["--", "--device", "cpu", "--repeats", "300"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as stay:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not any(tmp_path.rglob("*.csv")):
            time.sleep(0.02)
        stay.send_signal(signal.SIGTERM)
        assert stay.wait(30) != 0
    with locked(tmp_path / "cpu"):
        (run,) = json.loads((tmp_path / "cpu" / "environment.json").read_text())["runs"]
    assert run["ended_at"]  # interrupted, not killed: no cell is blamed
    assert run["at"] is None


def test_what_a_killed_stay_has_left_behind_is_waited_for(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It holds the folder until it notices that nobody listens."""
    waited: list[float] = []
    monkeypatch.setattr(script.time, "sleep", waited.append)
    session = a_session(script, tmp_path, seconds=600)
    ends = iter([(1, "error: another run is writing to rows; choose"), (0, "")])
    session.run = lambda *_, **__: next(ends)
    assert script.measure(session, tmp_path, [], reserve_s=60.0, cells=lambda _: 0)
    assert waited == [10.0]
