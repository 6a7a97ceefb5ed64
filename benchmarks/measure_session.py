"""One short session on a borrowed GPU: python benchmarks/measure_session.py OUT.

Prints the machine's features, runs the GPU tests, measures the default grid, counts bytes with
Nsight Compute, and ends in time. Every row is in OUT at once, in a folder for each card, so that an
interrupted session loses nothing. Call it once per session: it continues where the last one
stopped, from OUT itself or, if OUT is lost, from a copy named by ``--rows``.

Everything after ``--`` goes to ``bifurcate measure``: a scenario, ``--skip-oom``, or
``--device cpu`` to test the script itself. It needs only Python to start, and says what is missing.
"""

import argparse
import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
TESTS = "tests/evidence/test_measure_gpu.py"
# Lines of the log that later sessions look for, each with the card's name.
PASSED, COUNTED = "session: GPU tests passed on", "session: counters done on"
# What `bifurcate measure` imports, and pytest for the tests. (plotly, numpy, pandas: not needed.)
NEEDED = ("pydantic", "pydantic_core", "typer", "rich", "torch")
WANTED = ("pytest", "hypothesis", "triton", "pynvml")
# Time to finish a group of cells, or a chunk of counters, that has begun. [s]
GROUP_S, CHUNK_S, END_S = 40.0, 60.0, 15.0
MOST_RESTARTS, MOST_IDLE = 30, 3
# A process left by a killed session ends when it next prints a line. [s]
LEFT_BEHIND, LEFT_BEHIND_S = "another run is writing", 10.0

PROBE = """
import importlib, importlib.metadata as m, json, platform, sys
found = {"python": platform.python_version(), "system": platform.platform()}
for name in sys.argv[1].split(","):
    try:
        module = importlib.import_module(name)
        found[name] = str(getattr(module, "__version__", "") or "there")
    except Exception as problem:
        found[name], found[f"{name} fails"] = None, f"{problem}"
try:
    import torch
    found["cuda"] = torch.version.cuda
    if torch.cuda.is_available():
        card = torch.cuda.get_device_properties(0)
        found["card"] = card.name
        found["memory_bytes"], found["l2_bytes"] = card.total_memory, card.L2_cache_size
        found["sm_count"] = card.multi_processor_count
except Exception as problem:
    found["problem"] = f"{type(problem).__name__}: {problem}"
print(json.dumps(found))
"""


@dataclass(kw_only=True)
class Session:
    """The output of a session, and its deadline.

    Attributes
    ----------
    deadline
        Time of :func:`time.monotonic` at which everything must have ended. [s]
    """

    out: Path
    deadline: float
    environment: dict[str, str] = field(
        default_factory=lambda: os.environ | {"PYTHONUNBUFFERED": "1"}
    )

    @property
    def log(self) -> Path:
        """Everything that all sessions have printed."""
        return self.out / "session.log"

    def left_s(self) -> float:
        """Return the time left. [s]."""
        return self.deadline - time.monotonic()

    def say(self, text: str) -> None:
        """Print a line, and keep it."""
        print(text, flush=True)
        with self.log.open("a", encoding="utf-8") as stream:
            stream.write(text + "\n")

    def said(self, line: str) -> int:
        """Return how often this or an earlier session has printed a line."""
        lines = self.log.read_text(encoding="utf-8").splitlines() if self.log.exists() else []
        return lines.count(line)

    def run(self, command: Sequence[str], *, limit_s: float, name: str = "") -> tuple[int, str]:
        """Run a command, print and keep its output; interrupt it at its limit, then kill it."""
        limit_s = max(1.0, min(limit_s, self.left_s() - END_S))
        self.say(f"$ {name or ' '.join(command)}   (at most {limit_s:.0f} s)")
        lines: list[str] = []
        with subprocess.Popen(
            command, cwd=REPOSITORY, env=self.environment, text=True, errors="replace",
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        ) as child:  # fmt: skip

            def read() -> None:
                for line in child.stdout or ():
                    lines.append(line)
                    self.say(line.rstrip("\n"))

            reader = threading.Thread(target=read)
            reader.start()
            stop: KeyboardInterrupt | None = None
            for patience_s, way in ((limit_s, signal.SIGINT), (END_S / 2, signal.SIGKILL)):
                try:
                    child.wait(patience_s)
                    break
                except subprocess.TimeoutExpired:
                    child.send_signal(way)
                except KeyboardInterrupt as pressed:  # the child has its own session
                    stop = pressed
                    child.send_signal(signal.SIGINT)
            # Its own children would keep the pipe and the GPU.
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            reader.join()
            if stop is not None:
                raise stop
            return child.wait(), "".join(lines)


