"""Standard against bifurcated attention: which is faster, from where on, and what to change."""

from dataclasses import dataclass
from typing import Literal

from simulator.answers.advice import advise
from simulator.answers.estimate import (
    DEFAULT_MEMORY_UTILIZATION,
    Estimate,
    estimate,
    estimate_with,
)
from simulator.answers.rules import RuleChoice, choose, find_rule, read_once
from simulator.answers.search import from_where_on
from simulator.answers.verdict import TIE_MARGIN, Verdict, verdict_of
from simulator.counts.attention.flash import TOKENS_PER_SPLIT
from simulator.inputs.hardware import HardwareProfile
from simulator.inputs.model import ModelShape
from simulator.inputs.workload import Workload
from simulator.timing.constants import ConstantsChoice
from simulator.timing.interval import speedup_interval
from simulator.timing.limits import resident_blocks
from simulator.timing.step import decode_time

Winner = Literal["standard", "bifurcated", "tie"]

# How far break-even points are looked for.
MOST_SAMPLES, LONGEST_CONTEXT = 2**16, 2**22


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The same workload under both kinds of attention.

    Attributes
    ----------
    standard
        With the workload's own ``kv_layout``: by default one context copy per sample.
    shared_storage
        Standard attention over one stored context, as paged pools with prefix caching keep it:
        memory is saved, reads are not.
    bifurcated
        One stored context, read once for all samples.
    speedup
        Standard's step time over bifurcated's, end to end.
    speedup_low, speedup_high
        Between which ratios it lies: what both steps have in common cancels.
    kv_io_ratio
        Standard's KV bytes read over bifurcated's. It is not a speed-up: weights, launches and
        the rest of the step do not shrink with it.
    winner
        The faster one that fits; ``tie`` below 2 % difference.
    verdict
        Whether to bifurcate: ``yes`` or ``no`` where the whole interval says so.
    verdict_over_stored
        Likewise with ``shared_storage`` in the place of ``standard``.
    break_even_samples, break_even_context_tokens
        From where on bifurcated is faster, all else equal, up to the last that are looked at; None
        if it is not there. Below it may be faster too, where waves of thread blocks fall well.
    advice
        What to change next, in one sentence.
    rule
        What a serving engine's rule would choose over one stored context, None if none was asked.
    """

    standard: Estimate
    shared_storage: Estimate
    bifurcated: Estimate
    speedup: float
    speedup_low: float
    speedup_high: float
    kv_io_ratio: float
    winner: Winner
    verdict: Verdict
    verdict_over_stored: Verdict
    break_even_samples: int | None
    break_even_context_tokens: int | None
    advice: str
    rule: RuleChoice | None = None


def compare(
    model: ModelShape,
    gpu: HardwareProfile,
    workload: Workload,
    *,
    constants: ConstantsChoice = "auto",
    memory_utilization: float = DEFAULT_MEMORY_UTILIZATION,
    rule: str | None = None,
) -> Comparison:
    """Compare standard and bifurcated attention on one decode step.

    Parameters are those of :func:`simulator.answers.estimate.estimate`, and ``rule``, a name in
    :data:`simulator.answers.rules.RULES`; the workload's own ``attention`` is ignored.
    """
    if rule is not None:
        find_rule(rule)  # an unknown name, before anything is computed
    work = workload.under("standard")
    standard = estimate(
        model, gpu, work, constants=constants, memory_utilization=memory_utilization
    )
    gpu_rates, resident = standard.rates, resident_blocks(gpu)
    bifurcated, shared_storage = (
        estimate_with(model, gpu_rates, other, memory_utilization)
        for other in (
            work.under("bifurcated"),
            work.model_copy(update={"kv_layout": "shared"}),
        )
    )

    def seconds(changed: Workload) -> float:
        return float(decode_time(model, changed, gpu_rates, resident_blocks=resident).total_s)

    def gain(field: str, value: int) -> float:
        changed = work.model_copy(update={field: value})
        return seconds(changed) / seconds(changed.under("bifurcated"))

    samples = from_where_on(lambda b: gain("samples", b), low=1, high=MOST_SAMPLES)
    context = from_where_on(
        lambda m: gain("context_tokens", m), low=1, high=LONGEST_CONTEXT, after=TOKENS_PER_SPLIT
    )
    winner = _winner(standard, bifurcated)
    verdict, low, high = _verdict(standard, bifurcated)
    over_stored, *_ = _verdict(shared_storage, bifurcated)
    rule_choice = None
    if rule is not None:
        cascade = (
            estimate_with(model, gpu_rates, read_once(work), memory_utilization)
            if work.tree
            else bifurcated
        )
        rule_choice = choose(
            rule,
            shared_storage,
            bifurcated,
            cascade,
            ours=_winner(shared_storage, bifurcated),
            verdict=over_stored,
        )
    return Comparison(
        standard=standard,
        shared_storage=shared_storage,
        bifurcated=bifurcated,
        speedup=standard.step_s / bifurcated.step_s,
        speedup_low=low,
        speedup_high=high,
        kv_io_ratio=kv_io_ratio(standard, bifurcated),
        winner=winner,
        verdict=verdict,
        verdict_over_stored=over_stored,
        break_even_samples=samples,
        break_even_context_tokens=context,
        advice=advise(
            standard, shared_storage, bifurcated, winner, verdict, over_stored, samples, context
        ),
        rule=rule_choice,
    )


def kv_io_ratio(standard: Estimate, bifurcated: Estimate) -> float:
    """Return standard's KV bytes read over bifurcated's; 1 where neither reads any."""
    read = float(bifurcated.totals.kv_bytes_read)
    return float(standard.totals.kv_bytes_read) / read if read else 1.0


def _verdict(standard: Estimate, bifurcated: Estimate) -> tuple[Verdict, float, float]:
    """Return whether to bifurcate, and between which ratios the speed-up lies."""
    low, high = map(float, speedup_interval(standard.uncertainty, bifurcated.uncertainty))
    fits = [bool(item.memory.fits) for item in (standard, bifurcated)]
    return verdict_of(low, high, standard_fits=fits[0], bifurcated_fits=fits[1]), low, high


def _winner(standard: Estimate, bifurcated: Estimate) -> Winner:
    """Return the faster one that fits."""
    if bool(standard.memory.fits) != bool(bifurcated.memory.fits):
        return "standard" if standard.memory.fits else "bifurcated"
    ratio = standard.step_s / bifurcated.step_s
    if abs(ratio - 1) < TIE_MARGIN:
        return "tie"
    return "bifurcated" if ratio > 1 else "standard"
