"""The layout of a figure: its panels, title, legend and footer, for a page, a tablet and a phone.

A figure carries a form for each; the wide one is drawn unless the page's script
(:mod:`simulator.views.plots.export`) or the size of an image asks for another.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from simulator.views.plots.palette import FONT, GREY, INK, PALE
from simulator.views.plots.texts import escape, text_width

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


# Name of an annotation that a phone has no room for.
WIDE_ONLY = "wide only"
WIDE, NARROW = (1200, 700), (390, 700)
# Each form, and from which width on it is taken: there its texts just fit. [px]
FORMS_FROM = {"wide": 1100, "medium": 640, "narrow": 0}


@dataclass(frozen=True)
class Caption:
    """A figure's subject, and its assumptions.

    Attributes
    ----------
    subject
        Model, GPU and workload, under the title.
    notes
        Assumptions, hash of the profile and origin of the constants, in the footer.
    """

    subject: str
    notes: tuple[str, ...]

    def after(self, *notes: str) -> "Caption":
        """Return the caption with notes before its own."""
        return Caption(self.subject, (*notes, *self.notes))


@dataclass(frozen=True)
class _Form:
    """Sizes of a figure's texts at one width. [px]."""

    width: int
    title_px: int
    subject_px: int
    footer_px: int
    legend_px: int
    legend_item_px: int
    tick_px: int
    left: int
    right: int

    def wrap(self, text: str, size_px: int, *, bold: bool = False) -> list[str]:
        """Break a text between words so that its lines fit.

        Parameters
        ----------
        text
            The text.
        size_px, bold
            Its size [px], and whether it is bold.
        """
        room_px = self.width - 24
        lines: list[str] = []
        for word in text.split():
            longer = f"{lines[-1]} {word}" if lines else word
            if lines and text_width(longer, size_px, bold=bold) <= room_px:
                lines[-1] = longer
            else:
                lines.append(word)
        return lines


_FORMS = {
    "wide": _Form(FORMS_FROM["wide"], 20, 14, 11, 12, 40, 12, 78, 24),
    "medium": _Form(FORMS_FROM["medium"], 17, 13, 10, 11, 40, 11, 70, 18),
    "narrow": _Form(NARROW[0] - 12, 15, 12, 9, 10, 30, 10, 56, 12),
}
_AXIS_ROOM_PX = 54
_LEGEND_ROW_PX, _LEGEND_GAPS_PX, _LEGEND_LEFT = 19, 14, 0.13


def finish(figure: Figure, finding: str, caption: Caption) -> Figure:
    """Give a figure its title, legend and footer, in every form.

    Parameters
    ----------
    finding
        What the figure shows, a sentence made from its data.
    """
    paper = {"xref": "paper", "yref": "paper"}
    below = {"name": "footer", "yanchor": "top", "align": "left", **paper}
    label(figure, "", (0, 0), below)
    footer = len(figure.layout.annotations) - 1
    forms = {name: _form(figure, name, finding, caption, footer) for name in _FORMS}
    figure.update_layout(
        title={"x": 0, "xanchor": "left", "xref": "container", "y": 1, "yanchor": "top"},
        legend={"orientation": "h", "x": 0, "y": 1.0, "traceorder": "normal", **paper}
        | {"xanchor": "left", "yanchor": "bottom"},
        meta={**(figure.layout.meta or {}), "finding": finding, **forms},
    )
    return take_form(figure, "wide")


def take_form(figure: Figure, name: str) -> Figure:
    """Lay a finished figure out in a form, in place."""
    for path, value in figure.layout.meta[name].items():
        figure.layout[path] = value
    return figure


def form_for(width: int) -> str:
    """Return which form fits a width. [px].

    >>> form_for(390), form_for(768), form_for(1200)
    ('narrow', 'medium', 'wide')
    """
    return next(name for name, least in FORMS_FROM.items() if width >= least)


def _form(figure: Figure, name: str, finding: str, caption: Caption, footer: int) -> dict[str, Any]:
    """Return what a relayout to one form sets."""
    form = _FORMS[name]
    meta = figure.layout.meta or {}
    roomy = name == "wide"
    left = meta.get("left", {}).get("narrow" if name == "narrow" else "wide", form.left)
    title = form.wrap(finding, form.title_px, bold=True)
    subject = form.wrap(caption.subject, form.subject_px)
    notes = [line for note in caption.notes for line in form.wrap(note, form.footer_px)]
    title_px = len(title) * form.title_px * 1.3 + len(subject) * form.subject_px * 1.3 + 20
    room_px = form.width - left - form.right
    # On a phone the legend begins left of the plot: two columns need all of the width.
    legend_x = -_LEGEND_LEFT if name == "narrow" else 0.0
    legend_px = _legend_rows(figure, form, room_px * (1 - legend_x)) * _LEGEND_ROW_PX + 8
    # Sorted, as Plotly keeps the names of subplots in a set: the same figure is the same bytes.
    axes = sorted(name for name in figure.layout if name.startswith(("xaxis", "yaxis")))
    axis_px = _AXIS_ROOM_PX
    ticks = meta.get("ticks", {})
    chosen = {
        f"{axis}.{part}": values if roomy else values[::stride]
        for axis, (tickvals, ticktext, stride) in ticks.items()
        for part, values in (("tickvals", tickvals), ("ticktext", ticktext))
    }
    return {
        "title.text": "<b>" + "<br>".join(map(escape, title)) + "</b><br>"
        f'<span style="font-size:{form.subject_px}px;color:{GREY}">'
        + "<br>".join(map(escape, subject))
        + "</span>",
        "title.font.size": form.title_px,
        "title.pad.l": 12,
        "title.pad.t": 10 + form.title_px,
        "legend.font.size": form.legend_px,
        "legend.itemwidth": form.legend_item_px,
        "legend.x": legend_x,
        "margin.l": left,
        "margin.r": form.right,
        "margin.t": round(title_px + legend_px),
        "margin.b": round(axis_px + len(notes) * form.footer_px * 1.3 + 12),
        f"annotations[{footer}].text": "<br>".join(map(escape, notes)),
        f"annotations[{footer}].font.size": form.footer_px,
        f"annotations[{footer}].font.color": GREY,
        f"annotations[{footer}].xshift": 8 - left,
        f"annotations[{footer}].yshift": -axis_px,
        **panel_axes(figure, name),
        **{
            f"annotations[{index}].visible": roomy
            for index, note in enumerate(figure.layout.annotations)
            if note.name == WIDE_ONLY
        },
        **{f"{axis}.tickfont.size": form.tick_px for axis in axes},
        **{f"{axis}.title.font.size": form.tick_px + 1 for axis in axes},
        **chosen,
    }


def _legend_rows(figure: Figure, form: _Form, room_px: float) -> int:
    """Return how many rows a figure's legend takes.

    Parameters
    ----------
    figure, form
        The figure, and the form it is shown in.
    room_px
        Width of the legend. [px]
    """
    names = [
        trace.name or ""
        for trace in figure.data
        if trace.showlegend is not False and trace.type not in ("heatmap", "contour")
    ]
    if not names:
        return 0
    gaps_px = form.legend_item_px + _LEGEND_GAPS_PX
    widths = [gaps_px + text_width(name, form.legend_px) for name in names]
    if sum(widths) <= room_px:
        return 1
    return math.ceil(len(names) / max(1, int(room_px // max(widths))))
