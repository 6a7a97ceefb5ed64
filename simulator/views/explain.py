"""The derivation of each number: formulas, the numbers in them, and their sources."""

from collections.abc import Callable, Mapping
from math import inf
from typing import TYPE_CHECKING, NamedTuple

from simulator.answers.estimate import Estimate
from simulator.counts.attention.latent import absorbed_widths, expanded_widths, mixing_pays_from
from simulator.counts.attention.registry import find_way
from simulator.counts.attention.shape import AttentionShape
from simulator.counts.operation import Operation
from simulator.counts.transformer import ATTENDED, DRAFT, attending, attention_shape, visible_tokens
from simulator.inputs.model import count_parameters
from simulator.timing import roofline
from simulator.timing.constants import used_constants
from simulator.timing.interval import CACHE_READERS, shipped_spreads
from simulator.units import GIGA, TERA, format_gib, format_si, format_time
from simulator.views.columns import View, line
from simulator.views.text import KERNELS, fits_between, interval_phrase

if TYPE_CHECKING:
    from simulator.timing.constants import Constant

# Names of the parts of an interval.
NAMES: Mapping[str, str] = {
    **{str(family): words for family, words in KERNELS.items()},
    "bifurcated": "bifurcated attention from standard's constants",
    "bifurcated_latent_attention": "bifurcated latent attention from standard's constants",
    "bifurcated_sparse_attention": "bifurcated index scores from standard's constants",
    "code": "plain PyTorch code",
    "stored": "reads of one stored context",
    "host": "host",
    "peak": "what published peaks leave out",
}

EXPANDED = "h (nope_dim + rope_dim + value_dim)"
PAPER = "Athiwaratkun et al., arXiv:2403.08845"


class Step(NamedTuple):
    """One line of the derivation."""

    what: str
    formula: str
    numbers: str
    result: str
    reference: str


def explain(result: Estimate) -> list[Step]:
    """Return the derivation of an estimate: KV traffic, FLOPs, each roof, memory."""
    longest = sorted(result.time.calls, key=lambda call: -call[0].repeat * float(call[1].device_s))
    return [
        _kv_read(result),
        _weights_read(result),
        _attention_flops(result),
        *_mixing(result),
        *(_operation(result, *call) for call in longest[:4]),
        _step_time(result),
        _interval(result),
        _memory(result),
        *_constants(result),
    ]


def explain_objects(result: Estimate) -> list[dict[str, str]]:
    """Return the derivation as JSON objects."""
    return [step._asdict() for step in explain(result)]


def explain_lines(result: Estimate) -> list[View]:
    """Return the derivation as lines for a terminal."""
    parts: list[View] = ["", line(("How each number comes about", "bold"))]
    for step in explain(result):
        parts.append(line((f"\n{step.what}", "bold")))
        lines = [step.formula, f"= {step.numbers}", f"= {step.result}", f"[{step.reference}]"]
        parts += [line(f"  {part}", indent=2) for part in lines if part]
    return parts


