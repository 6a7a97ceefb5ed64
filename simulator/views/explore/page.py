"""The page itself: its recorded computations as JSON, its script and its style."""

import html
import json
import math
from collections.abc import Mapping
from importlib.resources import files
from itertools import chain, product
from string import Template
from typing import Any

from simulator import __version__
from simulator.answers.advice import WORTH, no_shared_kernel
from simulator.answers.compare import LONGEST_CONTEXT, MOST_SAMPLES
from simulator.answers.estimate import constants_note, model_notes
from simulator.answers.frames import part_of
from simulator.answers.search import PER_OCTAVE, SAFE_RATIO
from simulator.answers.verdict import TIE_MARGIN
from simulator.counts.attention.flash import TOKENS_PER_SPLIT
from simulator.counts.attention.registry import algorithms
from simulator.inputs.dtypes import Dtype
from simulator.inputs.model import ModelShape
from simulator.inputs.setup import ATTENTIONS, EXECUTIONS, Execution, Setup, ask
from simulator.inputs.workload import LARGEST_COUNT, LARGEST_TOKENS
from simulator.timing.constants import Rates
from simulator.timing.interval import FAMILY, Family, spread_of, unknown_regime
from simulator.timing.limits import peak_flops_per_s, resident_blocks
from simulator.timing.roofline import ROOFS
from simulator.views.explore.intervals import SPREAD
from simulator.views.explore.menu import Menu
from simulator.views.explore.programs import MEMORY, TIMES, VARIABLES, Programs
from simulator.views.explore.symbol import OPCODES
from simulator.views.plots import style
from simulator.views.plots.breakdown import PART_COLOURS
from simulator.views.text import POLICY, model_phrase

# One script, in this order.
SCRIPTS = (
    "model.js",
    "drawing.js",
    "curves.js",
    "bars.js",
    "heat_map.js",
    "state.js",
    "controls.js",
    "answer.js",
    "figures.js",
    "page.js",
)

# Step, memory and interval of each form of each way to keep and read the context, in the order of
# "ways".
_Ways = list[list[tuple[int, int, int]]]


def page(offer: Menu) -> str:
    """Return the page as one self-contained HTML file."""
    data = page_data(offer)
    return Template(_resource("explore.html")).substitute(
        title=html.escape(f"Explore: {offer.scenario.id}"),
        policy=POLICY,
        style=_resource("explore.css"),
        data=_embedded(data),
        script="\n".join(map(_resource, SCRIPTS)),
    )


def page_data(offer: Menu) -> dict[str, Any]:
    """Return all data of the page's script."""
    programs = Programs()
    models = [
        {
            "name": entry.model.name,
            "asked": offer.asked.get(entry.model.name, entry.model.name),
            "kv_heads": entry.model.kv_heads,
            "heads": entry.model.heads,
            "choices": [variant.kv_heads for variant in entry.variants],
            "phrases": [model_phrase(variant) for variant in entry.variants],
            "most_tokens": entry.model.max_context_tokens,
            "notes": model_notes(entry.model),
            "weight_dtype": str(ask(entry.model, **offer.kept)[0].weights),
            "programs": [_programs(programs, offer, variant) for variant in entry.variants],
        }
        for entry in offer.models
    ]
    gpus = [_gpu(programs, offer, gpu_rates) for gpu_rates in offer.gpus]
    kinds = [str(dict(timing.settings)["kind"]) for timing in programs.timings.items]
    scenario = offer.scenario
    return {
        "version": __version__,
        "scenario": {
            "id": scenario.id,
            "title": scenario.title,
            "question": scenario.question,
            "description": scenario.description,
            "expected": f"{scenario.verdict} ({scenario.verdict_basis})",
        },
        "kept": {name: value for name, value in offer.kept.items() if name not in offer.moved},
        "start": dict(offer.start),
        "ranges": dict(offer.ranges),
        "moved": offer.moved,
        "layouts": offer.layouts,
        "kernels": _kernels(offer),
        "executions": EXECUTIONS,
        "ways": [*offer.layouts, "bifurcated"],
        "gpu_memory_utilization": offer.gpu_memory_utilization,
        "constants": offer.gpus[0].choice,
        "limits": {
            "count": LARGEST_COUNT,
            "tokens": LARGEST_TOKENS,
            "samples": MOST_SAMPLES,
            "context_tokens": LONGEST_CONTEXT,
            "split": TOKENS_PER_SPLIT,
            "per_octave": PER_OCTAVE,
            "safe_ratio": SAFE_RATIO,
            "tie": TIE_MARGIN,
            "worth": WORTH,
        },
        "style": _style(),
        "opcodes": OPCODES,
        "variables": VARIABLES,
        "memory_columns": MEMORY,
        "time_columns": TIMES,
        "roofs": ROOFS,
        "models": models,
        "gpus": gpus,
        "families": FAMILY,
        "intervals": programs.intervals.recorded,
        "ratios": programs.intervals.ratios,
        "names": programs.names.items,
        "timings": [
            {"used": timing.used, **dict(timing.settings)} for timing in programs.timings.items
        ],
        "operations": programs.operations.items,
        "parts": PART_COLOURS,
        "part_of": [
            list(PART_COLOURS).index(part_of(programs.names.items[name], kinds[timing]))
            for name, _, timing, _ in programs.operations.items
        ],
        "steps": programs.steps.items,
        "structures": programs.tapes.structures.items,
        "tapes": [[_number(value) for value in tape] for tape in programs.tapes.tapes.items],
    }


