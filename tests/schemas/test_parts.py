"""Models of the user's own in events: frozen, and written and read again without loss."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given, settings
from pydantic import BaseModel, Field
from pydantic.dataclasses import dataclass

from lineside.schemas import (
    ErrorInfo,
    Event,
    EventRefused,
    JsonObject,
    LinesideError,
    Part,
    Scalars,
    TrainStart,
    UnknownEventName,
    decode,
    encode,
    find_event,
)

from .strategies import event_of, same


class Waggon(Part):
    load: float
    labels: Scalars = Field(default={})
    next: Waggon | None = None


class Tender(Part):
    kind: Literal["tender"] = "tender"
    coal: float = Field(alias="kg")


class Engine(Part):
    kind: Literal["engine"] = "engine"
    power: float


class TrainSeen(Event):
    first: Waggon
    others: tuple[Waggon, ...] = ()
    head: Annotated[Engine | Tender, Field(discriminator="kind")] | None = None
    error: ErrorInfo | None = None
    cause: TrainStart | None = None


@given(event=event_of(TrainSeen))
@settings(deadline=None, max_examples=50)
def test_a_part_comes_back_as_it_was_written(event: Event) -> None:
    assert same(decode(encode(event)), event)
    assert isinstance(hash(event), int)


def test_nan_in_a_part_is_read_as_it_was_written() -> None:
    event = TrainSeen(first=Waggon(load=math.nan), head=Tender(kg=math.inf))
    assert b'"first":{"load":"NaN"' in encode(event)
    assert b'{"kind":"tender","kg":"Infinity"}' in encode(event)
    again = decode(encode(event))
    assert isinstance(again, TrainSeen)
    assert math.isnan(again.first.load)
    assert isinstance(again.head, Tender)
    assert again.head.coal == math.inf


def test_a_part_cannot_be_changed() -> None:
    event = TrainSeen(first=Waggon(load=1.0))
    with pytest.raises(ValueError, match="frozen"):
        event.first.load = 2.0
    with pytest.raises(TypeError, match="immutable"):
        event.first.labels["a"] = 1.0


def test_fields_added_to_a_part_by_a_later_version_are_passed_over() -> None:
    line = encode(TrainSeen(first=Waggon(load=1.0)))
    assert decode(line.replace(b'"load"', b'"weather":"fine","load"')) == decode(line)


def test_a_model_that_is_no_part_is_refused_with_what_to_do() -> None:
    class Box(BaseModel):
        left: float

    @dataclass
    class Crate:
        left: float

    with pytest.raises(EventRefused, match=r"'crate' holds a .*Crate"):
        type("CrateFound", (Event,), {"__annotations__": {"crate": Crate}, "__module__": __name__})
    for annotation in (Box, Box | None, list[Box], dict[str, tuple[Box, ...]], Annotated[Box, "a box"]):
        body: dict[str, Any] = {"__annotations__": {"box": annotation}, "__module__": __name__}
        with pytest.raises(EventRefused, match=r"BoxFound.*'box' holds a .*Box.*derive .*Box from .*Part") as caught:
            type("BoxFound", (Event,), body)
        with pytest.raises(EventRefused):
            type("BoxPart", (Part,), body)
    assert isinstance(caught.value, LinesideError)
    assert isinstance(caught.value, TypeError)
    with pytest.raises(UnknownEventName):
        find_event("BoxFound")


class Seen(Event):
    late: tuple[Late, ...]


class Late(BaseModel):
    by: float


def test_a_model_that_is_defined_later_is_refused_at_every_use() -> None:
    for _ in range(2):
        with pytest.raises(EventRefused, match="'late' holds a Late"):
            Seen(late=())


def test_a_part_that_takes_further_fields_is_refused() -> None:
    class Bag(Part, extra="allow"):
        pass

    with pytest.raises(EventRefused, match=r"'bag' holds a .*Bag, whose further fields.*JsonObject"):

        class BagFound(Event):  # pyright: ignore[reportUnusedClass]
            bag: Bag


def test_a_default_is_as_frozen_as_a_value() -> None:
    class Defaults(Event):
        scalars: Scalars = Field(default={"a": 1.0})
        document: JsonObject = Field(default={"a": {"b": [1]}})
        made: Scalars = Field(default_factory=lambda: {"c": 2.0})
        pair: tuple[Scalars, int] = ({"d": 3.0}, 1)

    class Inherits(Defaults):
        pass

    for event in (Defaults(), Inherits(), decode(b'{"type":"Defaults"}')):
        assert isinstance(event, Defaults)
        for frozen in (event.scalars, event.document, event.document["a"], event.made, event.pair[0]):
            with pytest.raises(TypeError, match="immutable"):
                frozen["x"] = 1.0
        assert isinstance(hash(event), int)
        assert same(decode(encode(event)), event)
