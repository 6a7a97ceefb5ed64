"""Pass@k against latency as plain data: a JSON object and tidy rows."""

from typing import Any

from simulator.answers.quality import Affordable, Quality, QualityPoint
from simulator.units import MILLISECOND
from simulator.views.cells import without_shortage
from simulator.views.results import (
    SCHEMA_VERSION,
    Row,
    hardware_object,
    inputs_object,
    milliseconds,
)


def quality_object(result: Quality) -> dict[str, Any]:
    """Return quality against latency as a JSON object."""
    first = result.results["standard"]
    inputs = inputs_object(first)
    del inputs["attention"]
    return {
        "schema_version": SCHEMA_VERSION,
        "inputs": inputs | {"output_tokens": result.output_tokens},
        "success": result.success.source,
        "target_step_ms": milliseconds(result.target_step_s),
        "target_request_s": result.target_request_s,
        "best": {name: best_object(best) for name, best in result.best.items()},
        "points": quality_rows(result),
        "hardware": hardware_object(first),
        "notes": without_shortage(first.notes),
    }


def best_object(best: Affordable) -> dict[str, Any]:
    """Return the best that fits, and what stands against more."""
    return {"limit": best.limit, **({} if best.point is None else point_row(best.point))}


def quality_rows(result: Quality) -> list[Row]:
    """Return every point, one row for each kind of attention and number of samples."""
    return [point_row(point) for points in result.points.values() for point in points]


def point_row(point: QualityPoint) -> Row:
    """Return one point as a row."""
    return {
        "attention": point.attention,
        "samples": point.samples,
        "step_ms": point.step_s / MILLISECOND,
        "request_s": point.request_s,
        "fits": point.fits,
        "pass_at_k": point.pass_at_k,
        "pass_at_k_stderr": point.stderr,
        "usd_per_problem": point.usd_per_problem,
    }
