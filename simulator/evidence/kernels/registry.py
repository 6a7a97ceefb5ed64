"""All attention kernels by name."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from simulator.errors import KernelError, unknown
from simulator.evidence.kernels.bifurcated import (
    bifurcated_einsum,
    bifurcated_flash,
    bifurcated_flash_chunked,
)
from simulator.evidence.kernels.external import PlanCall, Planned
from simulator.evidence.kernels.flashinfer_cascade import (
    flashinfer_cascade,
    flashinfer_wrapper,
    plan_flashinfer,
)
from simulator.evidence.kernels.flex import bifurcated_flex
from simulator.evidence.kernels.inputs import Attend
from simulator.evidence.kernels.layout import Inputs, Layout, lay_out
from simulator.evidence.kernels.other_libraries import OTHER_LIBRARIES, OtherLibrary
from simulator.evidence.kernels.standard import (
    standard_einsum,
    standard_flash,
    standard_flash_expanded,
    standard_math,
    standard_rebuilt,
    standard_repeat_kv,
)
from simulator.evidence.kernels.tree import prefix_tree
from simulator.evidence.kernels.vllm_cascade import plan_vllm, vllm_cascade, vllm_functions


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """One implementation of attention in a decode step.

    Attributes
    ----------
    name
        Its key in the registry.
    attention
        Whether every sample reads its context, or the context is read once.
    kv_layout
        How it wants the caches to lie; see :func:`.layout.lay_out`.
    function
        ``attend(query, context_keys, context_values, decoded_keys, decoded_values, *, scale)``.
    description
        One line.
    library
        The library it is from, None for our own.
    plan
        What works out once what depends on sizes alone, for kernels that do.
    check
        Refuses a library that is installed and cannot be used.
    """

    name: str
    attention: Literal["standard", "bifurcated"]
    kv_layout: Layout
    function: Attend
    description: str
    library: OtherLibrary | None = None
    plan: PlanCall | None = None
    check: Callable[[], object] | None = None

    def __call__(
        self,
        query: Tensor,
        context_keys: Tensor,
        context_values: Tensor,
        decoded_keys: Tensor,
        decoded_values: Tensor,
        *,
        scale: float | None = None,
    ) -> Tensor:
        """Attend: a kernel is called as its function is."""
        return self.function(
            query, context_keys, context_values, decoded_keys, decoded_values, scale=scale
        )

    @property
    def available(self) -> bool:
        """Whether the library it is from is installed."""
        return self.library is None or self.library.installed

    def ready(self, inputs: Inputs, *, graph: bool = False) -> Planned:
        """Return a call for inputs like these, with all that depends on sizes alone worked out.

        Parameters
        ----------
        graph
            Whether it is to be captured in a CUDA graph.
        """
        if self.plan is not None:
            return self.plan(inputs, graph=graph)
        return Planned(run=self.function, arrange=lambda given: given)

    def lay_out(
        self,
        query: Tensor,
        context_keys: Tensor,
        context_values: Tensor,
        decoded_keys: Tensor,
        decoded_values: Tensor,
    ) -> Inputs:
        """Arrange the inputs as this kernel wants them, before anything is traced or timed."""
        return lay_out(
            self.kv_layout, query, context_keys, context_values, decoded_keys, decoded_values
        )


_KERNELS = (
    Kernel(
        name="standard_einsum",
        attention="standard",
        kv_layout="copies",
        function=standard_einsum,
        description="matrix products over one copy of the context per sample, logits in memory",
    ),
    Kernel(
        name="standard_math",
        attention="standard",
        kv_layout="copies",
        function=standard_math,
        description="the math path of F.scaled_dot_product_attention over one copy per sample",
    ),
    Kernel(
        name="standard_flash",
        attention="standard",
        kv_layout="copies",
        function=standard_flash,
        description="flash attention over one copy of the context per sample",
    ),
    Kernel(
        name="standard_flash_expanded",
        attention="standard",
        kv_layout="shared",
        function=standard_flash_expanded,
        description="flash attention over one context that every sample reads, by a stride of 0",
    ),
    Kernel(
        name="standard_rebuilt",
        attention="standard",
        kv_layout="rebuilt",
        function=standard_rebuilt,
        description="context and own tokens concatenated for every sample at every step, flash",
    ),
    Kernel(
        name="standard_repeat_kv",
        attention="standard",
        kv_layout="copies",
        function=standard_repeat_kv,
        description="KV heads repeated to query heads in memory at every step, flash",
    ),
    Kernel(
        name="bifurcated_einsum",
        attention="bifurcated",
        kv_layout="shared",
        function=bifurcated_einsum,
        description="the paper's: two matrix products, one softmax over concatenated logits",
    ),
    Kernel(
        name="bifurcated_flash",
        attention="bifurcated",
        kv_layout="shared",
        function=bifurcated_flash,
        description="flash on the context for all samples, flash on own tokens, float32 merge",
    ),
    Kernel(
        name="bifurcated_flash_chunked",
        attention="bifurcated",
        kv_layout="shared",
        function=bifurcated_flash_chunked,
        description="bifurcated_flash with the context cut into chunks by a view",
    ),
    Kernel(
        name="bifurcated_flex",
        attention="bifurcated",
        kv_layout="packed",
        function=bifurcated_flex,
        description="one FlexAttention call under a block mask, no merge",
    ),
    Kernel(
        name="prefix_tree",
        attention="bifurcated",
        kv_layout="shared",
        function=prefix_tree,
        description="any number of shared levels, each read once per node, float32 merge",
    ),
)

_EXTERNAL = (
    Kernel(
        name="flashinfer_cascade",
        attention="bifurcated",
        kv_layout="paged",
        function=flashinfer_cascade,
        description="FlashInfer's multi-level cascade over a paged cache",
        library=OTHER_LIBRARIES["flashinfer_cascade"],
        plan=plan_flashinfer,
        check=flashinfer_wrapper,
    ),
    Kernel(
        name="vllm_cascade",
        attention="bifurcated",
        kv_layout="paged",
        function=vllm_cascade,
        description="vLLM's flash-attn on the context and on own tokens, and its merge",
        library=OTHER_LIBRARIES["vllm_cascade"],
        plan=plan_vllm,
        check=vllm_functions,
    ),
)

KERNELS: dict[str, Kernel] = {kernel.name: kernel for kernel in _KERNELS}
EXTERNAL_KERNELS: dict[str, Kernel] = {kernel.name: kernel for kernel in _EXTERNAL}


def find_kernel(name: str) -> Kernel:
    """Return a kernel by name, those of other packages included.

    Raises
    ------
    KernelError
        If no kernel has that name, or the library it is from is not installed or cannot be used.
    """
    known = KERNELS | EXTERNAL_KERNELS
    if name not in known:
        raise KernelError(unknown("kernel", name, known))
    kernel = known[name]
    if kernel.library is not None and not kernel.available:
        wanted = kernel.library.distribution
        raise KernelError(f"{name} needs {wanted}, which is not installed: pip install {wanted}")
    if kernel.check is not None:
        kernel.check()
    return kernel
