"""The setup of a decode step: attention, formats, execution, parallelism and constants."""

import reprlib
from math import inf
from numbers import Integral
from typing import Annotated, Any, Literal, get_args

from simulator.errors import WorkloadError, unknown
from simulator.inputs.dtypes import KV_BYTES, Dtype, KvDtype, read_dtype
from simulator.inputs.files import read_count, validate
from simulator.inputs.formats import WeightFormats, WeightName, one_format
from simulator.inputs.model import ModelShape
from simulator.inputs.parallelism import Parallelism
from simulator.inputs.record import Rules
from simulator.inputs.workload import LARGEST_TOKENS, AtLeastOne, Workload, one_of_each
from simulator.units import MILLISECOND

Attention = Literal["standard", "bifurcated"]
KvLayout = Literal["shared", "copies", "rebuilt"]
Execution = Literal["graph", "compiled", "eager"]
Routing = Literal["balanced", "uniform", "skewed"]
LatentForm = Literal["auto", "absorbed", "expanded", "mixed"]
ConstantsChoice = Literal["auto", "carried", "peak"]
Engine = Literal["vllm", "sglang", "trtllm", "none"]

ATTENTIONS: tuple[Attention, ...] = get_args(Attention)
KV_LAYOUTS: tuple[KvLayout, ...] = get_args(KvLayout)
EXECUTIONS: tuple[Execution, ...] = get_args(Execution)
ROUTINGS: tuple[Routing, ...] = get_args(Routing)
LATENT_FORMS: tuple[LatentForm, ...] = get_args(LatentForm)
CONSTANTS_CHOICES: tuple[ConstantsChoice, ...] = get_args(ConstantsChoice)
ENGINES: tuple[Engine, ...] = get_args(Engine)
# Fields about the process that a scenario does not have.
PROCESS = ("constants", "gpu_memory_utilization", "engine", "max_batched_tokens")


def _power(exponent: float) -> float:
    """Refuse an exponent of routing outside its range."""
    if not 1 < exponent < 2:  # noqa: PLR2004
        raise ValueError("is not between 1 and 2; measured rows have 1.01 and 1.2")
    return exponent


def _share(share: float) -> float:
    """Refuse a share that is none."""
    if not 0 < share <= 1:
        per_cent = 1 < share <= 100  # noqa: PLR2004
        raise ValueError(
            f"is not in (0, 1]; {f'write {share / 100:g}' if per_cent else 'engines use 0.9'}"
        )
    return share


