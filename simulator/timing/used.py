"""Which constants of the timing model had a part in a step."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from simulator.counts.operation import KINDS, Kind, Operation
from simulator.inputs.setup import Execution
from simulator.timing.carried import Constant
from simulator.timing.constants import LOW_PRECISION, Rates

# The counts without which a constant has no part in an operation's time.
_FIELDS = {
    "flops_fraction": ("flops",),
    "overlap": ("flops", "effective_blocks"),
    "link_fraction": ("link_bytes",),
    "l2_gb_per_s": ("reused_bytes", "scratch_bytes"),
    "l2_fraction": ("reused_bytes", "scratch_bytes"),
    "block_us": ("thread_blocks",),
    "block_gb_per_s": ("effective_blocks",),
    "sequence_us": ("sequences",),
    "split_us": ("splits",),
    "tile_gb_per_s": ("m",),
    "split_k_us": ("m",),
}


@dataclass(frozen=True, slots=True)
class UsedConstant:
    """A constant that had a part in a step.

    Attributes
    ----------
    base, kind
        What it is, and of which kind of operation; None where it is of all.
    low_precision
        Whether it is that of 8-bit products and caches.
    """

    base: str
    kind: Kind | None
    low_precision: bool
    constant: Constant

    @property
    def name(self) -> str:
        """All of it as one name."""
        return "_".join(
            [LOW_PRECISION] * self.low_precision + ([self.kind] if self.kind else []) + [self.base]
        )


def used_constants(
    operations: Sequence[Operation], gpu_rates: Rates, execution: Execution
) -> Iterator[UsedConstant]:
    """Yield the constants that some operations are timed with, 16-bit ones first."""
    launched = [item for item in operations if item.launches]
    low_precision = [item for item in launched if gpu_rates.of(item) is not gpu_rates]
    wide = [item for item in launched if gpu_rates.of(item) is gpu_rates]
    for some, card in (
        (wide, gpu_rates),
        (low_precision, gpu_rates.low_precision if low_precision else gpu_rates),
    ):
        for name, constant in card.constants.items():
            kind = next((kind for kind in KINDS if name.startswith(f"{kind}_")), None)
            base = name.removeprefix(f"{kind}_") if kind else name
            if _is_used(some, base, kind, execution):
                yield UsedConstant(base, kind, some is low_precision, constant)


def _is_used(
    operations: Sequence[Operation], base: str, kind: Kind | None, execution: Execution
) -> bool:
    """Return whether a constant had a part in some operations."""
    found = [item for item in operations if kind is None or item.kind == kind]
    if not found:
        return False
    if base == "step_us":
        return False  # of a serving engine, no part of the model's own step
    if base in ("eager_launch_us", "host_us_per_launch"):
        return execution == "eager"
    fields = _FIELDS.get(base)
    return fields is None or any(getattr(item, field) for item in found for field in fields)
