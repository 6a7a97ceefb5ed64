"""Runs the command line inside the test process: a start of Python costs more than an answer."""

import io
import json
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from typing import Any

from simulator.cli import main


@dataclass(frozen=True)
class Done:
    """What a command printed, and how it ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """What it printed, as JSON that is no laxer than the standard."""
        assert self.code == 0, self.err
        return json.loads(self.out, parse_constant=_refuse)

    @property
    def told(self) -> str:
        """What it said of a mistake: the line that says it and the hint below, as one line."""
        assert self.out == ""
        assert self.err.endswith("\n")
        line, hint = (line for line in self.err.splitlines() if not line.startswith("note: "))
        assert line.startswith("error: ")
        assert hint.startswith("hint: ")
        assert "Traceback" not in line
        return f"{line}; {hint.removeprefix('hint: ')}"

    @property
    def text(self) -> str:
        """What it printed, from a run that must succeed."""
        assert self.code == 0, self.err
        return self.out


def bifurcate(*arguments: str) -> Done:
    """Run ``bifurcate`` with arguments."""
    out, err = io.StringIO(), io.StringIO()
    code: Any = 0
    with redirect_stdout(out), redirect_stderr(err):
        try:
            main(list(arguments))
        except SystemExit as stop:
            code = stop.code
    return Done(code or 0, out.getvalue(), err.getvalue())


def _refuse(constant: str) -> None:
    """Refuse NaN and Infinity, which JSON does not have."""
    raise AssertionError(f"{constant} is not JSON")