def _kv_read(result: Estimate) -> Step:
    """Derive the KV bytes read, for kernels that read each cached token once."""
    model, setup = result.model, result.setup
    work, symbols = setup.passing(result.workload), _width_symbols(result)
    once = find_way(setup.kernel).kv_formula(setup)
    drafts = any(operation.name.endswith(DRAFT) for operation in result.operations)
    kinds = [
        (attention_shape(model, setup, result.workload, group, resident_blocks=1), group, layers)
        for group, layers, _ in attending(model, *ATTENDED)
    ]
    widths = {shape.cache_width for shape, *_ in kinds}
    same = f"{widths.pop()} x " if len(widths) == 1 else ""

    def summed(read: Callable[[AttentionShape], str]) -> str:
        """Write what all layers read, a width that they share in front."""
        terms = [
            f"{'' if same else f'{shape.cache_width} x '}{layers} x {read(shape)}"
            for shape, _, layers in kinds
        ]
        return same + (terms[0] if len(terms) == 1 else f"({' + '.join(terms)})") if terms else "0"

    def parts(shape: AttentionShape) -> str:
        return f"({' + '.join(f'{part.caches} x {part.tokens}' for part in shape.parts)})"

    def paper(shape: AttentionShape) -> str:
        seen, own, samples = shape.context_tokens, shape.decoded_tokens, work.samples
        both = f"({seen} + {samples} x {own})", f"{samples} x ({seen} + {own})"
        return both[0] if setup.bifurcated else both[1]

    if not once or model.indexer is not None or drafts:
        formula = "sum over the operations of what each reads of the cache"
        layout = f"kv_layout {setup.kv_layout}"
        numbers = f"{setup.kernel} kernel, {layout}: see the operations"
        reference = "docs/equations.md, what each kernel adds"
    elif model.latent is not None and setup.mixed:
        (shape, *_) = kinds[0]
        *shared, own = shape.parts
        width = 0 if shape.expanded is None else shape.expanded.cache_width
        expanded = " + ".join(f"{part.caches} x {part.tokens}" for part in shared)
        read = f"{width} x ({expanded}) + {shape.cache_width} x {own.caches} x {own.tokens}"
        formula = f"s x L x ({EXPANDED} x P m_c + {symbols} x P b m_d)"
        numbers = f"{setup.kv_bytes:g} x {sum(layers for *_, layers in kinds)} x ({read})"
        reference = "docs/equations.md, latent attention"
    elif len(work.tree) > 1 and setup.bifurcated:
        formula = f"s x sum over layers and levels of {symbols} x nodes x tokens"
        numbers = f"{setup.kv_bytes:g} x {summed(parts)}"
        reference = "docs/equations.md, prefix trees; K and V, all layers"
    else:
        alike = len(kinds) == 1 and not kinds[0][1].limited
        whole = "L" if alike and kinds[0][2] == model.layers else "attention layers"
        over = f"{symbols} x {whole} x {once}"
        if not alike:
            over = f"sum over layers of {symbols} x {once}, as far as they see"
        formula = f"s x P x {over if kinds else '0'}"
        numbers = f"{setup.kv_bytes:g} x {work.prompts} x {summed(paper)}"
        latent = model.latent is not None and not setup.expanded
        kept = "the latent cache instead of K and V" if latent else "K and V"
        reference = f"{PAPER}, equation {6 if setup.bifurcated else 5}, {kept}, all layers"
    return Step("KV bytes read", formula, numbers, _exact(result.totals.kv_bytes_read), reference)


def _exact(number_of_bytes: float) -> str:
    """Format bytes exactly, and rounded with a prefix."""
    return f"{number_of_bytes:,.0f} B = {format_si(number_of_bytes, 'B')}"


def _width_symbols(result: Estimate) -> str:
    """Return the symbols of the values cached per token and layer on one GPU."""
    model = result.model
    if model.latent is None:
        return "2 g k" if model.value_width == model.head_dim else "g (k + k_v)"
    if result.setup.expanded:
        return EXPANDED
    return "(kv_rank + rope_dim)" if model.latent.groups == 1 else "(groups kv_rank + rope_dim)"


def _weights_read(result: Estimate) -> Step:
    """Derive the weight bytes read."""
    model = result.model
    count = count_parameters(model)
    active = f" ({count.active:,} active for one token)" if count.active != count.total else ""
    gpus = f"{result.setup.gpus} GPU{'s' if result.setup.gpus > 1 else ''}"
    return Step(
        "Weight bytes read",
        "each matrix once, visited experts only, table rows of the tokens at work",
        f"{count.total:,} parameters{active}, {result.setup.weights}, over {gpus}",
        _exact(result.totals.weight_bytes_read),
        "docs/equations.md, projections and MLP",
    )


