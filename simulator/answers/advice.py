"""What to change next, said in one sentence."""

from simulator.answers.estimate import Estimate
from simulator.answers.verdict import Verdict
from simulator.units import format_gib, format_tokens

# Above this share of a step's bytes a part is worth attacking first.
LARGE_SHARE = 0.5


def advise(
    standard: Estimate,
    bifurcated: Estimate,
    winner: str,
    verdict: Verdict,
    break_even_samples: int | None,
    break_even_context_tokens: int | None,
) -> str:
    """Say what to change next, from both estimates of a comparison."""
    if not bifurcated.memory.fits:
        return _make_it_fit(bifurcated)
    if verdict == "too close to call" and winner != "tie":
        faster = "bifurcated" if winner == "bifurcated" else "standard"
        return (
            f"Measure both before you choose: {faster} attention should be faster, but by less "
            "than the prediction may be off."
        )
    if winner == "bifurcated":
        lead = (
            "Switch to bifurcated attention"
            if standard.memory.fits
            else "Switch to bifurcated attention, which fits where standard does not"
        )
        return f"{lead}; then {next_change(bifurcated)}."
    keep = "Keep standard attention"
    if winner == "tie":
        keep = "Either will do: the difference is below 2 %"
    where = _from_where(standard, break_even_samples, break_even_context_tokens)
    return f"{keep}; {where}." if where else f"{keep}; {next_change(standard)}."


def next_change(result: Estimate) -> str:
    """Name the change that would shorten the step most, by what binds it."""
    if result.bound == "memory":
        return _spare_bytes(result)
    if result.bound == "launch" and result.workload.execution == "eager":
        return "capture the step in a CUDA graph, because the host's launches bind it"
    return {
        "launch": "fuse kernels or add samples, because fixed launch times bind the step",
        "link": "use fewer GPUs or a faster link, because traffic between GPUs binds the step",
        "compute": "use a faster card or fewer samples, because matrix products bind the step",
    }[result.bound]


def _spare_bytes(result: Estimate) -> str:
    """Name the change that saves the most bytes of a step that is bound by memory traffic."""
    totals = result.totals
    moved = float(totals.bytes_read + totals.bytes_written)
    weights = float(totals.weight_bytes_read) / moved
    if weights > LARGE_SHARE:
        return (
            f"quantise the weights ({weights:.0%} of the bytes moved) or add samples, "
            "which cost little until KV reads catch up"
        )
    if float(totals.kv_bytes_read) > LARGE_SHARE * moved:
        wide = result.workload.kv_dtype in ("bf16", "fp16", "fp32")
        way = "store the KV cache in fp8" if wide else "use fewer KV heads or fewer samples"
        return f"{way}, because KV reads are most of the bytes moved"
    if result.workload.kernel in ("einsum", "sdpa_math"):
        return "use a flash kernel, because the logits' passes through memory bind the step"
    return "use a card with more memory bandwidth, because memory traffic binds the step"


def _from_where(standard: Estimate, samples: int | None, context: int | None) -> str:
    """Say from which samples or context on bifurcated attention would win."""
    work = standard.workload
    points = []
    if samples is not None and samples > work.samples:
        points.append(f"from {samples:,} samples")
    if context is not None and context > work.context_tokens:
        points.append(f"from {format_tokens(context)} context tokens")
    return f"bifurcated would be faster {' or '.join(points)}" if points else ""


def _make_it_fit(result: Estimate) -> str:
    """Say by how much the smaller of the two does not fit, and the way that helps most."""
    needs, work = result.memory, result.workload
    short = format_gib(-float(needs.free_bytes))
    if float(needs.weights_bytes) > LARGE_SHARE * float(needs.total_bytes):
        way = "use more GPUs (--tp) or quantise the weights"
    elif float(needs.kv_bytes) > float(needs.workspace_bytes):
        way = "use fewer samples, more GPUs (--tp) or an fp8 KV cache"
    else:
        way = "use fewer samples or a flash kernel, because workspace takes most of the memory"
    return f"Does not fit on {work.tensor_parallel} x {result.gpu.name}: {short} short; {way}."
