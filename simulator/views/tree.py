"""Answers about a prefix tree: every way to read it, the best one, and each level's gain."""

from collections.abc import Callable

from simulator.answers.tree import Reading, TreePlan
from simulator.answers.verdict import OPEN
from simulator.inputs.tree import tree_text
from simulator.units import format_si, format_time, format_tokens
from simulator.views import columns, estimate
from simulator.views.columns import Column, Row, View
from simulator.views.text import FITS_WORDS, plural_tokens, shortage, without_shortage

MOST_READINGS_SHOWN = 16

# The figures of a reading, and of standard attention.
FIGURES = (
    *columns.pick(estimate.STEP, "step_ms", "tokens_per_s", part="result"),
    estimate.OVER_STANDARD,
    *columns.pick(estimate.STEP, "flops", "bytes_read", "bytes_written", part="result"),
    *columns.pick(
        estimate.STEP, "memory_traffic_bytes", "kv_bytes_read", "launches", part="result"
    ),
    *columns.pick(
        estimate.MEMORY, "kv_bytes", "memory_bytes", "fits", "memory_verdict", part="result.memory"
    ),
    *columns.pick(estimate.STEP, "bound", part="result"),
)
READING = (
    Column("split", value="variant"),
    Column("tree", value=lambda item: tree_text(item.result.workload.tree)),
    *FIGURES,
)
ROW = (
    *columns.within("result", estimate.ASKED),
    Column("split", value=lambda item: ",".join(item.variant)),
    *FIGURES,
)


def _bytes(count: float) -> str:
    """Write bytes with their prefix."""
    return format_si(count, "B")


def _signed(value: float, write: Callable[[float], str], *, plus: str = "") -> str:
    """Write a quantity with its sign."""
    return f"{'-' if value < 0 else plus}{write(abs(value))}"


LEVEL = (
    Column("name", "text", "level.name", "level"),
    Column("tokens", "", "level.tokens", "tokens", lambda rule: format_tokens(rule.level.tokens)),
    Column("nodes", heading="nodes"),
    Column("readers", heading="else read", cell="{:,} times"),
    Column("split", "bool"),
    Column("saved_bytes", "bytes", "", "KV saved", lambda rule: _signed(rule.saved_bytes, _bytes)),
    Column(
        "added_bytes",
        "bytes",
        heading="other bytes",
        cell=lambda rule: _signed(rule.added_bytes, _bytes, plus="+"),
    ),
    Column("added_launches", "launches", heading="launches", cell="{:+,}"),
    Column(
        "gained_ms",
        "ms",
        "gained_s",
        "time saved",
        lambda rule: _signed(rule.gained_s, format_time),
    ),
    *columns.named("verdict", "fewer_bytes_from_tokens"),
    Column(
        "faster_from_tokens",
        "text",
        heading="faster from",
        cell=lambda rule: (
            "never" if rule.faster_from_tokens is None else plural_tokens(rule.faster_from_tokens)
        ),
    ),
    Column(
        unit="text",
        cell=lambda rule: (
            ("split" if rule.split else "join")
            + (f", {rule.verdict}" if rule.verdict in OPEN else "")
        ),
        wrap=True,
    ),
)


def tree_object(result: TreePlan) -> Row:
    """Return the plan of a tree as a JSON object."""
    return {
        **columns.as_object(
            [estimate.SCHEMA, Column("inputs", value="standard", of=estimate.INPUTS)], result
        ),
        "standard": columns.as_object(
            FIGURES, estimate.Compared("", result.standard, result.standard)
        ),
        "best": columns.as_object(READING, _item(result.best, result)),
        "readings": [columns.as_object(READING, _item(item, result)) for item in result.readings],
        **columns.as_object([Column("levels", value="rules", of=LEVEL)], result),
        **columns.as_object([estimate.HARDWARE_USED, estimate.NOTES], result.standard),
    }


