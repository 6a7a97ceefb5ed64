"""Tapes: recorded computations as short lists of numbers that a page can replay.

A tape is a structure and its constants. Thousands of operations share a few hundred structures:
layers differ in widths and GPUs in rates, but rarely in the computation.

    structure  [variables, [code, operand, ...  code, operand, ...], [output, ...]]
    tape       [structure, constant, constant, ...]

Registers hold the variables, then the result of each instruction in turn. A non-negative operand is
the number of a register; -1 is the first constant, -2 the second.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from simulator.views.explore.symbol import Recorder, Symbol

Item = TypeVar("Item", bound=Hashable)
Structure = tuple[int, tuple[int, ...], tuple[int, ...]]
Tape = tuple[int | float, ...]


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
        """Pack the part of a recording that the outputs need, and return its tape's number."""
        key = tuple([item.number if isinstance(item, Symbol) else (item,) for item in outputs])
        if key not in recorder.packed:
            recorder.packed[key] = self._pack(recorder, outputs)
        return recorder.packed[key]

    def _pack(self, recorder: Recorder, outputs: Sequence[Symbol | float]) -> int:
        """Write a new tape."""
        first = len(recorder.variables)
        registers = {number: number for number in range(first)}
        constants: list[float] = []
        code: list[int] = []

        def operand(value: Symbol | float) -> int:
            if isinstance(value, Symbol):
                return registers[value.number]
            constants.append(_constant(value))
            return -len(constants)

        for number in _needed(recorder, outputs):
            opcode, operands = recorder.instructions[number - first]
            code += (opcode, *map(operand, operands))
            registers[number] = len(registers)
        packed = tuple(operand(output) for output in outputs)
        structure = self.structures.place((first, tuple(code), packed))
        return self.tapes.place((structure, *constants))


def _constant(value: float) -> float:
    """Return a plain number: whole numbers as int, which is shorter."""
    number = float(value)
    return int(number) if number.is_integer() else number


def _needed(recorder: Recorder, outputs: Sequence[Symbol | float]) -> list[int]:
    """Return the numbers of the instructions that outputs depend on, in recorded order."""
    first = len(recorder.variables)
    needed: set[int] = set()
    waiting = [output.number for output in outputs if isinstance(output, Symbol)]
    while waiting:
        number = waiting.pop()
        if number < first or number in needed:
            continue
        needed.add(number)
        _, operands = recorder.instructions[number - first]
        waiting += [item.number for item in operands if isinstance(item, Symbol)]
    return sorted(needed)
