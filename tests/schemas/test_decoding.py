"""Whatever arrives, decoding gives an event or says why not."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lineside.schemas import (
    Event,
    LinesideError,
    RunEvent,
    UndecodableEvent,
    UnknownEvent,
    ValStart,
    decode,
    encode,
)

from .strategies import any_event, same, shipped

ENVELOPE = '"run":"r","attempt":1,"rank":0,"seq":3,"time":"2024-01-01T00:00:00Z","elapsed":1.5'
DEEP = "[" * 5000 + "]" * 5000
LONG = "9" * 5000
_text = st.text(st.characters(exclude_categories=()), max_size=8)
_names = st.sampled_from([cls.__name__ for cls in shipped()]) | st.sampled_from(["", "Drifting", "Event", "RunEvent"])
_fields = st.sampled_from(sorted({name for cls in shipped() for name in cls.model_fields}))
_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | _text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_text, inner, max_size=3),
    max_leaves=4,
)


def decodes_or_is_refused(data: bytes | str) -> None:
    try:
        event = decode(data)
    except UndecodableEvent:
        return
    assert encode(decode(encode(event))) == encode(event)


@given(data=st.binary() | _text)
@example(data=b"")
@example(data=b"null")
@example(data=b"\xff\xfe")
@example(data="\ud800")
@example(data='{"type":"Drifting","a":"\ud800"}')
@example(data='{"type":"Drifting","a":"\\ud800"}')
@example(data=f'{{"type":"Drifting","a":{DEEP}}}')
@example(data=f'{{"type":"Drifting","a":{"[" * 150}{"]" * 150}}}')
@example(data=f'{{"type":"Drifting","a":{LONG}}}')
@example(data=f'{{"type":"ValStart","epoch":{LONG},"batches":1e400}}')
@example(data=f'{{"type":"ValStart","epoch":{"9" * 400},"batches":-{"9" * 400}}}')
@example(data='{"type":"ValStart","type":"RunStart","epoch":1,"batches":1}')
@example(data='{"type":"Drifting","__class__":1,"model_config":2,"__pydantic_extra__":3,"fields":4}')
@example(data='{"type":"Drifting","time":"2024-01-01T00:00:00"}')
@example(data='{"type":"Drifting","time":1e300}')
@settings(deadline=None)
def test_bytes_and_text_are_decoded_or_refused(data: bytes | str) -> None:
    decodes_or_is_refused(data)


@given(head=_json, name=_names | _json, fields=st.dictionaries(_fields | _text, _json, max_size=6))
@settings(deadline=None, max_examples=200)
def test_any_json_is_decoded_or_refused(head: Any, name: Any, fields: dict[str, Any]) -> None:
    decodes_or_is_refused(json.dumps(head))
    decodes_or_is_refused(json.dumps(fields | {"type": name}))


@given(event=any_event(), data=st.data())
@settings(deadline=None)
def test_a_damaged_event_is_decoded_or_refused(event: object, data: st.DataObject) -> None:
    line = bytearray(encode(event))  # type: ignore[arg-type]
    line[data.draw(st.integers(0, len(line) - 1))] = data.draw(st.integers(0, 255))
    decodes_or_is_refused(bytes(line))
    decodes_or_is_refused(bytes(line[: data.draw(st.integers(0, len(line)))]))


@given(event=any_event(), renamed=st.booleans())
@settings(deadline=None)
def test_how_a_line_is_spelled_makes_no_difference(event: Event, renamed: bool) -> None:
    line = encode(event)
    if renamed:
        line = line.replace(type(event).__name__.encode(), b"OfAnotherVersion", 1)
    respelled = json.dumps(dict(reversed(json.loads(line).items())), indent=1)  # the type comes last, in escapes
    assert same(decode(respelled), decode(line))


@pytest.mark.parametrize("first", ["ValStart", "Drifting", "ValEnd"])
@pytest.mark.parametrize("last", ["ValStart", "Drifting", "Wandering"])
def test_where_the_type_comes_twice_the_last_one_counts(first: str, last: str) -> None:
    event = decode(f'{{"type":"{first}","epoch":1,"batches":2,"type":"{last}"}}')
    assert event.type == last
    assert isinstance(event, ValStart if last == "ValStart" else UnknownEvent)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"{", "not JSON"),
        (b"[1]", "JSON object with a string 'type'"),
        (b'{"epoch": 1}', "JSON object with a string 'type'"),
        (b'{"type": ""}', "JSON object with a string 'type'"),
        (b'{"type": "ValStart", "epoch": -1, "batches": null}', "do not fit ValStart.*epoch"),
        (b'{"type": "ValStart"}', "do not fit ValStart.*epoch.*batches"),
    ],
)
def test_the_refusal_says_what_was_wrong_and_shows_the_data(data: bytes, reason: str) -> None:
    with pytest.raises(UndecodableEvent, match=f"(?s){reason}") as caught:
        decode(data)
    assert repr(data)[:-1] in str(caught.value)
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, LinesideError)


def test_a_long_input_is_shown_by_its_beginning() -> None:
    with pytest.raises(UndecodableEvent) as caught:
        decode(b"x" * 10_000)
    assert len(str(caught.value)) < 400


def test_an_unknown_event_gives_its_fields_as_attributes() -> None:
    event = decode('{"type":"Drifting",' + ENVELOPE + ',"score":0.5,"parts":{"a":[1,{"b":null}]}}')
    assert isinstance(event, UnknownEvent)
    assert (event.type, event.run, event.seq, event.elapsed) == ("Drifting", "r", 3, 1.5)
    assert event.fields == {"score": 0.5, "parts": {"a": (1, {"b": None})}}
    assert event.score == 0.5  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]


def test_an_unknown_event_cannot_be_changed() -> None:
    event = decode('{"type":"Drifting","parts":{"a":[1,2]}}')
    assert isinstance(event, UnknownEvent)
    with pytest.raises(ValueError, match="frozen"):
        event.run = "other"
    with pytest.raises(TypeError, match="immutable"):
        event.fields["parts"]["a"] = 3
    extra = event.model_extra
    assert extra is not None
    assert extra == {"parts": {"a": (1, 2)}}
    with pytest.raises(TypeError, match="immutable"):
        extra["parts"] = 4
    event.fields["parts"] = 4
    assert event.fields == {"parts": {"a": (1, 2)}}


def test_a_family_on_the_wire_is_an_unknown_event() -> None:
    event = decode('{"type":"RunEvent"}')
    assert isinstance(event, UnknownEvent)
    assert not isinstance(event, RunEvent)


def test_fields_added_by_a_later_version_are_passed_over() -> None:
    event = decode('{"type":"ValStart",' + ENVELOPE + ',"epoch":1,"batches":2,"weather":{"wind":[1]}}')
    assert encode(event) == ('{"type":"ValStart",' + ENVELOPE + ',"aside":false,"epoch":1,"batches":2}').encode()


def test_fields_that_do_not_exist_are_refused_when_an_event_is_made() -> None:
    with pytest.raises(ValueError, match="weather"):
        ValStart(epoch=1, batches=2, weather="fine")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
