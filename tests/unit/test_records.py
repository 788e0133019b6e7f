"""Our value classes keep what `dataclasses` promises of those we use."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import pytest

from coding_agents_guest.records import asdict, dataclass, replace


@dataclass(frozen=True)
class Point:
    """The smallest value with a default."""

    x: int
    y: int = 2

    @property
    def sum(self) -> int:
        return self.x + self.y


@dataclass(frozen=True)
class Other:
    """The same fields, another kind."""

    x: int
    y: int = 2


@dataclass(frozen=True)
class Named(Point):
    """A field more than its base, and one with a value inside."""

    name: str = ""
    at: Point = Point(0)
    options: Mapping[str, str] = {}


@dataclass(frozen=False)
class Counter:
    """One that changes."""

    count: int = 0


def test_fields_come_by_place_by_name_and_by_default() -> None:
    assert (Point(1).x, Point(1).y, Point(1, 3).y, Point(y=5, x=4).sum) == (1, 2, 3, 9)
    assert Named(1, name="n") == Named(x=1, y=2, name="n", at=Point(0), options={})
    assert repr(Named(1)) == "Named(x=1, y=2, name='', at=Point(x=0, y=2), options={})"


@pytest.mark.parametrize(
    "call",
    [
        lambda: Point(),  # type: ignore[call-arg]
        lambda: Point(y=1),  # type: ignore[call-arg]
        lambda: Point(1, 2, 3),  # type: ignore[call-arg]
        lambda: Point(1, x=1),  # type: ignore[misc]
        lambda: Point(1, z=1),  # type: ignore[call-arg]
        lambda: replace(Point(1), z=1),
    ],
)
def test_other_fields_are_refused(call: object) -> None:
    with pytest.raises(TypeError):
        call()  # type: ignore[operator]


def test_values_are_compared_by_kind_and_fields() -> None:
    assert Point(1) == Point(1, 2) != Point(2)
    assert Point(1) != Other(1)
    assert len({Point(1), Point(1, 2), Point(2), Other(1)}) == 3
    assert replace(Point(1), y=7) == Point(1, 7)
    match Point(1, 7):
        case Point(1, y=found):
            assert found == 7
        case _:
            raise AssertionError


def test_frozen_means_frozen() -> None:
    for change in (lambda: setattr(Point(1), "x", 2), lambda: delattr(Point(1), "x")):
        with pytest.raises(AttributeError, match="cannot change x of a Point"):
            change()
    counter = Counter()
    counter.count += 1
    assert counter == Counter(1)
    with pytest.raises(TypeError):
        hash(counter)


def test_asdict_goes_into_values() -> None:
    @dataclasses.dataclass(frozen=True)
    class Model:
        x: int
        y: int

    assert asdict(Named(1, options={"a": "b"})) == {
        "x": 1, "y": 2, "name": "", "at": dataclasses.asdict(Model(0, 2)), "options": {"a": "b"},
    }  # fmt: skip
