"""What is asked of the model: how many samples of how long a context, and how they are decoded."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Protocol, get_args

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    field_serializer,
    model_validator,
)

from simulator.errors import WorkloadError, unknown
from simulator.inputs.dtypes import DTYPE_ALIASES, Dtype, activation_dtype
from simulator.inputs.files import read_count, validate
from simulator.inputs.model import ModelShape
from simulator.inputs.tree import Level, LevelLike, read_tree, tree_text
from simulator.numeric import Numeric, minimum

Attention = Literal["standard", "bifurcated"]
Kernel = Literal["ideal", "flash", "einsum", "sdpa_math"]
KvLayout = Literal["copies", "shared", "rebuilt"]
Execution = Literal["graph", "compiled", "eager"]

ATTENTIONS: tuple[Attention, ...] = get_args(Attention)
KERNELS: tuple[Kernel, ...] = get_args(Kernel)
KV_LAYOUTS: tuple[KvLayout, ...] = get_args(KvLayout)
EXECUTIONS: tuple[Execution, ...] = get_args(Execution)

# No card holds a thousandth of either; beyond it a size is a typing error.
LARGEST_COUNT = 10**9
LARGEST_TOKENS = 10**15


def _dtype(value: Any) -> Any:
    """Read the engines' spellings of a dtype."""
    return DTYPE_ALIASES.get(value, value) if isinstance(value, str) else value


Count = Annotated[int, BeforeValidator(read_count), Field(ge=0, le=LARGEST_COUNT)]
AtLeastOne = Annotated[int, BeforeValidator(read_count), Field(ge=1, le=LARGEST_COUNT)]
# A mean, such as 2.4 of 4 drafted tokens.
Accepted = Annotated[float, Field(ge=1, le=LARGEST_COUNT)]
DtypeField = Annotated[Dtype, BeforeValidator(_dtype)]


class HowRun(Protocol):
    """How a step is run, whatever its sizes."""

    @property
    def attention(self) -> Attention: ...  # noqa: D102
    @property
    def kernel(self) -> Kernel: ...  # noqa: D102
    @property
    def kv_layout(self) -> KvLayout: ...  # noqa: D102
    @property
    def execution(self) -> Execution: ...  # noqa: D102
    @property
    def weight_dtype(self) -> Dtype: ...  # noqa: D102
    @property
    def kv_dtype(self) -> Dtype: ...  # noqa: D102


class WorkloadLike(HowRun, Protocol):
    """What the counts read of a workload: numbers, or arrays that broadcast over a grid."""

    @property
    def prompts(self) -> Numeric: ...  # noqa: D102
    @property
    def samples(self) -> Numeric: ...  # noqa: D102
    @property
    def context_tokens(self) -> Numeric: ...  # noqa: D102
    @property
    def decoded_tokens(self) -> Numeric: ...  # noqa: D102
    @property
    def query_tokens(self) -> Numeric: ...  # noqa: D102
    @property
    def accepted_tokens(self) -> Numeric: ...  # noqa: D102
    @property
    def tensor_parallel(self) -> int: ...  # noqa: D102
    @property
    def tree(self) -> Sequence[LevelLike]: ...  # noqa: D102


