"""The command line: parse, call, show."""

import gc
import os
import sys

# Pydantic would read the metadata of every installed package in search of plugins for itself.
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")

# What is loaded stays loaded: looking for garbage in it takes a tenth of an answer's time.
gc.disable()
try:
    from simulator.cli.main import main
except KeyboardInterrupt:
    sys.exit(130)  # Ctrl-C before there is anything to interrupt
gc.freeze()
gc.enable()

__all__ = ["main"]
