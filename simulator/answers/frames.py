"""Tidy frames for figures: along the axes of a study, over GPUs, and of a step's operations.

Frames along axes are blocks of a sweep (:func:`simulator.answers.sweep.compare_grid`) laid out
long: the columns of the question, then ``variant``, its figures, and how it compares with standard
attention at the same point.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from simulator.answers.capacity import Capacity, Size
from simulator.answers.estimate import Estimate, Question, estimate
from simulator.answers.price import cost_per_million_tokens, price_of, priced_gpus
from simulator.answers.scaled import FAMILIES, scale_model
from simulator.answers.size_factor import family_of, shipped_factors
from simulator.answers.study import Study
from simulator.answers.sweep import NUMERIC_AXES, compare_on
from simulator.counts.attention.registry import algorithms
from simulator.counts.operation import PARTS, part_of
from simulator.counts.request import last_own_tokens
from simulator.errors import SimulatorError, WorkloadError
from simulator.inputs.hardware import HardwareProfile
from simulator.inputs.model import ModelShape
from simulator.inputs.setup import ATTENTIONS, Attention
from simulator.numeric import Frame
from simulator.timing.constants import Key
from simulator.units import MILLISECOND

_LOSSES = ("loss_change", "loss_low", "loss_high")


def grid(study: Study, asked: Question | None = None, **varied: Sequence[int]) -> Frame:
    """Compute every way of attention at every point of a grid around a study's question.

    Parameters
    ----------
    asked
        A question instead of the study's own.
    varied
        Axes to vary, of ``NUMERIC_AXES``; the others stay as in the question.

    Returns
    -------
    pandas.DataFrame
        The question's columns; ``asked``, whether the point is the question's own; ``variant``
        (``standard`` or ``bifurcated``); the figures of a sweep, and ``target_step_ms`` (NaN
        without a target) [ms]; ``speedup`` over standard attention and ``kv_io_ratio`` to it;
        ``both_fit``. ``speedup_low``, ``speedup_high`` and ``verdict`` are the pair's.

    Raises
    ------
    WorkloadError
        If the settings cannot run.
    """
    import pandas as pd

    asked = asked or study.question
    asked, work = asked.of(asked.setup.under("standard").of(asked.model)), asked.workload
    asked.check()
    if work.tree and "context_tokens" in varied:
        raise WorkloadError("the context of a prefix tree has no single length to vary")
    block = compare_on(asked, **varied)
    frame = pd.concat([_long(block, name) for name in ATTENTIONS], ignore_index=True)
    target_s = study.target_step_s
    frame["target_step_ms"] = math.nan if target_s is None else target_s / MILLISECOND
    here = [getattr(work, axis) for axis in NUMERIC_AXES]
    frame["asked"] = (frame[[*NUMERIC_AXES]] == here).all(axis=1)
    return frame


def _long(block: Mapping[str, Any], attention: Attention) -> Frame:
    """Return one kind of attention of a block as rows."""
    import pandas as pd

    prefixes, own = tuple(f"{name}_" for name in ATTENTIONS), f"{attention}_"
    shared = {
        name: values
        for name, values in block.items()
        if not name.startswith(prefixes) and name != "winner"
    }
    if attention == "standard":
        shared |= {"speedup": 1.0, "kv_io_ratio": 1.0}
    both = block["standard_fits"] & block["bifurcated_fits"]
    figures = {name[len(own) :]: block[name] for name in block if name.startswith(own)}
    return pd.DataFrame({**shared, "variant": attention, **figures, "both_fit": both})


def by_samples(study: Study) -> Frame:
    """Vary the samples, including the last count that fits and the first that does not."""
    return grid(study, samples=_with_ends(study.question, study.samples_axis, "samples"))


def _with_ends(asked: Question, axis: Sequence[int], field: Size) -> list[int]:
    """Add to an axis, for each way, the last value that fits and the first that does not."""
    values = set(axis)
    for attention in ATTENTIONS:
        limits = Capacity(estimate(asked.under(attention)))
        most = limits.most_samples if field == "samples" else limits.longest_context_tokens
        ends = (most, most + 1) if most else ()
        values |= {end for end in ends if min(axis) <= end <= max(axis)}
    return sorted(values)


def memory_by_samples(study: Study) -> Frame:
    """Return :func:`by_samples` with the bytes of memory that weights take. [bytes]."""
    weights = float(study.estimate("bifurcated").memory.weights_bytes)
    return by_samples(study).assign(weights_bytes=weights)


def by_context(study: Study) -> Frame:
    """Vary the context, including the longest that fits and the first that does not."""
    axis = _with_ends(study.question, study.context_axis, "context_tokens")
    return grid(study, context_tokens=axis)


def by_context_and_samples(study: Study) -> Frame:
    """Vary samples and context over powers of two, as a map with four steps per doubling."""
    work = study.workload
    contexts = {*_between(study.context_axis, 4), work.context_tokens}
    samples = {*_between(study.samples_axis, 4), work.samples}
    return grid(study, context_tokens=sorted(contexts - {0}), samples=sorted(samples - {0}))


def _between(axis: Sequence[int], finer: int) -> list[int]:
    """Return values in equal ratios between the powers of two around an axis.

    >>> _between([6, 30], 1), _between([2, 4], 2)
    ([4, 8, 16, 32], [2, 3, 4])
    """
    low = math.floor(math.log2(max(1, axis[0])))
    high = max(math.ceil(math.log2(max(1, axis[-1]))), low + 1)
    return sorted({round(2 ** (low + step / finer)) for step in range((high - low) * finer + 1)})


def by_kernel(study: Study) -> Frame:
    """Vary the samples for every kernel, in a CUDA graph and in eager execution.

    Kernels of engines, and those that have no form for the model's cache, are left out.
    """
    import pandas as pd

    def parts() -> Iterator[Frame]:
        for kernel in algorithms():
            for execution in ("graph", "eager"):
                asked = study.question.but(kernel=kernel, execution=execution)
                try:
                    asked.check()
                except WorkloadError:
                    continue
                samples = _with_ends(asked, study.samples_axis, "samples")
                yield grid(study, asked, samples=samples)

    return pd.concat(parts(), ignore_index=True)


def by_kv_heads(study: Study) -> Frame:
    """Vary the samples for multi-head, multi-group and multi-query forms of the model.

    Nothing else changes, so the forms are not of equal quality; ``family`` names them. A latent
    cache has only one form.
    """
    import pandas as pd

    model = study.model
    counts = list(study.kv_heads) or [model.heads, model.kv_heads, 8, 1]
    if model.latent is not None:
        counts = [model.kv_heads]
    usable = sorted({count for count in counts if model.heads % count == 0}, reverse=True)
    parts = []
    for count in usable:
        form = model if model.latent is not None else model.with_kv_heads(count)
        asked = replace(study.question, model=form)
        axis = _with_ends(asked, study.samples_axis, "samples")
        parts.append(grid(study, asked, samples=axis).assign(family=form.family))
    return pd.concat(parts, ignore_index=True)


def by_family(study: Study) -> Frame:
    """Set the loss of families at equal size beside their KV bytes and their step.

    Rows without ``attention`` are the shipped size factors: ``family``, ``matched_by``, ``runs``,
    ``loss_change`` with its ends, and ``kv_share`` of multi-head's KV bytes. Rows with it are the
    study's model, made multi-head and then of each family that runs tell with as many parameters,
    freed ones in the MLP, and have ``step_ms``; their loss is that of ``matched_by``.

    Raises
    ------
    ModelError
        If the model has no multi-head form.
    """
    import pandas as pd

    factors = shipped_factors().factors
    base = study.model.with_kv_heads(study.model.heads)
    # By family: the way of matching whose runs tell its loss, freed to the MLP if there are any.
    losses = {
        (factor.family): vars(factor)
        for way in ("nothing", "heads", "mlp")
        for factor in factors
        if factor.matched_by == way
    }
    losses[base.family] = {"matched_by": "mlp", **dict.fromkeys(_LOSSES, 0.0)}
    forms = {base.family: base}
    for family in FAMILIES.values() if len(base.layer_groups) == 1 else ():
        form = family(base)
        if family_of(form) in losses:
            ranks = study.setup.tensor_parallel
            forms[family_of(form)], _ = scale_model(
                base, form, size_factor=1.0, scale_by="mlp", ranks=ranks
            )
    shares = {name: form.cached_values / base.cached_values for name, form in forms.items()}
    told = [vars(each) | {"kv_share": each.kv_share or shares.get(each.family)} for each in factors]
    asked = [
        losses[name]
        | {
            "family": name,
            "kv_share": shares[name],
            "attention": attention,
            "step_ms": estimate(replace(study.question, model=form).under(attention)).step_s
            / MILLISECOND,
        }
        for name, form in forms.items()
        for attention in ATTENTIONS
    ]
    return pd.DataFrame([*told, *asked])


def by_own_tokens(study: Study) -> Frame:
    """Follow a request: the decoded tokens grow from the first step to the last."""
    work = study.workload
    first = work.query_tokens
    last = max(first, last_own_tokens(study.output_tokens, work.query_tokens, work.accepted_tokens))
    axis = {first, last}
    axis |= {round(first * (last / first) ** (step / 48)) for step in range(49)}
    return grid(study, decoded_tokens=sorted(axis))


# Over GPUs and models.


def compared_gpus(study: Study) -> list[HardwareProfile]:
    """Return the GPUs a study compares: its own; if that is one, also all with a price."""
    if len(study.gpus) > 1:
        return list(study.gpus)
    return [study.gpu, *(gpu for gpu in priced_gpus() if gpu.id != study.gpu.id)]


def by_gpu(study: Study) -> Frame:
    """Vary GPU, model and samples.

    Returns
    -------
    pandas.DataFrame
        The columns of :func:`simulator.answers.frames.grid`, and ``gpu_name``, ``gpus`` (in the
        group), ``constants`` (their origin), ``hash`` (of the profile), ``tokens_per_s_per_gpu``,
        ``usd_per_hour`` of the group and ``usd_per_million_tokens``, NaN where no price is known,
        and ``price_comparable``.

    Raises
    ------
    SimulatorError
        If the question cannot run on any of them.
    """
    import pandas as pd

    parts, problems = [], []
    for gpu in compared_gpus(study):
        for model in study.models:
            asked = replace(study.question, model=model, gpu=gpu)
            try:
                asked = asked.but(**_own_formats(study, model))
                part = grid(study, asked, samples=study.samples_axis)
            except WorkloadError as problem:
                problems.append(str(problem))
                continue
            gpus = study.setup.gpus
            price = price_of(gpu, study.usd_per_hour)
            usd_per_hour = math.nan if price is None else price.value * gpus
            parts.append(
                part.assign(
                    gpu_name=gpu.name,
                    gpus=gpus,
                    constants=asked.rates.origin,
                    hash=gpu.content_hash,
                    tokens_per_s_per_gpu=part["tokens_per_s"] / gpus,
                    usd_per_hour=usd_per_hour,
                    price_comparable=price is not None and price.comparable,
                    usd_per_million_tokens=cost_per_million_tokens(
                        usd_per_hour, part["tokens_per_s"]
                    ),
                )
            )
    if not parts:
        raise SimulatorError("; ".join(dict.fromkeys(problems)))
    return pd.concat(parts, ignore_index=True)


def _own_formats(study: Study, model: ModelShape) -> dict[str, Any]:
    """Return another model's own formats, if the question's model has its own as well."""
    own, setup = study.model, study.setup
    if model is own or setup.weights != own.weights:
        return {}
    weights = model.weights
    return {"weight_dtype": weights.name, "kv_dtype": model.kv_dtype or weights.base}


def at_question(study: Study) -> Frame:
    """Return :func:`by_gpu` at the question's own point, for its own model."""
    frame = by_gpu(replace(study, models=study.models[:1]))
    return frame[frame["asked"]].reset_index(drop=True)


