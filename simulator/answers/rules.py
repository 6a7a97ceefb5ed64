"""Rules by which serving engines decide to read a shared context once, next to our own answer.

A rule sees what an engine sees when it schedules a step. It takes numbers or arrays, so the same
code gives one answer or a map.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

from simulator.counts.transformer import rank_geometry
from simulator.errors import WorkloadError, unknown
from simulator.numeric import Numeric, ceil_div, where

if TYPE_CHECKING:
    from simulator.answers.compare import Comparison
    from simulator.answers.estimate import Estimate, Question
    from simulator.answers.verdict import Verdict
    from simulator.inputs.model import ModelShape
    from simulator.inputs.setup import Attention
    from simulator.inputs.workload import Workload

# vLLM's thresholds and tiles, vllm/v1/attention/backends/flash_attn.py @5704f34.
LEAST_PREFIX_TOKENS, LEAST_REQUESTS = 256, 8
TILE = 128
# A prefix is shared in whole blocks of the cache; 16 tokens is vLLM's default (recalled).
CACHE_BLOCK_TOKENS = 16


class Rule(NamedTuple):
    """A rule of a serving engine.

    Attributes
    ----------
    title
        Its name in a sentence.
    reads_once
        Whether it reads the shared context once; an array if the workload has arrays.
    reason
        The reason, for a workload of plain numbers.
    """

    title: str
    reads_once: "Callable[[Question], Numeric]"
    reason: "Callable[[Question], str]"


class RuleChoice(NamedTuple):
    """What a rule chooses for one step, and what that costs by our predictions.

    An engine with such a rule stores a shared context once, so both ways are timed over one stored
    context.

    Attributes
    ----------
    name, title
        The rule.
    choice, reason
        Its choice, and why.
    ours
        Our choice over one stored context: ``tie`` where the difference is too small.
    verdict
        Whether bifurcated is faster there, given the uncertainty of the predictions.
    step_s, best_step_s
        Time of the step as the rule runs it, and of the fastest way. [s]
    """

    name: str
    title: str
    choice: "Attention"
    reason: str
    ours: str
    verdict: "Verdict"
    step_s: float
    best_step_s: float

    @property
    def agrees(self) -> bool:
        """Whether the choice is ours, or equally good."""
        return self.ours in (self.choice, "tie")

    @property
    def cost_s(self) -> float:
        """Time the rule loses on each step; 0 where it chooses the faster way. [s]."""
        return self.step_s - self.best_step_s

    @property
    def cost_share(self) -> float:
        """The same as a share of the faster step."""
        return self.cost_s / self.best_step_s


def find_rule(name: str) -> Rule:
    """Return a rule by name.

    Raises
    ------
    WorkloadError
        If no rule has that name; the message suggests the nearest one.
    """
    rule = RULES.get(str(name))
    if rule is None:
        raise WorkloadError(unknown("rule", str(name), RULES))
    return rule


def choose(name: str, compared: "Comparison", cascade: "Estimate") -> RuleChoice:
    """Return what a rule chooses between estimates of a step over one stored context.

    Parameters
    ----------
    name
        Of the rule.
    compared
        Both kinds of attention.
    cascade
        The step of :func:`read_once`; the same as bifurcated unless a tree has further levels.

    Raises
    ------
    WorkloadError
        If no rule has that name.
    """
    rule = find_rule(name)
    standard = compared.stored
    chosen = cascade if rule.reads_once(standard) else standard
    return RuleChoice(
        name=name,
        title=rule.title,
        choice=chosen.attention,
        reason=rule.reason(standard),
        ours=compared.winner_over_stored,
        verdict=compared.verdict_over_stored,
        step_s=chosen.step_s,
        best_step_s=min(item.step_s for item in (standard, compared.bifurcated, cascade)),
    )


def read_once(work: "Workload") -> "Workload":
    """Return a workload as an engine bifurcates it: only what all requests share is read once.

    Each further level of a tree is read by every sequence below it.
    """
    levels = zip(work.tree, _tokens_of_all(work), strict=True)
    common = [level.name for level, tokens in levels if tokens]
    return work.splitting(common[-1:]) if work.tree else work


def common_tokens(work: "Workload") -> Numeric:
    """Return the tokens that all sequences share, from the root of a tree down.

    >>> from simulator.inputs.workload import Workload
    >>> common_tokens(Workload(tree="system=1K,task=512,problem=256x8"))
    1536
    """
    if not work.tree:
        return where(work.prompts > 1, 0, work.context_tokens)
    return sum(_tokens_of_all(work))


def _tokens_of_all(work: "Workload") -> Iterator[Numeric]:
    """Yield how many tokens of each level all sequences share: all, or none."""
    nodes: Numeric = 1
    for level in work.tree:
        nodes = nodes * level.branches
        yield where(nodes > 1, 0, level.tokens)


def vllm_cascade(
    *,
    requests: Numeric,
    query_tokens: Numeric,
    prefix_tokens: Numeric,
    heads: int,
    kv_heads: int,
    sm_count: float,
) -> Numeric:
    """Return whether vLLM would use cascade attention for a decode step.

    No below 256 tokens or 8 requests; yes without grouped queries, or with several query tokens.
    Otherwise it counts waves of thread blocks: a wave takes one tile of keys for flash decoding,
    and all tiles of the prefix for cascade.

    Parameters
    ----------
    requests, prefix_tokens, heads, kv_heads, sm_count
        As for :func:`vllm_waves`, the prefix in whole cache blocks.
    query_tokens
        Tokens of each request in one step.

    References
    ----------
    vllm/v1/attention/backends/flash_attn.py @5704f34, use_cascade_attention; that of the source
    distributions of 0.7.0 to 0.30.0 gives the same answer at 240,000 random points.

    Examples
    --------
    >>> sizes = {"query_tokens": 1, "heads": 32, "kv_heads": 8, "sm_count": 132}
    >>> vllm_cascade(prefix_tokens=8192, requests=16, **sizes)
    False
    >>> vllm_cascade(prefix_tokens=8192, requests=32, **sizes)
    True
    """
    cascade, flash = vllm_waves(
        prefix_tokens=prefix_tokens,
        requests=requests,
        heads=heads,
        kv_heads=kv_heads,
        sm_count=sm_count,
    )
    enough = (prefix_tokens >= LEAST_PREFIX_TOKENS) & (requests >= LEAST_REQUESTS)
    ungrouped = (heads == kv_heads) | (query_tokens > 1)
    return enough & (ungrouped | (cascade < flash))


def vllm_waves(
    *, prefix_tokens: Numeric, requests: Numeric, heads: int, kv_heads: int, sm_count: float
) -> tuple[Numeric, Numeric]:
    """Return the rule's two times, of cascade and of flash decoding, in tiles of keys.

    Parameters
    ----------
    prefix_tokens, requests
        Tokens that all requests share, and the number of requests.
    heads, kv_heads
        On one GPU.
    sm_count
        The GPU's multiprocessors, one block on each.

    Examples
    --------
    >>> vllm_waves(prefix_tokens=8192, requests=16, heads=32, kv_heads=8, sm_count=132)
    (64, 63)
    """
    tiles = ceil_div(prefix_tokens, TILE)
    cascade_blocks = heads * ceil_div(requests, TILE)
    flash_blocks = requests * kv_heads * ceil_div(heads // kv_heads, TILE) * tiles
    resident = int(sm_count)
    return ceil_div(cascade_blocks, resident) * tiles, ceil_div(flash_blocks, resident)


def _vllm_sizes(question: "Question") -> dict[str, Numeric]:
    """Return what vLLM's rule sees of a workload, on one GPU."""
    model, setup, work = question.model, question.setup, question.workload
    kv_heads, *_ = rank_geometry(model, setup)
    return {
        "prefix_tokens": common_tokens(work) // CACHE_BLOCK_TOKENS * CACHE_BLOCK_TOKENS,
        "requests": work.sequences,
        "heads": model.heads // setup.tensor_parallel,
        "kv_heads": kv_heads,
        "sm_count": question.gpu.sm_count,
    }


