"""Models of equal quality: where the larger one with fewer KV heads is faster."""

import math

from simulator.answers.study import Study
from simulator.answers.tradeoff import Tradeoff, tradeoff
from simulator.inputs.setup import ATTENTIONS
from simulator.numeric import Frame
from simulator.units import is_power_of_two
from simulator.views.plots import layout, palette, panels, ratio_map, texts
from simulator.views.plots.caption import caption, study_of
from simulator.views.plots.layout import Caption
from simulator.views.plots.panels import Figure
from simulator.views.tradeoff import tradeoff_map_rows

# Purple where the base is faster, green where the larger model is; white between.
_SCALE = ratio_map.colour_scale(palette.PURPLE, palette.GREEN)
# In rows of cells.
_NAME_ROOM = 1.1
# With one panel below the other: what cells need for their numbers, and names for their room.
_STACKED_PX = 1120
_PANELS = {
    ("standard", "standard"): "both standard",
    ("bifurcated", "bifurcated"): "both bifurcated",
    ("bifurcated", "standard"): "base bifurcated, larger standard",
}


def equal_quality(frame: Frame, caption: Caption) -> Figure:
    """Draw the base model's step over the larger one's, by samples and context, for each pairing.

    Parameters
    ----------
    frame
        The rows of ``bifurcate tradeoff --rows map``, of one larger model.
    """
    figure = panels.new_panels(list(_PANELS.values()), 3, 1, medium_columns=1)
    figure.layout.meta = {**figure.layout.meta, "stacked_px": _STACKED_PX}
    powers = {
        axis: sorted(filter(is_power_of_two, set(frame[axis].tolist())))
        for axis in ("samples", "context_tokens")
    }
    for number, (ours, theirs) in enumerate(_PANELS):
        part = frame[(frame["base_attention"] == ours) & (frame["other_attention"] == theirs)]
        base, larger, ratios = (
            part.pivot_table(index="context_tokens", columns="samples", values=column).loc[
                powers["context_tokens"], powers["samples"]
            ]
            for column in ("base_memory_share", "other_memory_share", "speedup")
        )
        place = {"row": 1, "col": number + 1}
        fits, hover = (
            (base <= 1) | (larger <= 1),
            "the larger model is %{customdata:.2f} times as fast",
        )
        ratio_map.add_cells(figure, ratios, fits, scale=_SCALE, hover=hover, **place)
        for table, name, line in (
            (base, "memory ends, base", {"color": palette.PURPLE, "dash": "dash"}),
            (larger, "memory ends, larger", {"color": palette.GREEN, "dash": "dash"}),
            (ratios, "equally fast", {"color": palette.INK}),
        ):
            drawn = {**line, "width": 2.5}
            ratio_map.add_border(figure, table, name, drawn, key=number == 0, **place)
        x, y = (panels.axis_name(axis, number) for axis in ("xaxis", "yaxis"))
        ratio_map.exponent_axis(figure, x, powers["samples"], "samples [sequences]")
        ratio_map.exponent_axis(figure, y, powers["context_tokens"], "context [tokens]")
        # Room for the panel's name above its cells.
        low, high = figure.layout[y].range
        figure.layout[y].range = [low, high + _NAME_ROOM]
    first = frame.iloc[0]
    note = (
        f"In a cell: step of {first['base_model']} (base) over that of {first['model']} (larger), "
        f"as good with {first['size_factor']:.3f} times the parameters. Green: the larger model is "
        "faster. Grey: neither fits."
    )
    return layout.finish(figure, _finding(frame), caption.after(note))


def _finding(frame: Frame) -> str:
    """Say how bifurcation moves the border."""
    words = []
    both = frame[frame["base_attention"] == frame["other_attention"]]
    for attention in ATTENTIONS:
        part = both[both["base_attention"] == attention]
        mean = math.exp(part["speedup"].map(math.log).mean())
        words.append(
            f"on {(part['speedup'] > 1).mean():.0%} of the map with {attention} attention "
            f"(mean {texts.times(mean)})"
        )
    return f"{frame.iloc[0]['model']} is faster {', '.join(words)}"


def crossover_figure(result: Tradeoff) -> Figure:
    """Draw where the first of the other models is faster than the base."""
    import pandas as pd

    frame = pd.DataFrame(tradeoff_map_rows(result))
    first = result.others[0].model.name
    study = study_of(result.base.variants["standard"].result)
    about = caption(study, ("samples", "context_tokens"))
    factor = result.others[0].size_factor
    note = () if factor is None else (f"Size factor {factor.value:.3f}: {factor.source}.",)
    return equal_quality(frame[frame["model"] == first], about.after(*note))


def equal_quality_frame(study: Study) -> Frame:
    """Return the map of a study's model against a multi-query one of equal quality.

    Raises
    ------
    SimulatorError
        If the model cannot be scaled, or is multi-query itself.
    """
    import pandas as pd

    asked = (study.model, study.gpu, study.setup, study.workload)
    result = tradeoff(*asked, usd_per_hour=study.usd_per_hour)
    return pd.DataFrame(tradeoff_map_rows(result))
