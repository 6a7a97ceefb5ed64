"""How each number comes about: formulas with the numbers in them, and where they are from."""

from dataclasses import asdict, dataclass

from simulator.answers.estimate import Estimate
from simulator.counts.operation import KINDS, Operation
from simulator.inputs.dtypes import DTYPE_BYTES
from simulator.inputs.parameters import count_parameters
from simulator.timing.roofline import OperationTime, cached_bytes
from simulator.units import GIGA, MICROSECOND, TERA, format_gib, format_si, format_time

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
        *(_operation(result, *pair) for pair in _largest(result)),
        _step_time(result),
        _memory(result),
        *_constants(result),
    ]


def explain_objects(result: Estimate) -> list[dict[str, str]]:
    """Return the derivation as JSON objects."""
    return [asdict(step) for step in explain(result)]


def _kv_read(result: Estimate) -> list[Step]:
    """Derive the KV bytes read, where all layers see the whole context."""
    model, work = result.model, result.workload
    total = format_si(float(result.totals.kv_bytes_read), "B")
    element = DTYPE_BYTES[work.kv_dtype]
    width = model.cache_width
    if model.latent is None:
        width = 2 * max(1, model.kv_heads // work.tensor_parallel) * model.head_dim
    per_token = f"{model.layers} x {width} x {element:g}"
    whole = all(group.window is None for group in model.layer_groups)
    plain_kernel = work.kernel in ("ideal", "flash") and work.kv_layout != "rebuilt"
    cached = "L x 2 g k x s" if model.latent is None else "L x (kv_rank + rope_dim) x s"
    if not whole or not plain_kernel:
        return [
            Step(
                what="KV bytes read",
                formula="sum over layers and kernels of what each reads of the cache",
                numbers="windows and the kernel's own passes: see the operations",
                result=total,
                reference="docs/equations.md",
            )
        ]
    if work.attention == "standard":
        tokens, equation = "P b (m_c + m_d)", "5"
        numbers = (
            f"{per_token} x {work.prompts} x {work.samples} x "
            f"({work.context_tokens} + {work.decoded_tokens})"
        )
    else:
        tokens, equation = "P (m_c + b m_d)", "6"
        numbers = (
            f"{per_token} x {work.prompts} x ({work.context_tokens} + "
            f"{work.samples} x {work.decoded_tokens})"
        )
    return [
        Step(
            what="KV bytes read",
            formula=f"{cached} x {tokens}",
            numbers=numbers,
            result=f"{result.totals.kv_bytes_read:,.0f} B = {total}",
            reference=f"{PAPER}, equation {equation}, K and V, all layers",
        )
    ]


def _weights_read(result: Estimate) -> Step:
    """Derive the weight bytes read."""
    model, work = result.model, result.workload
    count = count_parameters(model)
    return Step(
        what="Weight bytes read",
        formula="each matrix once, visited experts only, table rows of the tokens at work",
        numbers=(
            f"{count.total:,} parameters ({count.active:,} active for one token), "
            f"{work.weight_dtype}, over {work.tensor_parallel} GPU"
            f"{'s' if work.tensor_parallel > 1 else ''}"
        ),
        result=format_si(float(result.totals.weight_bytes_read), "B"),
        reference="docs/equations.md, projections and MLP",
    )


def _attention_flops(result: Estimate) -> Step:
    """Derive the FLOPs of attention."""
    model, work = result.model, result.workload
    flops = sum(
        operation.flops * operation.repeat
        for operation in result.operations
        if operation.kind == "attention"
    )
    heads = model.heads // work.tensor_parallel
    formula = "L x 4 P b n h k (m_c + m_d)"
    numbers = (
        f"{model.layers} x 4 x {work.prompts} x {work.samples} x {work.query_tokens} x {heads} x "
        f"{model.head_dim} x ({work.context_tokens} + {work.decoded_tokens})"
    )
    if model.latent is not None or any(group.window for group in model.layer_groups):
        formula, numbers = "as above, with latent widths and sliding windows", ""
    return Step(
        what="Attention FLOPs (the same for standard and bifurcated)",
        formula=formula,
        numbers=numbers,
        result=format_si(float(flops), "FLOP"),
        reference=f"{PAPER}, section 4",
    )


def _largest(result: Estimate) -> list[tuple[Operation, OperationTime]]:
    """Return the operations that take most of the time, the longest first."""
    pairs = list(zip(result.operations, result.time.operations, strict=True))
    pairs.sort(key=lambda pair: -pair[0].repeat * float(pair[1].device_s))
    return pairs[:4]


def _operation(result: Estimate, operation: Operation, time: OperationTime) -> Step:
    """Derive the time of one call of an operation."""
    gpu = result.rates
    parts = [_memory_part(result, operation)]
    if operation.flops:
        rate = gpu.flops_per_s(operation.kind, operation.dtype)
        parts.append(f"{format_si(float(operation.flops), 'FLOP')} / {rate / TERA:,.0f} TFLOP/s")
    if operation.link_bytes:
        link = gpu.link_bytes_per_s(operation.ranks)
        parts.append(f"{format_si(float(operation.link_bytes), 'B')} / {link / GIGA:,.0f} GB/s")
    fixed = float(time.launch_s) / MICROSECOND
    return Step(
        what=f"Time of {operation.name}, one of {operation.repeat} calls",
        formula="launches x launch time + max(bytes / bandwidth, FLOPs / rate, link bytes / link)",
        numbers=f"{fixed:,.1f} us + max({'; '.join(parts)})",
        result=f"{format_time(float(time.device_s))}, bound by {time.bound}",
        reference="roofline, Williams et al. 2009",
    )


def _memory_part(result: Estimate, operation: Operation) -> str:
    """Write the bytes of an operation over their bandwidth, those from L2 apart."""
    gpu = result.rates
    bandwidth = gpu.bandwidth_bytes_per_s[operation.kind]
    cached = float(cached_bytes(operation, gpu))
    part = f"{format_si(float(operation.bytes_moved) - cached, 'B')} / {bandwidth / GIGA:,.0f} GB/s"
    if cached:
        cache = gpu.l2_bandwidth_bytes_per_s / GIGA
        part += f" + {format_si(cached, 'B')} from L2 / {cache:,.0f} GB/s"
    if operation.blocks is not None:
        kv, rate = format_si(float(operation.kv_bytes_read), "B"), gpu.block_bytes_per_s / GIGA
        part += f"; {kv} KV / ({operation.blocks:,.1f} blocks x {rate:,.1f} GB/s)"
    return part


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


def _memory(result: Estimate) -> Step:
    """Derive the memory."""
    needs = result.memory
    return Step(
        what="Memory of one GPU",
        formula="weights + KV caches + workspace <= memory x utilisation",
        numbers=(
            f"{format_gib(float(needs.weights_bytes))} + {format_gib(float(needs.kv_bytes))} + "
            f"{format_gib(float(needs.workspace_bytes))} <= "
            f"{format_gib(result.gpu.memory_bytes)} x {result.memory_utilization:g}"
        ),
        result=f"{'fits' if needs.fits else 'does not fit'}, "
        f"{format_gib(abs(float(needs.free_bytes)))} {'free' if needs.fits else 'short'}",
        reference="docs/equations.md, memory",
    )


def _constants(result: Estimate) -> list[Step]:
    """List the constants that this answer used, each with its source."""
    uses: dict[tuple[str, float, str, str], list[str]] = {}
    for name, constant in result.rates.constants.items():
        kind = next((kind for kind in KINDS if name.startswith(f"{kind}_")), None)
        base = name if kind is None else name.removeprefix(f"{kind}_")
        if _is_used(result, base, kind):
            key = (base, constant.value, constant.origin, constant.source)
            uses.setdefault(key, []).extend([kind] if kind else [])
    return [
        Step(
            what=f"Constant {name}" + (f" of {', '.join(kinds)}" if kinds else ""),
            formula="",
            numbers=f"{value:,.3g}",
            result=origin,
            reference=source,
        )
        for (name, value, origin, source), kinds in uses.items()
    ]


def _is_used(result: Estimate, name: str, kind: str | None) -> bool:
    """Return whether a constant had a part in an answer."""
    operations = [item for item in result.operations if kind is None or item.kind == kind]
    if not operations:
        return False
    if name == "flops_fraction":
        return any(item.flops for item in operations)
    if name == "link_fraction":
        return any(item.link_bytes for item in operations)
    if name in ("l2_bandwidth_ratio", "l2_fraction"):
        return any(item.reused_bytes for item in operations)
    if name in ("eager_launch_us", "host_us_per_launch"):
        return result.workload.execution == "eager"
    return True
