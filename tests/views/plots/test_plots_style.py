"""What holds of every figure: colours, units, ticks, title, footer, and both of its forms."""

import html
import json
import re
from copy import deepcopy
from functools import cache
from typing import Any

import pytest
from plot_studies import STUDIES, study

from simulator.views.plots import export, layout, palette, texts
from simulator.views.plots.axes import log_axis, size_text
from simulator.views.plots.registry import FIGURES, figure, kind

# Figures whose axes are exponents of two, and those of panels with titles at the outer ones alone.
MAPS, PANELS = ("speedup-map", "equal-quality"), ("latency-kernels", "kv-heads", "equal-quality")
CASES = [
    (name, about)
    for about in STUDIES
    for name in FIGURES
    # Of a latent cache or a mixture of experts nobody knows a larger model that is as good.
    if name not in ("equal-quality", "loss-kv")
    or about not in ("fits nowhere, latent cache", "a single point, experts")
]
every_figure = pytest.mark.parametrize(("name", "about"), CASES)


@cache
def drawn(name: str, about: str) -> Any:
    """Return a figure of a study, drawn once."""
    return figure(name, study(about))


def axes(made: Any, kind_of_axis: str = "") -> dict[str, Any]:
    """Return the axes that are shown, by name."""
    return {
        name: made.layout[name]
        for name in made.layout
        if name.startswith(f"{kind_of_axis}axis" if kind_of_axis else ("xaxis", "yaxis"))
        and made.layout[name].visible is not False
    }


def text_of(markup: str) -> str:
    """Return the words of a text in Plotly's markup."""
    return html.unescape(re.sub(r"<[^>]+>", " ", markup))


@every_figure
def test_kinds_of_attention_look_the_same_everywhere(name: str, about: str) -> None:
    """A line or point in standard's colour is dashed and named standard, and so for the others."""
    for attention, line in palette.LINES.items():
        for trace in drawn(name, about).data:
            if trace.type != "scatter" or trace.line.color != line["color"] or not trace.name:
                continue
            assert trace.line.dash == line["dash"], trace.name
            # The lines of the KV-IO ratio are shades of bifurcated's blue, named for contexts.
            assert attention in trace.name or "-token context" in trace.name


@every_figure
def test_attention_has_no_other_colour(name: str, about: str) -> None:
    """A trace that is named for one kind of attention has its colour, in whatever figure."""
    for trace in drawn(name, about).data:
        found = palette.COLOURS.get(trace.name)
        if found is not None:
            assert found in {trace.line.color, trace.marker.color}


@every_figure
def test_every_axis_has_a_title_with_its_unit(name: str, about: str) -> None:
    """Each axis that shows numbers says of what, and in which unit."""
    made = drawn(name, about)
    titled = [
        str(axis.title.text)
        for axis in axes(made).values()
        if axis.showticklabels is not False and axis.title.text
    ]
    assert titled
    assert [title for title in titled if not re.search(r"\[[^\]]+\]$", title)] == []
    # Only the list of GPUs, which are no numbers, may go without.
    silent = [axis for axis in axes(made).values() if not axis.title.text]
    if name not in PANELS:
        assert all(name == "cost" and axis.ticktext is not None for axis in silent)


@every_figure
def test_sizes_have_powers_of_two_as_ticks(name: str, about: str) -> None:
    """Axes of samples and tokens are marked at powers of two, in the words people use."""
    for axis in axes(drawn(name, about)).values():
        title = str(axis.title.text)
        if "[sequences]" not in title and "[tokens]" not in title:
            continue
        values = [2**tick if name in MAPS else tick for tick in axis.tickvals]
        assert all(value >= 1 and float(value).is_integer() for value in values)
        assert all(int(value) & (int(value) - 1) == 0 for value in values)
        assert list(axis.ticktext) == [size_text(value) for value in values]


@every_figure
def test_labels_are_never_hidden(name: str, about: str) -> None:
    """Titles of axes are placed below the labels: with all of them hidden that is at -Infinity."""
    assert {axis.ticklabeloverflow for axis in axes(drawn(name, about)).values()} == {"allow"}


@every_figure
def test_the_footer_says_what_it_rests_on(name: str, about: str) -> None:
    """Assumptions, profile, its hash, the constants' origin and our version are in the footer."""
    question = study(about)
    footer = text_of(drawn(name, about).layout.annotations[-1].text)
    assert "Standard attention stores" in footer
    assert "bifurcate " in footer
    assert "onstants" in footer or "carried over" in footer
    if "gpu" in kind(name).varied:
        assert "hash of all" in footer
    else:
        assert question.gpu.content_hash in footer


