"""Which examples in docstrings can run here: those of the evidence and its tests need torch."""

from importlib.util import find_spec

# Ignored here by name: pytest's own way to skip on import errors hides broken tests too.
_HELPERS = ("fake_cuda", "latent_kernels", "layouts", "library_stand_ins", "recurrent_kernels")
NEED_TORCH = ["simulator/evidence/*", *(f"tests/{name}.py" for name in _HELPERS)]
collect_ignore_glob = [] if find_spec("torch") else NEED_TORCH
