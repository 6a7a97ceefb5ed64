"""How a step's interval comes about: each error by how much it makes the step shorter or longer."""

from collections.abc import Mapping

from simulator.answers.estimate import Estimate
from simulator.timing.interval import Deviation, shipped_spreads
from simulator.units import format_time
from simulator.views.text import interval_phrase

NAMES: Mapping[str, str] = {
    "gemm": "products",
    "attention": "attention",
    "prefill_attention": "prefill attention",
    "elementwise": "norms and other elementwise",
    "collective": "collectives",
    "bifurcated": "bifurcated attention from standard's constants",
    "code": "plain PyTorch code",
    "host": "host",
    "peak": "what published peaks leave out",
}


def interval_fields(result: Estimate) -> dict[str, str]:
    """Return the derivation of the interval, as the fields of a step of it."""
    unsure = result.uncertainty
    parts = [
        f"{NAMES[name]}{' (own share)' if own and name == 'attention' else ''} "
        f"-{format_time(float(part.below_s))} +{format_time(float(part.above_s))}"
        for own, group in ((False, unsure.shared), (True, unsure.own))
        for name, part in group.items()
        if _counts(part)
    ]
    return {
        "what": f"Interval of the step, to hold {shipped_spreads().coverage:.0%} of measured times",
        "formula": _formula(result),
        "numbers": "; ".join(parts) or "no error",
        "result": interval_phrase(result.step_low_s, result.step_high_s),
        "reference": "docs/equations.md, intervals; spreads: docs/accuracy.md",
    }


def _formula(result: Estimate) -> str:
    """Return how the errors add."""
    added = "time - root of the sum of errors squared, time + the same; no less than peaks"
    if result.workload.execution == "eager":
        return f"{added}; the longer end of device and host, errors are those of the longer one"
    return added


def _counts(part: Deviation) -> bool:
    """Return whether an error is any."""
    return float(part.below_s) > 0 or float(part.above_s) > 0
