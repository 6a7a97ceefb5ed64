"""Prices of a GPU hour and of a million tokens."""

import math
from collections.abc import Sequence

from simulator.errors import WorkloadError
from simulator.inputs.hardware import GpuLike, HardwareProfile, as_gpu, profile_files, read_profile

SECONDS_PER_HOUR = 3600
TOKENS_PRICED = 1e6


def priced_gpus() -> list[HardwareProfile]:
    """Return every GPU whose price is known."""
    profiles = [read_profile(path) for path in profile_files().values()]
    return [profile for profile in profiles if profile.price_usd_per_hour is not None]


def as_gpus(gpus: Sequence[GpuLike] | GpuLike | None) -> list[HardwareProfile]:
    """Return the profiles of one or several GPUs; for None, of all whose price is known.

    Raises
    ------
    ProfileError
        If one of them is unknown.
    """
    if gpus is None:
        return priced_gpus()
    if isinstance(gpus, Sequence) and not isinstance(gpus, str):
        return [as_gpu(gpu) for gpu in gpus]
    return [as_gpu(gpus)]


def price_per_hour(
    gpu: HardwareProfile, gpus: int, usd_per_hour: float | None = None
) -> float | None:
    """Return the price of a number of GPUs, the user's own price first. [USD/h].

    Parameters
    ----------
    gpus
        Number of GPUs.
    usd_per_hour
        The user's price of one GPU, None for the profile's. [USD/h]

    Raises
    ------
    WorkloadError
        If the user's price is negative or not a number.
    """
    if usd_per_hour is not None:
        if not 0 <= usd_per_hour < math.inf:
            raise WorkloadError(f"price_per_hour = {usd_per_hour} is not a price in USD")
        return usd_per_hour * gpus
    if gpu.price_usd_per_hour is None:
        return None
    return gpu.price_usd_per_hour.value * gpus


def cost_per_million_tokens(usd_per_hour: float, tokens_per_s: float) -> float:
    """Return the cost of a million tokens. [USD].

    >>> round(cost_per_million_tokens(3.6, 1000), 6)
    1.0
    """
    return usd_per_hour / SECONDS_PER_HOUR / tokens_per_s * TOKENS_PRICED
