"""Scaling laws and models of equal quality as plain data: JSON objects and tidy rows."""

from typing import Any

from simulator.answers.crossover import PAIRINGS, Crossover, Pairing
from simulator.answers.scaling import FamilyLaw, ScalingLaw, predicted_losses
from simulator.answers.size_factor import SizeFactor
from simulator.answers.tradeoff import Candidate, Tradeoff, Variant
from simulator.units import MILLISECOND
from simulator.views.results import (
    SCHEMA_VERSION,
    Row,
    hardware_object,
    inputs_object,
    memory_object,
    milliseconds,
)


def scaling_object(result: ScalingLaw) -> dict[str, Any]:
    """Return a fitted scaling law as a JSON object."""
    law = result.law
    errors = law.stderr
    return {
        "schema_version": SCHEMA_VERSION,
        "source": result.source,
        "runs": len(result.runs),
        "irreducible_loss": law.irreducible_loss,
        "irreducible_loss_stderr": float(errors[0]),
        "exponent": law.exponent,
        "exponent_stderr": float(errors[2]),
        "reference_parameters": law.center_parameters,
        "reference_loss": float(law.loss(law.center_parameters)),
        "families": [family_row(family) for family in result.laws],
        "residual_spread": law.spread,
        "held_out": [
            {
                "family": result.laws[_family_of(result, run.line)].family.name,
                "parameters": run.parameters,
                "loss": run.loss,
                "predicted_loss": predicted,
                "error": error,
            }
            for run, predicted, error in zip(
                result.held_out.runs,
                result.held_out.predicted,
                result.held_out.errors,
                strict=True,
            )
        ]
        if result.held_out
        else None,
        "refused": [{"line": row.line, "reason": row.reason} for row in result.refused],
        "notes": list(result.notes),
    }


def _family_of(result: ScalingLaw, line: int) -> int:
    """Return the number of the family of the run in a line."""
    return next(
        number for run, number in zip(result.runs, result.families, strict=True) if run.line == line
    )


def family_row(law: FamilyLaw) -> Row:
    """Return what a fit says of one family."""
    return {
        "family": law.family.name,
        "runs": law.runs,
        "sizes": law.sizes,
        "size_factor": law.size_factor,
        "size_factor_stderr": law.stderr,
        "size_factor_low": law.low,
        "size_factor_high": law.high,
    }


def run_rows(result: ScalingLaw) -> list[Row]:
    """Return every training run with its fitted loss, one row each."""
    predicted = predicted_losses(result)
    law = result.law
    held_out = (
        {}
        if result.held_out is None
        else {
            run.line: loss
            for run, loss in zip(result.held_out.runs, result.held_out.predicted, strict=True)
        }
    )
    return [
        {
            "line": run.line,
            "family": result.laws[number].family.name,
            "parameters": run.parameters,
            "kv_heads": run.kv_heads,
            "heads": run.heads,
            "group_size": run.group_size,
            "loss": run.loss,
            "fitted_loss": float(predicted[index]),
            "residual": float(predicted[index]) / run.loss - 1,
            "outlier": bool(law.outliers[index]),
            "held_out_loss": held_out.get(run.line),
            "equal_loss_parameters": float(law.size(run.loss)),
        }
        for index, (run, number) in enumerate(zip(result.runs, result.families, strict=True))
    ]


def tradeoff_object(result: Tradeoff) -> dict[str, Any]:
    """Return a trade-off as a JSON object that nests the models and their crossovers."""
    first = result.base.variants["standard"].result
    inputs = inputs_object(first)
    del inputs["attention"]
    return {
        "schema_version": SCHEMA_VERSION,
        "inputs": inputs,
        "target_step_ms": milliseconds(result.target_step_s),
        "models": [candidate_object(candidate) for candidate in result.candidates],
        "crossovers": [
            crossover_object(crossed, other)
            for crossed, other in zip(result.crossovers, result.others, strict=True)
        ],
        "scaling": None if result.scaling is None else scaling_object(result.scaling),
        "hardware": hardware_object(first),
        "notes": list(first.notes),
    }


def candidate_object(candidate: Candidate) -> dict[str, Any]:
    """Return one of the equally good models."""
    model = candidate.model
    factor = candidate.size_factor
    return {
        "model": model.name,
        "parameters": candidate.parameters,
        "layers": model.layers,
        "hidden_size": model.hidden_size,
        "heads": model.heads,
        "kv_heads": model.kv_heads,
        "head_dim": model.head_dim,
        "intermediate_size": model.intermediate_size,
        "size_factor": None if factor is None else factor_object(factor),
        "size_error": candidate.size_error,
        **{attention: variant_object(variant) for attention, variant in candidate.variants.items()},
    }


