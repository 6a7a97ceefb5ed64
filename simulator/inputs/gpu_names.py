"""Names of GPUs: how they are compared, and what another spelling has in common with one of ours.

Drivers, clouds and measured rows spell one card in many ways: ``NVIDIA H100 80GB HBM3``,
``H100-SXM5-80GB``, ``h100_sxm``. Words that name the maker or the memory's kind say nothing, a form
factor's generation hardly anything, and a size of memory may be rounded another way.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

# Words of a name that do not tell cards apart.
_FILLERS = frozenset(
    {"nvidia", "amd", "instinct", "geforce", "tesla", "quadro", "tensor", "core", "gpu", "graphics"}
    | {"hbm2", "hbm2e", "hbm3", "hbm3e", "gddr6", "gddr6x", "gddr7", "generation", "oam"}
)
_SYNONYMS = {"workstation": "ws", "edition": ""}
_MEMORY = re.compile(r"(\d+)gi?b")
_SXM = re.compile(r"sxm\d?")
# 192 for 180 GB, 140 for 141: makers and drivers count differently.
_MEMORY_TOLERANCE = 0.08


def normalise_name(name: str) -> str:
    """Return the form in which names of GPUs are compared.

    >>> normalise_name("NVIDIA H100_80GB HBM3")
    'nvidia-h100-80gb-hbm3'
    """
    return re.sub(r"[\s_-]+", "-", name.strip().lower())


@dataclass(frozen=True, slots=True)
class Card:
    """A card's names, and its memory where that is known. [GB]."""

    names: tuple[str, ...]
    memory_gb: float | None = None


def respelled(name: str, cards: Mapping[str, Card]) -> str | None:
    """Return the id of the card whose names say the same in other words, if there is just one.

    Examples
    --------
    >>> cards = {"b200": Card(("B200 SXM",), 180), "b300": Card(("B300 SXM",), 288)}
    >>> respelled("NVIDIA B200-SXM6-192GB", cards)
    'b200'
    >>> respelled("B200-PCIe", cards)
    """
    wanted, memory_gb = _telling(name)
    found = [
        card
        for card, known in cards.items()
        if any(wanted == _telling(each)[0] for each in (card, *known.names))
        and _agree(memory_gb, known.memory_gb)
    ]
    return found[0] if len(found) == 1 and wanted else None


def _telling(name: str) -> tuple[frozenset[str], int | None]:
    """Return the words of a name that tell cards apart, and its size of memory. [GB]."""
    words: set[str] = set()
    memory_gb = None
    for word in normalise_name(name).split("-"):
        if size := _MEMORY.fullmatch(word):
            memory_gb = int(size[1])
        elif word not in _FILLERS:
            words.add("sxm" if _SXM.fullmatch(word) else _SYNONYMS.get(word, word))
    return frozenset(words - {""}), memory_gb


def _agree(named_gb: float | None, memory_gb: float | None) -> bool:
    """Return whether a size in a name can be that of a card."""
    if named_gb is None or memory_gb is None:
        return True
    return abs(named_gb / memory_gb - 1) <= _MEMORY_TOLERANCE