@every_figure
def test_the_title_tells_a_finding_and_the_question(name: str, about: str) -> None:
    """The title is a sentence with what was found; under it is what was asked."""
    made = drawn(name, about)
    title = text_of(made.layout.title.text)
    assert len(made.layout.meta["finding"].split()) >= 4
    assert " ".join(made.layout.meta["finding"].split()) in " ".join(title.split())
    formats = {str(model.weights) for model in study(about).models}
    mixed = "model" in kind(name).varied and len(formats) > 1
    assert ("its own formats" if mixed else study(about).setup.weight_dtype) in title
    assert "nan" not in title.lower().split()
    assert "None" not in title


@every_figure
def test_both_forms_leave_room_for_the_plot(name: str, about: str) -> None:
    """At 1200 x 700 and on a phone most of the height is the plot's, and no line is too long."""
    made = drawn(name, about)
    for form, (width, height) in (
        ("wide", layout.WIDE),
        ("medium", (768, 700)),
        ("narrow", layout.NARROW),
    ):
        laid = made.layout.meta[form]
        assert height - laid["margin.t"] - laid["margin.b"] >= 0.4 * height
        footer = next(key for key in laid if key.endswith("].text"))
        size = laid[footer.replace(".text", ".font.size")]
        for line in laid[footer].split("<br>"):
            assert texts.text_width(html.unescape(line), size) <= width - 16
        for line in laid["title.text"].partition("</b>")[0].split("<br>"):
            size = laid["title.font.size"]
            assert texts.text_width(text_of(line), size, bold=True) <= width - 12


@every_figure
def test_a_form_can_be_put_on_and_off(name: str, about: str) -> None:
    """A figure laid out for a phone and back is the figure it was; pages do that."""
    made = drawn(name, about)
    before = deepcopy(made.layout.to_plotly_json())
    layout.take_form(made, "narrow")
    assert made.layout.to_plotly_json() != before
    layout.take_form(made, "wide")
    assert made.layout.to_plotly_json() == before


@every_figure
def test_no_entry_of_the_legend_occurs_twice(name: str, about: str) -> None:
    """The legend names each thing once."""
    names = [
        trace.name
        for trace in drawn(name, about).data
        if trace.showlegend is not False and trace.type not in ("heatmap", "contour")
    ]
    assert len(names) == len(set(names))
    assert None not in names


@every_figure
def test_a_figure_is_json_with_finite_numbers(name: str, about: str) -> None:
    """Nothing in a figure is NaN or infinite."""

    def refuse(word: str) -> None:
        raise AssertionError(word)

    json.loads(drawn(name, about).to_json(), parse_constant=refuse)


def test_colours_differ() -> None:
    """No kind of attention has the colour of another, or of anything that is no attention."""
    colours = [*palette.COLOURS.values()]
    assert len({*colours, *palette.CATEGORIES, palette.GREY}) == len(colours) + len(
        palette.CATEGORIES
    )
    assert len({line["dash"] for line in palette.LINES.values()}) == len(colours)


def test_figures_offer_no_way_to_send_them() -> None:
    """The tool bar has no button that sends a figure to a server, and no logo."""
    assert export.CONFIG["showSendToCloud"] is False
    assert export.CONFIG["displaylogo"] is False


def test_names_are_no_markup() -> None:
    """A model whose name has < or & in it does not turn into markup."""
    made = layout.finish(layout.new_figure(), "a<b & c", layout.Caption("<b>x</b>", ("1 < 2",)))
    assert "a&lt;b &amp; c" in made.layout.title.text
    assert "&lt;b&gt;x" in made.layout.title.text
    assert made.layout.annotations[-1].text == "1 &lt; 2"


@pytest.mark.parametrize("power", [-3, 0, 1, 10, 23])
def test_a_range_has_at_least_two_ticks_within_or_around_it(power: int) -> None:
    """Even a single value gets two ticks that enclose it."""
    made = layout.new_figure()
    log_axis(made, "xaxis", [1.3 * 2**power], "x", text=size_text)
    ticks, (low, high) = made.layout.xaxis.tickvals, made.layout.xaxis.range
    assert len(ticks) >= 2
    assert ticks[0] <= 1.3 * 2**power <= ticks[-1]
    assert 10**low <= ticks[0] < ticks[-1] <= 10**high * 1.0001


def test_an_axis_without_values_is_still_an_axis() -> None:
    """Nothing to draw, or only what a logarithm does not have, makes no error."""
    made = layout.new_figure()
    log_axis(made, "xaxis", [], "x [s]")
    log_axis(made, "yaxis", [0.0, float("inf")], "y [s]")
    assert made.layout.xaxis.tickvals
    assert made.layout.yaxis.tickvals