# The operations of a step: where time and bytes go, and which roof bounds each.


def parts_of(step: Estimate) -> dict[str, float]:
    """Return the time that each of ``PARTS`` takes of a step. [s]."""
    spent = dict.fromkeys(PARTS, 0.0)
    for operation, each in step.time.calls:
        part = part_of(operation.name, operation.kind)
        spent[part] += float(operation.repeat * each.device_s)
    time = step.time
    spent[PARTS[-1]] = float(time.total_s - time.device_s - time.collective_s)
    return spent


def operations(study: Study) -> Frame:
    """Break the question's step down into its operations, for every way of attention.

    Returns
    -------
    pandas.DataFrame
        A row for each ``variant`` and ``operation``, all its calls together: ``part`` of
        ``PARTS``, ``kind``, ``time_ms``, ``bytes`` [bytes], ``flops`` [FLOP], ``bound``; the roofs
        over it, as published and as achieved (``peak_flops_per_s``, ``flops_per_s``,
        ``peak_bytes_per_s``, ``bytes_per_s``); and of the whole step ``step_ms`` and ``fits``.

    Raises
    ------
    WorkloadError
        If the question cannot run.
    """
    import pandas as pd

    return pd.DataFrame([row for name in ATTENTIONS for row in _rows(study.estimate(name))])