class Setup(Parallelism):
    """How a decode step is run, apart from its sizes.

    Attributes
    ----------
    attention
        ``standard``: every sample reads its context. ``bifurcated``: it is read once for all.
    kernel
        The way of attention, a name in :data:`simulator.counts.attention.registry.WAYS`.
    kv_layout
        How standard attention stores the context: one for all, as paged engines keep it; one copy
        per sample, as contiguous caches do; or one that every step concatenates again. Bifurcated
        attention always stores one for all.
    execution
        CUDA graph, compiled, or eager: plain PyTorch with one kernel per operation.
    weight_dtype, kv_dtype
        Formats of weights and of the KV cache. One format of weights holds for all matrices within
        layers; ``auto`` stands for those of the checkpoint that it is a setup :meth:`of`.
    tensor_parallel, data_parallel, expert_parallel, pipeline_parallel
        How the model is laid over GPUs.
    routing
        How tokens choose a model's experts: in turn (balanced), at random (uniform), or by a power
        law (skewed).
    routing_exponent
        The exponent of skewed routing, between 1 and 2: see ``counts/experts.py``.
    latent_form
        Form of latent attention. ``absorbed``: queries move into the latent space. ``expanded``:
        the cache holds keys and values of every head. ``mixed``: the shared context is also kept
        expanded, own tokens are absorbed; standard attention shares nothing and stays absorbed.
        ``auto``: answers choose, see :func:`simulator.answers.estimate.latent_forms`; counts take
        it as ``absorbed``. Other models ignore it.
    constants
        ``auto`` takes the best known, ``carried`` ignores what was fitted or measured on the card,
        ``peak`` uses published peaks without fixed times: a bound, not a prediction.
    gpu_memory_utilization
        Share of the card's memory that the process may use, in (0, 1]; 0.9 is vLLM's default.
    engine
        Whose meaning that share has: see :func:`simulator.counts.memory.usable_bytes`; and whether
        kernels of their own quantise activations, see :attr:`quantises_apart`; and how its users
        read a shared context once. ``none`` is a loop of one's own with vLLM's memory and kernels:
        the step as it is, in whose interval under load nothing is of engines.
    max_batched_tokens
        Tokens of the largest prefill batch that an engine allows, for which it keeps memory. None
        takes the engine's default: see :func:`simulator.counts.memory.batched_tokens`.
    """

    attention: Attention = "standard"
    kernel: str = "flash"
    kv_layout: KvLayout = "shared"
    execution: Execution = "graph"
    weight_dtype: Annotated[WeightName, Rules(before=read_dtype)] = "bf16"
    kv_dtype: Annotated[KvDtype, Rules(before=read_dtype)] = "bf16"
    routing: Routing = "uniform"
    routing_exponent: Annotated[float, Rules(allow_inf_nan=True, after=_power)] = 1.2
    latent_form: LatentForm = "auto"
    constants: ConstantsChoice = "auto"
    gpu_memory_utilization: Annotated[float, Rules(allow_inf_nan=True, after=_share)] = 0.9
    engine: Engine = "vllm"
    max_batched_tokens: AtLeastOne | None = None
    _checkpoint: WeightFormats = WeightFormats()

    @property
    def bifurcated(self) -> bool:
        """Whether the context is read once for all samples."""
        return self.attention == "bifurcated"

    @property
    def copies(self) -> bool:
        """Whether each sample has its own copy of the context."""
        return self.kv_layout == "copies" and not self.bifurcated

    @property
    def rereads(self) -> bool:
        """Whether every sample reads the one stored context."""
        return self.kv_layout == "shared" and not self.bifurcated

    @property
    def rebuilds(self) -> bool:
        """Whether every step concatenates the context with each sample's decoded tokens."""
        return self.kv_layout == "rebuilt" and not self.bifurcated

    @property
    def expanded(self) -> bool:
        """Whether a latent cache is kept as keys and values of every head."""
        return self.latent_form == "expanded"

    @property
    def mixed(self) -> bool:
        """Whether the shared context of a latent cache is kept expanded as well."""
        return self.latent_form == "mixed" and self.bifurcated

    @property
    def eager(self) -> bool:
        """Whether the step is plain PyTorch, launched kernel by kernel."""
        return self.execution == "eager"

    @property
    def graph(self) -> bool:
        """Whether the step runs as in a serving engine, as a CUDA graph."""
        return self.execution == "graph"

    @property
    def quantises_apart(self) -> bool:
        """Whether activations are quantised by kernels of their own.

        Plain PyTorch never quantises. In SGLang and TensorRT-LLM the kernel before does, as far as
        rows under load tell: without these kernels their median errors fall from 18.4 to 16.8 and
        from 9.1 to 7.5 % (docs/serving.md), though not in every cell.
        """
        return not self.eager and self.engine in ("vllm", "none")

    @property
    def activation_dtype(self) -> Dtype:
        """Format of activations and of attention's products."""
        return self.weights.base

    @property
    def weights(self) -> WeightFormats:
        """Formats of the weights by group of tensors."""
        return self._checkpoint if self.weight_dtype == "auto" else one_format(self.weight_dtype)

    @property
    def kv_bytes(self) -> float:
        """Bytes of a cached value, scales included. [bytes]."""
        return KV_BYTES[self.kv_dtype]

    def of(self, model: ModelShape) -> "Setup":
        """Return the same setup for a model's checkpoint, whose formats ``auto`` stands for."""
        return self.but(_checkpoint=model.weights)

    def under(self, attention: Attention) -> "Setup":
        """Return the same setup with a kind of attention and the layout that it uses.

        >>> Setup(kv_layout="copies").under("bifurcated").kv_layout
        'shared'
        """
        layout = "shared" if attention == "bifurcated" else self.kv_layout
        return self.but(attention=attention, kv_layout=layout)


