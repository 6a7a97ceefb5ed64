"""The ways to read a prefix tree, as tables, JSON and rows."""

from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from simulator.answers.estimate import Estimate
from simulator.answers.tree import LevelRule, Reading, TreePlan
from simulator.inputs.tree import tree_text
from simulator.units import MILLISECOND, format_gib, format_si, format_time, format_tokens
from simulator.views.cells import without_shortage
from simulator.views.results import SCHEMA_VERSION, Row, hardware_object, inputs_object, plain
from simulator.views.table import Column, FittedTable, notes
from simulator.views.tables import question
from simulator.views.text import plural_tokens

MOST_READINGS_SHOWN = 16
READING_COLUMNS = (
    Column(name="levels read once per node", right=False, wrap=True),
    *(Column(name=name) for name in ("step", "speed-up", "KV read")),
    Column(name="all bytes", spare=True),
    Column(name="launches", spare=True),
    Column(name="memory"),
    Column(name="fits", right=False),
    Column(name="bound by", right=False),
)
RULE_COLUMNS = (
    Column(name="level", right=False),
    *(Column(name=name) for name in ("tokens", "nodes", "else read")),
    *(Column(name=name) for name in ("KV saved", "other bytes", "launches", "time saved")),
    Column(name="faster from", right=False),
    Column(name="", right=False, wrap=True),
)


def tree_view(result: TreePlan) -> RenderableType:
    """Return every way to read a tree as a table, which to take, and the rule for each level."""
    shown = result.readings[:MOST_READINGS_SHOWN]
    layout = result.standard.workload.kv_layout
    rows = [] if layout == "shared" else [_reading_row(_NONE[layout], result.standard, result)]
    rows += [_reading_row(_named(item), item.result, result) for item in shown]
    hidden = len(result.readings) - len(shown)
    rest = [Text(f"{hidden} more choices: --format csv or --json shows all.")] if hidden else []
    every = (*result.standard.notes, *result.reading(()).result.notes)
    return Group(
        question(result.standard, attention=False),
        Text(),
        FittedTable(columns=READING_COLUMNS, rows=rows),
        *rest,
        Text(),
        *(Text.from_markup(line) for line in tree_sentences(result)),
        Text(),
        Text("What splitting each level brings, the others as in the fastest choice", style="bold"),
        FittedTable(columns=RULE_COLUMNS, rows=[_rule_row(rule) for rule in result.rules]),
        *notes(without_shortage(every)),
    )


_NONE = {"copies": "none, a context copy each", "rebuilt": "none, rebuilt each step"}


def tree_sentences(result: TreePlan) -> list[str]:
    """Say which levels to split, and what the neighbouring choices cost (rich markup)."""
    best = result.best
    ratio = result.standard.step_s / best.result.step_s
    if not best.split:
        return ["[bold]Split no level[/]: standard attention is the fastest."]
    command = f"--attention bifurcated --tree {tree_text(best.result.workload.tree)}"
    first = f"[bold]Split {_spoken(best.split)}[/]: {ratio:.2f} times as fast as standard attention"
    if ratio < 1 and result.standard.memory.fits:
        first = (
            "[bold]Split no level[/] while there is room for a context copy each; of one stored "
            f"tree split {_spoken(best.split)}"
        )
    first += f" ({command})."
    names = tuple(level.name for level in best.result.workload.tree)
    compared = [
        f"{words} takes {format_time(item.result.step_s)}"
        for words, split in (("the whole tree", names), (f"{names[-1]} alone", names[-1:]))
        if (item := result.reading(split)) is not best
    ]
    return [first, f"Splitting {', '.join(compared)}."] if compared else [first]


def tree_object(result: TreePlan) -> dict[str, Any]:
    """Return the plan of a tree as a JSON object."""
    return {
        "schema_version": SCHEMA_VERSION,
        "inputs": inputs_object(result.standard),
        "standard": _figures(result.standard, result),
        "best": reading_object(result.best, result),
        "readings": [reading_object(item, result) for item in result.readings],
        "levels": [rule_object(rule) for rule in result.rules],
        "hardware": hardware_object(result.standard),
        "notes": list(result.standard.notes),
    }


