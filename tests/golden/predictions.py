"""The stored grid of predictions: did any change, and where. ``make predictions`` rewrites it.

The grid says nothing about accuracy (docs/accuracy.md does): it makes a change of constants or of
formulas visible, so that somebody looks at it. ``python tests/golden/predictions.py`` writes
predictions.csv beside this file and prints what changed; ``--check`` only prints.
"""

import csv
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import simulator

STORED = Path(__file__).with_name("predictions.csv")
SETTINGS = (
    "gpu",
    "model",
    "attention",
    "kernel",
    "kv_layout",
    "execution",
    "weight_dtype",
    "kv_dtype",
    "tensor_parallel",
    "context_tokens",
    "samples",
)
FIGURES = ("step_ms", "bytes", "flops")
RESULTS = (*FIGURES, "bound")
# Predictions are stored with six digits; processors differ in the last of sixteen.
SAME = 2e-6
WORST_SHOWN = 8

Point = dict[str, Any]

DEFAULTS: Point = {
    "gpu": ["h100-sxm"],
    "model": ["llama-3.1-8b"],
    "attention": ["standard", "bifurcated"],
    "kernel": ["flash"],
    "kv_layout": ["copies"],
    "execution": ["graph"],
    "weight_dtype": ["bf16"],
    "kv_dtype": ["bf16"],
    "tensor_parallel": [1],
    "context_tokens": [8192],
    "samples": [16],
}
# Cards with constants of their own, of measured kin, and of neither.
GPUS = ["h100-sxm", "a100-sxm-80gb", "l40s", "a40", "h200-sxm", "l4", "b200-sxm", "mi300x"]
GRIDS: Sequence[Mapping[str, Sequence[Any]]] = (
    # Every card: one sample and many, a context that fits the L2 cache and two that do not.
    {
        "gpu": GPUS,
        "model": ["llama-3.1-8b", "llama-2-7b"],
        "context_tokens": [1024, 8192, 32768],
        "samples": [1, 4, 32],
    },
    # Every kernel as every program runs it.
    {
        "gpu": ["h100-sxm", "l4"],
        "kernel": ["ideal", "flash", "einsum", "sdpa_math"],
        "execution": ["graph", "compiled", "eager"],
        "samples": [2, 64],
    },
    # Where the standard context lies.
    {
        "gpu": ["h100-sxm", "l40s"],
        "attention": ["standard"],
        "kv_layout": ["shared", "rebuilt"],
        "context_tokens": [1024, 8192],
        "samples": [4, 32],
    },
    # Every kind of model.
    {
        "gpu": ["h200-sxm"],
        "model": ["gpt2", "gemma-2-9b", "mixtral-8x7b", "gpt-oss-20b", "starcoder"],
        "context_tokens": [1024, 8192],
        "samples": [1, 16],
    },
    # Formats.
    {
        "gpu": ["h100-sxm", "l40s"],
        "weight_dtype": ["fp8", "int4"],
        "kv_dtype": ["bf16", "fp8"],
        "samples": [1, 64],
    },
    # Groups of GPUs.
    {
        "gpu": ["h100-sxm", "a100-sxm-80gb"],
        "model": ["llama-3.1-70b"],
        "tensor_parallel": [2, 8],
        "samples": [1, 16],
    },
    {"gpu": ["h200-sxm"], "model": ["deepseek-v3"], "tensor_parallel": [8], "samples": [1, 64]},
)


def points() -> Iterator[Point]:
    """Yield the questions of the grid, each once."""
    seen = set()
    for grid in GRIDS:
        axes = {**DEFAULTS, **grid}
        for values in product(*(axes[name] for name in SETTINGS)):
            if values not in seen:
                seen.add(values)
                yield dict(zip(SETTINGS, values, strict=True))


def predicted(point: Point) -> Point:
    """Return a question with its answer, as it is stored."""
    result = simulator.estimate(**point)
    totals = result.totals
    return {
        **point,
        "step_ms": f"{result.step_s * 1e3:.6g}",
        "bytes": f"{float(totals.bytes_read + totals.bytes_written):.6g}",
        "flops": f"{float(totals.flops):.6g}",
        "bound": result.bound,
    }


