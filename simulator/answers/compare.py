"""Standard against bifurcated attention: which is faster, where it breaks even, what to change."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

from simulator.answers.advice import advise, how_to_share, no_shared_kernel, why_stored_is_enough
from simulator.answers.answer import Answer
from simulator.answers.estimate import Estimate, Question, estimate, latent_forms
from simulator.answers.rules import RuleChoice, choose, find_rule, read_once
from simulator.answers.search import from_where_on
from simulator.answers.verdict import Verdict, Winner, kv_io_ratio, verdict_of, winner_of
from simulator.counts.attention.flash import TOKENS_PER_SPLIT
from simulator.inputs.setup import KvLayout, Setup
from simulator.timing.interval import speedup_interval
from simulator.timing.step import StepTime, time_of

# How far the search for break-even points goes.
MOST_SAMPLES, LONGEST_CONTEXT = 2**16, 2**22


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Comparison(Answer):
    """The same workload under both kinds of attention.

    Attributes
    ----------
    standard
        With the question's own ``kv_layout``: by default over one stored context, as paged engines
        keep it. That saves memory, not reads.
    bifurcated
        One stored context, read once for all samples.
    speedup
        Standard's step time over bifurcated's, end to end.
    speedup_low, speedup_high
        Its interval; errors that both steps have in common cancel.
    kv_io_ratio
        Standard's KV bytes read over bifurcated's. It is not a speed-up: weights, launches and
        the rest of the step do not shrink with it.
    winner
        The faster one that fits; ``tie`` below 2 % difference.
    verdict
        Whether bifurcated is faster: ``yes`` or ``no`` where the whole interval says so, of steps
        that fit.
    forms
        The setups from which bifurcated attention takes the fastest; more than one for a latent
        cache.
    rule
        What a serving engine's rule would choose over one stored context; None without a rule.
    """

    standard: Estimate
    bifurcated: Estimate
    speedup: float
    speedup_low: float
    speedup_high: float
    kv_io_ratio: float
    winner: Winner
    verdict: Verdict
    forms: tuple[Setup, ...]
    rule: RuleChoice | None = None

    @cached_property
    def stored(self) -> Estimate:
        """Standard attention over one stored context: ``standard`` itself, by default."""
        return self.standard if self.standard.setup.rereads else self._standard("shared")

    @cached_property
    def copies(self) -> Estimate | None:
        """Standard attention with a context copy for each sample, as contiguous caches keep it.

        None where ``standard`` is not over one stored context.
        """
        return self._standard("copies") if self.standard.setup.rereads else None

    @property
    def speedup_over_copies(self) -> float | None:
        """The step time with these copies over bifurcated's, None unless both fit."""
        held = self.copies
        if held is None or not (held.memory.fits and self.bifurcated.memory.fits):
            return None
        return held.step_s / self.bifurcated.step_s

    @property
    def verdict_over_stored(self) -> Verdict:
        """Whether it is faster than standard attention over one stored context."""
        return _verdict(self.stored, self.bifurcated)[0]

    @property
    def winner_over_stored(self) -> Winner:
        """The faster kind of attention that fits if one context is stored already."""
        return _winner(self.stored, self.bifurcated)

    @cached_property
    def break_even_samples(self) -> int | None:
        """The fewest samples at and above which bifurcated is always faster, all else equal.

        None if it is not faster at the largest number tried, or nothing is shared. It may also be
        faster at some smaller numbers, where waves of thread blocks fall well. Computed when first
        read, as is the next.
        """
        if self.nothing_shared:
            return None
        return from_where_on(self._gain("samples"), high=MOST_SAMPLES)

    @cached_property
    def break_even_context_tokens(self) -> int | None:
        """The shortest context at and above which bifurcated is always faster, or None."""
        if self.nothing_shared:
            return None
        return from_where_on(
            self._gain("context_tokens"), high=LONGEST_CONTEXT, after=TOKENS_PER_SPLIT
        )

    @cached_property
    def advice(self) -> str:
        """What to change next, in one sentence."""
        return advise(self)

    @cached_property
    def how(self) -> str:
        """How users of the setup's engine read a context once; empty where that gains nothing."""
        return how_to_share(self)

    @property
    def barred(self) -> str:
        """Why no engine's kernel runs bifurcated attention here; empty if some may."""
        return no_shared_kernel(self.bifurcated.model, self.bifurcated.gpu)

    @property
    def stored_is_enough(self) -> str:
        """Why to store the context once, and not to read it once; empty where that gains more."""
        return why_stored_is_enough(self) if self.winner == "bifurcated" else ""

    @property
    def both_fit(self) -> bool:
        """Whether the speed-up is over something that can run."""
        return bool(self.standard.memory.fits and self.bifurcated.memory.fits)

    @property
    def nothing_shared(self) -> bool:
        """Whether there is no context: what differs are the kernels, not the reads."""
        return not self.standard.workload.context_tokens

    @property
    def interval_known(self) -> bool:
        """Whether rows tell how far both times may be off."""
        return self.standard.interval_known and self.bifurcated.interval_known

    def _standard(self, layout: KvLayout) -> Estimate:
        """Return the step under standard attention in another layout."""
        return estimate(self.standard.but(kv_layout=layout))

    def _gain(self, field: str) -> Callable[[int], float]:
        """Return the speed-up as a function of one size, all else equal."""
        around = dict[int, StepTime]()

        def seconds(asked: Question) -> float:
            tokens = int(asked.workload.tokens)
            if tokens not in around:  # the same for both, and for every length of the context
                before, after = asked.around()
                around[tokens] = before + after
            return float(time_of([around[tokens], asked.attending()]))

        def gain(size: int) -> float:
            asked = self.standard.but(**{field: size})
            return seconds(asked) / min(seconds(asked.of(form)) for form in self.forms)

        return gain