def tree_rows(result: TreePlan) -> list[Row]:
    """Return every choice as a tidy row, fastest first."""
    asked = {"model": result.standard.model.name, "gpu": result.standard.gpu.id}
    return [
        {
            **asked,
            **item.result.workload.model_dump(),
            "split": ",".join(item.split),
            **_figures(item.result, result),
        }
        for item in result.readings
    ]


def reading_object(item: Reading, result: TreePlan) -> dict[str, Any]:
    """Return one choice of levels as a JSON object."""
    return {
        "split": list(item.split),
        "tree": tree_text(item.result.workload.tree),
        **_figures(item.result, result),
    }


def rule_object(rule: LevelRule) -> dict[str, Any]:
    """Return what splitting one level brings as a JSON object."""
    return {
        "name": rule.level.name,
        "tokens": rule.level.tokens,
        "nodes": rule.nodes,
        "readers": rule.readers,
        "split": rule.split,
        "saved_bytes": plain(rule.saved_bytes),
        "added_bytes": plain(rule.added_bytes),
        "added_launches": rule.added_launches,
        "gained_ms": rule.gained_s / MILLISECOND,
        "verdict": rule.verdict,
        "fewer_bytes_from_tokens": rule.fewer_bytes_from_tokens,
        "faster_from_tokens": rule.faster_from_tokens,
    }


def _figures(item: Estimate, result: TreePlan) -> Row:
    """Return the figures of one way to read the tree."""
    totals = item.totals
    return {
        "step_ms": item.step_s / MILLISECOND,
        "tokens_per_s": item.tokens_per_s,
        "speedup_over_standard": result.standard.step_s / item.step_s,
        "flops": plain(totals.flops),
        "bytes_read": plain(totals.bytes_read),
        "bytes_written": plain(totals.bytes_written),
        "kv_bytes_read": plain(totals.kv_bytes_read),
        "launches": plain(totals.launches),
        "kv_bytes": plain(item.memory.kv_bytes),
        "memory_total_bytes": plain(item.memory.total_bytes),
        "fits": bool(item.memory.fits),
        "bound": item.bound,
    }


def _reading_row(name: str, item: Estimate, result: TreePlan) -> tuple[str, ...]:
    """Return one way to read the tree as a row of the table."""
    totals = item.totals
    return (
        name,
        format_time(item.step_s),
        f"{result.standard.step_s / item.step_s:.2f}x",
        format_si(float(totals.kv_bytes_read), "B"),
        format_si(float(totals.bytes_read + totals.bytes_written), "B"),
        f"{float(totals.launches):,.0f}",
        format_gib(float(item.memory.total_bytes)),
        "yes" if item.memory.fits else "no",
        item.bound,
    )


def _rule_row(rule: LevelRule) -> tuple[str, ...]:
    """Return the rule of one level as a row of the table."""
    start = rule.faster_from_tokens
    sure = "" if rule.verdict != "too close to call" else ", too close to call"
    return (
        rule.level.name,
        format_tokens(rule.level.tokens),
        f"{rule.nodes:,}",
        f"{rule.readers:,} times",
        _signed(format_si(rule.saved_bytes, "B"), rule.saved_bytes, plus=""),
        _signed(format_si(abs(rule.added_bytes), "B"), rule.added_bytes),
        f"{rule.added_launches:+,}",
        _signed(format_time(abs(rule.gained_s)), rule.gained_s, plus=""),
        "never" if start is None else plural_tokens(start),
        ("split" if rule.split else "join") + sure,
    )


def _signed(text: str, value: float, plus: str = "+") -> str:
    """Write a sign before a quantity."""
    return f"{'-' if value < 0 else plus}{text}"


def _named(item: Reading) -> str:
    """Name a choice of levels."""
    return ", ".join(item.split) if item.split else "none, one stored tree"


def _spoken(names: tuple[str, ...]) -> str:
    """Write names as in a sentence.

    >>> _spoken(("system",)), _spoken(("system", "shots", "problem"))
    ('system', 'system, shots and problem')
    """
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last
