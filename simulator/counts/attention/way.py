"""A way of attention: one object that holds everything in which it differs from the others.

Each file of this package is a way: its operations for standard and bifurcated attention, fused as
in engines and compilers and in plain PyTorch, its workspace, the workloads it cannot serve, the
formula that ``--explain`` prints, and the spread behind its interval. The registry lists them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

from simulator.counts.attention.shape import AttentionShape
from simulator.counts.operation import Operation
from simulator.inputs.model import ModelShape
from simulator.inputs.setup import Attention, KvLayout, Setup
from simulator.inputs.workload import Workload
from simulator.numeric import Numeric

PARTIAL_BYTES = 4  # partial outputs, log-sum-exps and PyTorch's math path are float32


class PlainKernel(NamedTuple):
    """The account of a way of attention as one PyTorch function.

    The function of the same name is in :mod:`simulator.evidence.kernels`. The account equals a
    trace of it, operation by operation and in the code's order: FLOPs, bytes read and written,
    launches (docs/tracing.md explains the exceptions). An operation with several launches stands
    for that many consecutive kernels. Flash attention takes half-precision types.

    Attributes
    ----------
    attention, kernel, kv_layout
        The settings that it implements.
    operations
        Function from one GPU's sizes to the operations of one layer.
    """

    name: str
    attention: Attention
    kernel: str
    kv_layout: KvLayout
    operations: Callable[[AttentionShape], list[Operation]]


@dataclass(frozen=True, kw_only=True)
class Way:
    """A way of attention; the defaults are those of a fused kernel without workspace.

    Attributes
    ----------
    name
        Its name for ``--kernel``.
    logits_in_memory
        Whether the logits go through memory between its products.
    spread
        The spread of measured times that its interval adds to that of engines' kernels
        (``spread.json``, table ``code``); empty for none.
    caution
        What users of its bifurcated form should know, in a sentence or two; empty for nothing.
    """

    name: str
    logits_in_memory: bool = False
    spread: Literal["", "unfused"] = ""
    caution: str = ""

    def standard(self, shape: AttentionShape, *, rereads: bool) -> list[Operation]:
        """Return the fused operations of one layer's standard attention.

        Parameters
        ----------
        rereads
            Whether the samples read one stored context instead of copies.
        """
        raise NotImplementedError

    def bifurcated(self, shape: AttentionShape) -> list[Operation]:
        """Return the fused operations of one layer's bifurcated or tree attention."""
        raise NotImplementedError

    def plain(self, shape: AttentionShape, setup: Setup) -> list[Operation]:
        """Return the operations in plain PyTorch, a kernel each; the fused ones if it has none."""
        if setup.bifurcated:
            return self.bifurcated(shape)
        return self.standard(shape, rereads=setup.rereads)

    def workspace_bytes(self, shape: AttentionShape, setup: Setup) -> Numeric:
        """Return the bytes that one layer's attention keeps in memory besides the caches."""
        outputs = max(2, len(shape.parts)) if setup.bifurcated else 2
        rebuilt = shape.cached_bytes(shape.sequences * shape.tokens) if setup.rebuilds else 0
        held = self.held_bytes(shape, setup)
        return shape.query_bytes + outputs * shape.output_bytes + rebuilt + held

    def held_bytes(self, shape: AttentionShape, setup: Setup) -> Numeric:  # noqa: ARG002
        """Return the kernel's own workspace: logits or partial results; 0 by default."""
        return 0

    def refusal(self, model: ModelShape, work: Workload) -> str:  # noqa: ARG002
        """Return why it cannot serve a model or a workload, in one line; empty if it can."""
        return ""

    def kv_formula(self, setup: Setup) -> str:
        """Return the formula of the cached tokens a layer reads per prompt, in the paper's symbols.

        Empty if the operations read them in more than one pass.
        """
        if setup.rebuilds:
            return ""
        return "(m_c + b m_d)" if setup.bifurcated else "b (m_c + m_d)"
