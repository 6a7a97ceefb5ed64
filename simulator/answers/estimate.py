"""One decode step: its time, traffic and memory, and what binds it."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import itemgetter
from typing import Any

from simulator.answers.answer import Answer
from simulator.counts.attention.flash import Flash
from simulator.counts.attention.registry import find_way
from simulator.counts.memory import Memory, memory
from simulator.counts.operation import STATE_KINDS, Kind, Operation, Totals
from simulator.counts.transformer import around_attention, attention_operations, check_parallelism
from simulator.errors import WorkloadError
from simulator.inputs.dtypes import DTYPE_BYTES, EXPANDED, Dtype, is_low_precision
from simulator.inputs.hardware import REPORTED_SHARE, HardwareProfile
from simulator.inputs.model import ModelShape
from simulator.inputs.setup import Attention, Setup
from simulator.inputs.workload import Workload
from simulator.numeric import Numeric, surely_positive
from simulator.timing.constants import LOW_PRECISION, Key, Rates, rates
from simulator.timing.interval import Uncertainty, uncertainty, unknown_regime
from simulator.timing.limits import peak_flops_per_s, resident_blocks, runs_trtllmgen
from simulator.timing.roofline import Roof
from simulator.timing.step import StepTime, decode_time, memory_traffic, step_time
from simulator.units import format_gib, format_time

ENGINE_NAMES: Mapping[str, str] = {
    "vllm": "vLLM",
    "sglang": "SGLang",
    "trtllm": "TensorRT-LLM",
    "none": "your own loop",
}
# The beginnings of the note about a step that does not fit, or may not.
NOT_SURE_TO_FIT = ("Does not fit", "Whether it fits")
# The exponent of skewed routing that a setup has unless another is asked for.
USUAL_EXPONENT = Setup.fields["routing_exponent"]
# The width of heads that TensorRT-LLM's attention kernels lack (aiconfigurator rows of B200).
FALLBACK_WIDTH = 192


@dataclass(frozen=True, eq=False, repr=False)
class Question:
    """A question about one decode step: what is decoded, on what, how, and its sizes.

    Sizes are numbers, or arrays for the points of a grid, so that a question equals only itself.
    """

    model: ModelShape
    gpu: HardwareProfile
    setup: Setup
    workload: Workload

    @property
    def rates(self) -> Rates:
        """What the GPU's constants say of its speed."""
        return rates(self.gpu, self.setup.constants)

    @property
    def attention(self) -> Attention:
        """Kind of attention."""
        return self.setup.attention

    @property
    def gpus(self) -> int:
        """GPUs of the group."""
        return self.setup.gpus

    @property
    def unknown(self) -> str:
        """Why no rows tell how far the time may be off; empty if some do."""
        return unknown_regime(self.model, self.rates, self.setup)

    @property
    def interval_known(self) -> bool:
        """Whether rows tell how far the time may be off; if not, its upper end is infinite."""
        return not self.unknown

    def but(self, **changes: Any) -> "Question":
        """Return the same question with other fields of its setup or its workload."""
        setup = {name: changes.pop(name) for name in [*changes] if name in Setup.fields}
        work = self.workload.but(**changes) if changes else self.workload
        return self.of(self.setup.but(**setup) if setup else None, work)

    def of(self, setup: Setup | None = None, workload: Workload | None = None) -> "Question":
        """Return the same question with another setup or other sizes, as far as they are given."""
        return Question(self.model, self.gpu, setup or self.setup, workload or self.workload)

    def under(self, attention: Attention) -> "Question":
        """Return the same question about a kind of attention and the layout that it uses."""
        return self.of(self.setup.under(attention))

    def around(self) -> tuple[StepTime, StepTime]:
        """Time what comes before and after attention, the same for either kind of it."""
        parts = around_attention(self.model, self.setup, self.workload)
        before, after = (step_time(part, self.rates, self.setup.execution) for part in parts)
        return before, after

    def attending(self) -> StepTime:
        """Time the attention of all layers."""
        resident = resident_blocks(self.gpu)
        operations = attention_operations(self.model, self.setup, self.workload, resident)
        return step_time(operations, self.rates, self.setup.execution)

    def step_time_s(self) -> Numeric:
        """Return the time of the step. [s]."""
        return decode_time(self.model, self.setup, self.workload, self.rates).total_s

    def answered(self, time: StepTime) -> "Estimate":
        """Return the answer, given the time of the step."""
        return Estimate(
            *(self.model, self.gpu, self.setup, self.workload),
            time=time,
            memory=self.memory_needs(),
        )

    def memory_needs(self, *, prefill: bool = False) -> Memory:
        """Count the memory that a step, or with ``prefill`` a whole request, needs on one GPU."""
        return memory(
            self.model,
            self.setup,
            self.workload,
            card_bytes=self.gpu.memory_bytes,
            resident_blocks=resident_blocks(self.gpu),
            prefill=prefill,
        )

    def check(self) -> None:
        """Refuse a question that cannot run that way, before anything is counted.

        Raises
        ------
        WorkloadError
            For an unknown kernel, heads that do not divide over the group, a latent cache or a tree
            that the kernel does not support, a form of latent attention for a model without it, or
            a group without a link.
        """
        model, setup = self.model, self.setup
        check_parallelism(model, setup)
        if model.latent is None and setup.latent_form != "auto":
            raise WorkloadError(
                f"latent_form = {setup.latent_form}: {model.name} has no latent attention"
            )
        if model.indexer is not None and setup.latent_form not in ("auto", "absorbed"):
            raise WorkloadError(
                f"latent_form = {setup.latent_form}: each query of {model.name} selects tokens of "
                "its own, which engines attend to in the absorbed form alone"
            )
        if refusal := find_way(setup.kernel).refusal(model, self.workload):
            raise WorkloadError(refusal)
        if setup.gpus > 1 and self.gpu.link_bytes_per_s(setup.gpus) is None:
            raise WorkloadError(
                f"{self.gpu.id} has no link in its profile: tensor_parallel must be 1"
            )


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Estimate(Question, Answer):
    """One decode step of a workload on one GPU, or on each GPU of a tensor-parallel group.

    Counts and memory are those of one GPU; tokens per second are the group's. A block of a sweep
    is one too, whose sizes are arrays: then no property that is a plain number has a value.
    """

    time: StepTime
    memory: Memory

    @property
    def operations(self) -> tuple[Operation, ...]:
        """The operations of the step, in its order."""
        return self.time.operations

    @property
    def step_s(self) -> float:
        """Time of the step. [s]."""
        return float(self.time.total_s)

    @cached_property
    def uncertainty(self) -> Uncertainty:
        """The interval of the step's time, and the errors behind it."""
        return uncertainty(self.time, self.rates, self.setup, known=self.interval_known)

    @property
    def step_low_s(self) -> float:
        """Lower end of the step's interval: see :mod:`simulator.timing.interval`. [s]."""
        return float(self.uncertainty.low_s)

    @property
    def step_high_s(self) -> float:
        """Upper end of the step's interval. [s]."""
        return float(self.uncertainty.high_s)

    @property
    def tokens_per_s(self) -> float:
        """Tokens gained per second, over all samples of all prompts."""
        return float(self.workload.forward_tokens) / self.step_s

    @property
    def bound(self) -> Roof:
        """What bounds the step's time."""
        return self.time.bound

    @property
    def memory_traffic_bytes(self) -> Numeric:
        """Bytes of ``totals`` that memory serves; the L2 cache serves the others. [bytes]."""
        return memory_traffic(self.operations, self.rates, self.totals)

    @property
    def memory_traffic_bytes_low(self) -> Numeric:
        """What memory serves at the lower end of the step's interval. [bytes]."""
        return memory_traffic(self.operations, self.rates, self.totals, least=True)

    @property
    def totals(self) -> Totals:
        """Sums over the operations that the GPU runs."""
        return self.time.totals

    @cached_property
    def notes(self) -> tuple[str, ...]:
        """What was assumed and what the user should know, one sentence each."""
        return tuple(_notes(self))


