"""What can be timed: one dataclass for each kind of row, and what it does; without torch.

A *cell* is one row to be measured. Cells of one *group* have the same sizes and are timed
interleaved, so that a drifting clock affects all of them equally.
"""

from dataclasses import dataclass, field, replace
from operator import attrgetter
from typing import Any, ClassVar, Literal, get_args

from simulator.counts import memory
from simulator.counts.attention.registry import PLAIN_KERNELS, WAYS
from simulator.counts.attention.shape import AttentionShape
from simulator.counts.operation import Operation, streamed
from simulator.counts.transformer import decode_operations
from simulator.evidence.kernels import ALL_KERNELS, Implementation
from simulator.evidence.kernels.other_libraries import PAGE_TOKENS, workspace_bytes
from simulator.inputs.dtypes import DTYPE_BYTES, KvDtype
from simulator.inputs.model import ModelShape
from simulator.inputs.setup import Setup
from simulator.inputs.workload import Workload

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
    *("residual_add", "silu", "to_float32", "copy"),
    *("rmsnorm", "layernorm", "softmax", "embedding"),
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
    kind
        The kind of its row.
    name, text
        What differs between cells of a group besides the mode, and the name of the group; a name
        says each size after the letter that docs/nomenclature.md gives it.
    """

    dtype: KvDtype = "bf16"
    mode: Mode = "graph"
    l2: L2State = "cold"
    stage: int = field(default=0, compare=False)
    kind: ClassVar[Kind]
    name: ClassVar[str] = ""
    text: ClassVar[str]

    @property
    def group(self) -> str:
        """Cells with the same text are timed interleaved."""
        return self.text.format(self)

    @property
    def graph(self) -> bool:
        """Whether its launches are replayed from a CUDA graph."""
        return self.mode == "graph"

    @property
    def key(self) -> str:
        """The cell's name in the rows: no two cells share it, and it never changes."""
        return f"{self.group} {self.name.format(self)}{self.mode}"


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
    name: ClassVar[str] = "{0.kernel} "

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


