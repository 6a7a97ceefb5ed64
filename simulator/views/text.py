"""Phrases that several answers share."""

from collections.abc import Iterable, Mapping, Sequence
from math import inf
from typing import TYPE_CHECKING

from simulator.answers.estimate import NOT_SURE_TO_FIT, fitted_alone
from simulator.counts.memory import Memory, MemoryVerdict
from simulator.inputs.hardware import Price
from simulator.inputs.model import ModelShape, count_parameters
from simulator.inputs.setup import ATTENTIONS, Setup
from simulator.inputs.workload import Workload
from simulator.timing.constants import Rates
from simulator.timing.interval import Family
from simulator.units import GIGA, MEGA, format_gib, format_time, format_tokens

if TYPE_CHECKING:
    from simulator.answers.sweep import Sweep

# Content-Security-Policy of every page: it may run its own scripts and styles, and ask for nothing.
# Whoever gets it by mail can open it without a word reaching a server.
POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src data: blob:; font-src data:; base-uri 'none'; form-action 'none'"
)

# The kinds of kernel that have a spread of their own.
KERNELS: Mapping[Family, str] = {
    "gemm": "products",
    "experts": "products of experts",
    "attention": "attention",
    "latent_attention": "latent attention",
    "prefill_attention": "prefill attention",
    "latent_prefill": "latent prefill",
    "sparse_attention": "sparse attention and its indexer",
    "recurrence": "linear attention",
    "elementwise": "norms and other elementwise",
    "collective": "collectives",
}


def sweep_view(sweep: "Sweep") -> str:
    """Say what a sweep will compute: combinations left out, assumptions, and how many points."""
    combinations = plural(len(sweep.grids), "combination")
    size = f"{plural(sweep.points, 'point')} in {combinations} of settings"
    return "\n".join([*(f"skipped: {why}" for why in sweep.skipped), *sweep.notes, size])


def samples_phrase(work: Workload, output_tokens: int | None = None) -> str:
    """Say what is decoded.

    >>> samples_phrase(Workload(samples=16, context_tokens=8192, decoded_tokens=64))
    '16 sequences from an 8K-token context, 64 own tokens each'
    >>> samples_phrase(Workload(samples=2, prompts=8, decoded_tokens=64))
    '16 sequences, 2 from each of 8 8K-token contexts, 64 own tokens each'
    """
    if work.tree:
        return tree_phrase(work, output_tokens)
    context = format_tokens(work.context_tokens)
    spoken = context.partition(",")[0].removesuffix("K")  # eleven and eighteen begin as eight does
    article = "an" if context.startswith("8") or spoken in ("11", "18") else "a"
    if work.prompts > 1:
        source = f", {work.samples:,} from each of {work.prompts:,} {context}-token contexts"
    else:
        source = f" from {article} {context}-token context"
    return f"{plural(int(work.sequences), 'sequence')}{source}, {_own(work, output_tokens)}"


def list_phrase(
    sizes: Sequence[Mapping[str, int]], work: Workload, output_tokens: int | None = None
) -> str:
    """Say how many questions are asked, and what they have in common.

    Parameters
    ----------
    sizes
        The sizes in which they differ, for each answer.
    work, output_tokens
        The sizes of one question, as in :func:`samples_phrase`.

    Examples
    --------
    >>> list_phrase([{"samples": 1}, {"samples": 4}], Workload())
    '2 questions, 8K-token context, 64 own tokens each'
    """
    listed = sizes[0]
    count = len({tuple(each.items()) for each in sizes})
    fixed = {
        "context_tokens": f"{format_tokens(work.context_tokens)}-token context",
        "prompts": plural(work.prompts, "prompt") if work.prompts > 1 else "",
        "samples": plural(work.samples, "sample"),
        "decoded_tokens": "" if "output_tokens" in listed else _own(work, output_tokens),
    }
    parts = [words for name, words in fixed.items() if words and name not in listed]
    return ", ".join([plural(count, "question"), *parts])


def tree_phrase(work: Workload, output_tokens: int | None = None) -> str:
    """Say what is decoded over a prefix tree.

    >>> tree_phrase(Workload(tree="system=2K,problem=512x8", samples=16))
    '128 sequences (8 x 16) below system (2K tokens) > 8 x problem (512 tokens), 64 own tokens each'
    """
    levels = [
        (f"{level.branches:,} x " if level.branches > 1 else "")
        + f"{level.name} ({plural_tokens(level.tokens)})"
        for level in work.tree
    ]
    product = f" ({work.prompts:,} x {work.samples:,})" if work.prompts > 1 else ""
    sequences = f"{plural(int(work.sequences), 'sequence')}{product}"
    return f"{sequences} below {' > '.join(levels)}, {_own(work, output_tokens)}"


