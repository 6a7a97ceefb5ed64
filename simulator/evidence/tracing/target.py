"""Find the function to trace: a kernel of ours, or the user's own function."""

import copy
import importlib
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from simulator.errors import SimulatorError, TraceError, unknown
from simulator.evidence.kernels import KERNELS
from simulator.evidence.kernels.other_libraries import OTHER_LIBRARIES


def find_function(target: str) -> Callable[..., Any]:
    """Return a function by ``module:function``, ``path/file.py:function`` or a kernel's name.

    A copy of a ``torch.nn.Module`` object is moved to the meta device.

    Raises
    ------
    TraceError
        If there is no such module, file, function or kernel, or the code fails when it is loaded.
    """
    if ":" not in target:
        if target in OTHER_LIBRARIES:
            raise TraceError(
                f"{target} runs another library's code, of which a trace sees nothing; "
                f"'bifurcate measure --kernel {target}' times it"
            )
        if target not in KERNELS:
            way_out = "or give MODULE:FUNCTION or FILE.py:FUNCTION"
            raise TraceError(unknown("kernel", target, KERNELS, way_out=way_out))
        return KERNELS[target].function
    where, _, name = target.rpartition(":")
    if not (where and name):
        raise TraceError(f"{target!r} is not MODULE:FUNCTION or FILE.py:FUNCTION")
    module = _load(where)
    found: Any = module
    for part in name.split("."):
        if not hasattr(found, part):
            known = [each for each in vars(module) if not each.startswith("_")]
            raise TraceError(unknown(f"function of {where}", name, known or ["none"]))
        found = getattr(found, part)
    if isinstance(found, type):
        raise TraceError(f"{target} is a class; name a function, or an object that can be called")
    if not callable(found):
        raise TraceError(f"{target} is not a function: {type(found).__name__}")
    if isinstance(found, torch.nn.Module):
        return copy.deepcopy(found).to("meta")
    function: Callable[..., Any] = found
    return function


def _load(where: str) -> ModuleType:
    """Import a module by its name, also from the working directory, or a file by its path."""
    path = Path(where)
    is_file = path.suffix == ".py"
    if is_file and not path.is_file():
        raise TraceError(f"there is no file {where}")
    folder = str(path.resolve().parent if is_file else Path.cwd())
    sys.path.insert(0, folder)
    try:
        with explained(where):
            if not is_file:
                return importlib.import_module(where)
            spec = spec_from_file_location(path.stem, path)
            if spec is None or spec.loader is None:
                raise TraceError(f"{where} is not a Python file")
            module = module_from_spec(spec)
            spec.loader.exec_module(module)
            return module
    finally:
        if folder in sys.path:
            sys.path.remove(folder)


@contextmanager
def explained(where: str) -> Iterator[None]:
    """Describe an error of the user's code in one line, with its line number."""
    try:
        yield
    except TraceError as problem:
        raise TraceError(f"{where}: {problem}{_place(problem)}") from problem
    except SimulatorError:
        raise
    except (Exception, SystemExit) as problem:
        kind = type(problem).__name__
        raise TraceError(f"{where}: {kind}: {problem}{_place(problem)}") from problem


def _place(problem: BaseException) -> str:
    """Return the innermost line of code that is neither ours nor PyTorch's."""
    ours = (str(Path(__file__).parents[2]), str(Path(torch.__file__).parent), "<frozen")
    # A reworded PyTorch error was raised outside the function: its cause has the function's line.
    frames = traceback.extract_tb((problem.__cause__ or problem).__traceback__)
    others = [frame for frame in frames if not frame.filename.startswith((*ours, sys.base_prefix))]
    if not others:
        return ""
    return f" ({Path(others[-1].filename).name}, line {others[-1].lineno})"
