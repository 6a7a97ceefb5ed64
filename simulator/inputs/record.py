"""Records of what people write: their fields are checked once, and then never change.

A value that plainly is what its annotation says is taken as it is. Whatever else is written goes,
with all that stands beside it, to a pydantic model made of the same annotations, which converts it
or names every mistake. So pydantic, whose import takes as long as an answer, judges all that is
in doubt, and is loaded for nothing else.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import cache, partial
from inspect import Parameter, Signature, get_annotations
from math import isfinite
from operator import ge, gt, le
from types import NoneType, UnionType
from typing import (
    Annotated,
    Any,
    ClassVar,
    Literal,
    Self,
    Union,
    cast,
    dataclass_transform,
    get_args,
    get_origin,
    get_type_hints,
)

# Takes a value if it plainly is right, or raises a ValueError.
Reader = Callable[[Any], Any]
# Whole numbers up to here are exact as floats.
_EXACT = 2**53
# What pydantic's constraints ask of a value that has its type; others ask nothing more.
_HOLDS: Mapping[str, Callable[[Any, Any], Any]] = {
    "gt": gt,
    "ge": ge,
    "le": le,
    "min_length": lambda text, least: len(text) >= least,
    "pattern": lambda text, pattern: re.fullmatch(pattern, text),
    "strip_whitespace": lambda text, _: text == text.strip(),
}


class Rules:
    """What a value must be besides its type, for ``Annotated``.

    Parameters
    ----------
    before, after
        Functions of what is written and of the value: they return what stands for it, or raise a
        ValueError that says what is wrong.
    limits
        Constraints, by pydantic's names.
    """

    def __init__(
        self, *, before: Reader | None = None, after: Reader | None = None, **limits: Any
    ) -> None:
        self.before, self.after, self.limits = before, after, limits

    def __get_pydantic_core_schema__(self, kind: Any, handler: Any) -> Any:
        """Tell pydantic the same in its own words."""
        from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints

        told: list[Any] = [(StringConstraints if kind is str else Field)(**self.limits)]
        if self.before:
            told.insert(0, BeforeValidator(self.before))
        if self.after:
            told.append(AfterValidator(self.after))
        return handler.generate_schema(Annotated[(kind, *told)])


class _Fields:
    """The signature of a record's class, made when help or an editor asks for it."""

    def __get__(self, _: object, cls: "type[Frozen]") -> Signature:
        """Return the fields as keywords."""
        hints = get_type_hints(cls)
        return Signature(
            [
                Parameter(
                    name,
                    Parameter.KEYWORD_ONLY,
                    default=Parameter.empty if usual is ... else usual,
                    annotation=hints[name],
                )
                for name, usual in cls.fields.items()
            ]
        )


@dataclass_transform(kw_only_default=True, frozen_default=True)
class Frozen:
    """Base class of records. Unknown keys are mistakes.

    Attributes
    ----------
    fields, kinds
        The default of each field by name, ``...`` where a value must be given, and its annotation.
        A name that begins with an underscore is in neither: it has a value that nobody writes.

    Raises
    ------
    pydantic.ValidationError
        If a field is unknown, missing or wrong.
    """

    fields: ClassVar[dict[str, Any]]
    kinds: ClassVar[dict[str, Any]]
    _kept: ClassVar[dict[str, Any]]
    _needed: ClassVar[set[str]]
    _readers: ClassVar[dict[str, Reader]]
    __signature__: ClassVar = _Fields()

    def __init_subclass__(cls) -> None:
        """Find the fields of a class, those of its bases first."""
        bases = [base for base in reversed(cls.__mro__) if base not in (object, Frozen)]
        kinds = {name: kind for base in bases for name, kind in get_annotations(base).items()}
        cls._kept = {name: getattr(cls, name, ...) for name in kinds}
        cls.kinds = {name: kind for name, kind in kinds.items() if name[0] != "_"}
        cls.fields = {name: cls._kept[name] for name in cls.kinds}
        cls._needed = {name for name, usual in cls.fields.items() if usual is ...}
        cls._readers = {name: _reader(kind) for name, kind in cls.kinds.items()}

    def __init__(self, /, **data: Any) -> None:
        vars(self).update(vars(self.read(data)))

    @classmethod
    def read(cls, data: Any) -> Self:
        """Read a record from a mapping of its fields, or return one that is read already.

        Raises
        ------
        pydantic.ValidationError
            If a field is unknown, missing or wrong.
        """
        with suppress(ValueError):
            return cls._made(data, cls._plain)
        return cast("Self", _judge(cast("Any", cls)).validate_python(data))

    @classmethod
    def _plain(cls, data: Any) -> dict[str, Any]:
        """Take the values of fields, if none that is needed is missing and none is unknown."""
        if type(data) is not dict or not cls._needed <= data.keys() <= cls.fields.keys():
            raise ValueError
        return {name: cls._readers[name](value) for name, value in data.items()}

    @classmethod
    def _made(cls, data: Any, read: Callable[[Any], dict[str, Any]]) -> Self:
        """Make a record of what a function reads of the data."""
        if isinstance(data, cls):
            return data
        made = cls.unchecked(**read(cls._prepared(data)))
        cls._check(made)
        return made

    @classmethod
    def _prepared(cls, data: Any) -> Any:
        """Return the data of the fields, where they may be written in other ways."""
        return data

    def _check(self) -> None:
        """Raise a ValueError if fields do not suit one another."""

    @classmethod
    def __get_pydantic_core_schema__(cls, _: Any, handler: Any) -> Any:
        """Tell pydantic the fields as a model of its own, of whose content a record is made."""
        from pydantic import ConfigDict, create_model
        from pydantic_core.core_schema import no_info_wrap_validator_function

        config = ConfigDict(extra="forbid", allow_inf_nan=False)
        fields: Any = {name: (kind, cls.fields[name]) for name, kind in cls.kinds.items()}
        model = create_model(cls.__name__, __config__=config, **fields)

        return no_info_wrap_validator_function(
            lambda data, read: cls._made(data, lambda written: _given(read(written))),
            handler.generate_schema(model),
        )

    @classmethod
    def unchecked(cls, **values: Any) -> Self:
        """Make a record of values without any check; other fields have their default."""
        if not values.keys() <= cls._kept.keys():
            raise TypeError(f"{cls.__name__} has no {', '.join(values.keys() - cls._kept.keys())}")
        made = object.__new__(cls)
        vars(made).update(cls._kept | values)
        return made

    def but(self, **changes: Any) -> Self:
        """Return a copy with some fields changed, without any check."""
        return self.unchecked(**{name: vars(self)[name] for name in self._kept} | changes)

    __replace__ = but  # for copy.replace, from Python 3.13 on

    def as_dict(self, *, changed: bool = False, known: bool = False) -> dict[str, Any]:
        """Return the fields by name, with records in them as mappings too.

        Parameters
        ----------
        changed, known
            Whether to leave out what has its default, and what is None.
        """
        return {
            name: _as_data(value, changed=changed, known=known)
            for name, value in self
            if not (changed and value == self.fields[name]) and not (known and value is None)
        }

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        """Yield the name and value of each field, for ``dict``."""
        return ((name, vars(self)[name]) for name in self.fields)

    def __setattr__(self, name: str, value: Any = None) -> None:
        """Refuse every change."""
        raise AttributeError(f"{type(self).__name__} is frozen; 'but' makes another")

    __delattr__ = __setattr__

    def __eq__(self, other: object) -> bool:
        """Return whether another record is of the same class and values."""
        return self._values == other._values if isinstance(other, Frozen) else NotImplemented

    def __hash__(self) -> int:
        """Return a hash of the class and the values."""
        return hash(self._values)

    def __repr__(self) -> str:
        """Write the record as it is made."""
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self)})"

    @property
    def _values(self) -> tuple[Any, ...]:
        """The class and the values of all fields; what cached properties hold is none of them."""
        values = vars(self)
        return (type(self), *[values[name] for name in self._kept])


