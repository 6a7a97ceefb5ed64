"""Tapes: recorded computations as short lists of numbers that a page can replay.

A tape is a structure, the variables that it reads, and its constants. Thousands of operations share
a few hundred structures: layers differ in widths and GPUs in rates, but rarely in the computation.

    structure  [variables, [code, operand, ...  code, operand, ...], [output, ...]]
    tape       [structure, variable, ... constant, ...]

Registers hold the variables in the tape's order, then the result of each instruction in turn. A
non-negative operand is the number of a register; -1 is the first constant, -2 the second.
"""

from bisect import bisect
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Any, Generic, TypeVar

import numpy as np

from simulator.views.explore.symbol import OPCODES, Recorder, Symbol

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
    """All tapes of a page."""

    structures: Unique[Structure] = field(default_factory=Unique)
    tapes: Unique[Tape] = field(default_factory=Unique)

    def add(self, recorder: Recorder, outputs: Sequence[Symbol | float]) -> int:
        """Pack the part of a recording that outputs need, and return its tape's number."""
        key = tuple([item.number if isinstance(item, Symbol) else (item,) for item in outputs])
        if key not in recorder.packed:
            recorder.packed[key] = self._pack(recorder, outputs)
        return recorder.packed[key]

    def add_each(self, recorder: Recorder, outputs: Sequence[Any], count: int) -> list[int]:
        """Pack a recording whose constants are arrays, and return the tapes' numbers.

        Parameters
        ----------
        recorder, outputs
            What was recorded, and what is wanted of it.
        count
            Items of the arrays, each of which gets a tape.
        """
        structure, variables, constants = _written(recorder, outputs)
        first = self.structures.place(structure), *variables
        columns = [np.broadcast_to(value, count).tolist() for value in constants]
        rows = zip(*columns, strict=True) if columns else [()] * count
        return [self.tapes.place((*first, *map(_constant, row))) for row in rows]

    def _pack(self, recorder: Recorder, outputs: Sequence[Symbol | float]) -> int:
        """Write a new tape."""
        structure, variables, constants = _written(recorder, outputs)
        place = self.structures.place(structure)
        return self.tapes.place((place, *variables, *map(_constant, constants)))

    def follow(self, number: int, inputs: Sequence[Any]) -> list[Any]:
        """Follow a tape as a page does: its outputs, from numbers or arrays for its variables."""
        tape = self.tapes.items[number]
        variables, code, outputs = self.structures.items[int(tape[0])]
        registers = [inputs[int(place)] for place in tape[1 : 1 + variables]]

        def value(operand: int) -> Any:
            return tape[variables - operand] if operand < 0 else registers[operand]

        at = 0
        while at < len(code):
            operation = _FUNCTIONS[code[at]]
            operands = code[at + 1 : at + 1 + operation.nin]
            registers.append(operation(*map(value, operands)))
            at += 1 + operation.nin
        return [value(output) for output in outputs]


class _Where:
    """numpy's ``where``, which says no number of operands."""

    nin = 3
    __call__ = staticmethod(np.where)


_FUNCTIONS: list[Any] = [_Where() if name == "where" else getattr(np, name) for name in OPCODES]


def _written(
    recorder: Recorder, outputs: Sequence[Symbol | float]
) -> tuple[Structure, list[int], list[float]]:
    """Write the part of a recording that outputs need: structure, variables and constants."""
    first = len(recorder.variables)
    needed, variables = _needed(recorder, outputs)
    registers = {number: at for at, number in enumerate((*variables, *needed))}
    constants: list[Any] = []

    def place(value: Any) -> int:
        if type(value) is Symbol:
            return registers[value.number]
        constants.append(value)
        return -len(constants)

    code: list[int] = []
    for number in needed:
        opcode, operands = recorder.instructions[number - first]
        code += (opcode, *map(place, operands))
    places = tuple(map(place, outputs))
    return (len(variables), tuple(code), places), variables, constants


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


def _needed(recorder: Recorder, outputs: Sequence[Symbol | float]) -> tuple[list[int], list[int]]:
    """Return the instructions that outputs depend on, and the variables, both in recorded order."""
    first = len(recorder.variables)
    needed: set[int] = set()
    waiting = [output.number for output in outputs if type(output) is Symbol]
    while waiting:
        number = waiting.pop()
        if number not in needed:
            needed.add(number)
            if number >= first:
                _, operands = recorder.instructions[number - first]
                waiting += [item.number for item in operands if type(item) is Symbol]
    found = sorted(needed)
    variables = bisect(found, first - 1)
    return found[variables:], found[:variables]
