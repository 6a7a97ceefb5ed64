"""A report as one HTML page that needs nothing beyond itself."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from simulator.answers.decision import Decision
from simulator.answers.sweep import GridSummary
from simulator.inputs.scenario import Scenario
from simulator.inputs.setup import Setup
from simulator.inputs.workload import Workload
from simulator.resources import PACKAGE
from simulator.views.report import sections, sources, words
from simulator.views.report.drawings import Drawing
from simulator.views.report.html import Child, Html, tag, text_of
from simulator.views.text import POLICY, samples_phrase

# A folded part opens for a link that leads into it, and for paper.
OPEN_SCRIPT = """
const open = (part) => { if (part) part.open = true; };
const linked = () => open(document.querySelector(location.hash || null)?.closest("details"));
addEventListener("hashchange", linked);
addEventListener("DOMContentLoaded", () => { if (location.hash) linked(); });
addEventListener("beforeprint", () => document.querySelectorAll("details.part").forEach(open));
"""
STYLE = PACKAGE / "views" / "report" / "report.css"
DESCRIPTION = "Standard against bifurcated attention: time, memory and cost of decode steps"


@dataclass(frozen=True, kw_only=True)
class Report:
    """Everything a report says.

    Attributes
    ----------
    expected
        Whether the scenario has an answer to expect; a question from the command line has none.
    decisions
        One for each model of the scenario.
    command
        The command that writes this page.
    sweep
        The command that writes the whole grid, empty where there is none.
    scenario_text
        The scenario's file, empty where there is none.
    date
        When it was made, in the words of whoever made it; empty for a page that is always the same.
    """

    scenario: Scenario
    expected: bool = True
    decisions: Sequence[Decision]
    grid: GridSummary
    drawings: Sequence[Drawing]
    command: str
    sweep: str
    scenario_text: str
    version: str
    date: str = ""


def report_page(report: Report) -> str:
    """Return the page. The same report gives the same bytes."""
    parts = _parts(report)
    body = [
        tag("main", _first_screen(report), (_part(*part) for part in parts), id="main"),
        tag(
            "footer",
            tag(
                "p",
                f"bifurcate {report.version}",
                f", {report.date}" if report.date else None,
                ". Times are predictions of a model, not measurements; their errors are under ",
                tag("a", "Accuracy", href="#accuracy"),
                ".",
            ),
        ),
    ]
    head = [
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        # The policy comes before anything that it applies to.
        tag("meta", http_equiv="Content-Security-Policy", content=POLICY),
        tag("meta", name="description", content=DESCRIPTION),
        tag("title", _title(report)),
        tag("style", Html(STYLE.read_text(encoding="utf-8"))),
        tag("script", Html(OPEN_SCRIPT)),
    ]
    return (
        "<!doctype html>\n"
        + tag("html", tag("head", head), "\n", tag("body", body), lang="en")
        + "\n"
    )


def _first_screen(report: Report) -> Html:
    """Return what decides: the verdict, three lines, the figures to remember, a table and a map."""
    first = report.decisions[0]
    verdict, _, why = words.lead(report.grid, first).partition("; ")
    lines = (
        why and f"{why[0].upper()}{why[1:]}.",
        words.case_sentence(first.first, report.grid),
        words.grid_line(report.grid) if report.grid.points > 1 else "",
        f"Next: {first.first.comparison.advice}",
    )
    return tag(
        "div",
        tag("p", report.scenario.question, class_="question"),
        tag("h1", _title(report)),
        tag("p", verdict, class_="verdict"),
        tag("div", (tag("p", line) for line in lines if line), class_="answer"),
        sections.tiles(first),
        tag(
            "div",
            tag("div", sections.short_table(first)),
            (_figure(drawing, "h2") for drawing in report.drawings[:1]),
            class_="beside",
        ),
        class_="first",
    )


def _title(report: Report) -> str:
    """Return the scenario's title; of a question, what is asked about."""
    case = report.decisions[0].case
    if report.expected:
        return report.scenario.title
    return f"{case.model.name}: {samples_phrase(case.workload)}"


