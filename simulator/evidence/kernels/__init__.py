"""Attention kernels in PyTorch: the code behind every account in :mod:`simulator.counts`.

All implementations by name, and adapters to other libraries. Torch is imported with the first
function: dry runs, lists of names and measured rows need none.

>>> from simulator.evidence.kernels import KERNELS
>>> KERNELS["bifurcated_flash"].attention
'bifurcated'
"""

from collections import ChainMap
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast

from simulator.counts.attention.registry import PLAIN_KERNELS
from simulator.errors import KernelError, unknown
from simulator.evidence.kernels.other_libraries import OTHER_LIBRARIES, OtherLibrary, need_installed
from simulator.inputs.setup import Attention, Execution, KvLayout, Setup

if TYPE_CHECKING:
    from collections.abc import Iterable

    import torch
    from torch import Tensor

    from simulator.evidence.kernels.external import Planned
    from simulator.evidence.kernels.inputs import Attend, Inputs
    from simulator.inputs.dtypes import KvDtype

Layout = Literal["copies", "shared", "rebuilt", "packed", "paged"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Implementation:
    """A PyTorch function of an attention kernel for a decode step.

    Attributes
    ----------
    name
        Its key in the registry, and its function's name.
    attention
        Kind of attention: every sample reads its context, or the context is read once.
    kernel
        The corresponding kernel of a setup, or a name outside setups.
    kv_layout
        The corresponding cache layout of a setup.
    packing
        The layout of its caches, if it is none of a setup's.
    expand_kv
        Whether it first repeats KV heads to query heads in memory.
    library
        Its library, None for our own.
    """

    name: str
    attention: Attention
    kernel: str
    kv_layout: KvLayout
    packing: Literal["packed", "paged"] | None = None
    expand_kv: bool = False
    library: OtherLibrary | None = None

    @property
    def function(self) -> "Attend":
        """``attend(query, context_keys, context_values, decoded_keys, decoded_values, *, scale)``.

        Another library's kernel plans on every call.
        """
        if self.library is not None:
            return self._plan_and_attend
        if self.packing == "packed":
            from simulator.evidence.kernels.flex import bifurcated_flex

            return bifurcated_flex
        from simulator.evidence.kernels import bifurcated, standard

        code = standard if self.attention == "standard" else bifurcated
        return cast("Attend", getattr(code, self.name))

    def _plan_and_attend(self, *inputs: "Tensor", scale: float | None = None) -> "Tensor":
        from simulator.evidence.kernels.external import ADAPTERS

        _, plan = ADAPTERS[self.name]
        return plan(inputs, scale=scale).attend(*inputs)

    def __call__(self, *inputs: "Tensor", **named: Any) -> "Tensor":
        """Attend: calling an implementation calls its function."""
        return self.function(*inputs, **named)

    @property
    def account(self) -> str:
        """The setup's kernel nearest to it, for predicted times."""
        return PLAIN_KERNELS[self.name].kernel if self.name in PLAIN_KERNELS else "flash"

    def setup(self, dtype: "KvDtype", execution: Execution = "eager") -> Setup:
        """Return the setup of a step with it, with weights and cache in one format."""
        return Setup(
            attention=self.attention,
            kernel=self.account,
            kv_layout=self.kv_layout,
            execution=execution,
            weight_dtype=dtype,
            kv_dtype=dtype,
        )

    @property
    def layout(self) -> Layout:
        """The layout of its caches; see :mod:`.layout`."""
        return self.packing or self.kv_layout

    @property
    def takes_several_tokens(self) -> bool:
        """Whether it supports several query tokens per sample."""
        return self.packing is None

    def with_masks(
        self, tokens: int, cached: "Iterable[int]", device: "torch.device | str"
    ) -> "Attend":
        """Return its function with a step's masks made in advance, as in an engine.

        One query token needs no mask, and neither does flash attention's causal flag.

        Parameters
        ----------
        tokens
            Query tokens of each sample.
        cached
            Lengths of the caches, context and decoded tokens together; shorter in layers with a
            sliding window.
        device
            Device of the masks.
        """
        from simulator.evidence.kernels.operators import hidden_tokens, seen_tokens

        function: Any = self.function
        makers: dict[str, Callable[[int], Tensor]] = {
            "einsum": lambda _: hidden_tokens(tokens, device),
            "sdpa_math": lambda length: seen_tokens(tokens, length, device),
        }
        mask_of = makers.get(self.account)
        if tokens == 1 or mask_of is None:
            return cast("Attend", function)
        masks = {length: mask_of(length) for length in set(cached)}

        def attend(query: "Tensor", *caches: "Tensor", scale: float | None = None) -> "Tensor":
            mask = masks[caches[0].shape[2] + caches[2].shape[3]]
            return cast("Tensor", function(query, *caches, scale=scale, mask=mask))

        return attend

    def ready(self, inputs: "Inputs", *, graph: bool = False) -> "Planned":
        """Return a planned call for inputs of these sizes.

        Parameters
        ----------
        inputs
            The five tensors of a call.
        graph
            Whether the call will be captured in a CUDA graph.
        """
        from simulator.evidence.kernels.external import ADAPTERS, Planned
        from simulator.evidence.kernels.inputs import with_tokens

        if self.library is not None:
            return ADAPTERS[self.name][1](inputs, graph=graph)
        query, keys, _, decoded_keys, _ = inputs
        cached = [keys.shape[2] + decoded_keys.shape[3]]
        run = self.with_masks(with_tokens(query).shape[2], cached, query.device)
        return Planned(run=run, arrange=lambda given: given)


# Names in rows of kernels that no setup has.
_OWN_WORDS = {
    "bifurcated_flash_chunked": "flash_chunked",
    "bifurcated_flex": "flex",
    "prefix_tree": "prefix_tree",
}
KERNELS: dict[str, Implementation] = {
    name: Implementation(
        name=name,
        attention=plain.attention,
        kernel=_OWN_WORDS.get(name, plain.kernel),
        kv_layout=plain.kv_layout,
        packing="packed" if name == "bifurcated_flex" else None,
        expand_kv=name == "standard_repeat_kv",
    )
    for name, plain in PLAIN_KERNELS.items()
}
# Those of other libraries are measured on request. The nearest account is that of bifurcated flash
# attention with a merge in one kernel, as engines run it.
EXTERNAL_KERNELS: dict[str, Implementation] = {
    name: Implementation(
        name=name,
        attention="bifurcated",
        kernel=name,
        kv_layout="shared",
        packing="paged",
        library=library,
    )
    for name, library in OTHER_LIBRARIES.items()
}
ALL_KERNELS: Mapping[str, Implementation] = ChainMap(EXTERNAL_KERNELS, KERNELS)


def find_kernel(name: str) -> Implementation:
    """Return an implementation by name, those of other libraries included.

    Raises
    ------
    KernelError
        If none has that name, or its library is not installed or cannot be used.
    """
    if name not in ALL_KERNELS:
        raise KernelError(unknown("kernel", name, ALL_KERNELS))
    found = ALL_KERNELS[name]
    need_installed([name])
    if found.library is not None:
        from simulator.evidence.kernels.external import ADAPTERS

        check, _ = ADAPTERS[name]
        check()
    return found
