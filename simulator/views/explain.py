"""The derivation of each number: formulas, the numbers in them, and their sources."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import inf
from typing import TYPE_CHECKING

from simulator.answers.estimate import Estimate
from simulator.counts.attention.latent import (
    absorbed_widths,
    expanded_widths,
    mixing_pays_from,
)
from simulator.counts.attention.registry import find_way
from simulator.counts.operation import Operation
from simulator.counts.transformer import (
    ATTENDED,
    DRAFT,
    attending,
    attention_shape,
    rank_geometry,
    visible_tokens,
)
from simulator.inputs.model import ModelShape, count_parameters
from simulator.timing.constants import used_constants
from simulator.timing.interval import CACHE_READERS, shipped_spreads, unknown_regime
from simulator.timing.roofline import (
    OperationTime,
    cached_bytes,
    further_waves,
    of_fullest_part,
    overlap_power,
)
from simulator.units import GIGA, TERA, format_gib, format_si, format_time
from simulator.views.columns import line
from simulator.views.text import KERNELS, fits_between, interval_phrase

if TYPE_CHECKING:
    from rich.console import RenderableType

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

PAPER = "Athiwaratkun et al., arXiv:2403.08845"


@dataclass(frozen=True, kw_only=True)
class Step:
    """One line of the derivation."""

    what: str
    formula: str
    numbers: str
    result: str
    reference: str


def explain(result: Estimate) -> list[Step]:
    """Return the derivation of an estimate: KV traffic, FLOPs, each roof, memory."""
    return [
        *_kv_read(result),
        _weights_read(result),
        _attention_flops(result),
        *_mixing(result),
        *(_operation(result, *pair) for pair in _largest(result)),
        _step_time(result),
        _interval(result),
        _memory(result),
        *_constants(result),
    ]


def explain_objects(result: Estimate) -> list[dict[str, str]]:
    """Return the derivation as JSON objects."""
    return [asdict(step) for step in explain(result)]


def explain_lines(result: Estimate) -> "list[RenderableType]":
    """Return the derivation as lines for a terminal."""
    from rich.padding import Padding

    parts: list[RenderableType] = ["", line(("How each number comes about", "bold"))]
    for step in explain(result):
        parts.append(line((f"\n{step.what}", "bold")))
        lines = [step.formula, f"= {step.numbers}", f"= {step.result}", f"[{step.reference}]"]
        parts += [Padding(line(part), (0, 0, 0, 2)) for part in lines if part]
    return parts


def _kv_read(result: Estimate) -> list[Step]:
    """Derive the KV bytes read, for kernels that read each cached token once."""
    work = result.setup.passing(result.workload)
    read = float(result.totals.kv_bytes_read)
    once = find_way(result.setup.kernel).kv_formula(result.setup)
    drafts = any(operation.name.endswith(DRAFT) for operation in result.operations)
    if not once or result.model.indexer is not None or drafts:
        return [
            Step(
                what="KV bytes read",
                formula="sum over the operations of what each reads of the cache",
                numbers=(
                    f"{result.setup.kernel} kernel, kv_layout {result.setup.kv_layout}: "
                    "see the operations"
                ),
                result=_exact(read),
                reference="docs/equations.md, what each kernel adds",
            )
        ]
    element = f"{result.setup.kv_bytes:g}"
    if result.model.latent is not None and result.setup.mixed:
        return [_mixed_read(result)]
    if len(work.tree) > 1 and result.setup.bifurcated:
        return [_tree_read(result)]
    formula, numbers = _values_read(result, once)
    equation = "6" if result.setup.bifurcated else "5"
    latent = result.model.latent is not None and not result.setup.expanded
    kept = "the latent cache instead of K and V" if latent else "K and V"
    return [
        Step(
            what="KV bytes read",
            formula=f"s x P x {formula}",
            numbers=f"{element} x {work.prompts} x {numbers}",
            result=_exact(read),
            reference=f"{PAPER}, equation {equation}, {kept}, all layers",
        )
    ]


def _mixed_read(result: Estimate) -> Step:
    """Derive the KV bytes read of a latent cache whose shared context is kept expanded."""
    model, work = result.model, result.workload
    layers = sum(group.count for group in model.layer_groups if group.attends)
    shape = attention_shape(model, result.setup, work, resident_blocks=1)
    *shared, own = shape.parts
    expanded = " + ".join(f"{part.caches} x {part.tokens}" for part in shared)
    width = 0 if shape.expanded is None else shape.expanded.cache_width
    read = f"{width} x ({expanded}) + {shape.cache_width} x {own.caches} x {own.tokens}"
    return Step(
        what="KV bytes read",
        formula="s x L x (h (nope_dim + rope_dim + value_dim) x P m_c "
        f"+ {_width_symbols(result)} x P b m_d)",
        numbers=f"{result.setup.kv_bytes:g} x {layers} x ({read})",
        result=_exact(float(result.totals.kv_bytes_read)),
        reference="docs/equations.md, latent attention",
    )


def _tree_read(result: Estimate) -> Step:
    """Derive the KV bytes read of a tree: each split level once per node."""
    model, work = result.model, result.workload
    factor, widths = _widths_read(result)
    terms = []
    for (group, layers, _), width in zip(attending(model, *ATTENDED), widths, strict=True):
        shape = attention_shape(model, result.setup, work, group, resident_blocks=1)
        read = " + ".join(f"{part.caches} x {part.tokens}" for part in shape.parts)
        terms.append(f"{width}{layers} x ({read})")
    symbols = _width_symbols(result)
    return Step(
        what="KV bytes read",
        formula=f"s x sum over layers and levels of {symbols} x nodes x tokens",
        numbers=f"{result.setup.kv_bytes:g} x {factor}({' + '.join(terms)})",
        result=_exact(float(result.totals.kv_bytes_read)),
        reference="docs/equations.md, prefix trees; K and V, all layers",
    )


def _exact(number_of_bytes: float) -> str:
    """Format bytes exactly, and rounded with a prefix."""
    return f"{number_of_bytes:,.0f} B = {format_si(number_of_bytes, 'B')}"


def _width_symbols(result: Estimate) -> str:
    """Return the symbols of the values cached per token and layer on one GPU."""
    model = result.model
    if model.latent is None:
        return "2 g k" if model.value_width == model.head_dim else "g (k + k_v)"
    expanded = "h (nope_dim + rope_dim + value_dim)"
    if result.setup.expanded:
        return expanded
    return "(kv_rank + rope_dim)" if model.latent.groups == 1 else "(groups kv_rank + rope_dim)"


def _widths_read(result: Estimate) -> tuple[str, list[str]]:
    """Return the values cached per token and layer: one for all kinds of layers, or of each."""
    widths = [
        rank_geometry(result.model.of(group), result.setup)[-1]
        for group, *_ in attending(result.model, *ATTENDED)
    ]
    if len(set(widths)) > 1:
        return "", [f"{width} x " for width in widths]
    return f"{widths[0]} x " if widths else "", ["" for _ in widths]


def _values_read(result: Estimate, per_layer: str) -> tuple[str, str]:
    """Return the cached values that all layers read per prompt, in symbols and in numbers."""
    work, symbols = result.setup.passing(result.workload), _width_symbols(result)
    context, own, samples = work.context_tokens, work.decoded_tokens, work.samples
    layer_kinds = attending(result.model, *ATTENDED)
    factor, widths = _widths_read(result)
    terms = []
    for (group, layers, _), width in zip(layer_kinds, widths, strict=True):
        seen, own_seen = visible_tokens(group, context, own)
        terms.append(
            f"{width}{layers} x ({seen} + {samples} x {own_seen})"
            if result.setup.bifurcated
            else f"{width}{layers} x {samples} x ({seen} + {own_seen})"
        )
    if not terms:
        return "0", "0"
    if len(terms) == 1 and not layer_kinds[0][0].limited:
        alike = layer_kinds[0][1] == result.model.layers
        layers_text = "L" if alike else "attention layers"
        return f"{symbols} x {layers_text} x {per_layer}", factor + terms[0]
    formula = f"sum over layers of {symbols} x {per_layer}, as far as they see"
    return formula, f"{factor}({' + '.join(terms)})"


def _weights_read(result: Estimate) -> Step:
    """Derive the weight bytes read."""
    model = result.model
    count = count_parameters(model)
    active = f" ({count.active:,} active for one token)" if count.active != count.total else ""
    gpus = f"{result.setup.gpus} GPU{'s' if result.setup.gpus > 1 else ''}"
    return Step(
        what="Weight bytes read",
        formula="each matrix once, visited experts only, table rows of the tokens at work",
        numbers=f"{count.total:,} parameters{active}, {result.setup.weights}, over {gpus}",
        result=_exact(float(result.totals.weight_bytes_read)),
        reference="docs/equations.md, projections and MLP",
    )


def _attention_flops(result: Estimate) -> Step:
    """Derive the FLOPs of attention."""
    model, work = result.model, result.setup.passing(result.workload)
    flops = sum(
        operation.flops * operation.repeat
        for operation in result.operations
        if operation.kind in CACHE_READERS and not operation.name.endswith(DRAFT)
    )
    ranks = result.setup.tensor_parallel
    queries = f"{work.prompts} x {work.samples} x {work.query_tokens}"
    heads, of_heads = f" x {model.heads // ranks}", " h"
    tokens = work.context_tokens + work.decoded_tokens
    factor, symbols = f"4 x {model.head_dim}", "4 k"
    if model.value_width != model.head_dim:
        factor, symbols = f"2 x {model.head_dim + model.value_width}", "2 (k + k_v)"
    layer_kinds = attending(model, *ATTENDED)
    layers = sum(count for _, count, _ in layer_kinds)
    seen = f"{layers} x ({work.context_tokens} + {work.decoded_tokens})"
    formula = "L (m_c + m_d)" if layers == model.layers else "attention layers x (m_c + m_d)"
    what = "Attention FLOPs (the same for standard and bifurcated)"
    if model.latent is not None:
        # Absorbed keys are the latent and the rotary part, values the latent.
        absorbed = sum(absorbed_widths(model.latent)), "(2 kv_rank + rope_dim)"
        expanded = sum(expanded_widths(model.latent)), "(nope_dim + rope_dim + value_dim)"
        width, symbol = expanded if result.setup.expanded else absorbed
        factor, symbols = f"2 x {width}", f"2 {symbol}"
        if result.setup.mixed:
            what, factor, symbols = "Attention FLOPs (mixed form)", "2", "2"
            shape = attention_shape(model, result.setup, work, resident_blocks=1)
            own = shape.parts[-1].tokens
            formula = f"L ({expanded[1]} m_c + {absorbed[1]} m_d)"
            seen = f"{layers} x ({expanded[0]} x {tokens - own} + {absorbed[0]} x {own})"
    if len(layer_kinds) > 1 or any(group.limited for group, *_ in layer_kinds):
        formula, widths = "(m_c + m_d), as far as they see", [""] * len(layer_kinds)
        if len({_width_of_heads(model.of(group)) for group, *_ in layer_kinds}) > 1:
            factor, symbols, heads, of_heads = "2", "2", "", ""
            formula = f"h (k + k_v) {formula}"
            widths = [
                f"{_width_of_heads(model.of(group)) // ranks} x " for group, *_ in layer_kinds
            ]
        terms = [
            f"{count} x {width}"
            f"{sum(visible_tokens(group, work.context_tokens, work.decoded_tokens))}"
            for (group, count, _), width in zip(layer_kinds, widths, strict=True)
        ]
        formula, seen = f"sum over layers of {formula}", f"({' + '.join(terms)})"
    if model.indexer is not None:
        what = "Attention FLOPs over selected tokens (the same for standard and bifurcated)"
        formula = "L min(m_c + m_d, selected tokens)"
        seen = f"{layers} x {min(tokens, model.indexer.top_k)}"
    return Step(
        what=what,
        formula=f"{symbols} x P b n{of_heads} x {formula}",
        numbers=f"{factor} x {queries}{heads} x {seen}",
        result=f"{float(flops):,.0f} FLOP = {format_si(float(flops), 'FLOP')}",
        reference=f"{PAPER}, section 4",
    )


def _width_of_heads(layer: ModelShape) -> int:
    """Return the values of keys and values of all heads, h (k + k_v)."""
    return layer.heads * (layer.head_dim + layer.value_width)


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
            what="Samples from which a shared context is read faster expanded than absorbed",
            formula="s / 2 x (nope_dim + rope_dim + value_dim) / (n (2 kv_rank + rope_dim)) "
            "x FLOP rate / bandwidth",
            numbers=f"{kv_bytes:g} / 2 x {expanded} / ({queries} x {absorbed}) x "
            f"{rate / TERA:,.0f} TFLOP/s / {bandwidth / GIGA:,.0f} GB/s",
            result=f"{samples:,.0f} samples of each prompt, whatever the length of the context",
            reference="docs/equations.md, latent attention; TyphoonMLA, arXiv:2509.21081",
        )
    ]


def _largest(result: Estimate) -> list[tuple[Operation, OperationTime]]:
    """Return the operations that take most of the time, the longest first."""
    pairs = list(zip(result.operations, result.time.operations, strict=True))
    pairs.sort(key=lambda pair: -pair[0].repeat * float(pair[1].device_s))
    return pairs[:4]


def _operation(result: Estimate, operation: Operation, time: OperationTime) -> Step:
    """Derive the time of one call of an operation, on the fullest GPU if they differ."""
    mean, operation = operation, of_fullest_part(operation)
    roofs = [_memory_part(result, operation, time)]
    if operation.flops:
        rate = result.rates.of(operation).flops_per_s(operation.kind, operation.dtype)
        flops = f"{format_si(float(operation.flops), 'FLOP')} / {rate / TERA:,.0f} TFLOP/s"
        if operation.m:
            visited = f" of {float(operation.groups):,.0f} experts" if operation.groups else ""
            flops += f", in tiles{visited}"
        if operation.groups and time.waiting_s:
            flops += f", {format_time(float(time.waiting_s))} waiting for loads"
        roofs.append(f"compute {format_time(float(time.compute_s))} ({flops})")
    if operation.link_bytes:
        # The rate that a message of this size reaches.
        link = float(operation.link_bytes) / float(time.link_s)
        sent = f"{format_si(float(operation.link_bytes), 'B')} / {link / GIGA:,.1f} GB/s"
        nodes = result.gpu.nodes(operation.ranks)
        path = f" over {nodes} nodes" if nodes > 1 else ""
        path += " over PCIe" if result.gpu.over_pcie(operation.ranks) else ""
        roofs.append(f"link {format_time(float(time.link_s))} ({sent}{path})")
    calls = f", one of {operation.repeat} calls" if operation.repeat > 1 else ""
    calls += "" if operation is mean else ", on the fullest GPU"
    return Step(
        what=f"Time of {operation.name}{calls}",
        formula=_roofline_formula(operation, time),
        numbers=f"fixed {format_time(float(time.launch_s))}; {'; '.join(roofs)}",
        result=f"{format_time(float(time.device_s))}, bound by {time.bound}",
        reference="roofline, Williams et al. 2009; docs/equations.md, four roofs",
    )


def _roofline_formula(operation: Operation, time: OperationTime) -> str:
    """Return the formula by which an operation's times add."""
    if not operation.flops and not operation.link_bytes:
        return "fixed + memory"
    other = "link" if operation.link_bytes else "compute"
    power = overlap_power(time.overlap)
    if power == 1:
        return f"fixed + memory + {other}"
    if power == inf:
        return f"fixed + max(memory, {other})"
    return f"fixed + (memory^{power:g} + {other}^{power:g})^(1/{power:g})"