def estimate(question: Question) -> Estimate:
    """Estimate one decode step.

    Of several forms of latent attention the fastest one that fits is taken; the result's setup
    names it.

    Raises
    ------
    WorkloadError
        If the workload cannot run that way.
    """
    question.check()
    asked = question.under(question.attention)
    before, after = asked.around()
    every = [form.answered(before + attends + after) for form, attends in forms_to_try(asked)]
    return min(every, key=lambda result: (not result.memory.fits, result.step_s))


def latent_forms(model: ModelShape, setup: Setup) -> list[Setup]:
    """Return the setups among which the fastest is taken: one, unless ``latent_form`` is auto.

    Under ``auto`` standard attention is absorbed, as in engines and plain PyTorch. Bifurcated
    attention is absorbed or, in engines, mixed.
    """
    if model.latent is None or setup.latent_form != "auto":
        return [setup]
    mixes = setup.bifurcated and not setup.eager and model.indexer is None
    forms = ("absorbed", "mixed") if mixes else ("absorbed",)
    return [setup.but(latent_form=form) for form in forms]


def forms_to_try(question: Question) -> Sequence[tuple[Question, StepTime]]:
    """Return those of :func:`latent_forms` that may be the fastest that fits somewhere.

    Each has its attention, in which alone they differ, so most points and blocks of a grid need
    only one.
    """
    forms = [question.of(setup) for setup in latent_forms(question.model, question.setup)]
    tried = [(form, form.attending()) for form in forms]
    if len(forms) == 1:
        return tried
    absorbed_s, mixed_s = (attending.device_s for _, attending in tried)
    gained_s = absorbed_s - mixed_s
    if surely_positive(-gained_s):
        return tried[:1]
    absorbed, mixed = (form.memory_needs().free_bytes for form in forms)
    fits_alike = surely_positive(mixed) or surely_positive(-absorbed)
    return tried[1:] if fits_alike and surely_positive(gained_s) else tried


