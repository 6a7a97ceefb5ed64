"""Empty figures of one plot or of panels, which take more rows on a phone than on a wide page."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from simulator.views.plots.palette import FONT, GREY, INK, PALE
from simulator.views.plots.texts import escape

if TYPE_CHECKING:
    import plotly.graph_objects as go

# A figure in annotations, which so need no import.
Figure: TypeAlias = "go.Figure"
# Between panels, shares of the plot's width or height: the second with ticks and titles in it.
_PANEL_GAP, _TITLED_GAP = 0.03, {"xaxis": 0.12, "yaxis": 0.16}


def new_figure(**subplots: Any) -> Figure:
    """Return an empty figure in this style, or one of subplots."""
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    figure = make_subplots(**subplots) if subplots else go.Figure()
    figure.update_layout(
        template="none",
        font={"family": FONT, "size": 13, "color": INK},
        paper_bgcolor="white",
        plot_bgcolor="white",
        hoverlabel={"font": {"family": FONT}},
        autosize=True,
    )
    axis = {
        "gridcolor": PALE,
        "linecolor": GREY,
        "showline": True,
        "ticks": "outside",
        "tickcolor": GREY,
        "zeroline": False,
        "tickangle": 0,
        # Plotly may hide all labels while a page changes its size: titles would have no place.
        "ticklabeloverflow": "allow",
        "title": {"standoff": 8},
    }
    figure.update_xaxes(**axis)
    figure.update_yaxes(**axis)
    return figure


def new_panels(
    names: Sequence[str],
    wide_columns: int,
    narrow_columns: int,
    *,
    medium_columns: int | None = None,
    shared: bool = True,
) -> Figure:
    """Return a figure of panels with these names, in more rows on a phone than on a wide page.

    Parameters
    ----------
    medium_columns
        On a tablet, where it is not as on a wide page.
    shared
        Whether all panels have the same axes, so that the outer ones alone need ticks and titles.

    The panel of number i has the axes ``axis_name("xaxis", i)`` and ``axis_name("yaxis", i)``.
    """
    figure = new_figure(rows=1, cols=len(names))
    columns = {
        "wide": wide_columns,
        "medium": wide_columns if medium_columns is None else medium_columns,
        "narrow": narrow_columns,
    }
    figure.layout.meta = {"panels": (len(names), columns, shared)}
    for number, name in enumerate(names):
        if not name:
            continue
        style = {"yanchor": "top"}
        label(figure, f"<b>{escape(name)}</b>", (0.03, 0.98), style, panel=number, of=" domain")
    return figure


def label(
    figure: Figure,
    text: str,
    at: Sequence[float],
    style: Mapping[str, Any],
    *,
    panel: int = 0,
    of: str = "",
) -> None:
    """Write a text into a panel, to the right of a point unless ``style`` says otherwise.

    Parameters
    ----------
    text, at
        The text, in Plotly's markup, and its point; along a logarithmic axis the logarithm.
    style
        Everything else that Plotly's annotations take.
    panel, of
        Number of the panel, and ``" domain"`` for a point in shares of it.
    """
    place = {"xref": axis_name("x", panel) + of, "yref": axis_name("y", panel) + of}
    usual = {"xanchor": "left", "showarrow": False, "font": {"size": 11}, **place}
    figure.add_annotation(text=text, x=at[0], y=at[1], **{**usual, **style})


def axis_name(axis: str, number: int) -> str:
    """Return the name of a panel's axis.

    >>> axis_name("xaxis", 0), axis_name("xaxis", 1)
    ('xaxis', 'xaxis2')
    """
    return axis if number == 0 else f"{axis}{number + 1}"


def panel_axes(figure: Figure, form: str) -> dict[str, Any]:
    """Return where each panel lies in a form, with titles and ticks at the outer ones only."""
    count, columns_of, shared = (figure.layout.meta or {}).get("panels", (0, {}, True))
    chosen: dict[str, Any] = {}
    columns = min(count, columns_of.get(form, 1))
    rows = math.ceil(count / columns) if count else 0
    for number in range(count):
        row, column = divmod(number, columns)
        for axis, index, cells, outermost in (
            ("xaxis", column, columns, number + columns >= count),
            ("yaxis", rows - 1 - row, rows, column == 0),
        ):
            name = axis_name(axis, number)
            titled = axis == "yaxis" or any(
                figure.layout[axis_name("yaxis", other)].title.text for other in range(1, count)
            )
            gap = _TITLED_GAP[axis] if titled and not shared else _PANEL_GAP
            room = (1 + gap) / cells
            low = index * room
            chosen[f"{name}.domain"] = [low, min(1.0, low + room - gap)]
            outer = outermost or not shared
            chosen[f"{name}.showticklabels"] = outer
            chosen[f"{name}.title.text"] = figure.layout[name].title.text if outer else ""
    return chosen
