"""The command line: parse, call, show."""

import gc

# What is loaded stays loaded: looking for garbage in it takes a tenth of an answer's time.
gc.disable()
from simulator.cli.main import main  # noqa: E402

gc.freeze()
gc.enable()

__all__ = ["main"]
