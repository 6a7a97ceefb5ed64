"""The page itself: its recorded computations as JSON, its script and its style."""

import html
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from importlib.resources import files
from itertools import chain, product
from string import Template
from typing import Any

from simulator import __version__
from simulator.answers.advice import WORTH, no_shared_kernel
from simulator.answers.compare import LONGEST_CONTEXT, MOST_SAMPLES
from simulator.answers.estimate import constants_note, latent_forms, model_notes
from simulator.answers.search import PER_OCTAVE, SAFE_RATIO
from simulator.answers.verdict import TIE_MARGIN
from simulator.counts.attention.flash import TOKENS_PER_SPLIT
from simulator.counts.attention.registry import find_way
from simulator.inputs.dtypes import Dtype, is_low_precision
from simulator.inputs.model import ModelShape
from simulator.inputs.setup import Setup
from simulator.inputs.workload import LARGEST_COUNT, LARGEST_TOKENS, Workload
from simulator.timing.constants import Rates
from simulator.timing.interval import (
    FAMILIES,
    FAMILY,
    format_of,
    shipped_spreads,
    spread_of,
    unknown_regime,
)
from simulator.timing.limits import peak_flops_per_s, resident_blocks
from simulator.timing.roofline import ROOFS
from simulator.views.explore.menu import Menu, ModelEntry
from simulator.views.explore.programs import (
    MEMORY,
    TIMES,
    VARIABLES,
    Architecture,
    Met,
    Programs,
    group_bytes,
    stored_as,
)
from simulator.views.explore.symbol import OPERATIONS
from simulator.views.explore.tape import Unique
from simulator.views.plots import palette
from simulator.views.text import POLICY, model_phrase, origin_phrase

# One script, in this order: what the first one says of strictness holds for all.
SCRIPTS = (
    *("model.js", "drawing.js", "curves.js", "bars.js", "heat_map.js", "state.js"),
    *("controls.js", "answer.js", "figures.js", "page.js"),
)

# A model's question under every format of weights, and of the cache.
_Asked = list[list[tuple[Setup, Workload]]]
# What is around attention, attention, memory and interval, of each form of each way to keep and
# read the context: standard attention in each layout, then bifurcated.
_Ways = list[list[tuple[int, int, int, int]]]


def page(offer: Menu) -> str:
    """Return the page as one self-contained HTML file."""
    return Template(_resource("explore.html")).substitute(
        title=html.escape(f"Explore: {offer.scenario.id}"),
        policy=POLICY,
        coverage=f"{shipped_spreads().coverage:.0%}",
        style=_resource("explore.css"),
        data=_embedded(page_data(offer)),
        script="\n".join(map(_resource, SCRIPTS)),
    )


