"""What is known by name: models, GPUs, scenarios, and everything about one of them."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from simulator.inputs.parameters import count_parameters
from simulator.views.columns import Column, Row, as_object, notes, simple_table, stack, text

if TYPE_CHECKING:
    from rich.console import RenderableType

    from simulator.inputs.hardware import HardwareProfile
    from simulator.inputs.model import ModelShape

PARAMETERS = (
    Column("parameters", value="total"),
    Column("active_parameters", "for one token", value="active"),
    Column("embedding_parameters", value="embedding"),
    Column("head_parameters", value="head"),
    Column("attention_parameters", value="attention"),
    Column("mlp_parameters", value="mlp"),
    Column("norm_parameters", "parts of `parameters`", value="norms"),
)
MODELS = (
    Column("model", "its name", value="name"),
    Column("family", "multi-head, multi-group, multi-query or multi-head latent"),
    Column("parameters", "their exact count", value=lambda shape: count_parameters(shape).total),
    Column("layers"),
    Column("hidden_size"),
    Column("heads"),
    Column("kv_heads"),
    Column("head_dim", "its shape"),
    Column("max_context_tokens", "the context it was made for; null where unknown"),
)
GPUS = (
    Column("gpu", "its name for `--gpu`", value="id"),
    Column("name"),
    Column("memory_gb", "", "1e9 bytes", "peak.memory_gb.value"),
    Column("bandwidth_gb_per_s", "of its memory", "GB/s", "peak.memory_bandwidth_gb_per_s.value"),
    Column(
        "half_tflops",
        "dense bf16, or fp16 where there is none",
        "TFLOP/s",
        lambda gpu: (gpu.peak.bf16_tflops or gpu.peak.fp16_tflops).value,
    ),
    Column("l2_mib", "its L2 cache", "MiB", "peak.l2_mib.value"),
    Column(
        "usd_per_hour",
        "null where unknown",
        "USD",
        lambda gpu: gpu.price_usd_per_hour and gpu.price_usd_per_hour.value,
    ),
    Column(
        "constants",
        "`fitted` or `carried`",
        value=lambda gpu: "fitted" if gpu.fitted else "carried",
    ),
)
SCENARIOS = (
    Column("scenario", "its name", value="id"),
    Column("points", "of its grid"),
    Column("verdict", "the answer to expect"),
    Column("title"),
)
CONSTANT = (Column("value"), Column("origin"), Column("source"))


def model_facts(shape: "ModelShape") -> Row:
    """Return a model's shape, parameters and KV bytes per token."""
    from simulator.counts.memory import kv_bytes_per_token
    from simulator.inputs.workload import Workload

    return {
        **shape.model_dump(mode="json"),
        "family": shape.family,
        **as_object(PARAMETERS, count_parameters(shape)),
        "kv_bytes_per_token_bf16": int(kv_bytes_per_token(shape, Workload())),
    }


def gpu_facts(profile: "HardwareProfile") -> Row:
    """Return a GPU's profile, and the constants of the timing model on it."""
    from simulator.timing.constants import LOW_PRECISION, rates

    used = rates(profile)
    constants = used.constants | {
        f"{LOW_PRECISION}_{key}": item
        for key, item in used.low_precision.constants.items()
        if item != used.constants[key]
    }
    return {
        **profile.model_dump(mode="json", exclude_none=True),
        "hash": profile.content_hash,
        "constants": {key: as_object(CONSTANT, item) for key, item in constants.items()},
    }


def gpu_rows(facts: Row) -> list[Row]:
    """Return every figure and constant of a GPU as a row, with its source."""
    rows = [
        {"figure": f"{table}.{key}", "value": figure["value"], "source": figure["source"]}
        for table in ("peak", "measured", "fitted")
        for key, figure in facts.get(table, {}).items()
    ]
    if "price_usd_per_hour" in facts:
        rows.append({"figure": "price_usd_per_hour", **facts["price_usd_per_hour"]})
    return rows + [
        {
            "figure": f"constant {key}",
            "value": item["value"],
            "source": f"{item['origin']}: {item['source']}",
        }
        for key, item in facts["constants"].items()
        if item["origin"] != "fitted"
    ]


def gpu_view(profile: "HardwareProfile", rows: Sequence[Row]) -> "RenderableType":
    """Return a GPU's figures and constants as a table."""
    aliases = ", ".join(profile.aliases)
    head = f"{profile.name}   {profile.vendor} {profile.architecture}, confidence "
    lines = [
        f"also called: {aliases}" if aliases else "",
        f"hash {profile.content_hash}, figures retrieved {profile.retrieved}",
        profile.notes,
    ]
    return stack(
        text((f"{head}{profile.confidence}", "bold")),
        *notes([line for line in lines if line]),
        "",
        simple_table(rows),
    )
