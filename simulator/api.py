"""The answers as functions of names and plain numbers: what ``import simulator`` offers.

Each takes a model and a GPU by name, path or object, and the fields of
:class:`~simulator.inputs.workload.Workload` as keywords; the command line calls the same functions.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simulator.answers.estimate import DEFAULT_MEMORY_UTILIZATION, Estimate
from simulator.answers.estimate import estimate as _estimate
from simulator.errors import WorkloadError
from simulator.inputs.hardware import GpuLike, as_gpu
from simulator.inputs.presets import ModelLike, as_model
from simulator.inputs.workload import ATTENTIONS, Attention, workload_for
from simulator.timing.constants import ConstantsChoice
from simulator.units import MILLISECOND

# Each answer's module is loaded when it is asked for, so that the command line starts in a blink.
if TYPE_CHECKING:
    from simulator.answers.compare import Comparison
    from simulator.answers.generate import Generation
    from simulator.answers.plan import Plan
    from simulator.answers.quality import Quality
    from simulator.answers.scaled import ScaleBy
    from simulator.answers.scaling import ScalingLaw
    from simulator.answers.tradeoff import Tradeoff
    from simulator.answers.tree import TreePlan


def estimate(
    model: ModelLike,
    gpu: GpuLike = "h100-sxm",
    *,
    kv_heads: int | None = None,
    constants: ConstantsChoice = "auto",
    gpu_memory_utilization: float = DEFAULT_MEMORY_UTILIZATION,
    **workload: Any,
) -> Estimate:
    """Estimate one decode step.

    Parameters
    ----------
    model, gpu
        Names, paths or objects.
    kv_heads
        What if the model had so many KV heads.
    constants
        ``auto``, ``carried`` or ``peak``.
    gpu_memory_utilization
        Share of the card's memory that may be used, in (0, 1].
    workload
        Fields of :class:`~simulator.inputs.workload.Workload`: samples, context_tokens, ...

    Raises
    ------
    SimulatorError
        If a name is unknown or the workload cannot be run; one line says why.

    Examples
    --------
    >>> result = estimate("llama-2-7b", "h100-sxm", samples=16, context_tokens="8K")
    >>> result.totals.kv_bytes_read
    69256347648
    """
    shape = as_model(model, kv_heads)
    work = workload_for(shape, **workload)
    return _estimate(
        shape,
        as_gpu(gpu),
        work.under(work.attention),
        constants=constants,
        memory_utilization=gpu_memory_utilization,
    )


def compare(
    model: ModelLike,
    gpu: GpuLike = "h100-sxm",
    *,
    kv_heads: int | None = None,
    constants: ConstantsChoice = "auto",
    gpu_memory_utilization: float = DEFAULT_MEMORY_UTILIZATION,
    rule: str | None = None,
    **workload: Any,
) -> "Comparison":
    """Compare standard and bifurcated attention on one decode step; see :func:`estimate`.

    Parameters
    ----------
    rule
        A serving engine's rule to show beside our choice: ``vllm``.

    Examples
    --------
    >>> round(compare("llama-2-7b", samples=16, context_tokens="8K").kv_io_ratio, 1)
    14.3
    """
    from simulator.answers.compare import compare as answer

    shape = as_model(model, kv_heads)
    return answer(
        shape,
        as_gpu(gpu),
        workload_for(shape, **workload),
        constants=constants,
        memory_utilization=gpu_memory_utilization,
        rule=rule,
    )


def generate(
    model: ModelLike,
    gpu: GpuLike = "h100-sxm",
    *,
    output_tokens: int = 256,
    kv_heads: int | None = None,
    price_per_hour: float | None = None,
    constants: ConstantsChoice = "auto",
    gpu_memory_utilization: float = DEFAULT_MEMORY_UTILIZATION,
    **workload: Any,
) -> "Generation":
    """Follow a whole request from the prompt to the last token; see :func:`estimate`.

    Parameters
    ----------
    output_tokens
        Tokens each sample generates.
    price_per_hour
        Price of one GPU, in place of the profile's. [USD/h]

    Examples
    --------
    >>> request = generate("llama-2-7b", output_tokens=8, samples=16, attention="bifurcated")
    >>> request.total_s > request.last_step.step_s * 8
    True
    """
    from simulator.answers.generate import generate as answer

    shape = as_model(model, kv_heads)
    work = workload_for(shape, **workload)
    return answer(
        shape,
        as_gpu(gpu),
        work.under(work.attention),
        output_tokens=output_tokens,
        constants=constants,
        memory_utilization=gpu_memory_utilization,
        usd_per_hour=price_per_hour,
    )


def plan(
    model: ModelLike,
    gpus: Sequence[GpuLike] | None = None,
    *,
    target_step_ms: float | None = None,
    tensor_parallel_sizes: Sequence[int] | None = None,
    attentions: Sequence[Attention] = ATTENTIONS,
    kv_heads: int | None = None,
    price_per_hour: float | None = None,
    constants: ConstantsChoice = "auto",
    gpu_memory_utilization: float = DEFAULT_MEMORY_UTILIZATION,
    **workload: Any,
) -> "Plan":
    """Try GPUs, tensor-parallel sizes and kinds of attention; see :func:`estimate`.

    Parameters
    ----------
    gpus
        Which to consider; None for every shipped GPU whose price is known.
    target_step_ms
        Longest acceptable decode step. [ms]
    tensor_parallel_sizes
        Tensor-parallel sizes to try; None for the workload's own if given, else 1, 2, 4, 8.

    Raises
    ------
    SimulatorError
        As for :func:`estimate`, and if a size is below 1.

    Examples
    --------
    >>> cards = ["l4", "h100-sxm"]
    >>> options = plan("llama-2-7b", cards, tensor_parallel_sizes=[1], context_tokens="64K")
    >>> options.fewest_gpus
    {'l4': None, 'h100-sxm': 1}
    """
    from simulator.answers.plan import DEFAULT_TENSOR_PARALLEL_SIZES
    from simulator.answers.plan import plan as answer
    from simulator.answers.price import priced_gpus

    shape = as_model(model, kv_heads)
    work = workload_for(shape, **workload)
    if any(size < 1 for size in tensor_parallel_sizes or ()):
        raise WorkloadError("tensor_parallel_sizes: at least 1 GPU shares a layer")
    asked = workload.get("tensor_parallel") is not None
    own = (work.tensor_parallel,) if asked else DEFAULT_TENSOR_PARALLEL_SIZES
    cards = priced_gpus() if gpus is None else [as_gpu(gpu) for gpu in gpus]
    return answer(
        shape,
        # By other names the same card may be asked for twice.
        [card for index, card in enumerate(cards) if card not in cards[:index]],
        work,
        target_step_s=None if target_step_ms is None else target_step_ms * MILLISECOND,
        tensor_parallel_sizes=tuple(dict.fromkeys(tensor_parallel_sizes or own)),
        attentions=attentions,
        constants=constants,
        memory_utilization=gpu_memory_utilization,
        usd_per_hour=price_per_hour,
    )


def tree(
    model: ModelLike,
    gpu: GpuLike = "h100-sxm",
    *,
    kv_heads: int | None = None,
    constants: ConstantsChoice = "auto",
    gpu_memory_utilization: float = DEFAULT_MEMORY_UTILIZATION,
    **workload: Any,
) -> "TreePlan":
    """Time every choice of levels of a prefix tree to read once per node; see :func:`estimate`.

    Examples
    --------
    >>> result = tree("llama-2-7b", tree="examples=2K,problem=512x8", samples=16)
    >>> [rule.level.name for rule in result.rules if rule.split]
    ['examples', 'problem']
    """
    from simulator.answers.tree import plan_tree

    return plan_tree(
        as_model(model, kv_heads),
        as_gpu(gpu),
        workload_for(as_model(model, kv_heads), **workload),
        constants=constants,
        memory_utilization=gpu_memory_utilization,
    )


def fit_scaling_law(training_runs: str | Path) -> "ScalingLaw":
    """Fit one power law to the losses of models of several families; see docs/tradeoff.md.

    Parameters
    ----------
    training_runs
        A CSV file of columns parameters, loss, and kv_heads (with heads) or group_size.

    Raises
    ------
    MeasurementError
        If it cannot be read, its runs are too few, or scipy is missing.
    """
    from simulator.answers.scaling import fit_scaling_law as answer
    from simulator.inputs.csv_files import read_training_runs

    return answer(read_training_runs(training_runs))


def tradeoff(
    model: ModelLike,
    gpu: GpuLike = "h100-sxm",
    *,
    kv_heads: int | None = None,
    target_kv_heads: Sequence[int] = (1,),
    size_factors: Sequence[float] = (),
    training_runs: "str | Path | ScalingLaw | None" = None,
    scale_by: "ScaleBy" = "width",
    target_step_ms: float | None = None,
    price_per_hour: float | None = None,
    constants: ConstantsChoice = "auto",
    gpu_memory_utilization: float = DEFAULT_MEMORY_UTILIZATION,
    most_samples: int | None = None,
    longest_context_tokens: int | None = None,
    **workload: Any,
) -> "Tradeoff":
    """Compare a model with equally good ones that have fewer KV heads; see :func:`estimate`.

    Parameters
    ----------
    kv_heads
        What if the model to match had so many KV heads.
    target_kv_heads
        KV heads of the models to compare it with.
    size_factors
        Their parameters over the model's at equal quality, one for each; none for those of
        ``training_runs``, or without these the paper's.
    training_runs
        A file for :func:`fit_scaling_law`, or what that returned.
    scale_by
        ``width`` or ``depth``.
    target_step_ms
        Longest acceptable decode step. [ms]
    most_samples, longest_context_tokens
        How far the crossover is looked for.

    Examples
    --------
    >>> result = tradeoff("llama-2-7b", samples=16, context_tokens="8K")
    >>> standard = result.crossovers[0].borders["standard", "standard"]
    >>> bifurcated = result.crossovers[0].borders["bifurcated", "bifurcated"]
    >>> standard.share > bifurcated.share
    True
    """
    from simulator.answers.crossover import LONGEST_CONTEXT, MOST_SAMPLES
    from simulator.answers.tradeoff import tradeoff as answer

    shape = as_model(model, kv_heads)
    if isinstance(training_runs, str | Path):
        training_runs = fit_scaling_law(training_runs)
    return answer(
        shape,
        as_gpu(gpu),
        workload_for(shape, **workload),
        kv_heads=target_kv_heads,
        size_factors=size_factors,
        scaling=training_runs,
        scale_by=scale_by,
        target_step_s=None if target_step_ms is None else target_step_ms * MILLISECOND,
        most_samples=MOST_SAMPLES if most_samples is None else most_samples,
        longest_context_tokens=LONGEST_CONTEXT
        if longest_context_tokens is None
        else longest_context_tokens,
        constants=constants,
        memory_utilization=gpu_memory_utilization,
        usd_per_hour=price_per_hour,
    )


def quality(
    model: ModelLike,
    gpu: GpuLike = "h100-sxm",
    *,
    success_rate: float | None = None,
    problem_counts: str | Path | None = None,
    output_tokens: int | None = None,
    target_step_ms: float | None = None,
    target_request_s: float | None = None,
    most_samples: int | None = None,
    kv_heads: int | None = None,
    price_per_hour: float | None = None,
    constants: ConstantsChoice = "auto",
    gpu_memory_utilization: float = DEFAULT_MEMORY_UTILIZATION,
    **workload: Any,
) -> "Quality":
    """Find the pass@k that a latency buys; see :func:`estimate`.

    Parameters
    ----------
    success_rate
        How often a single sample is right; or
    problem_counts
        a CSV file of columns problem, samples, correct.
    output_tokens
        Tokens each sample generates, to follow whole requests.
    target_step_ms, target_request_s
        Longest acceptable decode step [ms], and request [s].
    most_samples
        How many samples are looked at.

    Raises
    ------
    SimulatorError
        As for :func:`estimate`, if not one of rate and counts is given, or the counts cannot be
        read.

    Examples
    --------
    >>> best = quality("llama-3.1-8b", success_rate=0.05, target_step_ms=10).best
    >>> best["bifurcated"].point.pass_at_k > best["standard"].point.pass_at_k
    True
    """
    from simulator.answers.pass_at_k import Success, SuccessCounts, SuccessRate
    from simulator.answers.quality import MOST_SAMPLES
    from simulator.answers.quality import quality as answer

    if (success_rate is None) == (problem_counts is None):
        raise WorkloadError("give either success_rate or problem_counts")
    success: Success
    if problem_counts is not None:
        from simulator.inputs.csv_files import read_problem_counts

        table = read_problem_counts(problem_counts)
        success = SuccessCounts(table.rows, table.path, table.refused)
    else:
        success = SuccessRate(float(success_rate or 0))
    shape = as_model(model, kv_heads)
    return answer(
        shape,
        as_gpu(gpu),
        workload_for(shape, **workload),
        success,
        output_tokens=output_tokens,
        target_step_s=None if target_step_ms is None else target_step_ms * MILLISECOND,
        target_request_s=target_request_s,
        most_samples=MOST_SAMPLES if most_samples is None else most_samples,
        constants=constants,
        memory_utilization=gpu_memory_utilization,
        usd_per_hour=price_per_hour,
    )
