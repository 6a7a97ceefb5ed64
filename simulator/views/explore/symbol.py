"""Symbols: arrays that record the operations on them.

The functions of :mod:`simulator.counts` and :mod:`simulator.timing` take numbers or arrays. Called
with symbols, they leave a list of their additions, products, roundings and comparisons: the model's
own equations, which a page can replay without Python.

A symbol may stand for a number that is known, such as a model's hidden size. Code may then branch
on it: the recording notes what was decided as a guard, and holds for all numbers that pass its
guards. So one recording serves every model of the same architecture.
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
    "remainder",
    "negative",
    "rint",
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
# Python's operators of two numbers, by numpy's name. Those that compute have a turned form as well.
_COMPUTES = {"add": "add", "sub": "subtract", "mul": "multiply", "truediv": "divide"}
_COMPUTES |= {"floordiv": "floor_divide", "mod": "remainder", "pow": "power"}
_COMPARES = {"gt": "greater", "ge": "greater_equal", "lt": "less", "le": "less_equal"}
_COMPARES |= {"eq": "equal", "ne": "not_equal"}
_PLAIN = frozenset({int, float, bool})

Instruction = tuple[int, tuple[Any, ...]]


@dataclass
class Recorder:
    """All operations on a set of symbols, in order; an operation done twice is recorded once.

    Attributes
    ----------
    instructions
        Code and operands. The result of each is the next symbol after the variables.
    guards
        What code decided by known numbers: a symbol, and the value it had to have.
    packed
        Numbers of the tapes made of it so far, by their outputs.
    """

    instructions: list[Instruction] = field(default_factory=list)
    variables: list[str] = field(default_factory=list)
    guards: dict[int, tuple["Symbol", float]] = field(default_factory=dict)
    packed: dict[tuple[object, ...], int] = field(default_factory=dict)
    _known: dict[tuple[object, ...], "Symbol"] = field(default_factory=dict)
    _values: dict[int, Any] = field(default_factory=dict)

    def variable(self, name: str, value: float | None = None) -> "Symbol":
        """Return a new variable. All are made before anything is computed.

        ``value`` is the number that it stands for, if that is known.
        """
        if self.instructions:
            raise ValueError("variables come before the first instruction")
        self._values[len(self.variables)] = value
        self.variables.append(name)
        return Symbol(self, len(self.variables) - 1)

    def record(self, name: str, operands: Sequence[Any]) -> Any:
        """Record one operation, and return its result.

        Raises
        ------
        TypeError
            For an operation that a page cannot replay.
        """
        if name in _NEUTRAL:
            if (known := _unchanged(name, *operands)) is not None:
                return known
        elif name == "not_equal" and operands[0] is operands[1]:
            return False
        key = (name, *[v.key if type(v) is Symbol else _identity(v) for v in operands])
        known = self._known.get(key)
        if known is None:
            if name not in _CODE:
                raise TypeError(f"the explorer's page cannot follow numpy's {name}")
            known = Symbol(self, len(self.variables) + len(self.instructions))
            self._known[key] = known
            self.instructions.append((_CODE[name], tuple(operands)))
        return known

    def value(self, number: int) -> Any:
        """Return the value of a symbol, found when code asks for it; None if it is not known."""
        if number not in self._values:
            code, operands = self.instructions[number - len(self.variables)]
            values = [v.value if type(v) is Symbol else v for v in operands]
            unknown = any(value is None for value in values)
            self._values[number] = None if unknown else getattr(np, OPCODES[code])(*values)
        return self._values[number]


class Symbol(np.ndarray[Any, Any]):
    """A number, known or not, whose use is recorded.

    Python's operators record themselves; numpy hands its functions to :meth:`__array_ufunc__` or
    :meth:`__array_function__`. Asking for the value of a symbol is an error if it is unknown,
    because a formula for numbers and arrays must not branch on values; of a known one it is noted
    as a guard.
    """

    __slots__ = ("key", "number", "recorder")
    recorder: Recorder
    number: int
    key: object

    def __new__(cls, recorder: Recorder, number: int) -> Self:
        """Return symbol ``number`` of a recorder."""
        symbol = super().__new__(cls, ())
        symbol.recorder, symbol.number, symbol.key = recorder, number, object()
        return symbol

    @property
    def value(self) -> Any:
        """The number that it stands for, None if that is not known."""
        return self.recorder.value(self.number)

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Any:
        """Record an elementwise operation; in place it is none, as nothing is changed."""
        options.pop("out", None)
        if method != "__call__" or options:
            raise TypeError(f"the explorer's page cannot follow numpy's {ufunc.__name__}.{method}")
        return self.recorder.record(ufunc.__name__, inputs)

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        """Record ``where``, the only numpy function in the model."""
        del types, kwargs
        return self.recorder.record(func.__name__, args)

    def _decided(self) -> Any:
        """Return the value, and note that code depends on it."""
        value = self.value
        if value is None:
            raise TypeError("a symbol has no value")
        self.recorder.guards[self.number] = self, float(value)
        return value

    def __bool__(self) -> bool:
        """Return whether it is not zero."""
        if self.value is None or isinstance(self.value, np.bool_):
            return bool(self._decided())
        nonzero: Any = np.not_equal(self, 0)
        return bool(nonzero)

    def __int__(self) -> int:
        """Return a known whole number."""
        return int(self._decided())

    __index__ = __int__

    def __float__(self) -> float:
        """Return a known number."""
        return float(self._decided())

    def __hash__(self) -> int:  # type: ignore[override]
        """Return the number's hash: in a dictionary it is the number that it stands for."""
        if self.value is None:
            raise TypeError("a symbol has no value")
        return hash(float(self.value))

    def __round__(self, digits: int = 0) -> Any:
        """Return the nearest whole number."""
        if digits:
            raise TypeError("the explorer's page cannot follow a rounding to digits")
        return np.rint(self)

    def _none(self, *_: object) -> Any:
        raise TypeError("a symbol has no value")

    __len__ = __getitem__ = _none

    def __repr__(self) -> str:
        """Return a name for error messages."""
        return f"Symbol({self.number})"

    __str__ = __repr__

    def __format__(self, _: str) -> str:
        """Return the same in a message."""
        return repr(self)


def _operator(name: str) -> Any:
    """Return an operator that records itself, which is faster than through numpy."""
    return lambda self, other: self.recorder.record(name, (self, other))


def _turned(name: str) -> Any:
    """Return the same with the operands the other way round."""
    return lambda self, other: self.recorder.record(name, (other, self))


for _short, _name in (_COMPUTES | _COMPARES).items():
    setattr(Symbol, f"__{_short}__", _operator(_name))
for _short, _name in _COMPUTES.items():
    setattr(Symbol, f"__i{_short}__", _operator(_name))
    setattr(Symbol, f"__r{_short}__", _turned(_name))


def _identity(operand: Any) -> Any:
    """Return what tells an operand that is no symbol from others: of an array, all its numbers."""
    return operand.tobytes() if isinstance(operand, np.ndarray) else operand


def _unchanged(name: str, first: Any, second: Any) -> Any | None:
    """Simplify x + 0, x 1 and x 0; return None for everything else."""
    one, other = (second, first) if type(first) is Symbol else (first, second)
    if one.__class__ in _PLAIN:
        if one == _NEUTRAL[name]:
            return other
        if one == 0 and name == "multiply":
            return 0
    return None