def factor_object(factor: SizeFactor) -> dict[str, Any]:
    """Return a size factor, with who says so."""
    return {
        "value": factor.value,
        "low": factor.low,
        "high": factor.high,
        "origin": factor.origin,
        "source": factor.source,
    }


def variant_object(variant: Variant) -> dict[str, Any]:
    """Return one model under one kind of attention."""
    result, limits = variant.result, variant.limits
    return {
        "step_ms": result.step_s / MILLISECOND,
        "step_ms_low": result.step_low_s / MILLISECOND,
        "step_ms_high": result.step_high_s / MILLISECOND,
        "speedup": variant.speedup,
        "speedup_low": variant.speedup_low,
        "speedup_high": variant.speedup_high,
        "prefill_ms": variant.prefill_s / MILLISECOND,
        "tokens_per_s": result.tokens_per_s,
        "bound": result.bound,
        "memory": memory_object(result.memory),
        "most_samples": limits.most_samples,
        "most_samples_in_time": limits.most_samples_in_time,
        "longest_context_tokens": limits.longest_context_tokens,
        "longest_context_tokens_in_time": limits.longest_context_tokens_in_time,
        "usd_per_million_tokens": variant.usd_per_million_tokens,
    }


def crossover_object(crossed: Crossover, other: Candidate) -> dict[str, Any]:
    """Return where a model is faster than the base, for each pairing of attentions."""
    return {
        "model": other.model.name,
        "context_tokens": [int(value) for value in crossed.context_tokens],
        "most_samples": int(crossed.samples[-1]),
        "pairings": [
            {
                "base_attention": pairing[0],
                "other_attention": pairing[1],
                "from_samples": [value or None for value in border.from_samples],
                "until_samples": [value or None for value in border.until_samples],
                "slower_between": list(border.slower_between),
                "share_faster": border.share,
                "largest_speedup": border.largest_speedup,
                "mean_speedup": border.mean_speedup,
            }
            for pairing, border in crossed.borders.items()
        ],
    }


def variant_rows(result: Tradeoff) -> list[Row]:
    """Return the models under each kind of attention, one tidy row each."""
    rows = []
    for candidate in result.candidates:
        factor = candidate.size_factor
        for variant in candidate.variants.values():
            row = variant_object(variant)
            memory = {f"memory_{key}": value for key, value in row.pop("memory").items()}
            rows.append(
                {
                    "model": candidate.model.name,
                    "gpu": variant.result.gpu.id,
                    "parameters": candidate.parameters,
                    "kv_heads": candidate.model.kv_heads,
                    "size_factor": 1.0 if factor is None else factor.value,
                    "size_factor_origin": "" if factor is None else factor.origin,
                    **variant.result.workload.model_dump(),
                    **row,
                    **memory,
                }
            )
    return rows


def crossover_rows(result: Tradeoff) -> list[Row]:
    """Return the borders, one row for each model, pairing and context."""
    return [
        {
            "model": other.model.name,
            "kv_heads": other.model.kv_heads,
            "base_attention": pairing[0],
            "other_attention": pairing[1],
            "context_tokens": int(context),
            "from_samples": border.from_samples[index] or None,
            "until_samples": border.until_samples[index] or None,
            "slower_between": border.slower_between[index],
        }
        for crossed, other in zip(result.crossovers, result.others, strict=True)
        for pairing, border in crossed.borders.items()
        for index, context in enumerate(crossed.context_tokens)
    ]


def map_rows(result: Tradeoff) -> list[Row]:
    """Return every point of the maps, one row for each model, pairing, context and samples."""
    return [
        row
        for crossed, other in zip(result.crossovers, result.others, strict=True)
        for pairing in PAIRINGS
        for row in _map_rows(crossed, result.base, other, pairing)
    ]


def _map_rows(crossed: Crossover, base: Candidate, other: Candidate, pairing: Pairing) -> list[Row]:
    """Return the points of one map."""
    ours, theirs = pairing
    base_s, other_s = crossed.base_step_s[ours], crossed.other_step_s[theirs]
    base_share = crossed.base_memory_share[ours]
    other_share = crossed.other_memory_share[theirs]
    factor = 1.0 if other.size_factor is None else other.size_factor.value
    return [
        {
            "base_model": base.model.name,
            "model": other.model.name,
            "kv_heads": other.model.kv_heads,
            "size_factor": factor,
            "base_attention": ours,
            "other_attention": theirs,
            "context_tokens": int(context),
            "samples": int(samples),
            "base_step_ms": float(base_s[i, j]) / MILLISECOND,
            "other_step_ms": float(other_s[i, j]) / MILLISECOND,
            "speedup": float(base_s[i, j] / other_s[i, j]),
            "base_memory_share": float(base_share[i, j]),
            "other_memory_share": float(other_share[i, j]),
        }
        for j, context in enumerate(crossed.context_tokens)
        for i, samples in enumerate(crossed.samples)
    ]
