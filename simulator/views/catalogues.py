"""Lists of known models, GPUs and scenarios, and everything about one of them."""

import re
from collections import Counter
from collections.abc import Sequence
from math import inf
from operator import itemgetter
from typing import TYPE_CHECKING

from simulator.inputs.model import count_parameters
from simulator.views import columns
from simulator.views.columns import Column, Row, View

if TYPE_CHECKING:
    from simulator.inputs.hardware import HardwareProfile
    from simulator.inputs.model import ModelShape
    from simulator.timing.constants import Key

PARAMETERS = (
    Column("parameters", value="total"),
    Column("active_parameters", value="active"),
    *(
        Column(f"{part}_parameters", value=part)
        for part in ("embedding", "head", "attention", "mlp")
    ),
    Column("norm_parameters", value="norms"),
)
MODELS = (
    Column("model", value="name"),
    Column("family"),
    Column("parameters", value=lambda shape: count_parameters(shape).total),
    *columns.named("layers", "hidden_size", "heads", "kv_heads", "head_dim", "max_context_tokens"),
)
TYPES = (
    Column("model_type", value=itemgetter(0)),
    Column("attention", value=lambda item: "latent" if item[1].latent else "heads"),
    Column("experts", value=lambda item: "no" if item[1].experts is None else "yes"),
)
GPUS = (
    Column("gpu", value="id"),
    Column("name"),
    Column("memory_gb", "1e9 bytes", "peak.memory_gb.value"),
    Column("bandwidth_gb_per_s", "GB/s", "peak.memory_bandwidth_gb_per_s.value"),
    Column(
        "half_tflops", "TFLOP/s", lambda gpu: (gpu.peak.bf16_tflops or gpu.peak.fp16_tflops).value
    ),
    Column("l2_mib", "MiB", lambda gpu: (gpu.measured.l2_mib or gpu.peak.l2_mib).value),
    Column(
        "usd_per_hour", "USD", lambda gpu: gpu.price_usd_per_hour and gpu.price_usd_per_hour.value
    ),
    Column("constants", value=lambda gpu: "fitted" if gpu.fitted else "carried"),
)
SCENARIOS = (
    Column("scenario", value="id"),
    *columns.named("points", "verdict", "verdict_basis", "title"),
)
CONSTANT = (Column("value"), Column("origin"), Column("source"))


def model_facts(shape: "ModelShape") -> Row:
    """Return a model's shape, parameters and KV bytes per token."""
    from simulator.counts.memory import index_bytes_per_token, state_bytes_per_sequence
    from simulator.inputs.dtypes import KV_BYTES
    from simulator.inputs.setup import Setup

    return {
        **shape.as_dict(),
        # What is not given is as in the whole model.
        "layer_groups": [group.as_dict(changed=True) for group in shape.layer_groups],
        "family": shape.family,
        **columns.as_object(PARAMETERS, count_parameters(shape)),
        "kv_bytes_per_token_bf16": int(shape.cached_values * KV_BYTES["bf16"]),
        "index_bytes_per_token": int(index_bytes_per_token(shape)),
        "state_bytes_per_sequence": int(state_bytes_per_sequence(shape, Setup())),
    }


def gpu_facts(profile: "HardwareProfile") -> Row:
    """Return a GPU's profile, and the constants of the timing model that affect times on it."""
    from simulator.inputs.dtypes import PRECISIONS
    from simulator.timing.constants import Variant, rates

    used = rates(profile)
    constants = dict(used.constants) | {
        key.of(Variant(precision=precision)): item
        for precision in PRECISIONS
        for key, item in used.at(precision).constants.items()
        if item.key and item.key.precision == precision
    }
    return {
        **profile.as_dict(known=True),
        "hash": profile.content_hash,
        "constants": {
            str(key): columns.as_object(CONSTANT, item)
            for key, item in constants.items()
            if _matters(key, item.value)
        },
    }


def _matters(key: "Key", value: float) -> bool:
    """Return whether a constant can affect the time of a kernel.

    A time of zero and a rate without limit cannot, nor can one of work that its kind of kernel does
    not have: products, waves of thread blocks, steps one after another.
    """
    from simulator.timing.constants import CONSTANTS, STREAMING

    definition = CONSTANTS[key.name]
    if value in (0, inf) or definition.needs is None:
        return False
    if "flops" in definition.needs and key.kind in (*STREAMING, "combine", "copy", "convolution"):
        return False
    if key.kind == "collective":
        return key.name not in ("flops_fraction", "block_us", "serial_us")
    return key.name not in ("block_us", "serial_us") or key.kind in definition.fit


def gpu_rows(facts: Row) -> list[Row]:
    """Return every figure and constant of a GPU as a row, with its source."""
    figures = [
        (f"{table}.{key}", figure["value"], origin + figure["source"])
        for table, origin in (("peak", ""), ("measured", ""), ("fitted", "fitted: "))
        for key, figure in facts.get(table, {}).items()
    ]
    if price := facts.get("price_usd_per_hour"):
        told = [price["provider"], price["terms"], price["day"]]
        told += ["low trust"] if price["low_trust"] else []
        source = f"{', '.join(filter(None, told))}; {price['source']}"
        figures.append(("price_usd_per_hour", price["value"], source))
    figures += [
        (f"constant {key}", item["value"], f"{item['origin']}: {item['source']}")
        for key, item in facts["constants"].items()
        if item["origin"] != "fitted"
    ]
    return [dict(zip(("figure", "value", "source"), each, strict=True)) for each in figures]


# The value before each card that a constant is carried from.
_NUMBER = re.compile(r"(?<=[:;] )[\d.e-]+ (?=[A-Z])")


def gpu_view(profile: "HardwareProfile", rows: Sequence[Row]) -> View:
    """Return a GPU's figures as a table, and where its constants come from as another."""
    ours = ("fitted.", "constant ")
    published = [row for row in rows if not row["figure"].startswith(ours)]
    told = Counter(str(row["source"]) for row in published)
    usual = max(told, key=lambda source: told[source], default="")
    constants = Counter(
        _NUMBER.sub("", str(row["source"])) for row in rows if row["figure"].startswith(ours)
    )
    origins = [(count, source) for source, count in constants.most_common() if count > 1]
    if single := list(constants.values()).count(1):
        origins.append((single, "each a source of its own"))
    names = ("constants", "where they come from")
    aliases = ", ".join(profile.aliases)
    lines = [
        f"also called: {aliases}" if aliases else "",
        f"hash {profile.content_hash}, figures retrieved {profile.retrieved}",
        f"source of all figures that name none: {usual}",
        " ".join(profile.notes.split()),
    ]
    kind = f"{profile.vendor} {profile.architecture}, confidence {profile.confidence}"
    return columns.stack(
        columns.line((f"{profile.name}   {kind}", "bold")),
        *columns.notes([line for line in lines if line]),
        "",
        columns.simple_table(
            [row | {"source": "" if row["source"] == usual else row["source"]} for row in published]
        ),
        "",
        columns.simple_table([dict(zip(names, origin, strict=True)) for origin in origins]),
        *columns.notes(["--json and --format csv list every constant."]),
    )
