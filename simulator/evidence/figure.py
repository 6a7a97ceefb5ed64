"""Predicted against measured as one HTML file that needs no network and no library."""

import html
import math
from collections.abc import Callable

import pandas as pd

# Colours that colour-blind readers can tell apart (Okabe and Ito).
_COLOURS = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#cc79a7",
    "#e69f00",
    "#56b4e9",
    "#000000",
    "#999999",
)
_SIZE, _MARGIN = 720, 64
MOST_POINTS = 4000


def figure(rows: pd.DataFrame, title: str) -> str:
    """Return a page with predicted over measured time, both on logarithmic axes, by kind."""
    kinds = sorted(rows["kind"].unique())
    values = [*rows["measured_us"], *rows["predicted_us"]]
    low = math.floor(math.log10(min(values))) if values else 0
    high = math.ceil(math.log10(max(values))) if values else 1
    span = max(1, high - low)

    def place(value: float) -> float:
        share = (math.log10(value) - low) / span
        return _MARGIN + share * (_SIZE - 2 * _MARGIN)

    parts = [_grid(low, low + span, place)]
    stride = max(1, math.ceil(len(rows) / MOST_POINTS))
    for number, kind in enumerate(kinds):
        colour = _COLOURS[number % len(_COLOURS)]
        dots = "".join(
            f'<circle cx="{place(row.measured_us):.1f}" cy="{_SIZE - place(row.predicted_us):.1f}" '
            f'r="2"><title>{html.escape(f"{row.gpu_id}: {row.sizes}")}</title></circle>'
            for row in rows[rows["kind"] == kind].iloc[::stride].itertuples()
        )
        parts.append(f'<g fill="{colour}" fill-opacity="0.5">{dots}</g>')
        y = _MARGIN + 18 * number
        parts.append(
            f'<circle cx="{_MARGIN + 14}" cy="{y}" r="4" fill="{colour}"/>'
            f'<text x="{_MARGIN + 24}" y="{y + 4}">{html.escape(kind.replace("_", " "))}</text>'
        )
    drawn = f" Every {stride}th row is drawn." if stride > 1 else ""
    heading = html.escape(title)
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{heading}</title>'
        "<style>body{font:14px sans-serif;margin:2em}text{font:12px sans-serif}</style>"
        f"<h1>{heading}</h1><p>{len(rows):,} rows. Solid line: equal; dashed: 20 % off.{drawn}</p>"
        f'<svg role="img" aria-label="{heading}" width="{_SIZE}" height="{_SIZE}" '
        f'viewBox="0 0 {_SIZE} {_SIZE}">{"".join(parts)}</svg></html>\n'
    )


def _grid(low: int, high: int, place: Callable[[float], float]) -> str:
    """Return axes with a line at every power of ten, and the lines of equal time."""
    lines = []
    first, last = _MARGIN, _SIZE - _MARGIN
    for power in range(low, high + 1):
        spot = place(10.0**power)
        label = f"{10.0**power:g}"
        lines.append(
            f'<path d="M{spot} {first}V{last}M{first} {_SIZE - spot}H{last}" stroke="#ddd"/>'
            f'<text x="{spot}" y="{last + 18}" text-anchor="middle">{label}</text>'
            f'<text x="{first - 6}" y="{_SIZE - spot + 4}" text-anchor="end">{label}</text>'
        )
    shift = math.log10(1.2) / (high - low) * (last - first)
    lines.append(
        f'<path d="M{first} {last}L{last} {first}" stroke="#444"/>'
        f'<path d="M{first} {last - shift}L{last - shift} {first}M{first + shift} {last}'
        f'L{last} {first + shift}" stroke="#888" stroke-dasharray="5 4"/>'
        f'<text x="{_SIZE / 2}" y="{_SIZE - 20}" text-anchor="middle">measured [us]</text>'
        f'<text transform="translate(18 {_SIZE / 2}) rotate(-90)" text-anchor="middle">'
        "predicted [us]</text>"
    )
    return "".join(lines)