def unknown_note(reasons: Iterable[str]) -> str:
    """Say why intervals are not known; nothing if every reason is empty."""
    why = "; ".join(dict.fromkeys(filter(None, reasons)))
    if not why:
        return ""
    return f"Interval not known: {why}. Only the published peaks bound the time, from below."


def _notes(step: Estimate) -> Iterator[str]:
    """Say what was assumed and what the user should know, one sentence each."""
    model, work = step.model, step.workload
    yield constants_note(step.rates)
    yield from model_notes(model)
    if unknown := unknown_note([step.unknown]):
        yield unknown
    yield from length_notes(model, work.context_tokens + work.decoded_tokens)
    yield from _format_notes(step)
    yield from _group_notes(step)
    yield from _attention_notes(step)
    yield from _routing_notes(model, step.setup)
    if work.query_tokens > 1:
        drafts = (
            "the model's own layers draft them (operations named _draft)"
            if model.drafting_group is not None
            else "whoever drafts them is not timed"
        )
        yield (
            f"Tokens per second count {work.accepted_tokens:g} of {work.query_tokens} query tokens "
            f"of each sample as accepted; {drafts}."
        )
    if model.head_dim == FALLBACK_WIDTH and model.latent is None and runs_trtllmgen(step.gpu):
        yield (
            f"Engines fall back to a Triton kernel for heads {FALLBACK_WIDTH} wide on this GPU, "
            "which reached 0.1 to 0.6 of the bandwidth in measured calls: attention takes longer."
        )
    yield from memory_notes(step)
    if short := fits_note(step.memory):
        yield short
    yield from _state_notes(step)
    yield from _stored_notes(step)