def plural_tokens(count: int) -> str:
    """Write a number of tokens as people do, with its noun.

    >>> plural_tokens(1), plural_tokens(2048)
    ('1 token', '2K tokens')
    """
    return f"{format_tokens(count)} token{'' if count == 1 else 's'}"


def _own(work: Workload, output_tokens: int | None) -> str:
    """Say what each sample holds or generates, and how much of it in a step."""
    if output_tokens is not None:
        own = f"{plural(output_tokens, 'output token')} each"
    else:
        own = f"{plural(work.decoded_tokens, 'own token')} each"
    return own + (f", {query_phrase(work)}" if work.query_tokens > 1 else "")


def query_phrase(work: Workload) -> str:
    """Say how many tokens of each sample a step takes in, and how many of them it keeps.

    >>> query_phrase(Workload(query_tokens=4, accepted_tokens=2.5))
    '4 query tokens per step, 2.5 accepted'
    """
    return f"{work.query_tokens} query tokens per step, {work.accepted_tokens:g} accepted"


def model_phrase(model: ModelShape) -> str:
    """Say what kind of model it is.

    >>> from simulator.inputs.presets import load_model
    >>> model_phrase(load_model("llama-2-7b"))
    '6.74 B parameters, multi-head, 32 heads, 32 KV heads'
    """
    parameters = f"{parameters_phrase(count_parameters(model).total)} parameters"
    if not any(group.attends for group in model.layer_groups):
        return f"{parameters}, {model.family}"
    layers = model.attention_layers
    kept = (
        _range([layer.kv_heads for layer in layers], "KV head")
        if model.latent is None
        else f"{model.cache_width} cached values per token"
    )
    heads = _range([layer.heads for layer in layers], "head")
    return f"{parameters}, {model.family}, {heads}, {kept}"


def _range(counts: Sequence[int], noun: str) -> str:
    """Write a count of all layers, or the least and the most, with its noun."""
    least, most = min(counts), max(counts)
    return plural(most, noun) if least == most else f"{least} to {plural(most, noun)}"


def parameters_phrase(count: float) -> str:
    """Write a number of parameters.

    >>> parameters_phrase(6.74e9), parameters_phrase(124e6)
    ('6.74 B', '124 M')
    """
    return f"{count / GIGA:,.2f} B" if count >= GIGA else f"{count / MEGA:,.0f} M"


def settings_phrase(setup: Setup) -> str:
    """Say by which code and in which formats it is decoded.

    >>> settings_phrase(Setup(kv_dtype="fp8"))
    'flash kernel, graph, bf16 with fp8 KV'
    >>> from simulator.inputs.presets import load_model
    >>> from simulator.inputs.setup import ask
    >>> settings_phrase(ask(load_model("gpt-oss-20b"))[0])
    'flash kernel, graph, bf16 with mxfp4 experts'
    """
    formats = str(setup.weights)
    mixed = " with " in formats
    if setup.kv_dtype != (setup.activation_dtype if mixed else formats):
        formats += f" {'and' if mixed else 'with'} {setup.kv_dtype} KV"
    laid = f", {setup.words}" if setup.gpus > setup.tensor_parallel else ""
    return f"{setup.kernel} kernel, {setup.execution}, {formats}{laid}"


def interval_phrase(low_s: float, high_s: float) -> str:
    """Format the interval of a time.

    >>> interval_phrase(0.0119, 0.0133), interval_phrase(4e-4, 1.5e-3)
    ('11.9 to 13.3 ms', '400 µs to 1.50 ms')
    >>> interval_phrase(0.0119, inf)
    'at least 11.9 ms, interval not known'
    """
    low, high = format_time(low_s), format_time(high_s)
    if high_s == inf:
        return f"at least {low}, interval not known"
    number, unit = low.split()
    return f"{number if high.endswith(f' {unit}') else low} to {high}"


def within_cell(low_s: float, high_s: float) -> str:
    """Format the interval of a time for a table, below which a note says what is not known.

    >>> within_cell(0.0119, 0.0133), within_cell(0.0119, inf)
    ('11.9 to 13.3 ms', 'at least 11.9 ms')
    """
    return interval_phrase(low_s, high_s).removesuffix(", interval not known")


def times_as(ratio: float) -> str:
    """Say how fast one thing is compared with another.

    >>> times_as(2.0), times_as(0.5), times_as(0.998)
    ('2.00 times as fast', '2.00 times as slow', '1.00 times as fast')
    """
    return f"{1 / ratio:.2f} times as slow" if _slower(ratio) else f"{ratio:.2f} times as fast"


def _slower(ratio: float) -> bool:
    """Return whether a speed-up is a slow-down, to the two places that are shown."""
    return round(1 / ratio, 2) > 1


def between(low: float, high: float) -> str:
    """Write the interval of a speed-up.

    >>> between(1.8, 2.1), between(0, inf)
    ('1.80 to 2.10', 'not known')
    """
    return f"{low:.2f} to {high:.2f}" if high < inf else "not known"