def _attention_flops(result: Estimate) -> Step:
    """Derive the FLOPs of attention."""
    model, setup, work = result.model, result.setup, result.setup.passing(result.workload)
    flops = sum(
        float(operation.flops * operation.repeat)
        for operation in result.operations
        if operation.kind in CACHE_READERS and not operation.name.endswith(DRAFT)
    )
    kinds = attending(model, *ATTENDED)
    layers, ranks = sum(count for _, count, _ in kinds), setup.tensor_parallel
    context, own = work.context_tokens, work.decoded_tokens
    heads, of_heads = f" x {model.heads // ranks}", " h"
    formula = "L (m_c + m_d)" if layers == model.layers else "attention layers x (m_c + m_d)"
    seen = f"{layers} x ({context} + {own})"
    alike = "the same for standard and bifurcated"
    what = f"Attention FLOPs ({alike})"
    if model.latent is not None:
        # Absorbed keys are the latent and the rotary part, values the latent.
        absorbed, expanded = sum(absorbed_widths(model.latent)), sum(expanded_widths(model.latent))
        symbol_of, expanded_symbol = "(2 kv_rank + rope_dim)", "(nope_dim + rope_dim + value_dim)"
        factor, symbols = f"2 x {absorbed}", f"2 {symbol_of}"
        if setup.expanded:
            factor, symbols = f"2 x {expanded}", f"2 {expanded_symbol}"
        if setup.mixed:
            what, factor, symbols = "Attention FLOPs (mixed form)", "2", "2"
            shape = attention_shape(model, setup, work, resident_blocks=1)
            last = shape.parts[-1].tokens
            formula = f"L ({expanded_symbol} m_c + {symbol_of} m_d)"
            seen = f"{layers} x ({expanded} x {context + own - last} + {absorbed} x {last})"
    elif model.value_width != model.head_dim:
        factor, symbols = f"2 x {model.head_dim + model.value_width}", "2 (k + k_v)"
    else:
        factor, symbols = f"4 x {model.head_dim}", "4 k"
    if len(kinds) > 1 or any(group.limited for group, *_ in kinds):
        of_group = [model.of(group) for group, *_ in kinds]
        widths = [layer.heads * (layer.head_dim + layer.value_width) // ranks for layer in of_group]
        formula = "(m_c + m_d), as far as they see"
        differ = len(set(widths)) > 1
        if differ:
            factor, symbols, heads, of_heads = "2", "2", "", ""
            formula = f"h (k + k_v) {formula}"
        terms = [
            f"{count} x {f'{width} x ' if differ else ''}{sum(visible_tokens(group, context, own))}"
            for (group, count, _), width in zip(kinds, widths, strict=True)
        ]
        formula, seen = f"sum over layers of {formula}", f"({' + '.join(terms)})"
    if model.indexer is not None:
        what = f"Attention FLOPs over selected tokens ({alike})"
        formula = "L min(m_c + m_d, selected tokens)"
        seen = f"{layers} x {min(context + own, model.indexer.top_k)}"
    return Step(
        what,
        f"{symbols} x P b n{of_heads} x {formula}",
        f"{factor} x {work.prompts} x {work.samples} x {work.query_tokens}{heads} x {seen}",
        f"{flops:,.0f} FLOP = {format_si(flops, 'FLOP')}",
        f"{PAPER}, section 4",
    )


def _mixing(result: Estimate) -> list[Step]:
    """Derive the samples from which a latent cache's shared context is better expanded."""
    latent, setup, queries = result.model.latent, result.setup, result.workload.query_tokens
    if latent is None or setup.expanded or not setup.bifurcated or result.model.indexer:
        return []
    rate = result.rates.flops_per_s("latent_attention", setup.activation_dtype)
    bandwidth = result.rates.bandwidth_bytes_per_s["attention"]
    kv_bytes = setup.kv_bytes
    samples = mixing_pays_from(
        latent, query_tokens=queries, flops_per_byte=rate / bandwidth, kv_bytes=kv_bytes
    )
    expanded, absorbed = sum(expanded_widths(latent)), sum(absorbed_widths(latent))
    return [
        Step(
            "Samples from which a shared context is read faster expanded than absorbed",
            "s / 2 x (nope_dim + rope_dim + value_dim) / (n (2 kv_rank + rope_dim)) "
            "x FLOP rate / bandwidth",
            f"{kv_bytes:g} / 2 x {expanded} / ({queries} x {absorbed}) x "
            f"{rate / TERA:,.0f} TFLOP/s / {bandwidth / GIGA:,.0f} GB/s",
            f"{samples:,.0f} samples of each prompt, whatever the length of the context",
            "docs/equations.md, latent attention; TyphoonMLA, arXiv:2509.21081",
        )
    ]


def _operation(result: Estimate, operation: Operation, time: roofline.OperationTime) -> Step:
    """Derive the time of one call of an operation, on the fullest GPU if they differ."""
    mean, operation = operation, roofline.of_fullest_part(operation)
    roofs = [_memory_part(result, operation, time)]
    if operation.flops:
        rate = result.rates.of(operation).flops_per_s(operation.kind, operation.dtype)
        flops = f"{format_si(operation.flops, 'FLOP')} / {rate / TERA:,.0f} TFLOP/s"
        if operation.m:
            visited = f" of {float(operation.groups):,.0f} experts" if operation.groups else ""
            flops += f", in tiles{visited}"
        if operation.groups and time.waiting_s:
            flops += f", {format_time(time.waiting_s)} waiting for loads"
        roofs.append(f"compute {format_time(time.compute_s)} ({flops})")
    if operation.link_bytes:
        # The rate that a message of this size reaches.
        link = float(operation.link_bytes) / float(time.link_s)
        sent = f"{format_si(operation.link_bytes, 'B')} / {link / GIGA:,.1f} GB/s"
        nodes = result.gpu.nodes(operation.ranks)
        path = f" over {nodes} nodes" if nodes > 1 else ""
        path += " over PCIe" if result.gpu.over_pcie(operation.ranks) else ""
        roofs.append(f"link {format_time(time.link_s)} ({sent}{path})")
    calls = f", one of {operation.repeat} calls" if operation.repeat > 1 else ""
    calls += "" if operation is mean else ", on the fullest GPU"
    return Step(
        f"Time of {operation.name}{calls}",
        _roofline_formula(operation, time),
        f"fixed {format_time(time.launch_s)}; {'; '.join(roofs)}",
        f"{format_time(time.device_s)}, bound by {time.bound}",
        "roofline, Williams et al. 2009; docs/equations.md, four roofs",
    )


def _roofline_formula(operation: Operation, time: roofline.OperationTime) -> str:
    """Return the formula by which an operation's times add."""
    if not operation.flops and not operation.link_bytes:
        return "fixed + memory"
    other = "link" if operation.link_bytes else "compute"
    power = roofline.overlap_power(time.overlap)
    if power == 1:
        return f"fixed + memory + {other}"
    if power == inf:
        return f"fixed + max(memory, {other})"
    return f"fixed + (memory^{power:g} + {other}^{power:g})^(1/{power:g})"


def _memory_part(result: Estimate, operation: Operation, time: roofline.OperationTime) -> str:
    """Format the time of an operation's bytes and its parts, with L2 separate."""
    gpu = result.rates.of(operation)
    bandwidth = gpu.bandwidth_bytes_per_s[operation.kind]
    cached = float(roofline.cached_bytes(operation, gpu))
    parts = [f"{format_si(operation.bytes_moved - cached, 'B')} / {bandwidth / GIGA:,.0f} GB/s"]
    if operation.together_bytes and operation.reused_bytes:
        parts[0] += f", {format_si(cached, 'B')} from L2; a stored context"
    elif cached:
        cache = gpu.l2_bandwidth_bytes_per_s[operation.kind] / GIGA
        parts[0] += f" + {format_si(cached, 'B')} from L2 / {cache:,.0f} GB/s"
    if operation.effective_blocks is not None:
        rate = gpu.block_bytes_per_s[operation.kind] / GIGA
        parts.append(f"KV by {operation.effective_blocks:,.1f} blocks x {rate:,.1f} GB/s")
    waves = roofline.further_waves(operation, gpu)
    if waves > 0 and gpu.block_s[operation.kind]:
        wave = format_time(gpu.block_s[operation.kind])
        parts.append(f"{waves:,.1f} further waves x {wave}")
    return f"memory {format_time(time.memory_s)} ({'; '.join(parts)})"


def _step_time(result: Estimate) -> Step:
    """Derive the time of the step."""
    time = result.time
    return Step(
        "Time of the step",
        "max(sum of operations, host launches) + collectives",
        (
            f"max({format_time(time.device_s)}, {format_time(time.host_s)}) + "
            f"{format_time(time.collective_s)}"
        ),
        f"{format_time(result.step_s)}, bound by {result.bound}",
        "docs/equations.md, four roofs",
    )


def _interval(result: Estimate) -> Step:
    """Derive the interval: how much each error shortens or lengthens the step."""
    unsure, what = result.uncertainty, "Interval"
    formula = "not below the bytes and FLOPs at published peaks"
    reference = "docs/equations.md, intervals"
    numbers = result.unknown
    if not numbers:
        what += f" meant to contain {shipped_spreads().coverage:.0%} of measured times"
        formula = "time - root of the sum of errors squared, time + the same; no less than peaks"
        if result.setup.eager:
            formula += "; the longer end of device and host, errors are those of the longer one"
        parts = [
            f"{NAMES[name]}{' (own share)' if own and name in CACHE_READERS else ''} "
            f"-{format_time(part.below_s)} +{format_time(part.above_s)}"
            for own, group in ((False, unsure.shared), (True, unsure.own))
            for name, part in group.items()
            if float(part.below_s) > 0 or float(part.above_s) > 0
        ]
        numbers, reference = (
            "; ".join(parts) or "no error",
            f"{reference}; spreads: docs/accuracy.md",
        )
    within = interval_phrase(result.step_low_s, result.step_high_s)
    return Step(what, formula, numbers, within, reference)


def _memory(result: Estimate) -> Step:
    """Derive the memory."""
    needs = result.memory
    limits = {
        "vllm": "memory x share",
        "none": "memory x share",
        "sglang": "(memory - kept) x share + workspace + kept",
        "trtllm": "memory x share + (weights + workspace + kept) x (1 - share)",
    }
    return Step(
        "Memory of one GPU",
        f"weights + KV caches + workspace + kept <= {limits[result.setup.engine]}",
        (
            f"{format_gib(needs.weights_bytes)} + {format_gib(needs.kv_bytes)} + "
            f"{format_gib(needs.workspace_bytes)} + {format_gib(needs.reserve_bytes)} <= "
            f"{format_gib(needs.capacity_bytes)}, of {format_gib(result.gpu.memory_bytes)} "
            f"a share of {result.setup.gpu_memory_utilization:g}"
        ),
        fits_between(needs),
        "docs/equations.md, memory",
    )


def _constants(result: Estimate) -> list[Step]:
    """List the constants that this answer used, each with its source."""
    uses: dict[tuple[str, Constant], list[str]] = {}
    for key, constant in used_constants(result.operations, result.rates, eager=result.setup.eager):
        kind = f"{key.precision} {key.kind or 'kernels'}" if key.precision else key.kind
        uses.setdefault((key.name, constant), []).extend([kind] if kind else [])
    return [
        Step(
            f"Constant {name}" + (f" of {', '.join(kinds)}" if kinds else ""),
            "",
            f"{constant.value:,.3g}",
            constant.origin,
            constant.source,
        )
        for (name, constant), kinds in uses.items()
    ]