def page_data(offer: Menu) -> dict[str, Any]:
    """Return all data of the page's script."""
    # A model's question under every format of weights, and of the cache.
    weights, caches = offer.choices["weight_dtype"], offer.choices["kv_dtype"]
    asked = [
        [[offer.asks(entry.model, one, other) for other in caches] for one in weights]
        for entry in offer.models
    ]
    programs = Programs(
        work=asked[0][0][0][1],
        moved=offer.moved,
        sizes=offer.choices["tensor_parallel"],
        kv_bytes=sorted({setup.kv_bytes for rows in asked for setup, _ in rows[0]}),
    )
    # The programs know all models before anything is recorded.
    met = [[programs.meet(variant) for variant in entry.variants] for entry in offer.models]
    recorded = _Recorded(offer, programs)
    models = list(map(recorded.model, offer.models, asked, met))
    times = programs.times(offer.gpus)
    texts: Unique[str] = Unique()
    gpus = [
        _gpu(recorded, texts, gpu_rates, each)
        for gpu_rates, each in zip(offer.gpus, times, strict=True)
    ]
    intervals, scenario = programs.intervals, offer.scenario
    return {
        "version": __version__,
        "scenario": {
            "id": scenario.id,
            "title": scenario.title,
            "question": scenario.question,
            "expected": f"{scenario.verdict} ({scenario.verdict_basis})",
        },
        "kept": {name: value for name, value in offer.kept.items() if name not in offer.moved},
        "start": dict(offer.start),
        "target_step_ms": scenario.target_step_ms,
        "ranges": dict(offer.ranges),
        "moved": offer.moved,
        "layouts": offer.layouts,
        "choices": dict(offer.choices),
        "one_prompt": _of_one_prompt(offer),
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
        "style": {
            "lines": {
                name: {"name": name, "colour": line["color"], "dash": line["dash"]}
                for name, line in palette.LINES.items()
            },
            "categories": palette.CATEGORIES,
            "symbols": dict(palette.BOUND_SYMBOLS),
            "unfit_opacity": palette.UNFIT_OPACITY,
            "font": palette.FONT,
            "green": palette.GREEN,
        },
        "operations": OPERATIONS,
        "variables": VARIABLES,
        "memory_columns": MEMORY,
        "time_columns": TIMES,
        "roofs": ROOFS,
        "models": models,
        "gpus": gpus,
        "texts": texts.items,
        "families": FAMILY,
        "formats": [dict(zip(FAMILIES, each, strict=True)) for each in intervals.formats.items],
        "intervals": [
            (each.families, tape)
            for each, tape in zip(intervals.structures.items, intervals.recorded, strict=True)
        ],
        "ratios": intervals.ratios,
        "names": programs.names.items,
        "timings": [
            {"used": timing.used, **dict(timing.settings)} for timing in programs.timings.items
        ],
        "calls": programs.operations.items,
        "parts": palette.PART_COLOURS,
        "recordings": programs.recordings,
        "plans": list(recorded.plans.values()),
        "structures": programs.tapes.structures.items,
        "columns": programs.tapes.columns.items,
        "tapes": programs.tapes.tapes.items,
    }


def _of_one_prompt(offer: Menu) -> dict[str, str]:
    """Return the kernels that run some model with one prompt but not with two, and why."""
    found = {}
    for kernel, entry in product(offer.choices["kernel"], offer.models):
        refusal = partial(find_way(kernel).refusal, entry.model)
        if not refusal(Workload()) and (why := refusal(Workload(prompts=2))):
            found[kernel] = why.partition(": ")[2]
    return found


