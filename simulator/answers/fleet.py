"""Tidy frames over GPUs and models: latency, throughput and price of the same question on each."""

from dataclasses import replace
from typing import TYPE_CHECKING

from simulator.answers.curves import grid
from simulator.answers.price import SECONDS_PER_HOUR, TOKENS_PRICED, price_per_hour, priced_gpus
from simulator.answers.study import Study
from simulator.errors import SimulatorError, WorkloadError
from simulator.inputs.hardware import HardwareProfile
from simulator.timing.constants import rates

if TYPE_CHECKING:
    import pandas as pd


def compared_gpus(study: Study) -> list[HardwareProfile]:
    """Return the GPUs a study compares: its own, or beside a single one all with a price."""
    if len(study.gpus) > 1:
        return list(study.gpus)
    return [study.gpu, *(gpu for gpu in priced_gpus() if gpu.id != study.gpu.id)]


def by_gpu(study: Study) -> "pd.DataFrame":
    """Vary GPU, model and samples.

    Returns
    -------
    pandas.DataFrame
        The columns of :func:`simulator.answers.curves.grid`, and ``gpu_name``, ``gpus`` (in the
        group), ``constants`` (their origin), ``hash`` (of the profile), ``tokens_per_s_per_gpu``,
        ``usd_per_hour`` of the group and ``usd_per_million_tokens``, NaN where no price is known.

    Raises
    ------
    SimulatorError
        If the question can be run on none of them.
    """
    import pandas as pd

    parts, problems = [], []
    for gpu in compared_gpus(study):
        for model in study.models:
            try:
                part = grid(study, {"samples": study.samples_axis}, model=model, gpu=gpu)
            except WorkloadError as problem:
                problems.append(str(problem))
                continue
            gpus = study.setup.tensor_parallel
            price = price_per_hour(gpu, gpus, study.usd_per_hour)
            part = part.assign(
                gpu_name=gpu.name,
                gpus=gpus,
                constants=rates(gpu, study.setup.constants).origin,
                hash=gpu.content_hash,
                tokens_per_s_per_gpu=part["tokens_per_s"] / gpus,
                usd_per_hour=float("nan") if price is None else price,
            )
            dollars_per_s = part["usd_per_hour"] / SECONDS_PER_HOUR
            parts.append(
                part.assign(
                    usd_per_million_tokens=dollars_per_s / part["tokens_per_s"] * TOKENS_PRICED
                )
            )
    if not parts:
        raise SimulatorError("; ".join(dict.fromkeys(problems)))
    return pd.concat(parts, ignore_index=True)


def at_question(study: Study) -> "pd.DataFrame":
    """Return :func:`by_gpu` at the question's own point, for its own model."""
    frame = by_gpu(replace(study, models=study.models[:1]))
    return frame[frame["asked"]].reset_index(drop=True)