def _state_notes(step: Estimate) -> Iterator[str]:
    """Say what layers with a state have to share, and how much of the step they take."""
    layers = sum(group.count for group in step.model.layer_groups if group.state is not None)
    if layers:
        spent = sum(
            operation.repeat * float(of_one.device_s)
            for operation, of_one in step.time.calls
            if operation.kind in STATE_KINDS or operation.name.startswith("state_")
        )
        yield (
            f"{layers} of {step.model.layers} layers mix tokens by a state of constant size, of "
            f"which each sequence has its own: in {format_time(spent)} of the step nothing is "
            "shared, whatever the attention."
        )


def memory_notes(question: Question) -> Iterator[str]:
    """Say what of the memory is carried, and from where."""
    gpu, setup = question.gpu, question.setup
    if gpu.memory_carried:
        yield (
            f"What the driver of {gpu.name} reports of its memory is not known: {REPORTED_SHARE} "
            "times the published size, carried from other cards."
        )
    if setup.engine != "vllm":
        name = ENGINE_NAMES[setup.engine]
        yield f"What {name} keeps of the memory is carried from vLLM's start-up logs."
    elif setup.gpus > 1:
        yield "What a group's communication keeps of the memory is carried from one SGLang log."


def model_notes(model: ModelShape) -> list[str]:
    """Say what was assumed in reading the model, one sentence each."""
    return [f"{model.name}: {note}." for note in model.notes]


def length_notes(model: ModelShape, tokens: int) -> Iterator[str]:
    """Warn of sequences of more tokens than the model was made for."""
    limit = model.max_context_tokens
    if limit is not None and tokens > limit:
        yield f"Warning: {tokens:,} tokens exceed the {limit:,} that {model.name} was made for."


def _attention_notes(question: Question) -> Iterator[str]:
    """Say what attention reads and keeps, and in which form it is computed."""
    model, setup, work = question.model, question.setup, question.workload
    if setup.bifurcated and (caution := find_way(setup.kernel).caution):
        yield caution
    if any(group.window is not None for group in model.layer_groups):
        yield "Layers with a sliding window read and keep only their window."
    if any(group.chunk is not None for group in model.layer_groups):
        yield "Layers that attend in chunks read and keep only the last one."
    if len(work.tree) > 1 and setup.bifurcated:
        joined = ", ".join(level.name for level in work.tree if not level.split)
        yield (
            f"Levels read together with what is below them: {joined}."
            if joined
            else "Each level of the tree is read once per node; see 'bifurcate tree' for others."
        )
    if model.indexer is not None:
        yield (
            f"Each query attends to the {model.indexer.top_k:,} tokens at most that it selects, "
            "which no other shares: the attention saves only reads of index keys."
        )
    elif model.latent is not None:
        grouped = model.latent.groups > 1
        yield _latent_note(setup, "GLA" if grouped else "MLA")
        if grouped and not setup.expanded:
            yield "No rows are of grouped latent attention: MLA's constants stand in."


def _latent_note(setup: Setup, kind: str) -> str:
    """Say in which form latent attention is computed, and what that means."""
    if setup.expanded:
        means = "expanded: the cache holds keys and values of every head."
    elif setup.mixed:
        means = (
            "mixed: the shared context is kept expanded as well and takes fewer FLOPs; own tokens "
            "are absorbed."
        )
    else:
        means = (
            "absorbed: heads of a sample share each read. With many samples the mixed form "
            "saves arithmetic."
        )
    # Only bifurcated attention mixes: beside it, standard attention has another form.
    return f"{'Bifurcated latent' if setup.mixed else 'Latent'} attention ({kind}) is {means}"