def compare(question: Question, *, rule: str | None = None) -> Comparison:
    """Compare standard and bifurcated attention on one decode step.

    Parameters
    ----------
    question
        What is asked; its own ``attention`` is ignored.
    rule
        A serving engine's rule to show next to our choice, a name in
        :data:`simulator.answers.rules.RULES`.

    Raises
    ------
    WorkloadError
        If the workload cannot run that way, or the rule is unknown.
    """
    if rule is not None:
        find_rule(rule)  # an unknown name, before anything is computed
    once = question.under("bifurcated")
    standard, bifurcated = estimate(question.under("standard")), estimate(once)
    verdict, low, high = _verdict(standard, bifurcated)
    compared = Comparison(
        standard=standard,
        bifurcated=bifurcated,
        speedup=standard.step_s / bifurcated.step_s,
        speedup_low=low,
        speedup_high=high,
        kv_io_ratio=kv_io_ratio(
            float(standard.totals.kv_bytes_read), float(bifurcated.totals.kv_bytes_read)
        ),
        winner=_winner(standard, bifurcated),
        verdict=verdict,
        forms=tuple(latent_forms(once.model, once.setup)),
    )
    if rule is None:
        return compared
    work = question.workload
    cascade = estimate(once.of(workload=read_once(work))) if work.tree else bifurcated
    return replace(compared, rule=choose(rule, compared, cascade))


def _verdict(standard: Estimate, bifurcated: Estimate) -> tuple[Verdict, float, float]:
    """Return whether bifurcated is faster, and the interval of the speed-up."""
    low, high = map(float, speedup_interval(standard.uncertainty, bifurcated.uncertainty))
    needs = standard.memory, bifurcated.memory
    verdict = verdict_of(
        low,
        high,
        standard_fits=bool(needs[0].fits),
        bifurcated_fits=bool(needs[1].fits),
        memory_sure=all(each.verdict != "too close to call" for each in needs),
    )
    return verdict, low, high


def _winner(standard: Estimate, bifurcated: Estimate) -> Winner:
    """Return the faster kind of attention that fits."""
    fits = bool(standard.memory.fits), bool(bifurcated.memory.fits)
    return winner_of(standard.step_s / bifurcated.step_s, *fits)
