"""Results as plain data: one JSON object per answer, and tidy rows with units in their names."""

from collections.abc import Mapping
from typing import Any

from simulator.answers.compare import Comparison
from simulator.answers.estimate import Estimate
from simulator.answers.generate import Generation
from simulator.answers.rules import RuleChoice
from simulator.counts.memory import Memory
from simulator.inputs.model import count_parameters
from simulator.numeric import Numeric
from simulator.units import MILLISECOND

SCHEMA_VERSION = 1
# Whole numbers above this are not exact in float64, so they are shown as they were computed.
_LARGEST_EXACT = 2**53

Row = dict[str, Any]


def plain(value: Numeric) -> Any:
    """Return a number as JSON should show it: counts as integers, everything else as it is."""
    if isinstance(value, float) and value.is_integer() and abs(value) <= _LARGEST_EXACT:
        return int(value)
    return value


def milliseconds(seconds: float | None) -> float | None:
    """Return a time in milliseconds, None for none."""
    return None if seconds is None else seconds / MILLISECOND


def estimate_object(result: Estimate) -> dict[str, Any]:
    """Return an estimate as the JSON object of docs/commands.md."""
    return {
        "schema_version": SCHEMA_VERSION,
        "inputs": inputs_object(result),
        **_step(result),
        "memory": memory_object(result.memory),
        "operations": operation_rows(result),
        "hardware": hardware_object(result),
        "notes": list(result.notes),
    }


def compare_object(result: Comparison) -> dict[str, Any]:
    """Return a comparison as a JSON object that nests its three estimates."""
    answer = {
        "schema_version": SCHEMA_VERSION,
        "standard": estimate_object(result.standard),
        "shared_storage": estimate_object(result.shared_storage),
        "bifurcated": estimate_object(result.bifurcated),
        "speedup": result.speedup,
        "speedup_low": result.speedup_low,
        "speedup_high": result.speedup_high,
        "kv_io_ratio": result.kv_io_ratio,
        "winner": result.winner,
        "verdict": result.verdict,
        "break_even_samples": result.break_even_samples,
        "break_even_context_tokens": result.break_even_context_tokens,
        "advice": result.advice,
    }
    return answer if result.rule is None else answer | {"rule": rule_object(result.rule)}


def rule_object(rule: RuleChoice) -> dict[str, Any]:
    """Return what an engine's rule chooses, and what that costs, as a JSON object."""
    return {
        "name": rule.name,
        "choice": rule.choice,
        "reason": rule.reason,
        "ours": rule.ours,
        "verdict": rule.verdict,
        "agrees": rule.agrees,
        "step_ms": rule.step_s / MILLISECOND,
        "best_step_ms": rule.best_step_s / MILLISECOND,
        "cost_ms": rule.cost_s / MILLISECOND,
        "cost_share": rule.cost_share,
    }


def generation_object(result: Generation) -> dict[str, Any]:
    """Return a whole request as a JSON object."""
    time = result.time
    return {
        "prefill_ms": time.prefill.total_s / MILLISECOND,
        "decode_ms": time.decode_s / MILLISECOND,
        "total_ms": result.total_s / MILLISECOND,
        "total_ms_low": result.total_low_s / MILLISECOND,
        "total_ms_high": result.total_high_s / MILLISECOND,
        "first_step_ms": time.first_step_s / MILLISECOND,
        "last_step_ms": time.last_step_s / MILLISECOND,
        "time_per_output_token_ms": result.time_per_output_token_s / MILLISECOND,
        "output_tokens": result.output_tokens,
        "decode_steps": time.steps,
        "all_output_tokens": result.all_tokens,
        "tokens_per_s": result.tokens_per_s,
        "usd_per_hour": result.usd_per_hour,
        "usd_per_million_tokens": result.usd_per_million_tokens,
        "prefill_bound": time.prefill.bound,
        "memory": memory_object(result.memory),
        "notes": list(result.notes),
    }


def generations_object(results: Mapping[str, Generation]) -> dict[str, Any]:
    """Return requests under one or both kinds of attention as one JSON object."""
    first = next(iter(results.values()))
    answer: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "inputs": {
            **inputs_object(first.last_step),
            "attention": list(results),
            "output_tokens": first.output_tokens,
        },
        "hardware": hardware_object(first.last_step),
    }
    del answer["inputs"]["decoded_tokens"]
    answer |= {attention: generation_object(result) for attention, result in results.items()}
    if len(results) > 1:
        answer["speedup"] = results["standard"].total_s / results["bifurcated"].total_s
    return answer


