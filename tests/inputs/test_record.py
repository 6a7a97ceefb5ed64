"""Records: what they take without pydantic is what pydantic reads, and pydantic judges all else."""

import copy
import inspect
import pickle
import pydoc
from collections.abc import Iterator
from functools import cached_property
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from simulator.errors import InputError
from simulator.inputs.files import read_count, read_toml
from simulator.inputs.hardware import HardwareProfile, profile_files
from simulator.inputs.model import ModelShape
from simulator.inputs.presets import load_model, presets
from simulator.inputs.record import Frozen, Rules, _judge
from simulator.inputs.scenario import Scenario, scenario_files


class Wheel(Frozen):
    """A record within another."""

    spokes: Annotated[int, Rules(before=read_count, ge=1, le=64)]
    weight_kg: Annotated[float, Rules(gt=0)] = 1.0


class Bike(Frozen):
    """A record with a field of each kind."""

    name: Annotated[str, Rules(strip_whitespace=True, min_length=2)]
    kind: Literal["road", "cargo", 3] = "road"
    wheels: tuple[Wheel, ...] = ()
    spare: Wheel | None = None
    prices: dict[str, float] = {}  # noqa: RUF012, nobody changes it
    lights: bool = False
    size: int | str = 54
    _owner: str = "nobody"

    @cached_property
    def spokes(self) -> int:
        """Spokes of all wheels."""
        return sum(wheel.spokes for wheel in self.wheels)

    def _check(self) -> None:
        if self.kind == "cargo" and not self.wheels:
            raise ValueError("a cargo bike needs wheels")


def kinds_of(cls: type[Frozen]) -> Iterator[type[Frozen]]:
    """Yield the classes of records."""
    for kind in cls.__subclasses__():
        yield kind
        yield from kinds_of(kind)


RECORDS = {kind.__name__: kind for kind in kinds_of(Frozen) if "views" not in kind.__module__}
TEXTS = (
    "8K",
    "16",
    "3.5",
    " a ",
    "a\x1f",
    "\ud800",
    "",
    "fp8",
    "awq",
    "system=2K",
    "NVIDIA",
    "true",
)
NUMBERS = (0, -1, 2**53 + 1, 10**400, 3.0, 1e-20, -0.0, float("inf"), float("nan"))
JUNK = st.one_of(
    st.sampled_from([*TEXTS, *NUMBERS, b"x", NoneType]),
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=4),
)
WORDS = st.sampled_from(["abc", "two words", "a-1", "  ab\n", "ünï"])
# What ships, where little that chance makes is consistent.
WHOLE: dict[type[Frozen], list[Any]] = {
    HardwareProfile: [read_toml(path, InputError) for path in profile_files().values()],
    ModelShape: [load_model(name).as_dict() for name in presets()],
    Scenario: [read_toml(path, InputError) for path in scenario_files().values()],
}


def right(kind: Any) -> st.SearchStrategy[Any]:
    """Return values that are mostly right for an annotation."""
    origin, args = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return right(args[0])
    if origin is Literal:
        return st.sampled_from(args)
    if origin is tuple:
        return st.lists(right(args[0]), max_size=2) | st.lists(right(args[0])).map(tuple)
    if origin is dict:
        return st.dictionaries(right(args[0]), right(args[1]), max_size=2)
    if args:
        return st.one_of(*map(right, args))
    of_type: dict[Any, st.SearchStrategy[Any]] = {
        int: st.sampled_from([1, 1, 2, 4, 64]),
        float: st.sampled_from([1, 64, 1.5, 0.25, 1e9]),
        str: WORDS,
        bool: st.booleans(),
        NoneType: st.none(),
    }
    return of_type[kind] if kind in of_type else written(kind)


def written(cls: type[Frozen]) -> st.SearchStrategy[Any]:
    """Return what a person may write for a record: all right, or something wrong."""
    values = {name: right(kind) for name, kind in cls.kinds.items()}
    needed = {name: each for name, each in values.items() if cls.fields[name] is ...}
    others = {name: each for name, each in values.items() if name not in needed}
    changes = st.dictionaries(st.sampled_from([*cls.fields, "other"]), JUNK, max_size=1)
    shipped = WHOLE.get(cls)
    whole = st.sampled_from(shipped) if shipped else st.fixed_dictionaries(needed, optional=others)
    wrong = st.builds(lambda data, change: {**data, **change}, whole, changes)
    return st.one_of(whole, whole, wrong, st.fixed_dictionaries({}, optional=values), JUNK)