def main() -> int:
    """Run a session; return 0 if nothing failed."""
    # Like Ctrl-C: also end the running command, which would keep the GPU.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    options, given = asked()
    options.out.mkdir(parents=True, exist_ok=True)
    if options.rows:
        bring(options.rows, options.out)
    session = Session(out=options.out, deadline=time.monotonic() + 60 * options.minutes)
    session.say(f"session: {time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())}")
    found = machine(session)
    missing = [name for name in NEEDED if not found.get(name)]
    if missing:
        reasons = (f"{name} ({found.get(f'{name} fails', 'no answer')})" for name in missing)
        session.say(f"session: cannot measure without {', '.join(reasons)}")
        return 1
    card = "cpu" if {"cpu", "--device=cpu"} & set(given) else str(found.get("card") or "cpu")
    rows = options.out / slug(card)
    troubles = []
    if options.test_minutes and not passes_tests(session, card, 60 * options.test_minutes):
        troubles.append("GPU tests failed")
    ncu = find_ncu()
    if ncu is None:
        session.say("session: no Nsight Compute, no counters")
    else:
        session.run([ncu, "--version"], limit_s=30.0)
    counting = ncu is not None and not session.said(f"{COUNTED} {card}")
    counter_s = 60 * options.counter_minutes if counting else 0.0
    if not measure(session, rows, given, reserve_s=counter_s):
        troubles.append("measuring gave up")
    if counter_s and not count(session, rows, given, card):
        troubles.append("counting bytes was refused")
    summary(session, rows)
    session.say(
        f"session: {'; '.join(troubles) or 'nothing failed'}; {session.left_s():.0f} s left"
    )
    return int(bool(troubles))


def find_ncu() -> str | None:
    """Return the path of Nsight Compute as measure finds it."""
    sys.path.insert(0, str(REPOSITORY))
    from simulator.evidence.measure.counters import find_ncu as find

    return find()


def asked() -> tuple[argparse.Namespace, list[str]]:
    """Return this script's options, and those of ``bifurcate measure``."""
    ours, given = sys.argv[1:], []
    if "--" in ours:
        place = ours.index("--")
        ours, given = ours[:place], ours[place + 1 :]
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("out", type=Path, help="folder of rows and log")
    parser.add_argument("--rows", type=Path, help="an OUT of an earlier stay, copied in first")
    parser.add_argument("--minutes", type=float, default=9.0, help="all in all (9)")
    parser.add_argument("--test-minutes", type=float, default=4.0, help="0: no tests (4)")
    parser.add_argument("--counter-minutes", type=float, default=2.0, help="kept for ncu (2)")
    return parser.parse_args(ours), given


def bring(old: Path, out: Path) -> None:
    """Copy an earlier session's files, unless they exist already."""
    for path in sorted(old.rglob("*")):
        target = out / path.relative_to(old)
        if path.is_file() and path.suffix in (".csv", ".json", ".log") and not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)  # a copy of a file that may not be written can be


def machine(session: Session) -> dict[str, object]:
    """Print and return the machine's features."""
    names = ",".join(NEEDED + WANTED)
    _, text = session.run([sys.executable, "-c", PROBE, names], limit_s=120.0, name="what is here")
    if shutil.which("nvidia-smi") is None:
        session.say("session: no nvidia-smi on the PATH")
    else:
        session.run(["nvidia-smi"], limit_s=30.0)
    found: dict[str, object] = {}
    for line in text.splitlines():
        if line.startswith("{"):
            found = json.loads(line)
    return found


def passes_tests(session: Session, card: str, limit_s: float) -> bool:
    """Run the GPU tests once: later sessions do not repeat passed tests."""
    if not (REPOSITORY / TESTS).exists():
        session.say(f"session: no tests here ({TESTS})")
        return True
    if session.said(f"{PASSED} {card}"):
        session.say("session: GPU tests have passed before")
        return True
    # Plugins of other packages on this machine, and the version of its pytest, are not at issue.
    session.environment["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    command = [
        *(sys.executable, "-m", "pytest", "-m", "gpu", TESTS, "-q", "--tb=short", "--maxfail=20"),
        *("-p", "no:cacheprovider", "-o", "minversion=8.0", "-W", "default"),
        "--durations=8",
    ]
    code, text = session.run(command, limit_s=limit_s)
    if code == 0 and " passed" in text:
        session.say(f"{PASSED} {card}")
    return code == 0


