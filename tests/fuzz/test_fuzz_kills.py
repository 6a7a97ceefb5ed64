"""A kill at any moment loses nothing that was written, and leaves nothing behind for long."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fuzzing import EXAMPLES, fuzzed, time_is_over
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from simulator.evidence.measure.store import Store
from simulator.resources import atomic_path

# Starts of Python are slow, and a kill comes at another moment each time: the moments are few, and
# a failure is not made smaller.
killed = settings(
    fuzzed, max_examples=max(4, EXAMPLES // 100), phases=[Phase.explicit, Phase.generate]
)
# A shell's background jobs ignore SIGINT, and so do the processes that they start.
INTERRUPTS = [signal.SIGINT] if signal.getsignal(signal.SIGINT) != signal.SIG_IGN else []
KILLS = st.sampled_from([signal.SIGTERM, signal.SIGKILL, *INTERRUPTS])
# Replaces a file as a whole and appends a row, again and again, and says when each is on the disk.
WRITER = """
import json, sys
from pathlib import Path
from simulator.evidence.measure.store import Store, locked
from simulator.resources import atomic_path

folder = Path(sys.argv[1])
with locked(folder):
    store = Store(folder)
    number = len(store.done)
    while True:
        number += 1
        with atomic_path(folder / "whole.json") as temporary:
            temporary.write_text(json.dumps([number] * 50_000))
        store.append("gemm", {"cell": f"cell {number}", "status": "ok"})
        print(number, flush=True)
"""
ROOT = Path(__file__).parents[2]
# So many points that writing them takes a while.
SAMPLES, CONTEXTS = range(1, 101), range(100, 10_100, 100)
POINTS, WRITES_S = 10_000, 0.3
SCENARIO = f"""
schema_version = 1
id = "mine"
title = "Many points"
description = "a"
question = "b"
sources = ["c"]
verdict = "gain"
verdict_basis = "derived"
verdict_reason = "d"
models = ["gpt2"]
gpus = ["h100-sxm"]

[workload]
samples = {list(SAMPLES)}
context_tokens = {list(CONTEXTS)}
"""
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}


@killed
@given(st.lists(st.tuples(KILLS, st.floats(0, 0.05)), min_size=1, max_size=3))
def test_a_writer_is_killed(
    tmp_path_factory: pytest.TempPathFactory, kills: list[tuple[signal.Signals, float]]
) -> None:
    """What a killed writer said is written is there, whole, for the next writer to go on with."""
    folder = tmp_path_factory.mktemp("killed")
    told = 0
    for kill, moment in kills:
        if time_is_over():
            return
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(folder)],
            env=ENVIRONMENT,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        ) as writer:
            assert writer.stdout is not None
            said = [writer.stdout.readline()]
            time.sleep(moment)
            writer.send_signal(kill)
            said += writer.stdout.read().splitlines()
        told = max(told, *(int(line) for line in said if line))
        store = Store(folder)
        assert store.done == {f"cell {number}" for number in range(1, len(store.done) + 1)}
        assert told <= len(store.done) <= told + 1
        whole = json.loads((folder / "whole.json").read_text())
        assert whole == whole[:1] * 50_000
        assert told <= whole[0] <= told + 1
    _sweeps(folder, folder / "whole.json")


def _sweeps(folder: Path, target: Path) -> None:
    """Check that the next writer removes what was left unfinished, once it is old."""
    left = list(folder.glob(f".{target.name}.*"))
    for path in left:
        os.utime(path, (0, 0))
    with atomic_path(target) as temporary:
        temporary.write_text("written again")
    assert not list(folder.glob(f".{target.name}.*")), left
    assert target.read_text() == "written again"


@killed
@given(KILLS, st.floats(0, 1), st.booleans(), st.booleans())
def test_a_command_is_killed(
    tmp_path_factory: pytest.TempPathFactory,
    kill: signal.Signals,
    moment: float,
    writing: bool,
    there: bool,
) -> None:
    """While it loads or writes: its output is the old file or the new one, its input unchanged."""
    if time_is_over():
        return
    folder = tmp_path_factory.mktemp("command")
    scenario, output = folder / "mine.toml", folder / "points.csv"
    scenario.write_text(SCENARIO)
    if there:
        output.write_text("old\n")
    command = [sys.executable, "-m", "simulator", "sweep", str(scenario), "-o", str(output)]
    with subprocess.Popen(
        command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as running:
        while writing and running.poll() is None and not list(folder.glob(".points.csv.*")):
            time.sleep(0.001)
        time.sleep(moment * (WRITES_S if writing else 1))
        running.send_signal(kill)
        _, errors = running.communicate()
    # Killed, or ended as shells name a kill.
    assert running.returncode in (0, -kill, 128 + kill)
    assert "Traceback" not in errors
    assert scenario.read_text() == SCENARIO
    text = output.read_text() if output.exists() else ""
    assert text == ("old\n" if there else "") or text.count("\n") == POINTS + 1
    assert running.returncode or text.count("\n") == POINTS + 1
    if kill == signal.SIGINT:
        assert set(folder.iterdir()) <= {scenario, output}
    _sweeps(folder, output)
