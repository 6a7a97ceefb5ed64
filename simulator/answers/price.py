"""Prices of a GPU hour and of a million tokens."""

import reprlib
from collections.abc import Sequence
from pathlib import Path

from simulator.errors import ProfileError, WorkloadError
from simulator.inputs.files import read_toml
from simulator.inputs.hardware import (
    LARGEST_FIGURE,
    SMALLEST_FIGURE,
    GpuLike,
    HardwareProfile,
    Price,
    as_gpu,
    load_hardware,
    load_profile,
    profile_files,
)
from simulator.resources import readable

SECONDS_PER_HOUR = 3600
HOURS_PER_MONTH = 730
TOKENS_PRICED = 1e6


class Priced:
    """A number of GPUs, of which one has a price, None where that is not known."""

    price: Price | None
    gpus: int

    @property
    def comparable(self) -> bool:
        """Whether a price is known that ranks with others."""
        return self.price is not None and self.price.comparable

    @property
    def usd_per_hour(self) -> float | None:
        """Price of all GPUs, None where unknown. [USD]."""
        return None if self.price is None else self.price.value * self.gpus


def priced_gpus() -> list[HardwareProfile]:
    """Return every GPU whose price is known and on which FlashAttention runs, as engines need."""
    profiles = readable(load_profile, profile_files().values())
    return [
        profile
        for profile in profiles
        if profile.price_usd_per_hour is not None and not profile.without_flash
    ]


def as_gpus(gpus: Sequence[GpuLike] | GpuLike | None) -> list[HardwareProfile]:
    """Return the profiles of one or several GPUs; for None, of :func:`priced_gpus`.

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


def with_prices(gpus: Sequence[HardwareProfile] | None, path: str | Path) -> list[HardwareProfile]:
    """Return GPUs with the prices of a file of the user's own.

    Parameters
    ----------
    gpus
        Those to price; the profiles' own prices remain for those that the file does not name.
        None for the GPUs of the file.
    path
        A TOML file of lines ``GPU = PRICE``, the name of a GPU and USD for an hour of one.

    Raises
    ------
    WorkloadError
        If the file cannot be read, has no price, or a value is not a price.
    ProfileError
        If it names a GPU that is unknown.
    """
    own: dict[str, HardwareProfile] = {}
    for name, value in read_toml(path, WorkloadError).items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise WorkloadError(f"{path}: {name} = {reprlib.repr(value)} is not a price in USD")
        try:
            gpu = load_hardware(name)
        except ProfileError as problem:
            raise ProfileError(f"{path}: {problem}") from None
        if gpu.id in own:
            raise WorkloadError(f"{path}: {name}: {gpu.id} has a price already")
        price = _own_price(value, f"{path}: {name}", source=str(path))
        own[gpu.id] = gpu.but(price_usd_per_hour=price)
    if not own:
        raise WorkloadError(f"{path} has no price; write lines such as h100-sxm = 2.1")
    return list(own.values()) if gpus is None else [own.get(gpu.id, gpu) for gpu in gpus]


def _own_price(value: float, name: str, *, source: str) -> Price:
    """Return a price that the user gave."""
    # Within these limits all that is computed of it is finite.
    if value and not SMALLEST_FIGURE <= value <= LARGEST_FIGURE:
        raise WorkloadError(f"{name} = {reprlib.repr(value)} is not a price in USD")
    # A source has three letters at least; a file's name may have fewer.
    return Price(value=float(value), source=source if source[2:] else f"./{source}")


def price_of(gpu: HardwareProfile, usd_per_hour: float | None = None) -> Price | None:
    """Return the price of one GPU, the user's own first; None where no price is known.

    Raises
    ------
    WorkloadError
        If the user's price is negative or not a number.
    """
    if usd_per_hour is not None:
        return _own_price(usd_per_hour, "price_per_hour", source="given")
    return gpu.price_usd_per_hour


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
    price = price_of(gpu, usd_per_hour)
    return None if price is None else price.value * gpus


def cost_per_million_tokens(usd_per_hour: float | None, tokens_per_s: float) -> float | None:
    """Return the cost of a million tokens, None where no price is known. [USD].

    >>> round(cost_per_million_tokens(3.6, 1000), 6)
    1.0
    """
    if usd_per_hour is None:
        return None
    return usd_per_hour / SECONDS_PER_HOUR / tokens_per_s * TOKENS_PRICED
