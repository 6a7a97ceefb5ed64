"""Processor time and peak memory of the command's answers: python benchmarks/startup.py.

Every command runs in a separate process, like a user's, with its output discarded. Python may cache
its bytecode, as by default.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

MIB = 2**20
# ru_maxrss is in KiB, on macOS in bytes.
RSS_UNIT_BYTES = 1 if sys.platform == "darwin" else 1024

MODEL = ("--model", "llama-3.1-8b")
QUESTION = (*MODEL, "--gpu", "h100-sxm", "-n", "16", "--context", "8K")
COMMANDS = {
    "python -c pass": ("-c", "pass"),
    # What others' commands load before they do anything, which compare is held against.
    "python -c 'import typer, pydantic'": ("-c", "import typer, pydantic"),
    "bifurcate --help": ("--help",),
    "bifurcate estimate": ("estimate", *QUESTION),
    "bifurcate compare": ("compare", *QUESTION),
    "bifurcate compare --json": ("compare", *QUESTION, "--json"),
    "bifurcate generate": ("generate", *QUESTION, "--output-len", "256"),
    "bifurcate plan": ("plan", *MODEL, "--context", "8K", "-n", "16"),
    "bifurcate models": ("models",),
    "bifurcate gpus": ("gpus",),
}


ENVIRONMENT = {
    name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"
}


def measure(command: list[str]) -> tuple[float, float]:
    """Run a command once; return its processor time [s] and peak memory [bytes]."""
    # wait4 returns the child's own peak, so subprocess must not reap it first.
    null = subprocess.DEVNULL
    with subprocess.Popen(command, stdout=null, stderr=null, env=ENVIRONMENT) as child:
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        sys.exit(f"{' '.join(command)}: exit code {child.returncode}")
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss * RSS_UNIT_BYTES


def main() -> None:
    """Measure every command and print one row each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=20, help="runs of each command [20]")
    runs = parser.parse_args().runs
    python, bifurcate = sys.executable, str(Path(sys.executable).with_name("bifurcate"))
    print(f"| command | processor, least of {runs} [s] | memory [MiB] |")
    print("| --- | ---: | ---: |")
    commands = {
        name: [python if name.startswith("python") else bifurcate, *arguments]
        for name, arguments in COMMANDS.items()
    }
    for command in commands.values():
        measure(command)  # the first run compiles the code and reads the files from disk
    # In turn, so that a busy moment of the machine does not affect only one command.
    turns = [{name: measure(command) for name, command in commands.items()} for _ in range(runs)]
    for name in commands:
        times, peaks = zip(*(turn[name] for turn in turns), strict=True)
        print(f"| `{name}` | {min(times):.3f} | {max(peaks) / MIB:.0f} |")


if __name__ == "__main__":
    main()