def tree_rows(result: TreePlan) -> list[Row]:
    """Return every choice as a tidy row, in the order of the plan."""
    return [columns.as_object(ROW, _item(item, result)) for item in result.readings]


def _item(reading: Reading, result: TreePlan) -> estimate.Compared:
    """Return a reading beside standard attention."""
    return estimate.Compared(reading.split, reading.result, result.standard)


def tree_view(result: TreePlan) -> View:
    """Return every way to read a tree as a table, which to take, and the rule for each level."""
    shown = result.readings[:MOST_READINGS_SHOWN]
    standard, layout = result.standard, result.standard.setup.kv_layout
    items = [] if standard.setup.rereads else [estimate.Compared(_NONE[layout], standard, standard)]
    items += [
        estimate.Compared(", ".join(item.split) or "none, one stored tree", item.result, standard)
        for item in shown
    ]
    moved = Column(
        heading="all bytes",
        cell=lambda item: format_si(
            float(item.result.totals.bytes_read + item.result.totals.bytes_written), "B"
        ),
        spare=True,
    )
    wanted = (
        Column("variant", "text", heading="levels read once per node", wrap=True),
        *columns.pick(FIGURES, "step"),
        *columns.within("result", [estimate.WITHIN]),
        *columns.pick((*FIGURES, moved), "speed-up", "KV read", "all bytes", "launches", "memory"),
        Column(
            unit="text", heading="fits", cell=lambda item: FITS_WORDS[item.result.memory.verdict]
        ),
        *columns.pick(FIGURES, "bound by"),
    )
    hidden = len(result.readings) - len(shown)
    every = (*standard.notes, *result.reading(()).result.notes)
    return columns.stack(
        estimate.question(standard, attention=False),
        "",
        *tree_sentences(result),
        "",
        columns.as_table(wanted, items),
        *([f"{hidden} more choices: --format csv or --json shows all."] if hidden else []),
        "",
        columns.line(
            ("What splitting each level brings, the others as in the fastest choice", "bold")
        ),
        columns.as_table(
            [column for column in LEVEL if column.heading or column.cell], result.rules
        ),
        *columns.notes(without_shortage(every)),
    )


_NONE = {"copies": "none, a context copy each", "rebuilt": "none, rebuilt each step"}


def tree_sentences(result: TreePlan) -> list[str]:
    """Say which levels to split, and what the neighbouring choices cost."""
    best, base, over = result.best, result.standard, "standard attention"
    copies_fit = base.memory.fits
    if not copies_fit:
        base, over = result.reading(()).result, f"{over} over one stored tree, which fits"
    ratio = base.step_s / best.result.step_s
    if not best.result.memory.fits:
        short = shortage(best.result.memory)
        return [f"[bold]No choice fits[/]: the fastest is {short} short of memory."]
    if not best.split:
        return ["[bold]Split no level[/]: standard attention is the fastest."]
    command = f"--attention bifurcated --tree {tree_text(best.result.workload.tree)}"
    first = f"[bold]Split {_spoken(best.split)}[/]"
    if ratio < 1 and copies_fit:
        first = (
            "[bold]Split no level[/] while there is room for a context copy each; of one stored "
            f"tree split {_spoken(best.split)}"
        )
    elif base.memory.fits:
        first += f": {ratio:.2f} times as fast as {over}"
    first += f" ({command})."
    names = tuple(level.name for level in best.result.workload.tree)
    compared = [
        f"{words} takes {format_time(item.result.step_s)}"
        for words, split in (("the whole tree", names), (f"{names[-1]} alone", names[-1:]))
        if (item := result.reading(split)) is not best
    ]
    return [first, f"Splitting {', '.join(compared)}."] if compared else [first]


def _spoken(names: tuple[str, ...]) -> str:
    """Write names as in a sentence.

    >>> _spoken(("system",)), _spoken(("system", "shots", "problem"))
    ('system', 'system, shots and problem')
    """
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last