def _memory_part(result: Estimate, operation: Operation, time: OperationTime) -> str:
    """Format the time of an operation's bytes and its parts, with L2 separate."""
    gpu = result.rates.of(operation)
    bandwidth = gpu.bandwidth_bytes_per_s[operation.kind]
    cached = float(cached_bytes(operation, gpu))
    parts = [
        f"{format_si(float(operation.bytes_moved) - cached, 'B')} / {bandwidth / GIGA:,.0f} GB/s"
    ]
    if operation.together_bytes and operation.reused_bytes:
        parts[0] += f", {format_si(cached, 'B')} from L2; a stored context"
    elif cached:
        cache = gpu.l2_bandwidth_bytes_per_s[operation.kind] / GIGA
        parts[0] += f" + {format_si(cached, 'B')} from L2 / {cache:,.0f} GB/s"
    if operation.effective_blocks is not None:
        rate = gpu.block_bytes_per_s[operation.kind] / GIGA
        parts.append(f"KV by {operation.effective_blocks:,.1f} blocks x {rate:,.1f} GB/s")
    waves = further_waves(operation, gpu)
    if waves > 0 and gpu.block_s[operation.kind]:
        wave = format_time(gpu.block_s[operation.kind])
        parts.append(f"{waves:,.1f} further waves x {wave}")
    return f"memory {format_time(float(time.memory_s))} ({'; '.join(parts)})"


