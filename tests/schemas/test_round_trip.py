"""An event written and read again is the same event."""

from __future__ import annotations

import copy
import math
import pickle
from enum import Enum
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field

from lineside.schemas import (
    Event,
    JsonObject,
    RunStart,
    Scalars,
    TrainBatchEnd,
    UnencodableEvent,
    UnknownEvent,
    ValEnd,
    decode,
    encode,
)
from lineside.schemas.documents import json_schemas

from .strategies import any_event, event_of, same, shipped


def knot() -> object:
    tied: list[object] = []
    tied.append(tied)
    return tied


EVERY_EVENT = pytest.mark.parametrize("cls", shipped(), ids=lambda cls: cls.__name__)


class Sighting(Event):
    species: str
    scores: Scalars
    details: JsonObject
    where: tuple[float, float] | None = None


@EVERY_EVENT
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_what_is_decoded_equals_what_was_encoded(cls: type[Event], data: st.DataObject) -> None:
    event = data.draw(event_of(cls))
    line = encode(event)
    again = decode(line)
    assert same(again, event)
    assert encode(again) == line


@given(event=any_event())
@settings(deadline=None)
def test_an_event_is_one_line_of_utf_8(event: Event) -> None:
    line = encode(event)
    assert b"\n" not in line
    assert same(decode(line.decode()), event)


@given(event=any_event())
@settings(deadline=None)
def test_an_event_survives_pickling_and_copying(event: Event) -> None:
    assert same(pickle.loads(pickle.dumps(event)), event)
    assert same(copy.deepcopy(event), event)


@given(event=any_event())
@settings(deadline=None)
def test_an_event_of_a_type_that_is_unknown_here_is_written_again_byte_for_byte(event: Event) -> None:
    line = encode(event).replace(f'"{type(event).__name__}"'.encode(), b'"OfAnotherVersion"', 1)
    unknown = decode(line)
    assert isinstance(unknown, UnknownEvent)
    assert encode(unknown) == line


def test_nan_and_infinity_are_read_as_they_were_written() -> None:
    metrics = {"loss": math.nan, "up": math.inf, "down": -math.inf}
    line = encode(
        ValEnd(epoch=0, batches=1, samples=1, metrics=metrics, losses={}, fitness=math.inf, duration=1, speed={})
    )
    assert b'"metrics":{"loss":"NaN","up":"Infinity","down":"-Infinity"}' in line
    event = decode(line)
    assert isinstance(event, ValEnd)
    assert math.isnan(event.metrics["loss"])
    assert (event.metrics["up"], event.metrics["down"], event.fitness) == (math.inf, -math.inf, math.inf)


@given(
    event=st.builds(
        Sighting,
        species=st.text(),
        scores=st.dictionaries(st.text(), st.floats()),
        details=st.dictionaries(st.text(), st.lists(st.floats() | st.none())),
        where=st.none() | st.tuples(st.floats(), st.floats()),
    )
)
@settings(deadline=None)
def test_an_event_of_the_users_own_round_trips_like_ours(event: Sighting) -> None:
    assert same(decode(encode(event)), event)


def test_half_a_character_is_written_as_its_escape() -> None:
    event = RunStart(
        kind="train", model="\ud800", device="cpu", resumed_from=Path("runs/\udcff.pt"), config={"\udcfe": ["\udcfd"]}
    )
    again = decode(encode(event))
    assert isinstance(again, RunStart)
    assert (again.model, again.resumed_from) == ("\\ud800", Path("runs/\\udcff.pt"))
    assert again.config == {"\\udcfe": ("\\udcfd",)}
    assert same(decode(encode(again)), again)


def test_half_a_character_beside_nan_keeps_the_nan() -> None:
    event = Sighting(species="\udcff", scores={"a": math.nan}, details={})
    again = decode(encode(event))
    assert isinstance(again, Sighting)
    assert math.isnan(again.scores["a"])
    assert again.time == event.time


class Colour(str, Enum):  # noqa: UP042  # whose str() is not its value
    RED = "red"


class Lantern(Event):
    label: str
    colour: Colour = Colour.RED
    seen: frozenset[str] = frozenset()
    holds: object = None


def test_half_a_character_harms_nothing_beside_it() -> None:
    event = decode(encode(Lantern(label="\udcff", seen=frozenset({"\udcfe"}))))
    assert isinstance(event, Lantern)
    assert (event.label, event.colour, event.seen) == ("\\udcff", Colour.RED, frozenset({"\\udcfe"}))


@pytest.mark.parametrize("label", ["plain", "\udcff"])
@pytest.mark.parametrize("value", [object(), [{1, object()}], knot()])
def test_what_json_cannot_hold_is_refused_by_the_name_of_the_event(label: str, value: object) -> None:
    with pytest.raises(UnencodableEvent, match=r"cannot encode Lantern: .*JsonObject") as caught:
        encode(Lantern(label=label, holds=value))
    assert isinstance(caught.value, ValueError)


def test_half_a_character_in_a_field_for_anything_is_written_as_its_escape() -> None:
    assert b'"holds":{"\\\\udcfe":1}' in encode(Lantern(label="a", holds={"\udcfe": 1}))


class Gauge(Event):
    pressure: float = Field(alias="p")


def test_an_alias_is_the_name_on_the_wire_there_and_back() -> None:
    event = Gauge(p=2.5)
    assert b'"p":2.5' in encode(event)
    assert decode(encode(event)) == event
    assert "p" in json_schemas([Gauge])["Gauge"]["properties"]


def test_the_bus_can_build_an_event_from_its_fields_whatever_their_aliases() -> None:
    event = Gauge(p=2.5)
    assert Gauge.model_validate(dict(event.__dict__)) == event


class Loose(Event, extra="allow"):
    fixed: int


def test_the_further_fields_of_an_event_that_allows_them_are_kept_and_frozen() -> None:
    event = Loose.model_validate({"fixed": 1, "free": {"a": [math.nan]}})
    again = decode(encode(event))
    assert again == event
    assert encode(again) == encode(event)
    free = event.model_extra
    assert free is not None
    assert free == {"free": {"a": ("NaN",)}}
    with pytest.raises(TypeError, match="immutable"):
        free["other"] = 1
    with pytest.raises(TypeError, match="immutable"):
        free["free"]["other"] = 1


def test_an_event_of_a_batch_is_written_like_this() -> None:
    event = TrainBatchEnd(
        epoch=2,
        batch=7,
        batches=None,
        batch_size=32,
        step=71,
        loss=0.5,
        losses={"box": 0.25},
        lr={"0": 1e-3},
        run="r1",
        seq=9,
        time="2024-05-06T07:08:09.000010Z",  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    )
    assert encode(event) == (
        b'{"type":"TrainBatchEnd","run":"r1","attempt":1,"rank":0,"seq":9,"time":"2024-05-06T07:08:09.000010Z",'
        b'"elapsed":0.0,"epoch":2,"batch":7,"batches":null,"batch_size":32,"step":71,"loss":0.5,'
        b'"losses":{"box":0.25},"lr":{"0":0.001},"seconds":0.0}'
    )