def _programs(programs: Programs, offer: Menu, model: ModelShape) -> list[list[_Ways | None]]:
    """Record a model under every kernel and execution; None if it cannot run."""
    return [
        [_ways(programs, offer, model, kernel, execution) for execution in EXECUTIONS]
        for kernel in _kernels(offer)
    ]


def _kernels(offer: Menu) -> tuple[str, ...]:
    """Return the kernels to choose from: those of no engine, and the scenario's own."""
    return tuple(dict.fromkeys((*algorithms(), *map(str, offer.scenario.axes.get("kernel", ())))))


def _ways(
    programs: Programs, offer: Menu, model: ModelShape, kernel: str, execution: Execution
) -> _Ways | None:
    """Record every way to keep and read the context."""
    ways: _Ways = []
    for attention in ATTENTIONS:
        layouts = offer.layouts if attention == "standard" else offer.layouts[:1]
        for layout in layouts:
            forms = offer.questions(
                model, attention=attention, kernel=kernel, execution=execution, kv_layout=layout
            )
            if not forms:
                return None
            peak = offer.gpus[0].choice == "peak"
            ways.append([programs.add(model, *form, offer.moved, peak=peak) for form in forms])
    *standard, bifurcated = ways
    for (_, _, first), (_, _, second) in product(chain.from_iterable(standard), bifurcated):
        programs.intervals.add_ratio(first, second)
    return ways


def _gpu(programs: Programs, offer: Menu, gpu_rates: Rates) -> dict[str, Any]:
    """Return one GPU: its memory, its roofs, and the tapes of its times."""
    gpu = gpu_rates.gpu
    size = offer.kept.get("tensor_parallel", 1)
    standard = [Setup(tensor_parallel=size, kv_layout=layout) for layout in offer.layouts]
    setups = [*standard, standard[0].under("bifurcated")]
    price = gpu.price_usd_per_hour
    dtypes = {ask(entry.model, **offer.kept)[0].activation_dtype for entry in offer.models}
    return {
        "id": gpu.id,
        "asked": offer.asked.get(gpu.id, gpu.id),
        "name": gpu.name,
        "hash": gpu.content_hash,
        "note": constants_note(gpu_rates),
        "memory_bytes": gpu.memory_bytes,
        "resident_blocks": resident_blocks(gpu),
        "usd_per_hour": price.value if price else None,
        "bandwidth_bytes_per_s": {
            "peak": gpu.memory_bandwidth_bytes_per_s,
            "attention": gpu_rates.bandwidth_bytes_per_s["attention"],
        },
        "flops_per_s": {
            dtype: {
                "peak": peak_flops_per_s(gpu, dtype)[0],
                "attention": gpu_rates.flops_per_s("attention", dtype),
                "gemm": gpu_rates.flops_per_s("gemm", dtype),
            }
            for dtype in sorted(dtypes)
        },
        "times": programs.times(gpu_rates),
        "spreads": _spreads(programs, gpu_rates),
        # By model: why no engine's kernel reads a shared context once.
        "barred": [no_shared_kernel(entry.model, gpu) for entry in offer.models],
        # By model, in the order of "ways": whether no rows tell how far a time may be off.
        "unknown": [
            [bool(unknown_regime(entry.model, gpu_rates, setup)) for setup in setups]
            for entry in offer.models
        ],
    }


def _spreads(programs: Programs, gpu_rates: Rates) -> dict[Family, dict[Dtype, list[float]]]:
    """Return a GPU's spreads by kind of kernel and format."""
    found: dict[Family, dict[Dtype, list[float]]] = {}
    for interval in programs.intervals.known.items:
        for family, dtype in zip(interval.families, interval.formats, strict=True):
            item = spread_of(gpu_rates, family, dtype)
            found.setdefault(family, {})[dtype] = [getattr(item, name) for name in SPREAD]
    return found


def _style() -> dict[str, Any]:
    """Return the colours, dashes and symbols of all our figures."""
    lines = {
        name: {"name": line.name, "colour": line.colour, "dash": line.dash}
        for name, line in style.LINES.items()
    }
    return {
        "lines": lines,
        "categories": style.CATEGORIES,
        "symbols": dict(style.BOUND_SYMBOLS),
        "unfit_opacity": style.UNFIT_OPACITY,
        "font": style.FONT,
        "ink": style.INK,
        "grey": style.GREY,
        "pale": style.PALE,
    }


def _number(value: float) -> float | str:
    """Convert a number for JSON, which has no infinity.

    >>> _number(1.5), _number(float("inf"))
    (1.5, 'Infinity')
    """
    return value if math.isfinite(value) else "Infinity"


def _embedded(data: Mapping[str, Any]) -> str:
    """Return JSON that cannot close its script element."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _resource(name: str) -> str:
    """Read one of the page's own files."""
    return (files("simulator.views.explore") / "web" / name).read_text(encoding="utf-8")
