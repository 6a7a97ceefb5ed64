"""The answers as functions of names and plain numbers: the API of ``import simulator``.

All take a model and a GPU by name, path or object; ``kv_heads``, another number of KV heads for
the model; and as further keywords the fields of :class:`~simulator.inputs.workload.Workload`
(samples, context_tokens, ...) and :class:`~simulator.inputs.setup.Setup` (attention, kernel, ...).
Sizes may be text, such as "8K"; prices are in USD per hour of one GPU and replace the profile's.
Invalid input raises a ``SimulatorError``. The command line calls the same functions.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simulator.answers.estimate import Estimate, Question
from simulator.answers.estimate import estimate as _estimate
from simulator.errors import WorkloadError
from simulator.inputs.hardware import GpuLike, HardwareProfile, as_gpu
from simulator.inputs.presets import ModelLike, as_model
from simulator.inputs.setup import ATTENTIONS, Attention, ask, read_limits, read_loads
from simulator.inputs.workload import DEFAULT_OUTPUT_TOKENS

if TYPE_CHECKING:  # an answer's module is loaded on first use, so that a command starts at once
    from simulator.answers.compare import Comparison
    from simulator.answers.generate import Generation
    from simulator.answers.load import Curve, Request
    from simulator.answers.plan import Plan
    from simulator.answers.quality import Quality
    from simulator.answers.scaled import ScaleBy
    from simulator.answers.scaling import ScalingLaw
    from simulator.answers.studies import Studies
    from simulator.answers.tradeoff import Tradeoff
    from simulator.answers.tree import TreePlan

Size = int | str
_H100 = "h100-sxm"


def _asked(model: ModelLike, gpu: GpuLike, settings: dict[str, Any]) -> Question:
    """Turn names and keywords into a question."""
    shape = as_model(model, **read_limits(kv_heads=settings.pop("kv_heads", None)))
    return Question(shape, as_gpu(gpu), *ask(shape, **settings))


def estimate(model: ModelLike, gpu: GpuLike = _H100, **settings: Any) -> Estimate:
    """Estimate one decode step.

    >>> estimate("llama-2-7b", "h100-sxm", samples=16, context_tokens="8K").totals.kv_bytes_read
    69256347648
    """
    return _estimate(_asked(model, gpu, settings))


def compare(
    model: ModelLike, gpu: GpuLike = _H100, *, rule: str | None = None, **settings: Any
) -> "Comparison":
    """Compare both kinds of attention on one decode step.

    Parameters
    ----------
    rule
        A serving engine's rule to show next to our choice: ``vllm``.
    """
    from simulator.answers.compare import compare as answer

    return answer(_asked(model, gpu, settings), rule=rule)


def generate(
    model: ModelLike,
    gpu: GpuLike = _H100,
    *,
    output_tokens: Size = DEFAULT_OUTPUT_TOKENS,
    users: Size | None = None,
    price_per_hour: float | None = None,
    **settings: Any,
) -> "Generation":
    """Estimate a whole request from the prompt to the last token.

    Parameters
    ----------
    output_tokens
        Tokens each sample generates.
    users
        Users who ask again at once, as for :func:`serve`: follow a request among theirs too.
    """
    from simulator.answers.generate import generate as answer

    limits = read_limits(output_tokens=output_tokens, users=users, price_per_hour=price_per_hour)
    return answer(_asked(model, gpu, settings), **limits)


def plan(
    model: ModelLike,
    gpus: Sequence[GpuLike] | GpuLike | None = None,
    *,
    target_step_ms: float | None = None,
    requests_per_s: float | None = None,
    output_tokens: Size | None = None,
    cached_tokens: Size | None = None,
    ttft_ms: float | None = None,
    tpot_ms: float | None = None,
    percentile: float | None = None,
    most_sequences: Size | None = None,
    gpus_at_most: Size | None = None,
    tensor_parallel_sizes: Sequence[Size] | None = None,
    attentions: Sequence[Attention] | Attention | None = None,
    price_per_hour: float | None = None,
    prices: str | Path | None = None,
    **settings: Any,
) -> "Plan":
    """Find the GPUs for a decode step, or for requests a second; of these ``samples`` is 1.

    Parameters
    ----------
    target_step_ms
        The longest acceptable decode step [ms].
    requests_per_s, ttft_ms, tpot_ms
        Requests that arrive in a second; the longest acceptable times to the first token and per
        token after it [ms].
    percentile
        Percentage of the requests that keep to these; None for their means.
    output_tokens, cached_tokens, most_sequences
        Of these requests, as for :func:`serve`.
    gpus, tensor_parallel_sizes, attentions, gpus_at_most
        What to try, by default all GPUs of known price that run FlashAttention, ``attention`` if
        given, and ``tensor_parallel`` if given, else 1, 2, 4, 8, for experts also data-parallel
        groups that share them, and pipelines where none of these holds the model; and the most GPUs
        in all.
    prices
        A TOML file of lines ``GPU = PRICE``; without ``gpus`` its GPUs are tried.
    """
    from simulator.answers.plan import Targets
    from simulator.answers.plan import plan as answer

    request: dict[str, Any] = {"output_tokens": output_tokens, "cached_tokens": cached_tokens}
    load = {"ttft_ms": ttft_ms, "tpot_ms": tpot_ms, "percentile": percentile}
    engine = {"most_sequences": most_sequences}
    given = [name for name, value in (request | load | engine).items() if value is not None]
    if given and requests_per_s is None:
        name = given[0].replace("most_sequences", "most_sequences (--max-num-seqs)")
        raise WorkloadError(
            f"{name} belongs to a load; give requests_per_s too, or target_step_ms for one step"
        )
    if requests_per_s is not None and target_step_ms is not None:
        raise WorkloadError("target_step_ms limits one step; give tpot_ms with requests_per_s")
    targets = read_limits(target_step_ms=target_step_ms, requests_per_s=requests_per_s, **load)
    if tensor_parallel_sizes is None:
        tensor_parallel_sizes = settings.get("tensor_parallel")
    limits = read_limits(
        gpus_at_most=gpus_at_most,
        tensor_parallel_sizes=tensor_parallel_sizes,
        attentions=attentions or settings.get("attention"),
        price_per_hour=price_per_hour,
        **engine,
    )
    if requests_per_s is None:
        question = _asked(model, _H100, settings)
    else:
        question, limits["request"] = _requested(model, _H100, settings, request)
    return answer(question, _cards(gpus, prices), Targets(**targets), **limits)


def serve(
    model: ModelLike,
    gpu: GpuLike = _H100,
    *,
    output_tokens: Size = DEFAULT_OUTPUT_TOKENS,
    cached_tokens: Size | None = None,
    users: Sequence[Size] | Size | None = None,
    requests_per_s: Sequence[float] | float | None = None,
    percentile: float | None = None,
    most_sequences: Size | None = None,
    attentions: Sequence[Attention] | Attention | None = None,
    price_per_hour: float | None = None,
    **settings: Any,
) -> "Curve":
    """Follow a deployment over its load: throughput of a GPU against speed of a user.

    ``samples`` is 1 unless given.

    Parameters
    ----------
    output_tokens, cached_tokens
        Tokens each sample generates; tokens of each prompt that are stored when it arrives.
    users, requests_per_s
        Users who ask again at once, in powers of two by default; requests that arrive in a second.
    percentile
        Percentage of these requests whose times are shown; None for the means.
    most_sequences
        Sequences that the engine decodes together, 1024 by default.
    attentions
        Kinds of attention to follow, by default ``attention`` if given, else both, of which
        bifurcated needs a kernel that runs it.
    """
    from simulator.answers.load import serve as answer

    sizes = {"output_tokens": output_tokens, "cached_tokens": cached_tokens}
    question, request = _requested(model, gpu, settings, sizes)
    limits = read_limits(
        most_sequences=most_sequences,
        attentions=attentions or settings.get("attention", ATTENTIONS),
        percentile=percentile,
        price_per_hour=price_per_hour,
    )
    loads = read_loads(users=users, requests_per_s=requests_per_s)
    return answer(question, request, **loads, **limits)


def _requested(
    model: ModelLike, gpu: GpuLike, settings: dict[str, Any], sizes: dict[str, Any]
) -> "tuple[Question, Request]":
    """Turn names and keywords into a question and a request, of one sample by default."""
    from simulator.answers.load import Request

    question = _asked(model, gpu, {"samples": 1} | settings)
    return question, Request(workload=question.workload, **read_limits(**sizes))


def _cards(
    gpus: Sequence[GpuLike] | GpuLike | None, prices: str | Path | None
) -> list[HardwareProfile]:
    """Return the GPUs to plan with, by default all of known price or those of a file of prices."""
    from simulator.answers.price import as_gpus, with_prices

    if prices is None:
        return as_gpus(gpus)
    return with_prices(None if gpus is None else as_gpus(gpus), prices)


def tree(model: ModelLike, gpu: GpuLike = _H100, **settings: Any) -> "TreePlan":
    """Time every choice of which levels of a prefix tree to read once per node."""
    from simulator.answers.tree import plan_tree

    return plan_tree(_asked(model, gpu, settings))


def tradeoff(
    model: ModelLike,
    gpu: GpuLike = _H100,
    *,
    target_kv_heads: Sequence[Size] = (1,),
    families: Sequence[str] = (),
    size_factors: Sequence[float | str] | None = None,
    training_runs: "str | Path | ScalingLaw | Studies | None" = None,
    scale_by: "ScaleBy | None" = None,
    target_step_ms: float | None = None,
    price_per_hour: float | None = None,
    most_samples: Size | None = None,
    longest_context_tokens: Size | None = None,
    users: Size | None = None,
    output_tokens: Size | None = None,
    **settings: Any,
) -> "Tradeoff":
    """Compare a model with equally good ones that have fewer KV heads.

    Parameters
    ----------
    target_kv_heads, families
        KV heads of the models to compare with; or their families: ``mqa``, ``gqa``, ``mla``,
        ``gla``, ``cla`` or ``yoco``.
    scale_by
        What makes them larger: ``width``, ``depth``, ``mlp`` or ``heads``. Default: the first but
        ``depth`` for which published runs tell the family's factor.
    size_factors, training_runs
        Their parameters over the model's at equal quality, one for each (``paper``: 1.10 for
        multi-query); or a file of training runs, or what ``fit_scaling_law`` or ``fit_studies``
        makes of it. With neither, those of published runs.
    target_step_ms, most_samples, longest_context_tokens
        Longest acceptable decode step [ms]; how far to search for the crossover.
    users, output_tokens
        Also serve this many users who ask again at once; tokens that each sample generates, 256.
    """
    from simulator.answers.tradeoff import tradeoff as answer

    limits = read_limits(
        target_kv_heads=target_kv_heads,
        families=families,
        size_factors=size_factors,
        target_step_ms=target_step_ms,
        price_per_hour=price_per_hour,
        most_samples=most_samples,
        longest_context_tokens=longest_context_tokens,
        users=users,
        output_tokens=output_tokens,
    )
    question = _asked(model, gpu, settings)
    return answer(question, scaling=training_runs, scale_by=scale_by, **limits)


def quality(
    model: ModelLike,
    gpu: GpuLike = _H100,
    *,
    success_rate: float | None = None,
    problem_counts: str | Path | None = None,
    output_tokens: Size | None = None,
    target_step_ms: float | None = None,
    target_request_s: float | None = None,
    most_samples: Size | None = None,
    price_per_hour: float | None = None,
    **settings: Any,
) -> "Quality":
    """Find the pass@k that a latency allows.

    Parameters
    ----------
    success_rate, problem_counts
        How often a single sample is right; or a CSV file of columns problem, samples, correct.
    output_tokens, target_step_ms, target_request_s, most_samples
        Tokens per sample, to time requests; longest step [ms] and request [s]; samples to try.
    """
    from simulator.answers.pass_at_k import success_of
    from simulator.answers.quality import quality as answer

    limits = read_limits(
        success_rate=success_rate,
        output_tokens=output_tokens,
        target_step_ms=target_step_ms,
        target_request_s=target_request_s,
        most_samples=most_samples,
        price_per_hour=price_per_hour,
    )
    success = success_of(problem_counts, limits.pop("success_rate", None))
    return answer(_asked(model, gpu, settings), success, **limits)