@pytest.mark.parametrize("name", RECORDS)
def test_what_is_taken_without_pydantic_is_what_it_reads(name: str) -> None:
    """Whatever is taken as it is, pydantic accepts too, with equal values of equal types."""
    cls, outcomes = RECORDS[name], set()

    @given(written(cls))
    def check(data: Any) -> None:
        try:
            plain = cls._made(data, cls._plain)
        except ValueError:
            outcomes.add("in doubt")
            return
        outcomes.add("taken")
        judged = _judge(cls).validate_python(data)
        assert repr(dict(judged)) == repr(dict(plain))
        assert judged == plain

    check()
    assert outcomes == {"taken", "in doubt"}


wheels = st.builds(Wheel, spokes=st.integers(1, 64), weight_kg=st.floats(1e-3, 1e3))
bikes = st.builds(
    Bike,
    name=st.text("abc", min_size=2),
    kind=st.sampled_from(["road", 3]),
    wheels=st.lists(wheels),
    spare=st.none() | wheels,
    prices=st.dictionaries(st.text(), st.floats(0, 1e3)),
    lights=st.booleans(),
    size=st.integers() | st.text(),
)


@given(bikes)
def test_what_is_written_out_is_read_back(bike: Bike) -> None:
    """As a dict of plain values, as a copy, and through pickle; keys of a dict are the fields."""
    data = bike.as_dict()
    assert Bike.read(data) == Bike.read(bike) == copy.deepcopy(bike) == bike
    assert pickle.loads(pickle.dumps(bike)) == bike  # noqa: S301, our own
    assert not any(isinstance(value, Frozen) for value in data.values())
    assert list(data) == list(dict(bike)) == list(Bike.fields)


@given(bikes, bikes)
def test_records_are_equal_with_their_values(first: Bike, second: Bike) -> None:
    """Another record with one value of the first differs from it, unless that was alike."""
    mixed = first.but(spare=second.spare)
    assert (mixed == first) == (second.spare == first.spare)
    assert mixed != tuple(mixed)
    assert mixed == mock.ANY
    assert first.but(_owner="me") != first
    for wheel in first.wheels:
        assert hash(wheel) == hash(Wheel(spokes=wheel.spokes, weight_kg=wheel.weight_kg))


def test_a_copy_keeps_what_nobody_writes_and_computes_anew() -> None:
    """A property is not copied; a field cannot be set, and one with an underscore not written."""
    bike = Bike(name="ab", wheels=[{"spokes": "32"}]).but(_owner="me")
    assert bike.spokes == 32
    more = bike.but(wheels=(Wheel(spokes=1), Wheel(spokes=2)))
    assert (more.spokes, more._owner, bike.spokes) == (3, "me", 32)
    with pytest.raises(AttributeError, match="frozen"):
        bike.name = "other"
    with pytest.raises(AttributeError, match="frozen"):
        del bike.lights
    with pytest.raises(ValidationError, match="_owner"):
        Bike(name="ab", _owner="me")
    with pytest.raises(ValidationError, match="self"):
        Bike(name="ab", self=1)
    with pytest.raises(TypeError, match="Bike has no colour"):
        bike.but(colour="red")


def test_help_shows_what_a_record_is_made_of() -> None:
    """Fields as keywords, with their types and defaults; what nobody writes is not among them."""
    shown = "(*, spokes: int, weight_kg: float = 1.0)"
    assert str(inspect.signature(Wheel)) == shown
    assert f"Wheel{shown}" in pydoc.render_doc(Wheel, renderer=pydoc.plaintext)
    assert list(inspect.signature(Bike).parameters) == list(Bike.fields)
    assert inspect.signature(Bike).parameters["lights"].default is False


def test_what_is_left_out_of_a_dict() -> None:
    """What has its default, or is None, also of records within."""
    bike = Bike(name="ab", wheels=[Wheel(spokes=3)])
    assert bike.as_dict(changed=True) == {"name": "ab", "wheels": ({"spokes": 3},)}
    assert set(bike.as_dict()) - set(bike.as_dict(known=True)) == {"spare"}


def test_pydantic_converts_and_names_every_mistake() -> None:
    """What is not plainly right is converted where it can be, else told with its place."""
    bike = Bike(name=" ab\t", wheels=({"spokes": 3.0, "weight_kg": "2"},), lights="yes")
    assert bike == Bike(name="ab", wheels=[Wheel(spokes=3, weight_kg=2)], lights=True)
    with pytest.raises(ValidationError) as caught:
        Bike(wheels=[{"spokes": "1K"}, 5], colour="red", kind="rood")
    assert caught.value.title == "Bike"
    found = {item["loc"]: (item["type"], item["input"]) for item in caught.value.errors()}
    assert found.pop(("name",))[0] == "missing"
    assert found == {
        ("kind",): ("literal_error", "rood"),
        ("wheels", 0, "spokes"): ("less_than_equal", "1K"),
        ("wheels", 1): ("model_type", 5),
        ("colour",): ("extra_forbidden", "red"),
    }
    with pytest.raises(ValidationError, match="a cargo bike needs wheels"):
        Bike(name="ab", kind="cargo")
