"""A whole request under both kinds of attention: time to the last token, throughput and cost."""

from dataclasses import dataclass

from simulator.answers.answer import Answer
from simulator.answers.estimate import NOT_SURE_TO_FIT, Estimate, Question, estimate, fits_note
from simulator.answers.load import Point, Request, deployments
from simulator.answers.price import cost_per_million_tokens, price_of, price_per_hour
from simulator.counts.memory import Memory, prefill_tokens_at_once
from simulator.counts.request import last_own_tokens
from simulator.errors import WorkloadError, check_between
from simulator.inputs.setup import Attention
from simulator.timing.request import GenerationTime, generation_time, request_interval
from simulator.units import format_gib

MOST_OUTPUT_TOKENS = 10**7


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Generation(Answer):
    """One request: every sample of every prompt generates ``output_tokens``.

    Attributes
    ----------
    time
        Prefill and decode.
    last_step
        The last decode step, when the caches are longest.
    memory
        What the whole request needs: its longest caches, and the larger of the workspaces of
        prefill and last step.
    usd_per_hour
        Price of all GPUs of the group, None where unknown.
    total_low_s, total_high_s
        Ends of the interval of the whole request's time. [s]
    loaded
        The same request of one of several users; None if not asked, or if it does not fit.
    """

    attention: Attention
    output_tokens: int
    time: GenerationTime
    last_step: Estimate
    memory: Memory
    usd_per_hour: float | None
    total_low_s: float
    total_high_s: float
    loaded: Point | None = None

    @property
    def total_s(self) -> float:
        """From the prompt to the last token. [s]."""
        return self.time.total_s

    @property
    def all_tokens(self) -> int:
        """Tokens generated over all samples of all prompts."""
        return int(self.last_step.workload.sequences) * self.output_tokens

    @property
    def tokens_per_s(self) -> float:
        """Output tokens per second of the whole request."""
        return self.all_tokens / self.total_s

    @property
    def time_per_output_token_s(self) -> float:
        """Mean time of a token after the first (TPOT); 0 where there is none. [s]."""
        tokens = self.output_tokens - 1
        return self.time.decode_s / tokens if tokens else 0.0

    @property
    def steps_note(self) -> str:
        """Say how many steps of several query tokens there are; empty for one token a step."""
        work, steps = self.last_step.workload, self.time.steps
        if work.query_tokens == 1 or not steps:
            return ""
        return (
            f"{steps:,} decode step{'' if steps == 1 else 's'} of {work.query_tokens} query "
            f"tokens: each moves every sample forward by {work.accepted_tokens:g}, and what is "
            "left at the end takes a whole one."
        )

    @property
    def notes(self) -> tuple[str, ...]:
        """What was assumed, one sentence each."""
        step = [note for note in self.last_step.notes if not note.startswith(NOT_SURE_TO_FIT)]
        own = (self.steps_note, self._memory_note(), fits_note(self.memory))
        return tuple(note for note in (*step, *own) if note)

    def _memory_note(self) -> str:
        """Say that the memory is the whole request's, and what sets its workspace."""
        step = self.last_step
        at_once, *_ = prefill_tokens_at_once(step.setup, step.workload, step.gpu.memory_bytes)
        tokens = int(at_once)
        engine = f"in batches of at most {tokens:,} tokens"
        prefill = engine if step.setup.graph else f"of {tokens:,} tokens at once"
        return (
            "Memory is that of the whole request: its workspace, "
            f"{format_gib(self.memory.workspace_bytes)}, is the larger of the last step's "
            f"and of a prefill {prefill}."
        )

    @property
    def usd_per_million_tokens(self) -> float | None:
        """Cost of a million output tokens at this request's speed. [USD]."""
        return cost_per_million_tokens(self.usd_per_hour, self.tokens_per_s)


def generate(
    question: Question,
    *,
    output_tokens: int,
    users: int | None = None,
    usd_per_hour: float | None = None,
) -> Generation:
    """Estimate a whole request; the workload's ``decoded_tokens`` is ignored.

    All of it has the form of latent attention that is fastest at its last step.

    Parameters
    ----------
    question
        What is asked.
    output_tokens
        Tokens each sample generates.
    users
        Users who ask for such a request again and again: it is then followed among theirs too.
    usd_per_hour
        Price of one GPU instead of the profile's. [USD/h]

    Raises
    ------
    WorkloadError
        If there is nothing to generate, no context to start from, or the workload cannot run.
    """
    check_between("output_tokens", output_tokens, 1, MOST_OUTPUT_TOKENS)
    work = question.workload
    last_step = estimate(at_last_step(question, output_tokens))
    setup = last_step.setup
    asked = last_step.model, setup, work, last_step.rates
    time = generation_time(*asked, output_tokens=output_tokens)
    low_s, high_s = request_interval(time, last_step.rates, setup, last_step.uncertainty)
    request = None if users is None else Request(workload=work, output_tokens=output_tokens)
    return Generation(
        attention=setup.attention,
        output_tokens=output_tokens,
        time=time,
        last_step=last_step,
        memory=last_step.memory_needs(prefill=True),
        usd_per_hour=price_per_hour(question.gpu, setup.gpus, usd_per_hour),
        total_low_s=low_s,
        total_high_s=high_s,
        loaded=among_users(last_step, request, users, usd_per_hour),
    )


def among_users(
    question: Question, request: Request | None, users: int | None, usd_per_hour: float | None
) -> Point | None:
    """Follow a request among those of users; None without them, or if it does not fit.

    Parameters
    ----------
    question, request
        What is decoded, on what and how, and the request.
    users
        How many ask for such a request again and again.
    usd_per_hour
        Price of one GPU instead of the profile's. [USD/h]
    """
    if request is None or users is None:
        return None
    found, *_ = deployments(question, request, attentions=(question.attention,))
    point = Point(deployment=found, concurrency=users, price=price_of(question.gpu, usd_per_hour))
    return None if found.server is None else point


def at_last_step(question: Question, output_tokens: int) -> Question:
    """Return a question about the last step of a whole request.

    Raises
    ------
    WorkloadError
        If there is no context token whose prefill gives the first output token.
    """
    work = question.workload
    if work.context_tokens == 0:
        raise WorkloadError(
            "context_tokens = 0: a whole request begins with the prefill of at least one token "
            "(BOS, if nothing else), which gives the first one; give 1 or more"
        )
    own = last_own_tokens(output_tokens, work.query_tokens, work.accepted_tokens)
    return question.but(decoded_tokens=own)