def _step_time(result: Estimate) -> Step:
    """Derive the time of the step."""
    time = result.time
    return Step(
        what="Time of the step",
        formula="max(sum of operations, host launches) + collectives",
        numbers=(
            f"max({format_time(float(time.device_s))}, {format_time(float(time.host_s))}) + "
            f"{format_time(float(time.collective_s))}"
        ),
        result=f"{format_time(result.step_s)}, bound by {result.bound}",
        reference="docs/equations.md, four roofs",
    )


def _interval(result: Estimate) -> Step:
    """Derive the interval: how much each error shortens or lengthens the step."""
    unsure = result.uncertainty
    if why := unknown_regime(result.model, result.rates, result.setup):
        return Step(
            what="Interval",
            formula="not below the bytes and FLOPs at published peaks",
            numbers=why,
            result=interval_phrase(result.step_low_s, result.step_high_s),
            reference="docs/equations.md, intervals",
        )
    parts = [
        f"{NAMES[name]}{' (own share)' if own and name in CACHE_READERS else ''} "
        f"-{format_time(float(part.below_s))} +{format_time(float(part.above_s))}"
        for own, group in ((False, unsure.shared), (True, unsure.own))
        for name, part in group.items()
        if float(part.below_s) > 0 or float(part.above_s) > 0
    ]
    return Step(
        what=f"Interval meant to contain {shipped_spreads().coverage:.0%} of measured times",
        formula=_interval_formula(result),
        numbers="; ".join(parts) or "no error",
        result=interval_phrase(result.step_low_s, result.step_high_s),
        reference="docs/equations.md, intervals; spreads: docs/accuracy.md",
    )


