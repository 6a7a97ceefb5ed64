"""Words that stand in a cell, in a terminal's table as in a page's."""

from collections.abc import Iterable

from simulator.answers.estimate import DOES_NOT_FIT
from simulator.counts.memory import Memory
from simulator.units import format_gib, format_tokens


def shortage(needs: Memory) -> str:
    """Say how much memory is missing."""
    return format_gib(-float(needs.free_bytes))


def fits_phrase(needs: Memory) -> str:
    """Say whether something fits in memory, and by how much not."""
    return "yes" if needs.fits else f"no, {shortage(needs)} short"


def without_shortage(notes: Iterable[str]) -> list[str]:
    """Return notes, each once, but those on what does not fit: tables say that of each row."""
    return [note for note in dict.fromkeys(notes) if not note.startswith(DOES_NOT_FIT)]


def money(value: float | None, digits: int) -> str:
    """Write a price, or that it is unknown.

    >>> money(1234.5678, 2), money(None, 2)
    ('1,234.57', 'unknown')
    """
    return "unknown" if value is None else f"{value:,.{digits}f}"


def limit(value: int | None) -> str:
    """Write a limit, or that there is none to have.

    >>> limit(8192), limit(None)
    ('8K', 'none')
    """
    return "none" if value is None else format_tokens(value)


def setting(value: object) -> str:
    """Write a setting, integers with separators."""
    return f"{value:,}" if isinstance(value, int) else str(value)
