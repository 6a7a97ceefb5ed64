"""Plans as plain data: a JSON object, and a tidy row for each option."""

from typing import Any

from simulator.answers.capacity import Capacity
from simulator.answers.plan import Option, Plan
from simulator.units import MILLISECOND
from simulator.views.results import SCHEMA_VERSION, Row, asked, inputs_object, milliseconds, plain


def plan_object(result: Plan) -> dict[str, Any]:
    """Return a plan as a JSON object; options are rows, best first."""
    first = result.options[0].result
    inputs = inputs_object(first)
    for key in ("gpu", "attention", "tensor_parallel"):
        del inputs[key]
    # Bifurcated options keep one context whatever was asked.
    inputs["kv_layout"] = next(
        (o.result.workload.kv_layout for o in result.options if o.attention == "standard"),
        "shared",
    )
    return {
        "schema_version": SCHEMA_VERSION,
        "inputs": inputs,
        "target_step_ms": milliseconds(result.target_step_s),
        "cheapest": None if result.cheapest is None else option_row(result.cheapest),
        "fewest_gpus": result.fewest_gpus,
        "options": [option_row(option) for option in result.options],
        "skipped": list(result.skipped),
        "notes": [
            "cheapest is the option that meets the target at the least price per hour",
            "limits (most_samples ...) hold with the other sizes as asked",
        ],
    }


def plan_rows(result: Plan) -> list[Row]:
    """Return the options of a plan as tidy rows, best first."""
    return [asked(option.result) | option_row(option) for option in result.options]


def option_row(option: Option) -> Row:
    """Return one option of a plan as a tidy row."""
    result = option.result
    return {
        "gpu": result.gpu.id,
        "gpus": option.gpus,
        "attention": option.attention,
        "step_ms": result.step_s / MILLISECOND,
        "step_ms_low": result.step_low_s / MILLISECOND,
        "step_ms_high": result.step_high_s / MILLISECOND,
        "tokens_per_s": result.tokens_per_s,
        "bound": result.bound,
        "fits": bool(result.memory.fits),
        "meets_target": option.meets_target,
        "pareto": option.pareto,
        "usd_per_hour": option.usd_per_hour,
        "usd_per_million_tokens": option.usd_per_million_tokens,
        **_limits(option.limits),
        "memory_total_bytes": plain(result.memory.total_bytes),
        "memory_capacity_bytes": plain(result.memory.capacity_bytes),
        "constants": result.rates.origin,
    }


def _limits(limits: Capacity) -> Row:
    """Return the limits of an option as columns."""
    return {
        "most_samples": limits.most_samples,
        "most_samples_in_time": limits.most_samples_in_time,
        "longest_context_tokens": limits.longest_context_tokens,
        "longest_context_tokens_in_time": limits.longest_context_tokens_in_time,
    }
