"""The command line: parse, call, show."""

import gc
import sys

# What is loaded stays loaded: looking for garbage in it takes a tenth of an answer's time.
gc.disable()
try:
    from simulator.cli.main import main
except KeyboardInterrupt:
    sys.exit(130)  # Ctrl-C before there is anything to interrupt
gc.freeze()
gc.enable()

__all__ = ["main"]