def _stored_notes(step: Estimate) -> Iterator[str]:
    """Say how the reads of one stored context are timed, if there is one."""
    gpu_rates = step.rates
    footprints = [
        item.reused_footprint_bytes / gpu_rates.of(item).l2_bytes[item.kind]
        for item in step.operations
        if item.together_bytes and item.reused_bytes
    ]
    if not footprints:
        return
    if max(footprints) <= 1:
        cache = "the cache behind L2" if gpu_rates.gpu.peak.memory_side_cache_mib else "L2"
        yield (
            f"After its first read a layer's stored context is read from {cache}, which can hold "
            "it."
        )
    elif gpu_rates.keeping_up_measured:
        yield "How one stored context is read again was measured on this card."
    else:
        yield (
            "No public row settles the time over one stored context: its interval runs from one "
            "read for each wave of thread blocks to one for each sample ('bifurcate measure' "
            "tells)."
        )


def fits_note(needs: Memory) -> str:
    """Say how much memory is short, or that it is too close to call; empty if it fits."""
    if needs.verdict == "fits":
        return ""
    no, unsure = NOT_SURE_TO_FIT
    if needs.verdict == "does not fit":
        return f"{no}: {format_gib(-float(needs.free_bytes))} short on each GPU."
    return (
        f"{unsure} is too close to call: it takes {format_gib(needs.low_bytes)} to "
        f"{format_gib(needs.high_bytes)} of {format_gib(needs.capacity_bytes)} on "
        "each GPU."
    )


def _routing_notes(model: ModelShape, setup: Setup) -> Iterator[str]:
    """Say how tokens choose experts, if that was asked."""
    if setup.routing != "skewed" and setup.routing_exponent != USUAL_EXPONENT:
        yield f"Only skewed routing has an exponent: {setup.routing} routing takes none."
    elif setup.routing == "uniform":
        return
    elif model.experts is None:
        yield f"{model.name} has no experts: the routing changes nothing."
    elif setup.routing == "balanced":
        yield "Tokens visit the experts in turn: more of them than real routing does."
    else:
        yield (
            f"Loads of experts follow a power law with exponent {setup.routing_exponent:g}, as in "
            "aiconfigurator's rows."
        )


def _format_notes(question: Question) -> Iterator[str]:
    """Say which formats and kernels the card, or its rows, lack, and what stands in for them."""
    gpu, setup, gpu_rates = question.gpu, question.setup, question.rates
    # Kinds of what is stored, what to call them, and their number formats.
    others = "products outside experts" if question.model.experts else "products"
    stored: list[tuple[Kind, str, Dtype]] = [("gemm", others, setup.weights.products)]
    if question.model.experts is not None:
        stored.append(("experts", "experts", setup.weights.of("experts").dtype))
    for dtype in (*map(itemgetter(2), stored), setup.activation_dtype):
        _, used = peak_flops_per_s(gpu, dtype)
        if dtype not in (used, *EXPANDED):
            path = "no" if gpu.peak_flops_per_s(dtype) is None else "no faster"
            yield f"{gpu.name} has {path} {dtype} matrix path: computed at its {used} rate."
            break
    if gpu.without_flash and isinstance(find_way(setup.kernel), Flash):
        yield f"{gpu.without_flash}: attention is timed as if it did."
    stored.insert(1, ("attention", "caches", setup.kv_dtype))
    if gpu_rates.choice != "peak":
        yield from _constants_of_formats(gpu_rates, stored)


def _constants_of_formats(
    gpu_rates: Rates, stored: Sequence[tuple[Kind, str, Dtype]]
) -> Iterator[str]:
    """Say which formats have no constants, or only those of other GPUs."""
    other_formats, carried = [], []
    for kind, what, dtype in stored:
        if not is_low_precision(DTYPE_BYTES[dtype]):
            continue
        of_cache = kind == "attention"
        precision = LOW_PRECISION if of_cache else gpu_rates.product_precision(dtype)
        found = gpu_rates.at(precision).constants[Key("launch_us", kind)]
        timed_as = found.key.precision if found.key else ""
        if timed_as != dtype:
            other_formats.append(f"{dtype} {what} are timed as {timed_as or '16-bit'} ones")
        if found.origin == "carried":
            carried.append(f"{dtype} {what}")
    if other_formats:
        yield f"Without constants of their own, {', '.join(other_formats)}."
    if carried and gpu_rates.origin == "fitted" and not fitted_alone(gpu_rates):
        yield f"Constants of {' and '.join(carried)} are carried over from other GPUs."