@dataclass
class _Recorded:
    """What is recorded of the models of a page.

    ``plans`` is how their architectures are computed, each once.
    """

    offer: Menu
    programs: Programs
    plans: dict[Any, Any] = field(default_factory=dict)

    def model(self, entry: ModelEntry, asked: _Asked, met: list[Met]) -> dict[str, Any]:
        """Return a model of the menu, and add its architectures to ``plans``.

        Parameters
        ----------
        entry, asked, met
            The model, its questions, and its variants as the programs know them.
        """
        model, formats = entry.model, self.programs.intervals.formats
        setups = [setup for setup, _ in asked[0]]
        weights = [row[0][0].weights for row in asked]
        studied = model.name in self.offer.studied
        places = []
        for variant, known in zip(entry.variants, met, strict=True):
            key = id(known.architecture), *map(stored_as, weights), studied
            if key not in self.plans:
                ways = self._plan(variant, known.architecture, asked, studied=studied)
                self.plans[key] = {"places": known.architecture.places[2:], "ways": ways}
            places.append(list(self.plans).index(key))
        return {
            "name": model.name,
            "asked": self.offer.asked.get(model.name, model.name),
            "kv_heads": model.kv_heads,
            "choices": [variant.kv_heads for variant in entry.variants],
            "phrases": [model_phrase(variant) for variant in entry.variants],
            "most_tokens": model.max_context_tokens,
            "notes": model_notes(model),
            "dtypes": [str(each) for each in weights],
            "kv_dtypes": [setup.kv_dtype for setup in setups],
            "kv_bytes": [setup.kv_bytes for setup in setups],
            "kv_low": [is_low_precision(setup.kv_bytes) for setup in setups],
            "splits": [known.splits for known in met],
            "numbers": [known.numbers for known in met],
            "group_bytes": [group_bytes(each) for each in weights],
            # By format of weights and of the cache: the format of each kind of kernel, for its
            # spread.
            "formats": [
                [
                    formats.place(tuple(format_of(family, setup) for family in FAMILIES))
                    for setup, _ in row
                ]
                for row in asked
            ],
            "plans": places,
        }

    def _plan(
        self, model: ModelShape, architecture: Architecture, asked: _Asked, *, studied: bool
    ) -> list[list[list[_Ways | None]]]:
        """Record a model, by format of weights, kernel and execution; None is not offered."""
        offer = self.offer
        start = tuple(offer.start[name] for name in ("kernel", "execution"))
        at_start = offer.choices["weight_dtype"].index(offer.start["weight_dtype"])

        def ways(weight: int, *how: str) -> _Ways | None:
            if how != start and not (studied and weight == at_start):
                return None
            setup, work = asked[weight][0]
            setup = setup.but(kernel=how[0], execution=how[1])
            return self._ways(model, architecture, setup, work)

        return [
            [
                [ways(weight, kernel, execution) for execution in offer.choices["execution"]]
                for kernel in offer.choices["kernel"]
            ]
            for weight in range(len(asked))
        ]

    def _ways(
        self, model: ModelShape, architecture: Architecture, setup: Setup, work: Workload
    ) -> _Ways | None:
        """Record every way to keep and read the context; None if it cannot run."""
        ways: _Ways = []
        if find_way(setup.kernel).refusal(model, work):
            return None
        layouts = [("standard", each) for each in self.offer.layouts]
        for attention, layout in [*layouts, ("bifurcated", "shared")]:
            asked = setup.but(kv_layout=layout, attention=attention)
            ways.append([self._way(architecture, form) for form in latent_forms(model, asked)])
        *standard, bifurcated = ways
        for first, second in product(chain.from_iterable(standard), bifurcated):
            self.programs.intervals.add_ratio(first[-1], second[-1])
        return ways

    def _way(self, architecture: Architecture, form: Setup) -> tuple[int, int, int, int]:
        """Record one way to read the context: around it, attention, memory and interval."""
        # Around attention, only the projections of a latent cache depend on how it is read.
        plain = form.but(attention="standard", kv_layout="shared", kernel="flash")
        rest = form if architecture.model.latent else plain
        around = self.programs.record("around", architecture, rest)
        attends = self.programs.record("attention", architecture, form)
        held = self.programs.record("memory", architecture, form)
        kinds = self.programs.kinds_of(around, attends)
        peak = self.offer.gpus[0].choice == "peak"
        return around, attends, held, self.programs.intervals.add(form, kinds, peak=peak)


def _gpu(recorded: _Recorded, texts: Unique[str], gpu_rates: Rates, times: Any) -> dict[str, Any]:
    """Return one GPU: its memory, its roofs, and the tapes of its times."""
    offer, spreads = recorded.offer, recorded.programs.intervals.spreads
    gpu = gpu_rates.gpu
    price = gpu.price_usd_per_hour
    sixteen_bit: tuple[Dtype, ...] = ("bf16", "fp16")
    return {
        "id": gpu.id,
        "asked": offer.asked.get(gpu.id, gpu.id),
        "name": gpu.name,
        "hash": gpu.content_hash,
        "note": constants_note(gpu_rates),
        "origin": origin_phrase(gpu_rates),
        "linked": gpu.link_bytes_per_s(2) is not None,
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
            }
            for dtype in sixteen_bit
        },
        "times": times,
        "spreads": {
            family: {dtype: list(spread_of(gpu_rates, family, dtype)) for dtype in dtypes}
            for family, dtypes in spreads.items()
        },
        # By model: why no engine's kernel reads a shared context once.
        "barred": [texts.place(no_shared_kernel(entry.model, gpu)) for entry in offer.models],
        # By model: whether no rows tell how far a time on one node may be off, in whatever way.
        "unknown": [
            int(bool(unknown_regime(entry.model, gpu_rates, Setup()))) for entry in offer.models
        ],
    }


def _embedded(data: Mapping[str, Any]) -> str:
    """Return JSON that cannot close its script element."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _resource(name: str) -> str:
    """Read one of the page's own files."""
    return (files("simulator.views.explore") / "web" / name).read_text(encoding="utf-8")
