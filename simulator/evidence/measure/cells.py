"""What can be timed: one dataclass for each kind of row, without torch.

A *cell* is one row to be measured. Cells of one *group* have the same sizes and are timed
interleaved, so that a drifting clock affects all of them equally.
"""

from dataclasses import dataclass, field
from typing import Literal, get_args

from simulator.evidence.kernels import ALL_KERNELS, Implementation
from simulator.inputs.dtypes import DTYPE_BYTES, Dtype
from simulator.inputs.model import ModelShape

Mode = Literal["graph", "eager"]
L2State = Literal["cold", "warm"]
Kind = Literal["memory", "attention", "step", "gemm", "elementwise"]

MODES: tuple[Mode, ...] = get_args(Mode)
L2_STATES: tuple[L2State, ...] = get_args(L2State)
KINDS: tuple[Kind, ...] = get_args(Kind)
FLOAT32_BYTES = DTYPE_BYTES["fp32"]

# Streams, and the shares of the working set that they read and write.
_MEMORY_TESTS = {
    "stream_init": (0.0, 1.0),
    "stream_read": (1.0, 0.0),
    "stream_copy": (1 / 2, 1 / 2),
    "stream_scale": (1 / 2, 1 / 2),
    "stream_triad": (2 / 3, 1 / 3),
}
MEMORY_TESTS = tuple(_MEMORY_TESTS)
ELEMENTWISE_OPS = (
    "residual_add",
    "silu",
    "to_float32",
    "copy",
    "rmsnorm",
    "layernorm",
    "softmax",
    "embedding",
)


@dataclass(frozen=True, kw_only=True)
class _Cell:
    """The fields of every cell.

    Attributes
    ----------
    mode
        ``graph`` replays a CUDA graph, ``eager`` launches every kernel from the host.
    l2
        ``cold`` rotates over buffers larger than L2, ``warm`` uses the same ones again and again.
    stage
        Cells of a lower stage are measured first.
    """

    dtype: Dtype = "bf16"
    mode: Mode = "graph"
    l2: L2State = "cold"
    stage: int = field(default=0, compare=False)

    @property
    def group(self) -> str:
        """Cells with the same text are timed interleaved."""
        raise NotImplementedError

    @property
    def variant(self) -> str:
        """The part of the name that differs between cells of a group."""
        return self.mode

    @property
    def graph(self) -> bool:
        """Whether its launches are replayed from a CUDA graph."""
        return self.mode == "graph"

    @property
    def key(self) -> str:
        """The cell's name in the rows: no two cells share it, and it never changes."""
        return f"{self.group} {self.variant}"


@dataclass(frozen=True, kw_only=True)
class _KernelCell(_Cell):
    """The fields that single attention calls and whole steps share.

    Attributes
    ----------
    kernel
        Name of an implementation in :mod:`simulator.evidence.kernels`.
    """

    kernel: str
    context_tokens: int
    decoded_tokens: int
    samples: int
    prompts: int = 1
    query_tokens: int = 1

    @property
    def implementation(self) -> Implementation:
        """The function that is timed."""
        return ALL_KERNELS[self.kernel]

    @property
    def sequences(self) -> int:
        """Sequences decoded together, P b."""
        return self.prompts * self.samples

    @property
    def sizes(self) -> str:
        """The sizes in the names of cells and groups; one query token is left out."""
        tokens = f" n{self.query_tokens}" if self.query_tokens > 1 else ""
        return (
            f"P{self.prompts} b{self.samples}{tokens} mc{self.context_tokens} "
            f"md{self.decoded_tokens} {self.dtype}"
        )

    @property
    def variant(self) -> str:
        """Kernel and mode."""
        return f"{self.kernel} {self.mode}"


@dataclass(frozen=True, kw_only=True)
class AttentionCell(_KernelCell):
    """One call of one attention kernel, of one layer."""

    heads: int
    kv_heads: int
    head_dim: int
    kind: Kind = field(default="attention", init=False)

    @property
    def group(self) -> str:
        """Sizes, dtype and L2 state."""
        heads = f"h{self.heads} g{self.kv_heads} k{self.head_dim}"
        return f"attention {heads} {self.sizes} {self.l2}"