def _group_notes(question: Question) -> Iterator[str]:
    """Say what the figures mean for a tensor-parallel group."""
    model, gpu, setup = question.model, question.gpu, question.setup
    if setup.gpus == 1:
        return
    yield "FLOPs, bytes and memory are those of one GPU of the group."
    if setup.tensor_parallel == 1:
        pass
    elif model.latent is not None and not setup.expanded:
        groups = model.latent.groups
        yield (
            "Every GPU holds a copy of the latent cache, which has no heads to split."
            if groups == 1
            else f"The GPUs split the latent cache by its {groups} vectors (no further, copies "
            "beyond); every GPU holds the rotary key."
        )
    elif any(layer.kv_heads < setup.tensor_parallel for layer in model.attention_layers):
        yield "Every GPU holds a copy of KV heads that cannot be split further."
    nodes = gpu.nodes(setup.gpus)
    if nodes > 1:
        network = gpu.peak.network_gb_per_s_per_direction
        rate = f"{network.value:g} GB/s for each GPU" if network else "at most PCIe's rate"
        yield (
            f"The group spans {nodes} nodes: sums are timed inside each and across their network "
            f"({rate}, {network.source if network else 'not in the profile'}); no rows show such "
            "groups."
        )
    if setup.data_parallel > 1:
        shared = "" if model.experts else "; without experts they share nothing, like replicas"
        yield f"The data-parallel groups step together: each waits for the fullest{shared}."
    if setup.expert_parallel > 1 and setup.routing != "balanced":
        yield "Experts are timed on the GPU on which most tokens fall, counted on a mean one."
    if setup.pipeline_parallel > 1:
        yield (
            f"Prompts go through the {setup.pipeline_parallel} stages in as many parts, which are "
            "taken to be equally long; the figures of a step are sums over its parts."
        )
    if gpu.peak.link_gb_per_s_per_direction is not None and gpu.over_pcie(setup.gpus):
        yield f"{gpu.link} joins {gpu.link_gpus} GPUs: a node's are timed at PCIe's rate."


def fitted_alone(gpu_rates: Rates) -> str:
    """Return the one kind of kernel whose constants are fitted to rows of the card, if only one."""
    kinds: dict[str, Kind] = {"products": "gemm", "attention": "attention"}
    launches = {what: gpu_rates.constants[Key("launch_us", kind)] for what, kind in kinds.items()}
    own = [what for what, launch in launches.items() if launch.origin == "fitted"]
    return own[0] if len(own) == 1 else ""


def constants_note(gpu_rates: Rates) -> str:
    """Say where the constants of the timing model come from."""
    name = gpu_rates.gpu.name
    if gpu_rates.origin == "peak":
        return "Published peaks and no overheads: a bound, not a prediction."
    if gpu_rates.origin == "fitted":
        if only := fitted_alone(gpu_rates):
            return (
                f"Constants of {only} fitted to rows measured on {name}, others carried over "
                "from other GPUs."
            )
        return f"Constants fitted to rows measured on {name}."
    keys = {
        "large-transfer": Key("bandwidth_fraction", "copy"),
        "matrix": Key("flops_fraction", "gemm"),
    }
    measured = [rate for rate, key in keys.items() if gpu_rates.constants[key].origin == "measured"]
    if measured:
        return (
            f"{' and '.join(measured).capitalize()} rates measured on {name}, other constants "
            "carried over from other GPUs: not calibrated."
        )
    return f"Constants carried over from other GPUs: {name} has not been calibrated."
