"""Tapes: recorded computations as short lists of numbers that a page can replay.

A tape is a structure, the variables that it reads, and its constants. Thousands of operations share
a few hundred structures: layers differ in widths, but rarely in the computation. Constants that
differ between GPUs are columns, which many tapes read.

    structure  [variables, [code, operand, ...  code, operand, ...], [output, ...]]
    tape       [structure, variable, ... constant, ...]

Registers hold the variables in the tape's order, then the result of each instruction in turn. A
non-negative operand is the number of a register; -1 is the first constant, -2 the second. A
variable of -1 is the first column, -2 the second.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Any, Generic, TypeVar

import numpy as np

from simulator.views.explore.symbol import FUNCTIONS, VARIABLE, Recorder, Symbol, key_of

Item = TypeVar("Item", bound=Hashable)
Structure = tuple[int, tuple[int, ...], tuple[int, ...]]
Tape = tuple[int | float | str, ...]


@dataclass
class Unique(Generic[Item]):
    """A list that holds each item once."""

    items: list[Item] = field(default_factory=list)
    _places: dict[Item, int] = field(default_factory=dict)

    def place(self, item: Item) -> int:
        """Return an item's index, after adding it if it is new."""
        place = self._places.setdefault(item, len(self.items))
        if place == len(self.items):
            self.items.append(item)
        return place


@dataclass
class Tapes:
    """All tapes of a page.

    Attributes
    ----------
    columns
        Constants that differ between GPUs: the numbers of each, in the order of the page.
    """

    structures: Unique[Structure] = field(default_factory=Unique)
    tapes: Unique[Tape] = field(default_factory=Unique)
    columns: Unique[Tape] = field(default_factory=Unique)
    _columns: dict[tuple[Hashable, bytes], int] = field(default_factory=dict)

    def add(self, recorder: Recorder, outputs: Sequence[Any], gpus: tuple[int, ...] = ()) -> int:
        """Pack the part of a recording that outputs need, and return its tape's number.

        Parameters
        ----------
        recorder, outputs
            What was recorded, and what is wanted of it: symbols, numbers, arrays.
        gpus
            The page's GPUs whose numbers the recording's arrays hold.
        """
        key = (gpus, *map(key_of, outputs))
        if key not in recorder.packed:
            recorder.packed[key] = self._pack(outputs, gpus)
        return recorder.packed[key]

    def _pack(self, outputs: Sequence[Any], gpus: tuple[int, ...]) -> int:
        """Write a new tape."""
        read, needed = _needed(outputs)
        registers = {key: at for at, key in enumerate((*read, *needed))}
        constants: list[Any] = []

        def place(value: Any) -> int:
            if type(value) is Symbol:
                return registers[value.key]
            if isinstance(value, np.ndarray):
                return registers[value.tobytes()]
            constants.append(value)
            return -len(constants)

        code: list[int] = []
        for each in needed.values():
            code += (each.code, *map(place, each.operands))
        structure = len(read), tuple(code), tuple(map(place, outputs))
        variables = [
            each.operands[0] if type(each) is Symbol else ~self._column(each, gpus)
            for each in read.values()
        ]
        start = self.structures.place(structure), *variables
        return self.tapes.place((*start, *map(_constant, constants)))

    def _column(self, values: Any, gpus: tuple[int, ...]) -> int:
        """Return the number of a column; GPUs of which nothing is known have a zero."""
        key = gpus, values.tobytes()
        if key not in self._columns:
            column: list[float | str] = [0] * (gpus[-1] + 1)
            for at, value in zip(gpus, values.tolist(), strict=True):
                column[at] = _constant(value)
            self._columns[key] = self.columns.place(tuple(column))
        return self._columns[key]

    def follow(self, number: int, inputs: Mapping[int, Any]) -> list[Any]:
        """Follow a tape as a page does: its outputs, from numbers or arrays for its variables."""
        tape = self.tapes.items[number]
        variables, code, outputs = self.structures.items[int(tape[0])]
        registers = [inputs[int(place)] for place in tape[1 : 1 + variables]]

        def value(operand: int) -> Any:
            return tape[variables - operand] if operand < 0 else registers[operand]

        at = 0
        while at < len(code):
            function, operands = FUNCTIONS[code[at]]
            registers.append(function(*map(value, code[at + 1 : at + 1 + operands])))
            at += 1 + operands
        return [value(output) for output in outputs]


def _needed(outputs: Sequence[Any]) -> tuple[dict[Any, Any], dict[Any, Symbol]]:
    """Return by their keys the variables and columns that outputs are computed from, and how.

    The order depends on the computation alone, not on what was recorded before it: operands come
    before what is computed of them.
    """
    read: dict[Any, Any] = {}
    needed: dict[Any, Symbol] = {}
    begun: set[Any] = set()
    waiting = list(reversed(outputs))
    while waiting:
        item = waiting.pop()
        if type(item) is not Symbol:
            if isinstance(item, np.ndarray):
                read[item.tobytes()] = item
        elif item.code == VARIABLE:
            read[item.key] = item
        elif item.key not in begun:
            # It comes again when its operands are done.
            begun.add(item.key)
            waiting.append(item)
            waiting += reversed(item.operands)
        else:
            needed.setdefault(item.key, item)
    return read, needed


def _constant(value: float) -> float | str:
    """Return a plain number, to twelve digits: whole numbers as int, which is shorter.

    JSON has no infinity.

    >>> _constant(1.5), _constant(2.0), _constant(float("inf"))
    (1.5, 2, 'Infinity')
    """
    number = float(value)
    if number.is_integer():
        return int(number)
    return float(f"{number:.12g}") if number < inf else "Infinity"
