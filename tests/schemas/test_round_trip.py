"""An event written and read again is the same event."""

from __future__ import annotations

import copy
import math
import pickle
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lineside.schemas import (
    Event,
    JsonObject,
    RunStart,
    Scalars,
    TrainBatchEnd,
    UnknownEvent,
    ValEnd,
    decode,
    encode,
)

from .strategies import any_event, event_of, same, shipped

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