def _rows(result: Estimate) -> list[dict[str, Any]]:
    """Return a row per operation, and one for the time the GPU waits for the host."""
    time = result.time
    step = {"variant": result.attention, "step_ms": result.step_s / MILLISECOND}
    step["fits"] = bool(result.memory.fits)
    rows = []
    for operation, seconds in time.calls:
        if not operation.launches:
            continue
        gpu = result.rates.of(operation)
        rows.append(
            {
                **step,
                "operation": operation.name,
                "part": part_of(operation.name, operation.kind),
                "kind": operation.kind,
                "time_ms": float(operation.repeat * seconds.device_s) / MILLISECOND,
                "bytes": float(operation.repeat * operation.bytes_moved),
                "flops": float(operation.repeat * operation.flops),
                "bound": seconds.bound,
                "dtype": operation.dtype,
                "peak_flops_per_s": gpu.flops_per_s(operation.kind, operation.dtype)
                / gpu.constants[Key("flops_fraction", operation.kind)].value,
                "flops_per_s": gpu.flops_per_s(operation.kind, operation.dtype),
                "peak_bytes_per_s": gpu.gpu.memory_bandwidth_bytes_per_s,
                "bytes_per_s": gpu.bandwidth_bytes_per_s[operation.kind],
            }
        )
    waiting = float(time.total_s - time.device_s - time.collective_s) / MILLISECOND
    if waiting > 0:
        wait = {"operation": "host", "part": "waiting for host", "kind": "host"}
        rows.append(
            {**step, **wait, "time_ms": waiting, "bytes": 0.0, "flops": 0.0, "bound": "launch"}
        )
    return rows
