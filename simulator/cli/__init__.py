"""The command line: parse, call, show."""

from simulator.cli.main import main

__all__ = ["main"]