class Workload(BaseModel):
    """One decode step's question.

    Attributes
    ----------
    context_tokens
        Tokens of the shared context, m_c. With a ``tree`` a path from root to sample.
    samples
        Sequences sampled from each context, b.
    prompts
        Distinct contexts decoded together, P. With a ``tree`` the nodes of its last level.
    decoded_tokens
        Tokens each sample holds of its own, m_d, the one being processed included.
    query_tokens
        Tokens of each sample processed in one step, n; more than one is speculative or multi-token
        decoding.
    accepted_tokens
        Tokens each sample moves forward in one step, on average: of n, those that are kept. Tokens
        per second, costs and the steps of a whole request depend on it, a step's time does not.
    attention, kernel, kv_layout, execution
        See docs/nomenclature.md.
    weight_dtype, kv_dtype
        Formats of weights and of the KV cache.
    tensor_parallel
        GPUs over which heads and MLP columns are split.
    tree
        What the prompts' contexts share: levels from the root down, or a text such as
        ``system=2K,problem=512x8``. Empty where they share nothing, the same as one level.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    context_tokens: Count = 8192
    samples: AtLeastOne = 16
    prompts: AtLeastOne = 1
    decoded_tokens: Count = 64
    query_tokens: AtLeastOne = 1
    accepted_tokens: Accepted = 1
    attention: Attention = "standard"
    kernel: Kernel = "flash"
    kv_layout: KvLayout = "copies"
    execution: Execution = "graph"
    weight_dtype: DtypeField = "bf16"
    kv_dtype: DtypeField = "bf16"
    tensor_parallel: AtLeastOne = 1
    tree: tuple[Level, ...] = ()

    def under(self, attention: Attention) -> "Workload":
        """Return the same workload under a kind of attention, with the layout that it keeps."""
        layout = kept_layout(attention, self.kv_layout)
        return self.model_copy(update={"attention": attention, "kv_layout": layout})

    def splitting(self, names: Collection[str]) -> "Workload":
        """Return the same tree with these levels read apart, and all others with those below.

        Raises
        ------
        WorkloadError
            If a level is not there.
        """
        known = [level.name for level in self.tree]
        for name in names:
            if name not in known:
                raise WorkloadError(unknown("level", name, known))
        levels = [level.model_copy(update={"split": level.name in names}) for level in self.tree]
        return self.model_copy(update={"tree": tuple(levels)})

    @field_serializer("tree")
    def _as_text(self, levels: tuple[Level, ...]) -> str:
        return tree_text(levels)

    @model_validator(mode="before")
    @classmethod
    def _sizes_of_the_tree(cls, data: Any) -> Any:
        """Read the tree, and take the context's length and the prompts from it."""
        if not isinstance(data, Mapping) or "tree" not in data:
            return data
        levels = read_tree(data["tree"]) if data["tree"] else ()
        if not levels:
            return {**data, "tree": ()}
        sizes = {
            "context_tokens": sum(level.tokens for level in levels),
            "prompts": math.prod(level.branches for level in levels),
        }
        for name, size in sizes.items():
            given = data.get(name, size)
            if read_count(given) != size:
                raise ValueError(f"{name} = {given}, but the tree makes it {size}; leave it out")
        return {**data, **sizes, "tree": levels}

    @model_validator(mode="after")
    def _computable(self) -> "Workload":
        """Refuse impossible steps, and sizes whose products are no longer exact in float64."""
        if self.accepted_tokens > self.query_tokens:
            raise ValueError(
                f"accepted_tokens = {self.accepted_tokens:g} is more than query_tokens = "
                f"{self.query_tokens}: a step cannot accept what it does not process"
            )
        tokens = self.context_tokens + self.decoded_tokens + self.query_tokens
        if self.prompts * self.samples * tokens > LARGEST_TOKENS:
            raise ValueError(
                f"prompts x samples x tokens = {self.prompts * self.samples * tokens:.3g} "
                f"is more than {LARGEST_TOKENS:.0e}"
            )
        return self


def kept_layout(attention: Attention, kv_layout: KvLayout) -> KvLayout:
    """Return how the context cache lies: bifurcated attention always keeps one for all.

    >>> kept_layout("standard", "copies"), kept_layout("bifurcated", "copies")
    ('copies', 'shared')
    """
    return "shared" if attention == "bifurcated" else kv_layout


def workload_for(model: ModelShape, **settings: Any) -> Workload:
    """Build a workload for a model, with formats as serving engines choose them.

    Weights have the model's own format where none is asked for, and the KV cache that of the
    activations. Settings that are None count as not given.

    Raises
    ------
    WorkloadError
        If a field is unknown or its value impossible; one line names it.

    Examples
    --------
    >>> from simulator.inputs.presets import load_model
    >>> work = workload_for(load_model("deepseek-v3"), samples=4, context_tokens="8K")
    >>> work.weight_dtype, work.kv_dtype, work.context_tokens
    ('fp8', 'bf16', 8192)
    """
    given = {name: value for name, value in settings.items() if value is not None}
    given.setdefault("weight_dtype", model.weight_dtype)
    work = validate(Workload, given, where="workload", error=WorkloadError)
    if "kv_dtype" in given:
        return work
    return work.model_copy(update={"kv_dtype": activation_dtype(work.weight_dtype)})


def forward_tokens(work: WorkloadLike) -> Numeric:
    """Return the tokens by which a step moves all samples of all prompts forward.

    >>> forward_tokens(Workload(samples=16, query_tokens=4, accepted_tokens=2.5))
    40.0
    """
    accepted = minimum(work.accepted_tokens, work.query_tokens)
    return work.prompts * work.samples * accepted


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadGrid:
    """Many questions at once: the fields of :class:`Workload`, numeric ones as float64 arrays.

    The arrays broadcast with each other: an axis of its own for each makes their full grid, and
    work that does not depend on an axis is not repeated along it.
    """

    context_tokens: Numeric
    samples: Numeric
    prompts: Numeric = 1
    decoded_tokens: Numeric = 64
    query_tokens: Numeric = 1
    accepted_tokens: Numeric = 1
    attention: Attention = "standard"
    kernel: Kernel = "flash"
    kv_layout: KvLayout = "copies"
    execution: Execution = "graph"
    weight_dtype: Dtype = "bf16"
    kv_dtype: Dtype = "bf16"
    tensor_parallel: int = 1
    tree: tuple[LevelLike, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LevelGrid:
    """One level of many trees at once; see :class:`~simulator.inputs.tree.Level`."""

    tokens: Numeric
    branches: Numeric = 1
    split: bool = True