def measuring(rows: Path, given: Sequence[str], limit_s: float) -> list[str]:
    """Return the command that measures."""
    cli = str(REPOSITORY / "cli.py")
    limit = ("--time-limit", f"{limit_s / 60:.2f}")
    return [sys.executable, cli, "measure", "-o", str(rows.resolve()), *given, *limit]


def measure(
    session: Session,
    rows: Path,
    given: Sequence[str],
    *,
    reserve_s: float,
    cells: Callable[[Path], int] | None = None,
) -> bool:
    """Measure until the time is up or all is done; return whether it succeeded.

    A kernel that breaks the device gets its row and ends the process; the next process continues. A
    kernel that kills the process gets its row after the second time, so three consecutive ends
    without a new row mean failure.
    """
    cells = cells or (lambda folder: sum(statuses(folder).values()))
    idle = 0
    for _ in range(MOST_RESTARTS):
        limit_s = session.left_s() - reserve_s - GROUP_S - END_S
        if limit_s < 1:
            session.say("session: no time left to measure")
            return True
        before = cells(rows)
        code, text = session.run(
            measuring(rows, given, limit_s), limit_s=session.left_s() - reserve_s / 2
        )
        if code == 0:
            return True
        given = without("--retry", given)  # rows of this stay are not to be tried again
        idle = idle + 1 if cells(rows) == before else 0
        if idle == MOST_IDLE:
            break
        session.say(f"session: measure ended with {code}, and goes on")
        if LEFT_BEHIND in text:
            time.sleep(LEFT_BEHIND_S)
    return False


def without(option: str, given: Sequence[str]) -> list[str]:
    """Return options without all occurrences of one that takes a value.

    >>> without("--retry", ["--retry", "error", "--skip-oom", "--retry=oom"])
    ['--skip-oom']
    """
    return [
        word
        for before, word in zip(["", *given], given, strict=False)
        if option not in (word.partition("=")[0], before)
    ]


def count(session: Session, rows: Path, given: Sequence[str], card: str) -> bool:
    """Count bytes with ncu while time remains; return whether ncu worked."""
    limit_s = session.left_s() - CHUNK_S - END_S
    if limit_s < 1:
        session.say("session: no time left to count bytes")
        return True
    # Only counters from here, whatever kinds of rows were asked for.
    command = measuring(rows, [*without("--only", given), "--only", "counters"], limit_s)
    code, text = session.run(command, limit_s=session.left_s())
    if session.left_s() <= END_S:
        session.say("session: counting bytes was cut short")
        return True
    refused = code != 0 or "no more hardware counters" in text
    # Do not try again after two refusals.
    again = f"session: counters refused on {card}"
    if refused:
        session.say(again)
    if "time limit reached" not in text and (not refused or session.said(again) > 1):
        session.say(f"{COUNTED} {card}")
    return not refused


def statuses(folder: Path) -> Counter[str]:
    """Count the rows of a folder by status."""
    counts: Counter[str] = Counter()
    for path in sorted(folder.glob("*.csv")):
        with path.open(encoding="utf-8", newline="") as stream:
            counts.update(str(row.get("status")) for row in csv.DictReader(stream))
    return counts


def summary(session: Session, rows: Path) -> None:
    """Print the number of rows, and the failed rows."""
    session.say(f"session: rows in {rows}: {dict(statuses(rows)) or 'none'}")
    for path in sorted(rows.glob("*.csv")):
        with path.open(encoding="utf-8", newline="") as stream:
            bad = [row for row in csv.DictReader(stream) if row["status"] in ("wrong", "error")]
        for row in bad[:20]:
            error = row.get("relative_error") or ""
            session.say(f"  {row['status']} {error} {row['cell']}: {row['note']}")


def slug(name: str) -> str:
    """Return a name in the form of a folder's name.

    >>> slug("NVIDIA H100 80GB HBM3")
    'nvidia-h100-80gb-hbm3'
    """
    return "-".join("".join(c if c.isalnum() else " " for c in name.lower()).split())


if __name__ == "__main__":
    sys.exit(main())