def _vllm_unsupported(model: "ModelShape") -> str:
    """Say why vLLM has no cascade attention for a model; empty if it has."""
    if model.latent is not None:
        return "it has none for a latent cache (recalled)"
    if any(group.limited for group in model.layer_groups):
        return "it has none for sliding windows"
    if not model.rotary and not model.position_embeddings:
        return "it has none for ALiBi"
    return ""


def _vllm_reads_once(question: "Question") -> Numeric:
    """Apply vLLM's rule to a workload."""
    tokens = question.workload.query_tokens
    cascade = vllm_cascade(query_tokens=tokens, **_vllm_sizes(question))
    return cascade & (not _vllm_unsupported(question.model))


def _vllm_reason(question: "Question") -> str:
    """Say why vLLM's rule chooses as it does."""
    sizes, work = _vllm_sizes(question), question.workload
    prefix, requests = sizes["prefix_tokens"], sizes["requests"]
    unsupported = _vllm_unsupported(question.model)
    cascade, flash = vllm_waves(**sizes)
    reasons = (
        (work.prompts > 1 and not prefix, "no prefix is common to all prompts"),
        (
            prefix < LEAST_PREFIX_TOKENS,
            f"a common prefix of {prefix:,} tokens is below {LEAST_PREFIX_TOKENS}",
        ),
        (bool(unsupported), unsupported),
        (requests < LEAST_REQUESTS, f"fewer than {LEAST_REQUESTS} requests ({requests})"),
        (work.query_tokens > 1, "flash decoding takes one query token per step"),
        (sizes["heads"] == sizes["kv_heads"], "each query head has a KV head of its own"),
        (True, f"it counts {cascade:,} tile steps for cascade, {flash:,} for flash decoding"),
    )
    reason = next(text for holds, text in reasons if holds)
    if work.tree and _vllm_reads_once(question):
        return f"{reason}; it reads once only the {prefix:,} tokens that all requests share"
    return reason


RULES: Mapping[str, Rule] = {
    "vllm": Rule(title="vLLM's cascade rule", reads_once=_vllm_reads_once, reason=_vllm_reason)
}
