"""An event as one JSON object, there and back without loss."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath
from typing import Any, cast

from pydantic import ConfigDict, Field, ValidationError
from pydantic_core import PydanticSerializationError, from_json, to_json

from .errors import UndecodableEvent
from .event import Event, find_wire_type
from .fields import Json


class UnknownEvent(Event, name=""):
    """An event of a type this process has no class for, with all its fields as attributes.

    It keeps the `type` it came with, so that it is written again as it was read.
    """

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Json] = Field(init=False)  # pyright: ignore[reportIncompatibleVariableOverride]

    type: str = Field(min_length=1, description="Name of the event.")

    @property
    def fields(self) -> dict[str, Any]:
        """The fields beyond the envelope, as JSON values."""
        return dict(self.__pydantic_extra__)


def encode(event: Event) -> bytes:
    r"""Return `event` as one line of JSON; nan and infinity are the strings ``NaN``, ``Infinity``, ``-Infinity``.

    Half a character (a lone surrogate, as in the name of a file that is not UTF-8) has no place in JSON that all can
    read: it is written as its Python escape, e.g. ``\udcff``, and stays that when read.
    """
    try:
        return event.model_dump_json().encode()
    except PydanticSerializationError:
        return to_json(_escape(event.model_dump()), inf_nan_mode="strings")


def _escape(value: object) -> object:
    if isinstance(value, (str, PurePath)):
        return str(value).encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {_escape(key): _escape(item) for key, item in cast("dict[object, object]", value).items()}
    if isinstance(value, (list, tuple)):
        return [_escape(item) for item in cast("Sequence[object]", value)]
    return value


def decode(data: bytes | str) -> Event:
    """Return the event in `data`, of the class that its ``type`` names, else an `UnknownEvent`.

    Fields that the class lacks are left out: a later version of the publisher has added them.

    Raises:
        UndecodableEvent: `data` is no JSON object with a ``type``, or its fields do not fit that type.
    """
    cls = _class_of(data)
    try:
        return cls.model_validate_json(data, extra="allow" if cls is UnknownEvent else "ignore")
    except ValidationError as error:
        raise UndecodableEvent(f"the fields do not fit {cls.__name__}: {error}", data) from None


def _class_of(data: bytes | str) -> type[Event]:
    try:
        # A str with half a character is refused by from_json as if it were no str at all.
        head: object = from_json(data.encode() if isinstance(data, str) else data)
    except ValueError as error:
        raise UndecodableEvent(f"not JSON: {error}", data) from None
    name = cast("dict[str, object]", head).get("type") if isinstance(head, dict) else None
    if not isinstance(name, str) or not name:
        raise UndecodableEvent("expected a JSON object with a string 'type'", data)
    return find_wire_type(name) or UnknownEvent