def ask(model: ModelShape, **settings: Any) -> tuple[Setup, Workload]:
    """Read a question's settings as a setup and a workload.

    Default formats are those of serving engines: the checkpoint's own for weights and the KV cache,
    and that of the activations for a cache that the checkpoint does not name. None counts as not
    given, ``auto`` as the default. A number of prompts without samples is a batch of single ones.

    Raises
    ------
    WorkloadError
        If a field is unknown or its value invalid; the one-line message names it.

    Examples
    --------
    >>> from simulator.inputs.presets import load_model
    >>> setup, work = ask(load_model("deepseek-v3"), samples=4, context_tokens="8K")
    >>> setup.weight_dtype, setup.kv_dtype, work.context_tokens
    ('fp8_block', 'bf16', 8192)
    """
    given = {name: value for name, value in settings.items() if value is not None}
    for name in ("weight_dtype", "kv_dtype"):
        if str(given.get(name)) == "auto":
            del given[name]
    hows, sizes = Setup.fields, Workload.fields
    for name in given:
        if name not in hows and name not in sizes:
            raise WorkloadError(f"workload: {unknown('key', name, [*sizes, *hows])}")
    how = {"weight_dtype": model.weights.name} | {key: given[key] for key in given if key in hows}
    setup = validate(Setup, how, where="workload", error=WorkloadError).of(model)
    if "kv_dtype" not in given:
        setup = setup.but(kv_dtype=model.kv_dtype or setup.activation_dtype)
    sizes_given = one_of_each({key: given[key] for key in given if key in sizes})
    return setup, validate(Workload, sizes_given, where="workload", error=WorkloadError)


# The answers' names for quantities that users give in other units and words.
_RENAMED = {
    "target_step_ms": ("target_step_s", MILLISECOND),
    "ttft_ms": ("ttft_s", MILLISECOND),
    "tpot_ms": ("tpot_s", MILLISECOND),
    "price_per_hour": ("usd_per_hour", 1.0),
}
_NUMBERS = (*_RENAMED, "requests_per_s", "percentile", "target_request_s", "success_rate")
_NUMBERS += ("size_factors",)
_NAMES = ("attentions", "families")
_LISTS = (*_NAMES, "target_kv_heads", "size_factors", "tensor_parallel_sizes")


def read_limits(**given: Any) -> dict[str, Any]:
    """Read an answer's further arguments: sizes, targets and prices, or lists of them.

    None is left out. Milliseconds become seconds; a single item becomes a list where one is taken.

    Raises
    ------
    WorkloadError
        If one is not a finite number or size, or is a list where one value is taken.

    Examples
    --------
    >>> read_limits(output_tokens="1K", target_step_ms=15, price_per_hour=None)
    {'output_tokens': 1024, 'target_step_s': 0.015}
    """
    read: dict[str, Any] = {}
    for name, value in given.items():
        if value is None:
            continue
        if name in _LISTS:
            try:
                several = [value] if isinstance(value, str) else list(value)
            except TypeError:
                several = [value]
            read[name] = [_limit(name, item) for item in several]
        else:
            renamed, unit = _RENAMED.get(name, (name, 1))
            read[renamed] = _limit(name, value) * unit
    return read


def read_loads(**given: Any) -> dict[str, Any]:
    """Read loads, one or several of each kind, as lists; None as an empty one.

    Raises
    ------
    WorkloadError
        If one is not a number above zero, or a list is empty.

    Examples
    --------
    >>> read_loads(users=["1K", 8], requests_per_s=None)
    {'users': [1024, 8], 'requests_per_s': []}
    """
    loads: dict[str, list[Any]] = {}
    for name, value in given.items():
        values = value if isinstance(value, list | tuple) else [value]
        if not values:
            raise WorkloadError(f"{name} = {value!r} is empty: give a number, or leave it out")
        loads[name] = [read for one in values for read in read_limits(**{name: one}).values()]
        if any(load <= 0 for load in loads[name]):
            raise WorkloadError(f"{name} = {min(loads[name]):g} is not positive")
    return loads


def _limit(name: str, value: Any) -> Any:
    """Read one size or number, or the name of a kind of attention or of a family."""
    if name in _NAMES:
        if name == "attentions" and value not in ATTENTIONS:
            raise WorkloadError(unknown("attention", str(value), ATTENTIONS))
        return str(value)
    if (name, value) == ("size_factors", "paper"):
        return value
    number = name in _NUMBERS
    wanted: Any = float if number else Integral
    try:
        read = float(value) if number else read_count(value)
    except (TypeError, ValueError):
        read = None
    except OverflowError:
        read = inf
    if isinstance(value, bool) or not isinstance(read, wanted):
        what = "number" if number else "whole number, such as 8192 or 8K"
        raise WorkloadError(f"{name} = {reprlib.repr(value)} is not a {what}")
    # So that everything computed from it is finite as well; NaN is not below either.
    if not abs(read) <= LARGEST_TOKENS:
        told = reprlib.repr(value)
        raise WorkloadError(f"{name} = {told} is not a number up to {LARGEST_TOKENS:.0e}")
    return read if number else int(read)