@dataclass(frozen=True, kw_only=True)
class AttentionCell(_KernelCell):
    """One call of one attention kernel, of one layer."""

    heads: int
    kv_heads: int
    head_dim: int
    kind: ClassVar[Kind] = "attention"
    text: ClassVar[str] = "attention h{0.heads} g{0.kv_heads} k{0.head_dim} {0.sizes} {0.l2}"

    def operations(self, resident_blocks: int) -> list[Operation]:
        """List the operations of one call, as plain PyTorch runs them.

        For another library's kernel they are those of bifurcated flash attention in an engine:
        flash on the context, flash on decoded tokens, and one kernel that merges.
        """
        shape = shape_of(self, resident_blocks)
        if self.implementation.library:
            return WAYS["flash"].bifurcated(shape)
        return PLAIN_KERNELS[self.kernel].operations(shape)

    def call_bytes(self) -> tuple[float, float]:
        """Return the bytes of one set of inputs, and the bytes that a call allocates."""
        cell, layout = self, self.implementation.layout
        if layout == "paged":  # whole pages
            context, decoded = (
                -(-tokens // PAGE_TOKENS) * PAGE_TOKENS
                for tokens in (self.context_tokens, self.decoded_tokens)
            )
            cell = replace(self, context_tokens=context, decoded_tokens=decoded)
        shape = shape_of(cell, 1)
        copies = shape.context_copy_bytes * (self.samples if layout == "copies" else 1)
        inputs = shape.query_bytes + copies + shape.decoded_bytes
        return inputs, _attention_workspace(self, shape)


@dataclass(frozen=True, kw_only=True)
class StepCell(_KernelCell):
    """One whole decode step of a plain PyTorch transformer with random weights.

    Between two steps the weights pass through L2.
    """

    model: ModelShape
    kind: ClassVar[Kind] = "step"
    text: ClassVar[str] = "step {0.model_key} {0.sizes}"

    # Sizes of the model's attention.
    heads = property(attrgetter("model.heads"))
    kv_heads = property(attrgetter("model.kv_heads"))
    head_dim = property(attrgetter("model.head_dim"))

    @property
    def model_key(self) -> str:
        """The model's name and the sizes a user might change under it."""
        name = "-".join(self.model.name.replace(",", " ").split())
        return f"{name} L{self.model.layers} d{self.model.hidden_size} g{self.model.kv_heads}"

    @property
    def setup(self) -> Setup:
        """The setup of its step."""
        return self.implementation.setup(self.dtype)

    @property
    def weights_bytes(self) -> float:
        """Bytes of its weights."""
        return memory.weights_bytes(self.model, self.setup)

    def operations(self, resident_blocks: int) -> list[Operation]:
        """List the operations of one step, as plain PyTorch runs them."""
        work = Workload.grid(**sizes_of(self))
        return decode_operations(self.model, self.setup, work, resident_blocks=resident_blocks)

    def call_bytes(self) -> tuple[float, float]:
        """Return the bytes of weights and caches, and the bytes that a step allocates."""
        work = Workload.grid(**sizes_of(self))
        inputs = self.weights_bytes + memory.kv_cache_bytes(self.model, self.setup, work)
        workspace = memory.workspace_bytes(self.model, self.setup, work, resident_blocks=1)
        # Sampling holds the logits, the mask, the probabilities and the noise at once.
        tokens = self.sequences * self.query_tokens
        logits = tokens * self.model.vocab_size * DTYPE_BYTES[self.dtype]
        return inputs, workspace + _attention_workspace(self, shape_of(self, 1)) + 4 * logits


@dataclass(frozen=True, kw_only=True)
class _StreamingCell(_Cell):
    """The cells of one kernel that reads and writes each byte once."""

    @property
    def moved(self) -> tuple[float, float]:
        """Bytes read and written."""
        raise NotImplementedError

    @property
    def counts(self) -> dict[str, Any]:
        """What its operation has besides bytes."""
        raise NotImplementedError

    def operations(self, resident_blocks: int) -> list[Operation]:
        """Return the kernel."""
        del resident_blocks
        return [streamed(self.kind, *self.moved, **self.counts)]

    def call_bytes(self) -> tuple[float, float]:
        """Return the bytes of one set of inputs, and the bytes that a call allocates."""
        return self.moved


@dataclass(frozen=True, kw_only=True)
class GemmCell(_StreamingCell):
    """One matrix product y[m, n] = x[m, k] W[n, k]^T."""

    m: int
    n: int
    k: int
    kind: ClassVar[Kind] = "gemm"
    text: ClassVar[str] = "gemm m{0.m} n{0.n} k{0.k} {0.dtype} {0.l2}"

    @property
    def moved(self) -> tuple[float, float]:
        """Bytes read and written."""
        element = DTYPE_BYTES[self.dtype]
        return (self.m + self.n) * self.k * element, self.m * self.n * element

    @property
    def counts(self) -> dict[str, Any]:
        """What its operation has besides bytes."""
        return {"kind": "gemm", "flops": 2 * self.m * self.n * self.k, "dtype": self.dtype}


@dataclass(frozen=True, kw_only=True)
class ElementwiseCell(_StreamingCell):
    """One elementwise, norm or gather kernel over ``rows`` vectors of ``width`` values.

    All operations of one size are interleaved.
    """

    op: str
    rows: int
    width: int
    kind: ClassVar[Kind] = "elementwise"
    name: ClassVar[str] = "{0.op} "
    text: ClassVar[str] = "elementwise r{0.rows} w{0.width} {0.dtype} {0.l2}"

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
    def counts(self) -> dict[str, Any]:
        """What its operation has besides bytes."""
        return {"kind": "gather" if self.op == "embedding" else "elementwise"}

    def call_bytes(self) -> tuple[float, float]:
        """Return the bytes of one set of inputs, and the bytes that a call allocates."""
        read, written = self.moved
        return read, 2 * written


@dataclass(frozen=True, kw_only=True)
class MemoryCell(_StreamingCell):
    """One stream over device memory; below the size of L2 and warm it measures the L2."""

    test: str
    working_set_bytes: int
    l2: L2State = "warm"
    kind: ClassVar[Kind] = "memory"
    name: ClassVar[str] = "{0.test} "
    text: ClassVar[str] = "memory {0.working_set_bytes} B"
    counts: ClassVar[dict[str, Any]] = {"kind": "copy"}

    @property
    def moved(self) -> tuple[float, float]:
        """Bytes read and written."""
        read, written = _MEMORY_TESTS[self.test]
        return read * self.working_set_bytes, written * self.working_set_bytes

    def call_bytes(self) -> tuple[float, float]:
        """Return the bytes of the buffer; a call allocates nothing."""
        return self.working_set_bytes, 0.0


KernelCell = AttentionCell | StepCell
Cell = KernelCell | GemmCell | ElementwiseCell | MemoryCell


def sizes_of(item: Workload | KernelCell) -> dict[str, Any]:
    """Return the sizes of a workload or a cell as fields of the other."""
    names = ("context_tokens", "decoded_tokens", "samples", "prompts", "query_tokens")
    return {name: getattr(item, name) for name in names}


def shape_of(cell: KernelCell, resident_blocks: int) -> AttentionShape:
    """Return the sizes of a cell's attention, of a layer of a step, for the accounts."""
    element = DTYPE_BYTES[cell.dtype]
    return AttentionShape(
        **sizes_of(cell),
        heads=cell.heads,
        kv_heads=cell.kv_heads,
        key_width=cell.head_dim,
        value_width=cell.head_dim,
        cache_width=2 * cell.kv_heads * cell.head_dim,
        activation_bytes=element,
        kv_bytes=element,
        dtype=cell.dtype,
        resident_blocks=resident_blocks,
    )


def _attention_workspace(cell: KernelCell, shape: AttentionShape) -> float:
    """Return a rough upper bound of a call's peak allocation. [bytes]."""
    tokens = cell.context_tokens + cell.decoded_tokens
    cache = shape.sequences * tokens * shape.cache_width * shape.kv_bytes
    group = shape.heads // shape.kv_heads
    outputs = 6 * shape.output_bytes + workspace_bytes(cell.kernel, cell)
    wide, logits = FLOAT32_BYTES / shape.kv_bytes, shape.logits_bytes(tokens)
    repeats = 1 + (group if group > 1 else 0) + group / 2
    masked = 4 * shape.rows * tokens * FLOAT32_BYTES * cell.samples
    more = {
        "standard_rebuilt": cache,
        "standard_repeat_kv": cache * group,
        # Everything in float32, KV heads repeated, the keys scaled, the logits.
        "standard_math": wide * (cache * repeats + 2 * logits),
        "standard_einsum": 4 * logits,
        "bifurcated_einsum": 4 * logits,
        "bifurcated_flex": masked if cell.dtype == "fp32" else 0,
    }
    return float(outputs + more.get(cell.kernel, 0))


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
