"""Shared code of the adapters to other libraries' shared-prefix attention.

Both libraries plan: they compute once what depends on sizes alone, for many calls. So an adapter is
a plan. Called like other kernels, it plans again on every call, which is fine for checking results
but too slow for timing.
"""

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import Any, cast

import torch
from torch import Tensor

from simulator.errors import KernelError
from simulator.evidence.kernels.inputs import AttentionCall, Inputs, call_of
from simulator.evidence.kernels.layout import page_pool, pages_of
from simulator.evidence.kernels.other_libraries import OTHER_LIBRARIES


def as_pages(inputs: Inputs) -> tuple[Tensor, Tensor, Tensor]:
    """Return the query's rows and the pools of keys and values: views of a paged cache."""
    query, context_keys, context_values, decoded_keys, decoded_values = inputs
    keys = page_pool(context_keys, decoded_keys)
    return query.flatten(0, -3), keys, page_pool(context_values, decoded_values)


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """A planned call that can be made many times, with inputs of one size.

    Attributes
    ----------
    run
        Attends, given the result of ``arrange``.
    arrange
        Converts a kernel's inputs to the arguments of the call.
    note
        Note for measured rows.
    """

    run: Callable[..., Tensor]
    arrange: Callable[[Inputs], tuple[Tensor, ...]] = as_pages
    note: str = ""

    def attend(self, *inputs: Tensor) -> Tensor:
        """Arrange the five inputs, run, and shape the output like the query."""
        return self.run(*self.arrange(cast("Inputs", inputs))).reshape(inputs[0].shape)


def load(kernel: str, *modules: str) -> ModuleType:
    """Import the first module that exists: its place differs between versions.

    Raises
    ------
    KernelError
        If none exists.
    """
    library = OTHER_LIBRARIES[kernel]
    problem = ""
    for module in modules:
        try:
            return import_module(module)
        except Exception as caught:  # noqa: BLE001  (without CUDA, an import fails in many ways)
            problem = " ".join(str(caught).split())
    raise KernelError(
        f"{_versioned(kernel)} is not usable here ({problem}); "
        f"install it on a CUDA machine: pip install {library.distribution}"
    ) from None


def need(kernel: str, module: ModuleType, name: str, parameters: Iterable[str] = ()) -> Any:
    """Return a member of a library's module, checked for its parameters.

    Parameters
    ----------
    kernel
        Name of the kernel, for an error.
    module
        The module, or a class.
    name
        Name of the member.
    parameters
        Parameters that it must take.

    Raises
    ------
    KernelError
        If this version has no such member.
    """
    found = getattr(module, name, None)
    read = f"; the adapter is for {OTHER_LIBRARIES[kernel].versions}"
    if found is None:
        raise KernelError(f"{_versioned(kernel)} has no {module.__name__}.{name}{read}")
    missing = sorted(set(parameters) - set(parameters_of(found)))
    if missing:
        raise KernelError(f"{_versioned(kernel)}: {name} takes no {', '.join(missing)}{read}")
    return found


def parameters_of(function: Callable[..., Any]) -> tuple[str, ...]:
    """Return the names of a function's parameters."""
    return tuple(inspect.signature(function).parameters)


def planned_call(kernel: str, inputs: Inputs, scale: float | None) -> AttentionCall:
    """Check the inputs of a library's kernel.

    Parameters
    ----------
    kernel
        Its name, for an error.
    inputs
        The five tensors.
    scale
        Factor on the logits, None for the default.

    Raises
    ------
    KernelError
        If they do not match; if there are several query tokens, which no adapter supports; or if a
        part is empty: a paged kernel would return a log-sum-exp of +inf.
    """
    call = call_of(*inputs, scale=scale)
    if call.query_tokens > 1:
        raise KernelError(f"{kernel} takes one query token, not {call.query_tokens}")
    if call.context_tokens == 0 or call.decoded_tokens == 0:
        raise KernelError(f"{kernel} needs at least one context and one decoded token")
    return call


def query_ends(call: AttentionCall) -> tuple[Tensor, Tensor]:
    """Return the offsets of the queries of each context's samples, and of each sample."""
    sequences = call.prompts * call.samples
    return _ends(call, call.prompts, call.samples), _ends(call, sequences, 1)


def page_ends(call: AttentionCall) -> tuple[Tensor, Tensor]:
    """Return the offsets of the pages of contexts, and of decoded tokens, in their lists."""
    return (
        _ends(call, call.prompts, pages_of(call.context_tokens)),
        _ends(call, call.prompts * call.samples, pages_of(call.decoded_tokens)),
    )


def page_numbers(call: AttentionCall) -> tuple[Tensor, Tensor]:
    """Return the page numbers of contexts [prompts, pages], and of decoded tokens."""
    sequences = call.prompts * call.samples
    first_own = call.prompts * pages_of(call.context_tokens)
    last = first_own + sequences * pages_of(call.decoded_tokens)
    every = torch.arange(last, dtype=torch.int32, device=call.query.device)
    return every[:first_own].view(call.prompts, -1), every[first_own:].view(sequences, -1)


def _ends(call: AttentionCall, count: int, size: int) -> Tensor:
    """Return the offsets 0, size, 2 size and so on."""
    return torch.arange(count + 1, dtype=torch.int32, device=call.query.device) * size


def _versioned(kernel: str) -> str:
    """Return a library's name, with its version if it is installed."""
    library = OTHER_LIBRARIES[kernel]
    return f"{library.distribution} {library.version}".rstrip()
