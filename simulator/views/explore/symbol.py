"""Symbols: arrays that record the operations on them.

The functions of :mod:`simulator.counts` and :mod:`simulator.timing` take numbers or arrays. Called
with symbols, they leave a list of their additions, products, roundings and comparisons: the model's
own equations, which a page can replay without Python.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np

# Operations that can be recorded, by numpy's name, in the order of the page's data.
OPCODES = (
    "add",
    "subtract",
    "multiply",
    "divide",
    "floor_divide",
    "negative",
    "maximum",
    "minimum",
    "power",
    "sqrt",
    "square",
    "greater",
    "greater_equal",
    "less",
    "less_equal",
    "equal",
    "not_equal",
    "where",
)
_CODE = {name: code for code, name in enumerate(OPCODES)}
# Neutral elements.
_NEUTRAL = {"add": 0, "multiply": 1}

Instruction = tuple[int, tuple[Any, ...]]


@dataclass
class Recorder:
    """All operations on a set of symbols, in order; an operation done twice is recorded once.

    Attributes
    ----------
    instructions
        Code and operands. The result of each is the next symbol after the variables.
    packed
        Numbers of the tapes made of it so far, by their outputs.
    """

    instructions: list[Instruction] = field(default_factory=list)
    variables: list[str] = field(default_factory=list)
    packed: dict[tuple[object, ...], int] = field(default_factory=dict)
    _known: dict[tuple[object, ...], "Symbol"] = field(default_factory=dict)

    def variable(self, name: str) -> "Symbol":
        """Return a new variable. All are made before anything is computed."""
        if self.instructions:
            raise ValueError("variables come before the first instruction")
        self.variables.append(name)
        return Symbol(self, len(self.variables) - 1)

    def record(self, name: str, operands: Sequence[Any]) -> Any:
        """Record one operation, and return its result.

        Raises
        ------
        TypeError
            For an operation that a page cannot replay.
        """
        if name not in _CODE:
            raise TypeError(f"the explorer's page cannot follow numpy's {name}")
        operands = tuple(operands)
        if name in _NEUTRAL and (known := _unchanged(name, *operands)) is not None:
            return known
        key = (name, *[(v.number,) if type(v) is Symbol else v for v in operands])
        known = self._known.get(key)
        if known is None:
            known = Symbol(self, len(self.variables) + len(self.instructions))
            self._known[key] = known
            self.instructions.append((_CODE[name], operands))
        return known


class Symbol(np.ndarray[Any, Any]):
    """An unknown number.

    numpy hands every operation on it to :meth:`__array_ufunc__` or :meth:`__array_function__`.
    Asking for its value is an error, because a formula for numbers and arrays must not branch on
    values.
    """

    recorder: Recorder
    number: int

    def __new__(cls, recorder: Recorder, number: int) -> Self:
        """Return symbol ``number`` of a recorder."""
        symbol = super().__new__(cls, ())
        symbol.recorder, symbol.number = recorder, number
        return symbol

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Any:
        """Record an elementwise operation."""
        if method != "__call__" or options:
            raise TypeError(f"the explorer's page cannot follow numpy's {ufunc.__name__}.{method}")
        return self.recorder.record(ufunc.__name__, inputs)

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        """Record ``where``, the only numpy function in the model."""
        del types, kwargs
        return self.recorder.record(func.__name__, args)

    def _unknown(self, *_: object) -> Any:
        raise TypeError("a symbol has no value")

    __bool__ = __float__ = __int__ = __index__ = __len__ = __getitem__ = _unknown

    def __repr__(self) -> str:
        """Return a name for error messages."""
        return f"Symbol({self.number})"

    __str__ = __repr__


def _unchanged(name: str, first: Any, second: Any) -> Any | None:
    """Simplify x + 0, x 1 and x 0; return None for everything else."""
    if type(first) is type(second):  # both unknown, as most are
        return None
    for one, other in ((first, second), (second, first)):
        if type(one) is not Symbol:
            if one == _NEUTRAL[name]:
                return other
            if one == 0 and name == "multiply":
                return 0
    return None
