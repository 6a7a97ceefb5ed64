"""How a decode step is run: the way of attention, formats, execution, parallelism and constants."""

from collections.abc import Iterable
from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, Field, field_validator

from simulator.errors import WorkloadError, unknown
from simulator.inputs.dtypes import DTYPE_ALIASES, Dtype, activation_dtype
from simulator.inputs.files import Frozen, read_count, validate
from simulator.inputs.model import ModelShape
from simulator.inputs.workload import AtLeastOne, Workload
from simulator.units import MILLISECOND

Attention = Literal["standard", "bifurcated"]
KvLayout = Literal["copies", "shared", "rebuilt"]
Execution = Literal["graph", "compiled", "eager"]
ConstantsChoice = Literal["auto", "carried", "peak"]

ATTENTIONS: tuple[Attention, ...] = get_args(Attention)
KV_LAYOUTS: tuple[KvLayout, ...] = get_args(KvLayout)
EXECUTIONS: tuple[Execution, ...] = get_args(Execution)
CONSTANTS_CHOICES: tuple[ConstantsChoice, ...] = get_args(ConstantsChoice)


def _dtype(value: Any) -> Any:
    """Read the engines' spellings of a format."""
    return DTYPE_ALIASES.get(value, value) if isinstance(value, str) else value


DtypeField = Annotated[Dtype, BeforeValidator(_dtype)]


class Setup(Frozen):
    """How a decode step is run, whatever its sizes.

    Attributes
    ----------
    attention
        Whether every sample reads its context, or the context is read once for all.
    kernel
        The way attention is computed: a name of :data:`simulator.counts.attention.registry.WAYS`.
    kv_layout
        How standard attention keeps the context's cache: one copy for each sample, one for all, or
        one that every step concatenates anew. Bifurcated attention always keeps one for all.
    execution
        Launched as a CUDA graph, compiled, or eagerly: plain PyTorch, one kernel an operation.
    weight_dtype, kv_dtype
        Formats of weights and of the KV cache.
    tensor_parallel
        GPUs over which heads and MLP columns are split.
    constants
        ``auto`` takes the best known, ``carried`` ignores what was fitted or measured on the card,
        ``peak`` uses published peaks and no fixed times: a bound, not a prediction.
    gpu_memory_utilization
        Share of the card's memory that the process may use, in (0, 1]; vLLM's default.
    """

    attention: Attention = "standard"
    kernel: str = "flash"
    kv_layout: KvLayout = "copies"
    execution: Execution = "graph"
    weight_dtype: DtypeField = "bf16"
    kv_dtype: DtypeField = "bf16"
    tensor_parallel: AtLeastOne = 1
    constants: ConstantsChoice = "auto"
    gpu_memory_utilization: Annotated[float, Field(allow_inf_nan=True)] = 0.9

    @field_validator("gpu_memory_utilization")
    @classmethod
    def _a_share(cls, share: float) -> float:
        if not 0 < share <= 1:
            raise ValueError("is not in (0, 1]; engines use 0.9")
        return share

    @property
    def bifurcated(self) -> bool:
        """Whether the context is read once for all samples."""
        return self.attention == "bifurcated"

    @property
    def copies(self) -> bool:
        """Whether each sample keeps a copy of its context."""
        return self.kv_layout == "copies" and not self.bifurcated

    @property
    def rereads(self) -> bool:
        """Whether one stored context is read again for each sample."""
        return self.kv_layout == "shared" and not self.bifurcated

    @property
    def rebuilds(self) -> bool:
        """Whether every step concatenates the context with each sample's own tokens."""
        return self.kv_layout == "rebuilt" and not self.bifurcated

    @property
    def eager(self) -> bool:
        """Whether the step is plain PyTorch, launched kernel by kernel."""
        return self.execution == "eager"

    @property
    def graph(self) -> bool:
        """Whether the step is a serving engine's, launched as a CUDA graph."""
        return self.execution == "graph"

    @property
    def activation_dtype(self) -> Dtype:
        """Format of activations, in which attention multiplies."""
        return activation_dtype(self.weight_dtype)

    def under(self, attention: Attention) -> "Setup":
        """Return the same setup under a kind of attention, with the layout that it keeps.

        >>> Setup(kv_layout="copies").under("bifurcated").kv_layout
        'shared'
        """
        layout = "shared" if attention == "bifurcated" else self.kv_layout
        return self.but(attention=attention, kv_layout=layout)


def ask(model: ModelShape, **settings: Any) -> tuple[Setup, Workload]:
    """Read a question: how a model's step is run, and its sizes.

    Formats are chosen as serving engines choose them: weights have the model's own where none is
    asked for, and the KV cache that of the activations. Settings that are None count as not given.

    Raises
    ------
    WorkloadError
        If a field is unknown or its value impossible; one line names it.

    Examples
    --------
    >>> from simulator.inputs.presets import load_model
    >>> setup, work = ask(load_model("deepseek-v3"), samples=4, context_tokens="8K")
    >>> setup.weight_dtype, setup.kv_dtype, work.context_tokens
    ('fp8', 'bf16', 8192)
    """
    given = {name: value for name, value in settings.items() if value is not None}
    hows, sizes = Setup.model_fields, Workload.model_fields
    for name in given:
        if name not in hows and name not in sizes:
            raise WorkloadError(f"workload: {unknown('key', name, [*sizes, *hows])}")
    how = {"weight_dtype": model.weight_dtype} | {key: given[key] for key in given if key in hows}
    setup = validate(Setup, how, where="workload", error=WorkloadError)
    if "kv_dtype" not in given:
        setup = setup.but(kv_dtype=setup.activation_dtype)
    sizes_given = {key: given[key] for key in given if key in sizes}
    return setup, validate(Workload, sizes_given, where="workload", error=WorkloadError)


# How answers call what people give in other units and words.
_RENAMED = {
    "target_step_ms": ("target_step_s", MILLISECOND),
    "price_per_hour": ("usd_per_hour", 1.0),
}
_NUMBERS = ("target_step_ms", "price_per_hour", "target_request_s", "success_rate", "size_factors")


def read_limits(**given: Any) -> dict[str, Any]:
    """Read what an answer takes beside a question: sizes, targets and prices, or lists of them.

    What is None is left out. Milliseconds become seconds.

    Raises
    ------
    WorkloadError
        If one is no number, or no size.

    Examples
    --------
    >>> read_limits(output_tokens="1K", target_step_ms=15, price_per_hour=None)
    {'output_tokens': 1024, 'target_step_s': 0.015}
    """
    read: dict[str, Any] = {}
    for name, value in given.items():
        if value is None:
            continue
        several = isinstance(value, Iterable) and not isinstance(value, str)
        values = [_limit(name, item) for item in (value if several else (value,))]
        renamed, unit = _RENAMED.get(name, (name, 1))
        read[renamed] = [item * unit for item in values] if several else values[0] * unit
    return read


def _limit(name: str, value: Any) -> Any:
    """Read one size or number."""
    number = name in _NUMBERS
    try:
        read = float(value) if number else read_count(value)
    except (TypeError, ValueError):
        read = None
    if isinstance(value, bool) or read is None or (not number and not isinstance(read, int)):
        wanted = "number" if number else "whole number, such as 8192 or 8K"
        raise WorkloadError(f"{name} = {value!r} is not a {wanted}")
    return read