def _parts(report: Report) -> list[tuple[str, str, Child]]:
    """Return the page's parts: anchor, heading, content."""
    found = report.decisions

    def on_every_gpu(decision: Decision) -> Html:
        sentence = words.case_sentence(decision.first, report.grid)
        return text_of([tag("p", sentence), sections.decision_table(decision)])

    parts: list[tuple[str, str, Child]] = [
        ("decision", "Every GPU", _each(found, on_every_gpu)),
        ("step", "One decode step and its memory", _each(found, sections.step_section)),
        ("request", "A whole request and its cost", _each(found, sections.request_section)),
    ]
    if report.drawings[1:]:
        figures = text_of(map(_figure, report.drawings[1:]))
        parts.append(("figures", "Figures", tag("div", figures, class_="figures")))
    if report.grid.points > 1:
        grid = sections.grid_section(report.scenario, report.grid)
        parts.append(("grid", "The whole grid", grid))
    origin = report.scenario if report.expected else None
    expected = tag("p", words.expectation(report.scenario, report.grid)) if origin else None
    parts += [
        ("accuracy", "Accuracy", sources.accuracy_section(found)),
        (
            "assumptions",
            "Assumptions",
            text_of([expected, sources.assumptions_section(origin, found)]),
        ),
        ("reproduce", "How to reproduce", _reproduce_section(report)),
    ]
    return parts


def _each(decisions: Sequence[Decision], part: sections.Part) -> Html:
    """Return one part for each case, under its model's name."""
    return text_of((tag("h3", decision.case.model.name), part(decision)) for decision in decisions)


def _part(key: str, name: str, content: Child) -> Html:
    """Return a part of the page, folded."""
    return tag("details", tag("summary", tag("h2", name)), content, class_="part", id=key)


def _figure(drawing: Drawing, heading: str = "h3") -> Html:
    """Return a figure under what it shows."""
    caption = tag("figcaption", tag(heading, drawing.finding), drawing.about)
    return tag("figure", caption, drawing.figure, id=f"figure-{drawing.name}")


def _reproduce_section(report: Report) -> Html:
    """Return the commands that give the same numbers, and the files they start from."""
    compared = (_compare_command(decision) for decision in report.decisions)
    commands = [report.command, *compared, report.sweep]
    return tag(
        "div",
        tag(
            "p",
            f"With bifurcate {report.version}. The first command writes this page, byte for byte.",
        ),
        tag("pre", tag("code", "\n".join(filter(None, commands)))),
        tag("p", "Profiles are named by the hash of their content, under Accuracy."),
        tag(
            "details",
            tag("summary", "The scenario's file"),
            tag("pre", tag("code", report.scenario_text.rstrip("\n"))),
        )
        if report.scenario_text
        else None,
    )


def _compare_command(decision: Decision) -> str:
    """Return the command that compares a case on the scenario's first GPU."""
    estimate = decision.first.comparison.standard
    case, work = decision.case, estimate.workload
    left_out = {"attention"} | ({"context_tokens", "prompts"} if work.tree else set())
    usual = Workload().as_dict() | Setup().as_dict()
    # Formats are always named: without them the model's own would be taken.
    always = ("samples", "context_tokens", "decoded_tokens", "weight_dtype", "kv_dtype")
    settings = {
        name: value
        for name, value in (work.as_dict() | estimate.setup.as_dict()).items()
        if name not in left_out and (name in always or value != usual[name])
    }
    named = {"m": case.name, "kv_heads": case.kv_heads, "g": decision.first.name}
    return command_line("compare", None, **named, **settings)


def command_line(command: str, asked: str | None, **options: object) -> str:
    """Return a command with the options that are not None, as a shell reads it.

    A list is an option given several times, a tuple one with several values.

    Parameters
    ----------
    command, asked
        The command, and what it is about.
    options
        By name: the first letter, or the whole.

    Examples
    --------
    >>> command_line("compare", None, m="my model", kv_heads=None, samples=(1, 4))
    "bifurcate compare -m 'my model' --samples 1,4"
    """
    words = ["bifurcate", command, *([] if asked is None else [asked])]
    for name, value in options.items():
        text = ",".join(map(str, value)) if isinstance(value, tuple) else value
        for item in text if isinstance(text, list) else [text]:
            if item is not None:
                dashes = "-" if len(name) == 1 else "--"
                words += [f"{dashes}{name.replace('_', '-')}", str(item)]
    return shlex.join(words)
