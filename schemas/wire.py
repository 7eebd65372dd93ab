"""An event as one JSON object, there and back without loss."""

from __future__ import annotations

import re
from collections.abc import Collection
from contextlib import suppress
from enum import Enum
from pathlib import PurePath
from typing import Any, cast

from pydantic import Field, ValidationError
from pydantic.config import ExtraValues
from pydantic_core import from_json, to_json

from .errors import UndecodableEvent, UnencodableEvent
from .event import Event, find_wire_type

_HEAD = re.compile(rb'\{"type":"([ !#-\[\]-~]+)"')
"""How `encode` begins, with a name in ASCII and without escapes."""


class UnknownEvent(Event, name="", extra="allow"):
    """An event of a type this process has no class for, with all its fields as attributes.

    It keeps the `type` it came with, so that it is written again as it was read; if it came without a `time`, with that
    of its reading.
    """

    type: str = Field(min_length=1, description="Name of the event.")

    @property
    def fields(self) -> dict[str, Any]:
        """The fields beyond the envelope, as JSON values."""
        return dict(self.__pydantic_extra__ or {})


def encode(event: Event) -> bytes:
    r"""Return `event` as one line of JSON; nan and infinity are the strings ``NaN``, ``Infinity``, ``-Infinity``.

    Half a character (a lone surrogate, as in the name of a file that is not UTF-8) has no place in JSON that all can
    read: it is written as its Python escape, e.g. ``\udcff``, and stays that when read.

    Raises:
        UnencodableEvent: a value has no form in JSON. Only fields that take anything (``object``, ``Any``) hold such.
    """
    try:
        # model_dump_json makes a str of it first, which takes half as long again.
        return event.__pydantic_serializer__.to_json(event)
    except ValueError:  # perhaps half a character
        try:
            return to_json(_escape(event.model_dump()), inf_nan_mode="strings")
        except (ValueError, RecursionError) as error:
            raise UnencodableEvent(type(event).__name__, str(error)) from None


def _escape(value: object) -> object:
    if isinstance(value, (str, PurePath)) and not isinstance(value, Enum):
        return str(value).encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {_escape(key): _escape(item) for key, item in cast("dict[object, object]", value).items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_escape(item) for item in cast("Collection[object]", value)]
    return value


def decode(data: bytes | str) -> Event:
    """Return the event in `data`, of the class that its ``type`` names, else an `UnknownEvent`.

    Fields that the class lacks are left out, a later version of the publisher has added them; a class with
    ``extra="allow"`` keeps them.

    Raises:
        UndecodableEvent: `data` is no JSON object with a ``type``, or its fields do not fit that type.
    """
    try:
        line = data.encode() if isinstance(data, str) else data
    except UnicodeEncodeError as error:
        raise UndecodableEvent(f"not JSON: {error}", data) from None
    if head := _HEAD.match(line):
        name = head[1].decode()
        with suppress(ValidationError):
            event = _read(find_wire_type(name) or UnknownEvent, line)
            if event.type == name:  # where keys come twice the last one counts
                return event
    cls = _class_of(line, data)
    try:
        return _read(cls, line)
    except ValidationError as error:
        raise UndecodableEvent(f"the fields do not fit {cls.__name__}: {error}", data) from None


def _read(cls: type[Event], line: bytes) -> Event:
    extra: ExtraValues = "allow" if cls.model_config.get("extra") == "allow" else "ignore"
    event: Event = cls.__pydantic_validator__.validate_json(line, extra=extra)
    return event


def _class_of(line: bytes, data: bytes | str) -> type[Event]:
    """Return the class of an event that is not written as `encode` does, or not an event at all."""
    try:
        head: object = from_json(line)
    except ValueError as error:
        raise UndecodableEvent(f"not JSON: {error}", data) from None
    name = cast("dict[str, object]", head).get("type") if isinstance(head, dict) else None
    if not isinstance(name, str) or not name:
        raise UndecodableEvent("expected a JSON object with a string 'type'", data)
    return find_wire_type(name) or UnknownEvent