def likely(ratio: float, low: float, high: float) -> str:
    """Write the interval of a speed-up in brackets, in the direction that ``times_as`` has.

    Parameters
    ----------
    ratio
        The speed-up.
    low, high
        Ends of its interval; 0 and infinity if it is not known.

    Examples
    --------
    >>> likely(2.0, 1.8, 2.1), likely(0.8, 0.5, 1.0)
    (' (speed-up 1.80 to 2.10)', ' (slow-down 1.00 to 2.00)')
    >>> likely(2.0, 0, inf)
    ' (interval not known)'
    """
    if high == inf:
        return " (interval not known)"
    if _slower(ratio):
        return f" (slow-down {between(1 / high, 1 / low)})"
    return f" (speed-up {between(low, high)})"


def origin_phrase(rates: Rates) -> str:
    """Say where constants come from, and whether all of them do."""
    return f"{rates.origin} in part" if fitted_alone(rates) else rates.origin


def plural(count: int, noun: str) -> str:
    """Write a count with its noun.

    >>> plural(1, "sample"), plural(2048, "token")
    ('1 sample', '2,048 tokens')
    """
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def shortage(needs: Memory) -> str:
    """Say how much memory is missing."""
    return format_gib(-float(needs.free_bytes))


def memory_parts(needs: Memory) -> tuple[float, ...]:
    """Return what takes memory: weights, caches, workspace, and what the engine keeps. [bytes]."""
    parts = (needs.weights_bytes, needs.kv_bytes, needs.workspace_bytes, needs.reserve_bytes)
    return tuple(map(float, parts))


# Short answers to whether something fits in memory.
FITS_WORDS: Mapping[MemoryVerdict, str] = {
    "fits": "yes",
    "too close to call": "unsure",
    "does not fit": "no",
}


def fits_phrase(needs: Memory) -> str:
    """Say whether something fits in memory, and by how much not."""
    if needs.verdict == "does not fit":
        return f"no, {shortage(needs)} short"
    return "yes" if needs.verdict == "fits" else needs.verdict


def fits_between(needs: Memory) -> str:
    """Say what memory is free, or short, at both ends of its interval."""
    most, least = (float(needs.capacity_bytes - end) for end in (needs.low_bytes, needs.high_bytes))
    if needs.verdict == "fits":
        return f"fits, {format_gib(least)} to {format_gib(most)} free"
    if needs.verdict == "does not fit":
        return f"does not fit, {format_gib(-most)} to {format_gib(-least)} short"
    return f"too close to call, from {format_gib(-least)} short to {format_gib(most)} free"


def which_fits(*fits: bool) -> str:
    """Say which kind of attention fits in memory, given whether each does.

    >>> which_fits(True, True), which_fits(False, True), which_fits(False, False)
    ('both', 'bifurcated', 'neither')
    """
    fitting = [name for name, holds in zip(ATTENTIONS, fits, strict=True) if holds]
    return "both" if all(fits) else fitting[0] if fitting else "neither"


def without_shortage(notes: Iterable[str]) -> list[str]:
    """Return notes, each once, without those on what does not fit: tables say that in each row."""
    return [note for note in dict.fromkeys(notes) if not note.startswith(NOT_SURE_TO_FIT)]


def money(value: float | None, digits: int) -> str:
    """Write a price, or that it is unknown.

    >>> money(1234.5678, 2), money(None, 2)
    ('1,234.57', 'unknown')
    """
    return "unknown" if value is None else f"{value:,.{digits}f}"


def prices_phrase(prices: Mapping[str, Price]) -> str:
    """Write prices of a GPU hour by card, those of one kind together. [USD]."""
    told: dict[str, list[str]] = {}
    for name, price in prices.items():
        told.setdefault(price.told, []).append(f"{name} {money(price.value, 2)}")
    return "; ".join(f"{', '.join(each)} ({who})" for who, each in told.items())


def limit(value: int | None) -> str:
    """Write a limit, or that there is none to have.

    >>> limit(8192), limit(None)
    ('8K', 'none')
    """
    return "none" if value is None else format_tokens(value)


def most(surely: int | None, perhaps: int | None) -> str:
    """Write the most that will do, surely and as far as one can say.

    >>> most(8192, 8192), most(8192, 10240), most(None, 8192), most(None, None)
    ('8K', '8K to 10K', 'perhaps 8K', 'none')
    """
    if perhaps is None or surely == perhaps:
        return limit(perhaps)
    return f"perhaps {limit(perhaps)}" if surely is None else f"{limit(surely)} to {limit(perhaps)}"


def setting(value: object) -> str:
    """Write a setting, integers with separators."""
    return f"{value:,}" if isinstance(value, int) else str(value)
