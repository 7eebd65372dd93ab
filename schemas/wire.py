"""An event as one JSON object, there and back without loss."""

from __future__ import annotations

from typing import Any

from pydantic import ConfigDict, ValidationError
from pydantic_core import from_json

from .errors import UndecodableEvent
from .event import Event, _by_type


class UnknownEvent(Event, name=""):
    """An event of a type this process has no class for, with all its fields as attributes.

    It keeps the `type` it came with, so that it is written again as it was read.
    """

    model_config = ConfigDict(extra="allow")

    @property
    def fields(self) -> dict[str, Any]:
        """The fields beyond the envelope, as JSON values."""
        return dict(self.model_extra or {})


def encode(event: Event) -> bytes:
    """Return `event` as one line of JSON; nan and infinity are the strings ``NaN``, ``Infinity``, ``-Infinity``."""
    return event.model_dump_json().encode()


def decode(data: bytes | str) -> Event:
    """Return the event in `data`, of the class that its ``type`` names, else an `UnknownEvent`.

    Raises:
        UndecodableEvent: `data` is no JSON object with a ``type``, or its fields do not fit that type.
    """
    try:
        head = from_json(data)
    except ValueError as error:
        raise UndecodableEvent(f"not JSON: {error}", data) from None
    name = head.get("type") if isinstance(head, dict) else None
    if not isinstance(name, str):
        raise UndecodableEvent("expected a JSON object with a string 'type'", data)
    found = _by_type.get(name)
    cls = found if found is not None and not found.family else UnknownEvent
    try:
        return cls.model_validate_json(data)
    except ValidationError as error:
        raise UndecodableEvent(f"the fields do not fit {cls.__name__}: {error}", data) from None
