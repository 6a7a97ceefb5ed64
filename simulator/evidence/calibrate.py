"""Calibrate a GPU: which constants each kind of row can tell, in which order they are fitted."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from simulator.errors import MeasurementError
from simulator.evidence.fit import Fitted, Free, constant_name, fit, with_constants
from simulator.evidence.groups import Group
from simulator.evidence.harness import CONSTANTS
from simulator.evidence.measurements import Measurements
from simulator.evidence.predict import prepare
from simulator.evidence.row_kinds import RowKind
from simulator.inputs.hardware import HardwareProfile

# Fewer rows than this say too little to trust.
LEAST_ROWS = 12

_ATTENTION = (
    Free("attention_launch_us", 0.5, 40),
    Free("combine_launch_us", 0.02, 20),
    Free("split_us", 1e-4, 1),
    Free("sequence_us", 1e-5, 0.1),
    Free("attention_block_us", 0.01, 30),
    Free("block_gb_per_s", 3, 400),
    Free("attention_bandwidth_fraction", 0.3, 1),
    Free("l2_gb_per_s", 4, 200),
    Free("l2_fraction", 0.3, 1),
)


_EAGER: tuple[tuple[RowKind, tuple[str, ...]], ...] = (
    ("decode_step", ("model", "context_tokens", "samples")),
    ("shared_prefix_attention", ("prefix_len", "suffix_len", "kv_heads")),
)


@dataclass(frozen=True, slots=True)
class Stage:
    """Constants that one kind of row can tell.

    Attributes
    ----------
    shape
        Columns that make a row's shape: whole shapes are held out.
    own
        Whether a library, or a narrow format, gets constants of its own.
    general
        Whether there are constants of no library: what engines add is each one's own.
    rows
        Of which rows: replayed from a CUDA graph, launched from the host one by one, or timed
        whole, by a program whose operations are its own.
    """

    kind: RowKind
    free: tuple[Free, ...]
    shape: tuple[str, ...]
    own: bool = False
    general: bool = True
    rows: Literal["graph", "eager", "whole"] = "graph"


STAGES = (
    Stage(
        "decode_attention",
        (*_ATTENTION, Free("copy_launch_us", 0.3, 12)),
        ("q_heads", "kv_heads", "head_dim"),
        own=True,
    ),
    Stage(
        "gemm",
        (
            Free("gemm_launch_us", 0.3, 15),
            Free("tile_gb_per_s", 5, 1000),
            Free("split_k_us", 0.05, 20),
            Free("gemm_bandwidth_fraction", 0.3, 1),
            Free("gemm_flops_fraction", 0.1, 1),
        ),
        ("n", "k"),
        own=True,
    ),
    Stage(
        "prefill_attention",
        (
            Free("prefill_attention_launch_us", 0.5, 60),
            Free("prefill_attention_block_us", 0.01, 30),
            Free("prefill_attention_bandwidth_fraction", 0.1, 1),
            Free("prefill_attention_flops_fraction", 0.05, 1),
        ),
        ("q_heads", "kv_heads", "head_dim"),
        own=True,
    ),
    Stage(
        "elementwise",
        (
            Free("elementwise_launch_us", 0.3, 20),
            Free("elementwise_bandwidth_fraction", 0.1, 1),
        ),
        ("op", "width"),
        own=True,
    ),
    Stage(
        "all_reduce",
        (Free("collective_launch_us", 0.5, 60), Free("link_fraction", 0.02, 1)),
        ("num_gpus", "message_bytes"),
        own=True,
    ),
    Stage(
        "shared_prefix_attention",
        (
            Free("attention_launch_us", 0.5, 40),
            Free("sequence_us", 1e-5, 0.1),
            Free("attention_block_us", 0.01, 30),
            Free("block_gb_per_s", 3, 400),
            Free("attention_bandwidth_fraction", 0.3, 1),
            Free("combine_launch_us", 0.02, 20),
        ),
        ("prefix_len", "suffix_len"),
    ),
    Stage(
        "decode_step",
        tuple(Free(name, low, high, start) for name, (start, low, high) in CONSTANTS.items()),
        ("attention", "kernel", "kv_layout", "execution", "expand_kv", "samples"),
        rows="whole",
    ),
    *(
        Stage(
            kind,
            (Free("host_us_per_launch", 0.5, 60), Free("eager_launch_us", 0.02, 20)),
            shape,
            rows="eager",
        )
        # Of both, the whole step first: its host does what a user's does.
        for kind, shape in _EAGER
    ),
    Stage(
        "end_to_end",
        (Free("step_us", 1, 50_000, 1000),),
        ("model", "batch", "input_len"),
        own=True,
        general=False,
        rows="whole",
    ),
)

# Which rows to add for a constant that the present ones cannot tell.
WANTED = {
    "launch_us": "rows with little to do: batch 1, few tokens, or m = 1 with small n and k",
    "split_us": "decode attention of one long sequence with few KV heads",
    "sequence_us": "decode attention with a batch of 512 and more",
    "block_us": "calls with many more thread blocks than SMs: a large batch of short sequences",
    "block_gb_per_s": "decode attention with fewer sequences x KV heads than SMs, and long ones",
    "bandwidth_fraction": "rows whose bytes are several times the L2 cache",
    "l2_gb_per_s": "replayed calls whose bytes fit L2",
    "l2_fraction": "replayed calls whose bytes are about the size of L2",
    "flops_fraction": "rows with many FLOPs per byte: m of 1024 and more, or long prefill",
    "tile_gb_per_s": "products of 64 to 256 rows and many columns",
    "split_k_us": "products with a long inner dimension and few columns",
    "link_fraction": "collectives of 16 MB and more",
    "cat_fraction": "whole eager steps with rebuilt caches, of few samples and of many",
    "pass_fraction": "whole steps that keep their logits in memory, of many samples",
    "kernel_us": "whole compiled steps with little to do: one sample, a short context",
    "host_us_per_launch": "rows launched from the host, with little for the GPU to do",
    "step_us": "end-to-end batches of one sequence",
}


@dataclass
class Part:
    """One fit: of which rows, for which variant, and what came of it.

    ``labels`` are those of the rows in their table, in the order of the fit's residuals, and
    ``shapes`` the shapes they are of: the values of ``shape_columns``, with a stroke between.
    """

    kind: RowKind
    variant: str
    fitted: Fitted
    sources: tuple[str, ...] = ()
    labels: tuple[Any, ...] = ()
    shapes: tuple[str, ...] = ()
    shape_columns: tuple[str, ...] = ()


@dataclass
class Calibration:
    """All fits of one GPU.

    Attributes
    ----------
    profile
        The GPU with what was fitted.
    parts
        The fits, in order.
    left_out
        Kinds of rows that were there and could not be fitted, with the reason.
    """

    profile: HardwareProfile
    parts: list[Part]
    left_out: list[str]

    def values(self) -> dict[str, tuple[float, float, int]]:
        """Return value, standard error and rows of every fitted constant."""
        return {
            name: (value, part.fitted.stderr[name], part.fitted.rows)
            for part in self.parts
            for name, value in part.fitted.constants.items()
        }


def calibrate(measurements: Measurements, gpu: HardwareProfile) -> Calibration:
    """Fit every constant that the rows of a GPU can tell.

    Of each kind of row, first all libraries together, in 16-bit formats: the constants of a
    question that names no library. Then each library where there are several, and 8-bit formats.

    Raises
    ------
    MeasurementError
        If there are no rows of this GPU that can be fitted.
    """
    # A fit starts from what is carried over: from an old one, it would not be reproducible.
    profile = gpu.model_copy(update={"fitted": {}})
    parts: list[Part] = []
    left_out: list[str] = []
    for stage in STAGES:
        table = measurements.tables.get(stage.kind)
        if table is None:
            continue
        rows = table[table["gpu_id"] == gpu.id]
        if not len(rows):
            continue
        if len(rows) < LEAST_ROWS:
            left_out.append(f"{stage.kind}: only {len(rows)} rows, {LEAST_ROWS} are needed")
            continue
        for part in _stage(stage, rows, profile):
            parts.append(part)
            profile = with_constants(profile, part.fitted.constants)
    if not parts:
        known = ", ".join(dict.fromkeys(stage.kind for stage in STAGES))
        why = f" ({'; '.join(left_out)})" if left_out else f"; kinds that can: {known}"
        raise MeasurementError(f"no rows of {gpu.id} that can be fitted{why}")
    return Calibration(profile, parts, left_out)


def _stage(stage: Stage, rows: pd.DataFrame, profile: HardwareProfile) -> Iterator[Part]:
    """Yield the fits of one kind of row: in general, by library, by narrow format."""
    # What ran out of memory has no time to fit.
    rows = rows[rows["time_s"].notna()]
    prepared = prepare(rows, stage.kind).groups
    groups = [group for group in prepared if _launched(group) == stage.rows]
    wide = [group for group in groups if not _is_narrow(group)]
    chosen_for = [(wide, "")] if stage.general else []
    if stage.own:
        libraries = _by_variant(wide)
        several = len(libraries) > 1 or not stage.general
        chosen_for += [(part, name) for name, part in libraries.items() if name and several]
        narrow = _by_variant(groups).items()
        chosen_for += [(part, name) for name, part in narrow if name.endswith("fp8")]
    for chosen, variant in chosen_for:
        # A constant that another kind of row has told is not told anew.
        left = [
            item for item in stage.free if constant_name(item.name, variant) not in profile.fitted
        ]
        if sum(len(group.index) for group in chosen) < LEAST_ROWS or not left:
            continue
        part = _fit(stage, rows, profile, chosen, left, variant)
        profile = with_constants(profile, part.fitted.constants)
        yield part


def _fit(
    stage: Stage,
    rows: pd.DataFrame,
    profile: HardwareProfile,
    groups: Sequence[Group],
    free: Sequence[Free],
    variant: str,
) -> Part:
    """Fit one set of constants to some groups."""
    measured = [rows.loc[group.index, "time_s"].to_numpy() for group in groups]
    shapes = [
        rows.loc[group.index, list(stage.shape)].astype(str).agg("/".join, axis=1).to_numpy()
        for group in groups
    ]
    result = fit(profile, groups, measured, shapes, free, variant=variant)
    labels = [label for group in groups for label in group.index]
    named = rows.loc[labels, "source"].dropna().astype(str)
    return Part(
        kind=stage.kind,
        variant=variant,
        fitted=result,
        sources=tuple(sorted(set(named) - {""})),
        labels=tuple(labels),
        shapes=tuple(np.concatenate(shapes).astype(str)),
        shape_columns=stage.shape,
    )


def _launched(group: Group) -> Literal["graph", "eager", "whole"]:
    """Return which stages a group's rows are for."""
    if group.seconds is not None:
        return "whole"
    return "eager" if group.execution == "eager" else "graph"


def _is_narrow(group: Group) -> bool:
    """Return whether a group's rows are of an 8-bit format."""
    return any(name.endswith("fp8") for name in group.variants)


def _by_variant(groups: Sequence[Group]) -> Mapping[str, list[Group]]:
    """Sort groups by the most specific variant of their constants."""
    sorted_groups: dict[str, list[Group]] = {}
    for group in groups:
        name = group.variants[0] if group.variants else ""
        sorted_groups.setdefault(name, []).append(group)
    return sorted_groups


def wanted_rows(name: str) -> str:
    """Return which rows would tell a constant."""
    return next((text for suffix, text in WANTED.items() if name.endswith(suffix)), "other shapes")


def summary(residuals: "np.ndarray") -> tuple[float, float, float]:
    """Return median and 90th percentile of the absolute error, and the median signed one."""
    numbers = np.asarray(residuals, dtype=np.float64)
    ratio = np.expm1(numbers[np.isfinite(numbers)])
    if not len(ratio):
        return (float("nan"),) * 3
    size = np.abs(ratio)
    return float(np.median(size)), float(np.quantile(size, 0.9)), float(np.median(ratio))
