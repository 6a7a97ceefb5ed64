"""The stages of a calibration: the constants that each kind of row determines, in order."""

from dataclasses import dataclass
from typing import Literal

from simulator.counts.operation import Kind
from simulator.evidence.fit.solver import Free
from simulator.evidence.predict import paper_code
from simulator.evidence.rows.kinds import RowKind
from simulator.timing.constants import CONSTANTS, Key


def _keys(kind: Kind, *names: str) -> tuple[Key, ...]:
    """Return the keys of constants, including the per-kind ones for one kind of operation."""
    return tuple(Key(name, kind if CONSTANTS[name].by_kind else None) for name in names)


# The constants in which decode attention kernels differ.
DECODE_ATTENTION = (
    Key("launch_us", "attention"),
    Key("launch_us", "combine"),
    *_keys("attention", "split_us", "sequence_us", "block_us", "block_gb_per_s"),
    *_keys("attention", "bandwidth_fraction", "l2_gb_per_s", "l2_fraction"),
    Key("launch_us", "copy"),
)
_PRODUCTS = ("launch_us", "tile_gb_per_s", "split_k_us", "bandwidth_fraction", "flops_fraction")
_PREFILL = ("launch_us", "block_us", "bandwidth_fraction", "flops_fraction")
_SHARED_PREFIX = (
    *("launch_us", "sequence_us", "block_us", "block_gb_per_s", "bandwidth_fraction"),
    "keeping_up",
)
_EAGER: tuple[tuple[RowKind, tuple[str, ...]], ...] = (
    ("decode_step", ("model", "context_tokens", "samples")),
    ("shared_prefix_attention", ("prefix_len", "suffix_len", "kv_heads")),
)


@dataclass(frozen=True, slots=True)
class Stage:
    """Constants that one kind of row determines.

    Attributes
    ----------
    shape
        Columns that define a row's shape: whole shapes are held out.
    own
        Whether each library, and 8-bit formats, get their own constants.
    general
        Whether there are also constants for no particular library; engines' overheads have none.
    rows
        Which rows: replayed from a CUDA graph, launched from the host one by one, or whole programs
        with their own timing.
    """

    kind: RowKind
    free: tuple[Free, ...]
    shape: tuple[str, ...]
    own: bool = False
    general: bool = True
    rows: Literal["graph", "eager", "whole"] = "graph"


def _free(*keys: Key) -> tuple[Free, ...]:
    """Return constants to fit, each with the range that the timing model gives it."""
    return tuple(Free(key, *CONSTANTS[key.name].fit[key.kind]) for key in keys)


STAGES = (
    Stage(
        "decode_attention",
        _free(*DECODE_ATTENTION),
        ("q_heads", "kv_heads", "head_dim"),
        own=True,
    ),
    Stage(
        "gemm",
        _free(*_keys("gemm", *_PRODUCTS)),
        ("n", "k"),
        own=True,
    ),
    Stage(
        "prefill_attention",
        _free(*_keys("prefill_attention", *_PREFILL)),
        ("q_heads", "kv_heads", "head_dim"),
        own=True,
    ),
    Stage(
        "elementwise",
        _free(*_keys("elementwise", "launch_us", "bandwidth_fraction")),
        ("op", "width"),
        own=True,
    ),
    Stage(
        "all_reduce",
        _free(Key("launch_us", "collective"), Key("link_fraction")),
        ("num_gpus", "message_bytes"),
        own=True,
    ),
    Stage(
        "shared_prefix_attention",
        _free(*_keys("attention", *_SHARED_PREFIX), Key("launch_us", "combine")),
        ("prefix_len", "suffix_len"),
    ),
    Stage(
        "decode_step",
        tuple(
            Free(Key(name), low, high, start)
            for name, (start, low, high) in paper_code.CONSTANTS.items()
        ),
        ("attention", "kernel", "kv_layout", "execution", "expand_kv", "samples"),
        rows="whole",
    ),
    *(
        Stage(kind, _free(Key("host_us_per_launch"), Key("eager_launch_us")), shape, rows="eager")
        # The whole step comes first: its host works like a user's.
        for kind, shape in _EAGER
    ),
    Stage(
        "end_to_end",
        _free(Key("step_us")),
        ("model", "batch", "input_len"),
        own=True,
        general=False,
        rows="whole",
    ),
)

# The rows that determine constants of the paper's own code, by the ends of their names.
_HARNESS_ROWS = {
    "cat_fraction": "whole eager steps with rebuilt caches, of few samples and of many",
    "pass_fraction": "whole steps that keep their logits in memory, of many samples",
    "kernel_us": "whole compiled steps with little to do: one sample, a short context",
    "block_gb_per_s": CONSTANTS["block_gb_per_s"].rows,
}


def wanted_rows(key: Key) -> str:
    """Return the rows to add for a constant that the given rows do not determine."""
    if key.name in CONSTANTS:
        return CONSTANTS[key.name].rows
    found = (rows for end, rows in _HARNESS_ROWS.items() if key.name.endswith(end))
    return next(found, "other shapes")
