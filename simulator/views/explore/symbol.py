"""Symbols: arrays that record the operations on them.

The functions of :mod:`simulator.counts` and :mod:`simulator.timing` take numbers or arrays. Called
with symbols, they leave a list of their additions, products, roundings and comparisons: the model's
own equations, which a page can replay without Python.

A symbol may stand for a number that is known, such as a model's hidden size. Code may then branch
on it: the recording notes what was decided as a guard, and holds for all numbers that pass its
guards. So one recording serves every model of the same architecture.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np

# Operations that can be recorded, by numpy's name, and their operands; codes follow this order.
OPERATIONS: dict[str, int] = {
    **dict.fromkeys(("negative", "rint", "sqrt", "square"), 1),
    **dict.fromkeys(("add", "subtract", "multiply", "divide", "floor_divide", "remainder"), 2),
    **dict.fromkeys(("power", "maximum", "minimum", "greater", "greater_equal"), 2),
    **dict.fromkeys(("less", "less_equal", "equal", "not_equal"), 2),
    "where": 3,
}
_CODE = {name: code for code, name in enumerate(OPERATIONS)}
# Numpy's functions, and their operands, by code.
FUNCTIONS: list[tuple[Any, int]] = [(getattr(np, name), of) for name, of in OPERATIONS.items()]
# Neutral elements.
_NEUTRAL = {"add": 0, "multiply": 1}
# Python's operators of two numbers, by numpy's name. Those that compute have a turned form as well.
_COMPUTES = {"add": "add", "sub": "subtract", "mul": "multiply", "truediv": "divide"}
_COMPUTES |= {"floordiv": "floor_divide", "mod": "remainder", "pow": "power"}
_COMPARES = {"gt": "greater", "ge": "greater_equal", "lt": "less", "le": "less_equal"}
_COMPARES |= {"eq": "equal", "ne": "not_equal"}
_PLAIN = frozenset({int, float, bool})
# The code of a variable, whose only operand is its number.
VARIABLE = -1


@dataclass
class Recorder:
    """All operations on a set of symbols; an operation done twice is recorded once.

    Attributes
    ----------
    guards
        What code decided by known numbers: a symbol, and the value it had to have.
    packed
        Numbers of the tapes made of it so far, by their outputs.
    """

    guards: dict[object, tuple["Symbol", float]] = field(default_factory=dict)
    packed: dict[tuple[object, ...], int] = field(default_factory=dict)
    _symbols: dict[tuple[object, ...], "Symbol"] = field(default_factory=dict)
    _values: dict[object, Any] = field(default_factory=dict)

    def variable(self, number: int) -> "Symbol":
        """Return a variable of the page, by its place among all."""
        return self.symbol((VARIABLE, number), (number,))

    def suppose(self, values: Mapping[int, float]) -> None:
        """Take it that some variables are known numbers, all others unknown, and nothing decided.

        Parameters
        ----------
        values
            The number that each of these variables stands for.
        """
        self.guards = {}
        self._values = {self.variable(number).key: value for number, value in values.items()}

    def record(self, name: str, operands: tuple[Any, ...]) -> Any:
        """Record one of numpy's functions, and return its result.

        Raises
        ------
        TypeError
            For one that a page cannot replay.
        """
        if name not in _CODE:
            raise TypeError(f"the explorer's page cannot follow numpy's {name}")
        return self.symbol((_CODE[name], *map(key_of, operands)), operands)

    def symbol(self, key: tuple[Any, ...], operands: tuple[Any, ...]) -> "Symbol":
        """Return the one symbol of an operation, given by its code and the keys of its operands."""
        found = self._symbols.get(key)
        if found is None:
            found = self._symbols[key] = Symbol(self, key[0], operands)
        return found

    def value(self, symbol: "Symbol") -> Any:
        """Return the value of a symbol, found when code asks for it; None if it is not known."""
        key, code = symbol.key, symbol.code
        if key not in self._values:
            values = [v.value if type(v) is Symbol else v for v in symbol.operands]
            unknown = code == VARIABLE or any(value is None for value in values)
            self._values[key] = None if unknown else FUNCTIONS[code][0](*values)
        return self._values[key]


class Symbol(np.ndarray[Any, Any]):
    """A number, known or not, whose use is recorded.

    Python's operators record themselves; numpy hands its functions to :meth:`__array_ufunc__` or
    :meth:`__array_function__`. Asking for the value of a symbol is an error if it is unknown,
    because a formula for numbers and arrays must not branch on values; of a known one it is noted
    as a guard.
    """

    __slots__ = ("code", "key", "operands", "recorder")
    recorder: Recorder
    code: int
    operands: tuple[Any, ...]
    key: object

    def __new__(cls, recorder: Recorder, code: int, operands: tuple[Any, ...]) -> Self:
        """Return the result of an operation."""
        symbol = super().__new__(cls, ())
        symbol.recorder, symbol.code, symbol.operands = recorder, code, operands
        symbol.key = object()
        return symbol

    @property
    def value(self) -> Any:
        """The number that it stands for, None if that is not known."""
        return self.recorder.value(self)

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
        self.recorder.guards[self.key] = self, float(value)
        return value

    def __bool__(self) -> bool:
        """Return whether it is not zero."""
        if self.value is None or isinstance(self.value, np.bool_):
            return bool(self._decided())
        nonzero: Any = self != 0
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
        return f"Symbol({self.code}, {self.operands})"

    __str__ = __repr__

    def __format__(self, _: str) -> str:
        """Return the same in a message."""
        return repr(self)


def _operator(name: str, *, turned: bool = False) -> Any:
    """Return an operator that records itself, which is much faster than through numpy.

    ``turned`` is for operands the other way round. x + 0, x 1 and x 0 are simplified.
    """
    code, neutral, product = _CODE[name], _NEUTRAL.get(name), name == "multiply"

    def operate(self: Symbol, other: Any) -> Any:
        kind = type(other)
        if kind in _PLAIN:
            if other == neutral:
                return self
            if product and not other:
                return 0
            key = other
        else:
            key = other.key if kind is Symbol else key_of(other)
        operands = (other, self) if turned else (self, other)
        keys = (code, key, self.key) if turned else (code, self.key, key)
        return self.recorder.symbol(keys, operands)

    return operate


for _short, _name in (_COMPUTES | _COMPARES).items():
    setattr(Symbol, f"__{_short}__", _operator(_name))
for _short, _name in _COMPUTES.items():
    setattr(Symbol, f"__i{_short}__", _operator(_name))
    setattr(Symbol, f"__r{_short}__", _operator(_name, turned=True))


def key_of(operand: Any) -> Any:
    """Return what tells an operand from others: of an array, all its numbers."""
    if type(operand) is Symbol:
        return operand.key
    return operand.tobytes() if isinstance(operand, np.ndarray) else operand