def _as_data(value: Any, **left_out: bool) -> Any:
    """Return a value with mappings for the records in it."""
    if isinstance(value, Frozen):
        return value.as_dict(**left_out)
    if isinstance(value, tuple):
        return tuple(_as_data(item, **left_out) for item in value)
    if isinstance(value, Mapping):
        return {key: _as_data(item, **left_out) for key, item in value.items()}
    return value


def _given(model: Any) -> dict[str, Any]:
    """Return the fields of a pydantic model that were given."""
    return {name: getattr(model, name) for name in model.model_fields_set}


@cache
def _judge(cls: type[Frozen]) -> Any:
    """Return what reads a class with pydantic."""
    from pydantic import ConfigDict, TypeAdapter

    return TypeAdapter(cls, config=ConfigDict(title=cls.__name__))


def _record(cls: type[Frozen], data: Any) -> Frozen:
    """Take a record, or its fields."""
    return cls._made(data, cls._plain)


def _reader(kind: Any) -> Reader:
    """Return what takes a value of an annotation."""
    origin, args = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return partial(_ruled, args[1], _reader(args[0]))
    if origin is Literal:
        return partial(_chosen, {(type(option), option) for option in args})
    if origin in (Union, UnionType):
        readers = {get_origin(each) or each: _reader(each) for each in args if each is not NoneType}
        return partial(_either, readers, NoneType in args)
    if origin is tuple:
        return partial(_items, _reader(args[0]))
    if origin is dict:
        return partial(_table, *map(_reader, args))
    return partial(_record if issubclass(kind, Frozen) else _typed, kind)


def _ruled(rules: Rules, read: Reader, value: Any) -> Any:
    """Take what keeps rules."""
    taken = read(rules.before(value) if rules.before else value)
    if "strip_whitespace" in rules.limits:
        taken = taken.strip(" \n")
    for name, limit in rules.limits.items():
        if name in _HOLDS and not _HOLDS[name](taken, limit):
            raise ValueError
    return rules.after(taken) if rules.after else taken


def _chosen(options: set[Any], value: Any) -> Any:
    """Take one of a few words or numbers."""
    if type(value) not in (str, int) or (type(value), value) not in options:
        raise ValueError
    return value


def _either(readers: Mapping[Any, Reader], optional: bool, value: Any) -> Any:
    """Take what one of several kinds takes: the only one, or the one of just this type."""
    if value is None and optional:
        return None
    read, *others = readers.values()
    if others and type(value) not in readers:
        raise ValueError
    return (readers[type(value)] if others else read)(value)


def _items(read: Reader, value: Any) -> tuple[Any, ...]:
    """Take each item of a list."""
    if type(value) not in (list, tuple):
        raise ValueError
    return tuple([read(item) for item in value])


def _table(key: Reader, read: Reader, value: Any) -> dict[Any, Any]:
    """Take each key and value of a table."""
    if type(value) is not dict:
        raise ValueError
    return {key(name): read(item) for name, item in value.items()}


def _typed(kind: Any, value: Any) -> Any:
    """Take a value of a type; a whole number is a number too."""
    if kind is float and type(value) is int and abs(value) <= _EXACT:
        return float(value)
    if type(value) is not kind or (kind is float and not isfinite(value)):
        raise ValueError
    if kind is str:
        value.encode()  # raises a ValueError for what is no text
    return value
