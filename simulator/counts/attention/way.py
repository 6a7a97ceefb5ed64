"""What a way of attention is: one object that tells all in which it differs from the others.

A way is a file of this package: its operations for standard and bifurcated attention, fused as
engines and compilers run it and in plain PyTorch, what it keeps in memory, what it cannot serve,
the formula that ``--explain`` prints, and what its interval depends on. The registry lists them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from simulator.counts.attention.shape import AttentionShape
from simulator.counts.operation import Operation
from simulator.inputs.model import ModelShape
from simulator.inputs.setup import Attention, KvLayout, Setup
from simulator.inputs.workload import Workload
from simulator.numeric import Numeric

PARTIAL_BYTES = 4  # partial outputs, log-sum-exps and PyTorch's math path are float32


@dataclass(frozen=True, slots=True, kw_only=True)
class PlainKernel:
    """A way of attention as one PyTorch function: its account.

    The function of the same name is in :mod:`simulator.evidence.kernels`. The account equals a
    trace of it, operation by operation and in the code's order: FLOPs, bytes read and written,
    launches (docs/tracing.md says where they differ, and why). An operation with several launches
    stands for that many kernels in a row. Flash attention takes half-precision types.

    Attributes
    ----------
    attention, kernel, kv_layout
        The setup that it runs.
    operations
        What one layer does, of sizes on one GPU.
    """

    name: str
    attention: Attention
    kernel: str
    kv_layout: KvLayout
    operations: Callable[[AttentionShape], list[Operation]]


@dataclass(frozen=True, kw_only=True)
class Way:
    """A way of attention; what is here is that of a fused kernel that keeps nothing in memory.

    Attributes
    ----------
    name
        What ``--kernel`` calls it.
    logits_in_memory
        Whether the logits pass through memory between its products.
    spread
        Which spread of measured times its interval has on top of that of engines' kernels
        (``spread.toml``, table ``code``); empty for none.
    """

    name: str
    logits_in_memory: bool = False
    spread: Literal["", "unfused"] = ""

    def standard(self, shape: AttentionShape, *, rereads: bool) -> list[Operation]:
        """Return the operations of one layer's standard attention, fused.

        Parameters
        ----------
        rereads
            Whether the samples read one stored context, in place of copies of it.
        """
        raise NotImplementedError

    def bifurcated(self, shape: AttentionShape) -> list[Operation]:
        """Return the operations of one layer's bifurcated attention, or of a tree's, fused."""
        raise NotImplementedError

    def plain(self, shape: AttentionShape, setup: Setup) -> list[Operation]:
        """Return the operations in plain PyTorch, one kernel for each; fused where it has none."""
        if setup.bifurcated:
            return self.bifurcated(shape)
        return self.standard(shape, rereads=setup.rereads)

    def workspace_bytes(self, shape: AttentionShape, setup: Setup) -> Numeric:
        """Return the bytes that one layer's attention keeps in memory beside the caches."""
        outputs = max(2, len(shape.parts)) if setup.bifurcated else 2
        rebuilt = shape.cached_bytes(shape.sequences * shape.tokens) if setup.rebuilds else 0
        held = self.held_bytes(shape, setup)
        return shape.query_bytes + outputs * shape.output_bytes + rebuilt + held

    def held_bytes(self, shape: AttentionShape, setup: Setup) -> Numeric:  # noqa: ARG002
        """Return what the kernel itself keeps: logits or partial results; nothing by default."""
        return 0

    def refusal(self, model: ModelShape, work: Workload) -> str:  # noqa: ARG002
        """Return why it cannot serve a model or a workload, in one line; empty where it can."""
        return ""

    def kv_formula(self, setup: Setup) -> str:
        """Return the cached tokens that a layer reads for one prompt, in the paper's symbols.

        Empty where the operations read them in more than one pass.
        """
        if setup.rebuilds:
            return ""
        return "(m_c + b m_d)" if setup.bifurcated else "b (m_c + m_d)"