def _interval_formula(result: Estimate) -> str:
    """Return the formula by which the errors add."""
    added = "time - root of the sum of errors squared, time + the same; no less than peaks"
    if result.setup.eager:
        return f"{added}; the longer end of device and host, errors are those of the longer one"
    return added


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
        what="Memory of one GPU",
        formula=f"weights + KV caches + workspace + kept <= {limits[result.setup.engine]}",
        numbers=(
            f"{format_gib(float(needs.weights_bytes))} + {format_gib(float(needs.kv_bytes))} + "
            f"{format_gib(float(needs.workspace_bytes))} + {format_gib(needs.reserve_bytes)} <= "
            f"{format_gib(float(needs.capacity_bytes))}, of {format_gib(result.gpu.memory_bytes)} "
            f"a share of {result.setup.gpu_memory_utilization:g}"
        ),
        result=fits_between(needs),
        reference="docs/equations.md, memory",
    )


def _constants(result: Estimate) -> list[Step]:
    """List the constants that this answer used, each with its source."""
    uses: dict[tuple[str, Constant], list[str]] = {}
    for key, constant in used_constants(result.operations, result.rates, eager=result.setup.eager):
        kind = f"{key.precision} {key.kind or 'kernels'}" if key.precision else key.kind
        uses.setdefault((key.name, constant), []).extend([kind] if kind else [])
    return [
        Step(
            what=f"Constant {name}" + (f" of {', '.join(kinds)}" if kinds else ""),
            formula="",
            numbers=f"{constant.value:,.3g}",
            result=constant.origin,
            reference=constant.source,
        )
        for (name, constant), kinds in uses.items()
    ]
