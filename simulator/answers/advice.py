"""What to change next, said in one sentence."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from simulator.answers.capacity import Capacity, longest_context
from simulator.answers.estimate import Estimate
from simulator.answers.rules import common_tokens, find_rule
from simulator.answers.verdict import Verdict
from simulator.counts.attention.registry import find_way
from simulator.errors import WorkloadError
from simulator.inputs.dtypes import is_low_precision
from simulator.inputs.hardware import HardwareProfile
from simulator.inputs.model import ModelShape
from simulator.inputs.setup import Attention, Engine
from simulator.units import format_gib, format_tokens

if TYPE_CHECKING:
    from simulator.answers.compare import Comparison

# Tensor-parallel sizes tried when a workload does not fit: up to two nodes of eight GPUs, or all
# the GPUs that one link joins.
TENSOR_PARALLEL_SIZES = (2, 4, 8, 16, 32, 64)
TWO_NODES = 16
# Reading a stored context once needs an engine or a kernel that does, and tests of it. A gain below
# this is not worth that: it is also within what predictions of a step may be off (80 % of measured
# steps lie within about 8 % of them).
WORTH = 1.1
# A part with more than this share of a step's bytes is the first to reduce.
LARGE_SHARE = 0.5

# Why a verdict decides nothing.
_DOUBTS: dict[Verdict, str] = {
    "too close to call": "by less than the prediction may be off",
    "not known": "how far the prediction may be off is not known",
}

# What engines have today for reading a shared context once; sources and dates are on the pages.
_SWITCHES: dict[Engine, str] = {
    "vllm": "vLLM 0.18 to 0.31 have --no-disable-cascade-attn{}; vLLM 0.32 and later have nothing: "
    "docs/how-to/vllm.md",
    "sglang": "SGLang stores a context once, but has no switch to read it once: "
    "docs/how-to/sglang.md",
    "trtllm": "TensorRT-LLM has TRTLLM_ENABLE_CASCADE_MMHA=1, for beams alone: "
    "docs/how-to/tensorrt-llm.md",
}
# What reads a shared context once where the engine does not.
_ELSEWHERE = "in plain PyTorch or with FlashInfer"
_CODE = "Copy the code of docs/how-to/pytorch.md, or call FlashInfer's: docs/how-to/flashinfer.md"
# Whose code a kernel is, if not the engine's that is asked about: "none" for a loop of one's own.
_OWNERS: dict[str, Engine] = {
    "vllm-cascade": "vllm",
    "flashinfer": "none",
    "trtllm-cascade": "trtllm",
    "einsum": "none",
    "sdpa_math": "none",
}


def advise(asked: "Comparison") -> str:
    """Say what to change next: how the context is stored, how it is read, or something else."""
    standard, bifurcated = asked.standard, asked.bifurcated
    if not bifurcated.memory.fits:
        return _make_it_fit(bifurcated)
    if asked.nothing_shared:
        return f"Give a context, without which nothing is shared; else {next_change(standard)}."
    wins = asked.winner == "bifurcated"
    if asked.verdict in _DOUBTS and asked.winner != "tie" and not (wins and asked.barred):
        return (
            f"Measure both before you choose: {asked.winner} attention should be faster, but "
            f"{_DOUBTS[asked.verdict]}."
        )
    if wins:
        return _share(asked)
    keep = "Keep standard attention"
    if asked.winner == "tie":
        keep = "Either will do: the difference is below 2 %"
    where = _from_where(asked)
    return f"{keep}; {where}." if where else f"{keep}; {next_change(standard)}."


def how_to_share(asked: "Comparison") -> str:
    """Say how users of an engine read a shared context once; empty where that gains too little."""
    bifurcated, stored = asked.bifurcated, asked.stored
    little = stored.memory.fits and stored.step_s / bifurcated.step_s < WORTH
    loses = asked.nothing_shared or asked.winner != "bifurcated"
    if loses or little or asked.barred or not bifurcated.memory.fits:
        return ""
    engine = _engine_of(bifurcated)
    if engine == "none":
        return _CODE
    does, aside = _reads_once(bifurcated)
    switch = _SWITCHES[engine].format(aside)
    return switch if does else f"{switch}. {_CODE}"


def next_change(result: Estimate) -> str:
    """Name the change that would shorten the step most, by what binds it."""
    if result.bound == "memory":
        return _spare_bytes(result)
    if result.bound == "launch" and result.setup.eager:
        return "capture the step in a CUDA graph, because the host's launches bind it"
    return {
        "launch": "fuse kernels or add samples, because fixed launch times bind the step",
        "link": "use fewer GPUs or a faster link, because traffic between GPUs binds the step",
        "compute": "use a faster card or fewer samples, because arithmetic binds the step",
    }[result.bound]


def no_shared_kernel(model: ModelShape, gpu: HardwareProfile) -> str:
    """Say why no engine's kernel reads a shared context once; empty if some may.

    vLLM's rule refuses windows (``use_cascade_attention``), and kernels of shared prefixes take
    neither sinks nor soft caps; Gemma-2, which has soft caps, also has windows. None takes latent
    caches, and all are CUDA's (recalled).
    """
    if gpu.without_flash:
        return gpu.without_flash
    if gpu.vendor != "NVIDIA":
        return f"no engine's shared-prefix kernel runs on {gpu.vendor}'s cards (recalled)"
    if model.attention_sinks:
        return f"no engine's shared-prefix kernel takes the attention sinks of {model.name}"
    if any(group.limited for group in model.layer_groups):
        return f"no engine's shared-prefix kernel takes the sliding windows of {model.name}"
    if model.latent is not None:
        return f"no engine's shared-prefix kernel takes the latent cache of {model.name}"
    return ""


def runnable(
    attentions: Sequence[Attention], model: ModelShape, gpu: HardwareProfile
) -> tuple[Sequence[Attention], tuple[str, ...]]:
    """Return the kinds of attention that a kernel runs, and why others are left out.

    Parameters
    ----------
    attentions
        The kinds asked for; a single one is always returned.
    model, gpu
        What is decoded, and on what.
    """
    barred = no_shared_kernel(model, gpu)
    if not barred or len(attentions) == 1:
        return attentions, ()
    return ("standard",), (f"Bifurcated attention is left out: {barred}.",)


def why_stored_is_enough(asked: "Comparison") -> str:
    """Say that storing the context once is enough, where bifurcated attention wins; empty if not.

    It is where reading it once gains little more, or no engine does. Who keeps copies then stores
    the context once, as paged engines do already.
    """
    stored, bifurcated, barred = asked.stored, asked.bifurcated, asked.barred
    gain, verdict = stored.step_s / bifurcated.step_s, asked.verdict_over_stored
    if not stored.memory.fits or not (barred or gain < WORTH or verdict != "yes"):
        return ""
    lead, reading = "Store the context once, as paged caches do", "reading it once as well"
    if stored is asked.standard:
        lead, reading = "Keep standard attention", "reading the context once"
    if verdict == "no":
        return f"{lead}; {reading} gains nothing more"
    if barred:
        likely = "would be" if verdict == "yes" else "may be"
        return f"{lead}; {reading} {likely} {gain:.2f} times as fast, but {barred}"
    if verdict != "yes":
        return f"{lead}; whether {reading} gains more is {verdict}"
    return f"{lead}; {reading} is {gain:.2f} times as fast, too little to change kernels for"


def _share(asked: "Comparison") -> str:
    """Say what to do where bifurcated attention wins: read the context once, or only store it."""
    standard, stored, bifurcated = asked.standard, asked.stored, asked.bifurcated
    if enough := why_stored_is_enough(asked):
        return f"{enough}. Then {next_change(stored)}."
    where = "" if _reads_once(bifurcated)[0] else f" {_ELSEWHERE}"
    lead = f"Switch to bifurcated attention{where}"
    alone = "storing the context once alone, as paged caches do,"
    if not standard.memory.fits:
        lead += ", which fits where standard does not"
        if stored.memory.fits:
            lead += f" ({alone} fits too)"
    elif stored is not standard:
        lead += f" ({alone} is {standard.step_s / stored.step_s:.2f} times as fast)"
    return f"{lead}; then {next_change(bifurcated)}."


def _engine_of(result: Estimate) -> Engine:
    """Return whose kernel reads the context once."""
    setup = result.setup
    # An engine runs its steps as graphs; launched one by one they are a loop of the user's own.
    return "none" if setup.eager else _OWNERS.get(setup.kernel, setup.engine)


def _reads_once(result: Estimate) -> tuple[bool, str]:
    """Return whether the engine can read once all that is shared, and a remark on its switch."""
    engine, work, kernel = _engine_of(result), result.workload, result.setup.kernel
    if engine != "vllm":
        return engine == "none" or kernel == "trtllm-cascade", ""
    if not find_rule(engine).reads_once(result):
        return False, ", but their rule says no here (--rule vllm)"
    common = common_tokens(work)
    if common < work.context_tokens:
        return False, f", which reads once only the {common:,} tokens that all sequences share"
    return True, "" if kernel == "vllm-cascade" else " (--kernel vllm-cascade times it)"


def _spare_bytes(result: Estimate) -> str:
    """Name the change that saves the most bytes of a step that is bound by memory traffic."""
    totals, setup = result.totals, result.setup
    moved = float(totals.bytes_read + totals.bytes_written)
    weights = float(totals.weight_bytes_read) / moved
    if weights > LARGE_SHARE:
        more = (
            "add samples, which cost little until KV reads catch up"
            if result.model.experts is None
            else "add samples, which share the experts they read"
        )
        narrowest = setup.weights.narrowest.bytes
        if narrowest < 1:  # 4 bits already, with their scales
            return more
        width = " to 4 bits" if is_low_precision(narrowest) else ""
        return f"quantise the weights{width} ({weights:.0%} of the bytes moved) or {more}"
    if float(totals.kv_bytes_read) > LARGE_SHARE * moved:
        fewer = "use fewer KV heads or fewer samples"
        way = "store the KV cache in fp8" if _takes_fp8_cache(result) else fewer
        return f"{way}, because KV reads are most of the bytes moved"
    if find_way(setup.kernel).logits_in_memory:
        return "use a flash kernel, because the logits' passes through memory bind the step"
    return "use a card with more memory bandwidth, because memory traffic binds the step"


def _takes_fp8_cache(result: Estimate) -> bool:
    """Return whether the cache can be narrower: kernels for that need FlashAttention (recalled)."""
    return not is_low_precision(result.setup.kv_bytes) and not result.gpu.without_flash


def _from_where(asked: "Comparison") -> str:
    """Say how many samples, or how long a context, bifurcated attention needs to win."""
    work = asked.standard.workload
    samples, context = asked.break_even_samples, asked.break_even_context_tokens
    points = []
    if samples is not None and samples > work.samples:
        points.append(f"with {samples:,} or more samples")
    if context is not None and context > work.context_tokens:
        points.append(f"with {format_tokens(context)} or more context tokens")
    return f"bifurcated would be faster {' or '.join(points)}" if points else ""


def _make_it_fit(result: Estimate) -> str:
    """Say how much memory is short, and each single change that would make the step fit."""
    needs = result.memory
    short = format_gib(-float(needs.free_bytes))
    ways = list(_ways_to_fit(result))
    found = (
        f"it would with {', '.join(ways[:-1])}{' or ' * (len(ways) > 1)}{ways[-1]}"
        if ways
        else "no single change makes it fit: combine more GPUs, narrower formats and fewer tokens"
    )
    where = f"{result.setup.gpus} x {result.gpu.name}"
    if needs.verdict == "too close to call":
        return f"May not fit on {where}, which is too close to call: {short} short; {found}."
    return f"Does not fit on {where}: {short} short; {found}."


def _ways_to_fit(result: Estimate) -> Iterator[str]:
    """Name each single change that makes a step surely fit: GPUs, formats, samples, context."""
    setup = result.setup
    largest = max(TWO_NODES, result.gpu.link_gpus)
    for size in TENSOR_PARALLEL_SIZES:
        gpus = setup.but(tensor_parallel=size).gpus
        if setup.tensor_parallel < size and gpus <= largest and _fits(result, tensor_parallel=size):
            yield f"{gpus} GPUs (--tp {size})"
            break
    of_weight = setup.weights.narrowest.bytes
    narrower = ("int4",) if is_low_precision(of_weight) else ("fp8", "int4")
    for dtype in narrower if of_weight >= 1 else ():
        if _fits(result, weight_dtype=dtype):
            yield f"{dtype} weights"
            break
    if _takes_fp8_cache(result) and _fits(result, kv_dtype="fp8"):
        yield "an fp8 KV cache"
    if find_way(setup.kernel).logits_in_memory and _fits(result, kernel="flash"):
        yield "a flash kernel"
    end = longest_context(result.model, result.workload)
    limits = Capacity(result, most_context_tokens=end)
    if limits.most_samples_surely:
        yield f"at most {limits.most_samples_surely:,} samples"
    if limits.longest_context_tokens_surely and not result.workload.tree:
        yield f"at most {format_tokens(limits.longest_context_tokens_surely)} context tokens"


def _fits(result: Estimate, **changes: object) -> bool:
    """Return whether a step surely fits with a setting changed; False if it cannot run so."""
    asked = result.but(**changes)
    try:
        asked.check()
    except WorkloadError:
        return False
    return bool(asked.memory_needs().surely_fits)