@dataclass(frozen=True, kw_only=True)
class StepCell(_KernelCell):
    """One whole decode step of a plain PyTorch transformer with random weights."""

    model: ModelShape
    kind: Kind = field(default="step", init=False)

    @property
    def heads(self) -> int:
        """Query heads of the model."""
        return self.model.heads

    @property
    def kv_heads(self) -> int:
        """KV heads of the model."""
        return self.model.kv_heads

    @property
    def head_dim(self) -> int:
        """Width of a head."""
        return self.model.head_dim

    @property
    def model_key(self) -> str:
        """The model's name and the sizes a user might change under it."""
        name = "-".join(self.model.name.replace(",", " ").split())
        return f"{name} L{self.model.layers} d{self.model.hidden_size} g{self.model.kv_heads}"

    @property
    def group(self) -> str:
        """Model, sizes and dtype; between two steps the weights pass through L2."""
        return f"step {self.model_key} {self.sizes}"


@dataclass(frozen=True, kw_only=True)
class GemmCell(_Cell):
    """One matrix product y[m, n] = x[m, k] W[n, k]^T."""

    m: int
    n: int
    k: int
    kind: Kind = field(default="gemm", init=False)

    @property
    def moved(self) -> tuple[float, float]:
        """Bytes read and written."""
        element = DTYPE_BYTES[self.dtype]
        return (self.m + self.n) * self.k * element, self.m * self.n * element

    @property
    def group(self) -> str:
        """Sizes, dtype and L2 state."""
        return f"gemm m{self.m} n{self.n} k{self.k} {self.dtype} {self.l2}"


@dataclass(frozen=True, kw_only=True)
class ElementwiseCell(_Cell):
    """One elementwise, norm or gather kernel over ``rows`` vectors of ``width`` values."""

    op: str
    rows: int
    width: int
    kind: Kind = field(default="elementwise", init=False)

    @property
    def moved(self) -> tuple[float, float]:
        """Bytes read and written."""
        element = DTYPE_BYTES[self.dtype]
        vectors, weights = self.rows * self.width * element, self.width * element
        return {
            "residual_add": (2 * vectors, vectors),
            "to_float32": (vectors, self.rows * self.width * FLOAT32_BYTES),
            "rmsnorm": (vectors + weights, vectors),
            "layernorm": (vectors + 2 * weights, vectors + 2 * self.rows * FLOAT32_BYTES),
            "embedding": (vectors + 8 * self.rows, vectors),
        }.get(self.op, (vectors, vectors))

    @property
    def group(self) -> str:
        """Sizes, dtype and L2 state; all operations of one size are interleaved."""
        return f"elementwise r{self.rows} w{self.width} {self.dtype} {self.l2}"

    @property
    def variant(self) -> str:
        """Operation and mode."""
        return f"{self.op} {self.mode}"


@dataclass(frozen=True, kw_only=True)
class MemoryCell(_Cell):
    """One stream over device memory; below the size of L2 and warm it measures the L2."""

    test: str
    working_set_bytes: int
    l2: L2State = "warm"
    kind: Kind = field(default="memory", init=False)

    @property
    def moved(self) -> tuple[float, float]:
        """Bytes read and written."""
        read, written = _MEMORY_TESTS[self.test]
        return read * self.working_set_bytes, written * self.working_set_bytes

    @property
    def group(self) -> str:
        """Working set."""
        return f"memory {self.working_set_bytes} B"

    @property
    def variant(self) -> str:
        """Test and mode."""
        return f"{self.test} {self.mode}"


KernelCell = AttentionCell | StepCell
Cell = KernelCell | GemmCell | ElementwiseCell | MemoryCell


@dataclass(frozen=True, kw_only=True)
class Selection:
    """The cells of a run, the most wanted first.

    Attributes
    ----------
    name
        What the user asked for: ``default``, or a scenario's id.
    skipped
        One line for each part of the question that cannot be measured, with the reason.
    """

    name: str
    cells: tuple[Cell, ...]
    skipped: tuple[str, ...] = ()

    @property
    def groups(self) -> list[tuple[Cell, ...]]:
        """Cells that are timed together, in the order in which they are measured."""
        groups: dict[tuple[int, str], list[Cell]] = {}
        for cell in self.cells:
            groups.setdefault((cell.stage, cell.group), []).append(cell)
        return [tuple(group) for group in groups.values()]
