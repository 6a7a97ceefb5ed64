"""Which examples in docstrings can run here: those of the evidence need torch."""

from importlib.util import find_spec

# Ignored here by name: pytest's own way to skip on import errors hides broken tests too.
collect_ignore_glob = [] if find_spec("torch") else ["simulator/evidence/*"]