def generation_rows(results: Mapping[str, Generation]) -> list[Row]:
    """Return requests as one tidy row for each kind of attention."""
    rows = []
    for result in results.values():
        row = generation_object(result)
        del row["notes"]
        memory = {f"memory_{key}": value for key, value in row.pop("memory").items()}
        question = asked(result.last_step)
        del question["decoded_tokens"]  # they grow from 0 to the last
        rows.append(question | row | memory)
    return rows


def asked(result: Estimate) -> Row:
    """Return what was asked, as the first columns of a row."""
    return {
        "model": result.model.name,
        "gpu": result.gpu.id,
        **result.workload.model_dump(),
    }


def inputs_object(result: Estimate) -> dict[str, Any]:
    """Echo what was asked, as it was understood."""
    model = result.model
    count = count_parameters(model)
    return {
        "model": model.name,
        "parameters": count.total,
        "active_parameters": count.active,
        "layers": model.layers,
        "hidden_size": model.hidden_size,
        "heads": model.heads,
        "kv_heads": model.kv_heads,
        "head_dim": model.head_dim,
        "gpu": result.gpu.id,
        **result.workload.model_dump(),
        "gpu_memory_utilization": result.memory_utilization,
        "constants": result.rates.choice,
    }


def memory_object(needs: Memory) -> dict[str, Any]:
    """Return memory as a JSON object. [bytes]."""
    return {
        "weights_bytes": plain(needs.weights_bytes),
        "kv_bytes": plain(needs.kv_bytes),
        "workspace_bytes": plain(needs.workspace_bytes),
        "total_bytes": plain(needs.total_bytes),
        "capacity_bytes": plain(needs.capacity_bytes),
        "fits": bool(needs.fits),
    }


def hardware_object(result: Estimate) -> dict[str, Any]:
    """Return which GPU and which constants were used."""
    return {
        "name": result.gpu.id,
        "hash": result.gpu.content_hash,
        "constants": result.rates.origin,
    }


def operation_rows(result: Estimate) -> list[Row]:
    """Return each operation as a row; its figures are those of one call of ``repeat``."""
    return [
        {
            "name": operation.name,
            "kind": operation.kind,
            "repeat": operation.repeat,
            "flops": plain(operation.flops),
            "bytes_read": plain(operation.bytes_read),
            "bytes_written": plain(operation.bytes_written),
            "launches": plain(operation.launches),
            "time_ms": time.device_s / MILLISECOND,
            "bound": time.bound,
        }
        for operation, time in zip(result.operations, result.time.operations, strict=True)
        # A part that this workload does not have (no own tokens, a single split) is not shown.
        if operation.launches
    ]


def _step(result: Estimate) -> dict[str, Any]:
    """Return the figures of a step."""
    time, totals = result.time, result.totals
    return {
        "step_ms": result.step_s / MILLISECOND,
        "step_ms_low": result.step_low_s / MILLISECOND,
        "step_ms_high": result.step_high_s / MILLISECOND,
        "device_ms": time.device_s / MILLISECOND,
        "host_ms": time.host_s / MILLISECOND,
        "collective_ms": time.collective_s / MILLISECOND,
        "tokens_per_s": result.tokens_per_s,
        "flops": plain(totals.flops),
        "bytes_read": plain(totals.bytes_read),
        "bytes_written": plain(totals.bytes_written),
        "kv_bytes_read": plain(totals.kv_bytes_read),
        "weight_bytes_read": plain(totals.weight_bytes_read),
        "launches": plain(totals.launches),
        "bound": result.bound,
    }


def compare_rows(result: Comparison) -> list[Row]:
    """Return a comparison as one tidy row for each way to store and read the context."""
    rows = []
    rule = {} if result.rule is None else rule_object(result.rule)
    for name in ("standard", "shared_storage", "bifurcated"):
        item: Estimate = getattr(result, name)
        memory = {f"memory_{key}": value for key, value in memory_object(item.memory).items()}
        step = {key: value for key, value in _step(item).items() if key != "flops"}
        rows.append(
            {
                "variant": name,
                **asked(item),
                **step,
                "flops": plain(item.totals.flops),
                **memory,
                "speedup_over_standard": result.standard.step_s / item.step_s,
                **{f"rule_{key}": value for key, value in rule.items() if key != "reason"},
            }
        )
    return rows
