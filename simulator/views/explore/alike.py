"""Several GPUs as one: their numbers as arrays, as long as the timing model treats them alike."""

from collections.abc import Sequence
from typing import Any

import numpy as np


class Differ(Exception):  # noqa: N818 - a finding, not an error
    """Raised where code decides by a number for some of the items and against it for others."""

    def __init__(self, mask: Sequence[bool]) -> None:
        super().__init__("the items differ")
        self.mask = mask


class Alike(np.ndarray[Any, Any]):
    """A number of each item, on which code may branch where all would take the same branch."""

    def __bool__(self) -> bool:
        """Return what is true of all items."""
        yes = np.asarray(self, dtype=bool)
        if yes.ndim and yes.any() != yes.all():
            raise Differ(yes.tolist())
        return bool(yes.all())

    def __hash__(self) -> int:  # type: ignore[override]
        """Return a hash by which a function's cache knows this very array."""
        return id(self)


class _Together:
    """Items whose attributes, methods and entries are those of all of them."""

    def __init__(self, items: Sequence[Any], groups: "Groups") -> None:
        self._items, self._groups = items, groups
        # What was asked for already; of calls by the identities of arguments, which are kept.
        self._entries: dict[Any, Any] = {}
        self._calls: dict[tuple[int, ...], tuple[Any, ...]] = {}

    def __getattr__(self, name: str) -> Any:
        found = together([getattr(item, name) for item in self._items], self._groups)
        self.__dict__[name] = found  # to be there when it is asked for again
        return found

    def __getitem__(self, key: Any) -> Any:
        if key not in self._entries:
            self._entries[key] = together([item[key] for item in self._items], self._groups)
        return self._entries[key]

    def __call__(self, *arguments: Any) -> Any:
        key = tuple(map(id, arguments))
        if key not in self._calls:
            found = together([item(*arguments) for item in self._items], self._groups)
            self._calls[key] = found, arguments
        return self._calls[key][0]


# What was taken together, by the identities of the items, which it keeps.
Groups = dict[tuple[int, ...], _Together]


def together(items: Sequence[Any], groups: Groups) -> Any:
    """Return items as one: numbers as an array, other values if they are equal.

    Parameters
    ----------
    items
        Of one type.
    groups
        Where to keep and find items that have attributes.

    Raises
    ------
    Differ
        If texts or truths differ between the items.
    """
    first = items[0]
    if isinstance(first, (bool, str)) or first is None:
        if any(item != first for item in items):
            raise Differ([item == first for item in items])
        return first
    if isinstance(first, (int, float)):
        if all(item == first for item in items):
            return first
        return np.array(items, dtype=float).view(Alike)
    if isinstance(first, tuple):
        return tuple(together(parts, groups) for parts in zip(*items, strict=True))
    key = tuple(map(id, items))
    if key not in groups:
        groups[key] = _Together(items, groups)
    return groups[key]
