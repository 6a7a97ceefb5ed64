"""Which examples in docstrings can run here: those of the evidence and its tests need torch."""

from importlib.util import find_spec

# Ignored here by name: pytest's own way to skip on import errors hides broken tests too.
NEED_TORCH = ["simulator/evidence/*", "tests/fake_cuda.py", "tests/library_stand_ins.py"]
collect_ignore_glob = [] if find_spec("torch") else NEED_TORCH