def stored(path: Path = STORED) -> list[dict[str, str]]:
    """Return the rows of the file, none if there is none."""
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def write(rows: Sequence[Point], path: Path = STORED) -> None:
    """Write the file."""
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, [*SETTINGS, *RESULTS], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _key(row: Point) -> tuple[str, ...]:
    """Return what identifies a question."""
    return tuple(str(row[name]) for name in SETTINGS)


def changes(before: Sequence[Point], after: Sequence[Point]) -> list[Point]:
    """Return the questions whose answer changed, with the relative change of each figure."""
    old = {_key(row): row for row in before}
    found = []
    for row in after:
        known = old.get(_key(row))
        if known is None:
            continue
        change = {
            name: float(row[name]) / float(known[name]) - 1 if float(known[name]) else 0.0
            for name in FIGURES
        }
        changed = any(abs(value) > SAME for value in change.values())
        if changed or row["bound"] != known["bound"]:
            bound = f"{known['bound']} -> {row['bound']}" if row["bound"] != known["bound"] else ""
            found.append({**row, "change": change, "bound_change": bound, "before": known})
    return found


def report(before: Sequence[Point], after: Sequence[Point]) -> list[str]:
    """Say which questions came, went and changed: by group, and the worst of them."""
    old, new = {_key(row) for row in before}, {_key(row) for row in after}
    lines = [
        f"{len(some)} points {word}"
        for some, word in ((new - old, "are new"), (old - new, "are gone"))
        if some
    ]
    found = changes(before, after)
    if not found:
        return lines
    lines.append(f"{len(found)} of {len(after)} predictions changed")
    for figure in FIGURES:
        lines += _by_group(figure, found, after)
    turned = [row for row in found if row["bound_change"]]
    lines += [f"bound by another roof: {len(turned)} points"] if turned else []
    lines += [f"  {_name(row)}: {row['bound_change']}" for row in turned[:WORST_SHOWN]]
    worst = sorted(found, key=lambda row: -abs(row["change"]["step_ms"]))[:WORST_SHOWN]
    lines.append("the largest changes of step_ms:")
    lines += [
        f"  {_name(row)}: {row['before']['step_ms']} -> {row['step_ms']} ms "
        f"({row['change']['step_ms']:+.2%})"
        for row in worst
    ]
    return lines


def _by_group(figure: str, found: Sequence[Point], every: Sequence[Point]) -> Iterator[str]:
    """Yield, for each value of the settings that tell most, how much a figure changed there."""
    for name in ("gpu", "attention", "kernel", "execution"):
        for value in dict.fromkeys(str(row[name]) for row in every):
            size = sum(str(row[name]) == value for row in every)
            moved = [row["change"][figure] for row in found if str(row[name]) == value]
            moved = [change for change in moved if abs(change) > SAME]
            if moved:
                yield (
                    f"  {figure}, {name} {value}: {len(moved)} of {size} points, median "
                    f"{statistics.median(moved):+.2%}, from {min(moved):+.2%} to {max(moved):+.2%}"
                )


def _name(row: Point) -> str:
    """Write a question in a line, without what is as in most."""
    shown = [str(row[name]) for name in SETTINGS[:3]]
    shown += [
        str(row[name]) if name != "tensor_parallel" else f"tp {row[name]}"
        for name in SETTINGS[3:9]
        if str(row[name]) != str(DEFAULTS[name][0])
    ]
    return " ".join([*shown, f"context {row['context_tokens']} samples {row['samples']}"])


def main() -> int:
    """Print what changed, and unless asked only to check, write the file."""
    before, after = stored(), [predicted(point) for point in points()]
    lines = report(before, after)
    sys.stdout.write("\n".join([*(lines or ["no prediction changed"]), ""]))
    if "--check" in sys.argv:
        return 1 if lines else 0
    write(after)
    sys.stdout.write(f"wrote {len(after)} predictions to {STORED}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
