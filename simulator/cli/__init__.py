"""The command line: parse, call, show."""

import atexit
import gc
import os
import sys

# Pydantic would read the metadata of every installed package in search of plugins for itself.
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
# An answer makes fewer objects than this, and leaves them all to the end of the process: looking
# for garbage among them would take a tenth of its time.
gc.set_threshold(100_000)
atexit.register(gc.freeze)
try:
    from simulator.cli.main import main
except KeyboardInterrupt:
    sys.exit(130)  # Ctrl-C before there is anything to interrupt

__all__ = ["main"]
