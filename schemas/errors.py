"""Errors about events.

::

    LinesideError
    └── EventError
        ├── UnknownEventName  (also LookupError)   no event has that name
        ├── DuplicateEvent    (also TypeError)     two classes claim one name
        ├── NotAnEvent        (also TypeError)     an event was expected
        └── UndecodableEvent  (also ValueError)    bytes that are no event
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class LinesideError(Exception):
    """The base of every error this package raises on purpose."""


class EventError(LinesideError):
    """Something is wrong with an event or with its name."""


class UnknownEventName(EventError, LookupError):
    """No event class and no callback has the given name."""

    def __init__(self, name: str, known: Iterable[str]) -> None:
        close = get_close_matches(name, list(known), n=3)
        hint = f"did you mean {' or '.join(map(repr, close))}?" if close else "lineside.schemas.events() lists them all"
        super().__init__(f"no event is named {name!r}: {hint}")


class DuplicateEvent(EventError, TypeError):
    """Two event classes claim the same wire name or callback name; they could not be told apart."""

    def __init__(self, name: str, taken: type, claimant: str) -> None:
        super().__init__(
            f"{claimant} cannot be an event named {name!r}: {taken.__module__}.{taken.__qualname__} has that name; "
            f"rename the class or give it another: class {claimant.rpartition('.')[2]}(Event, name='...')"
        )


class NotAnEvent(EventError, TypeError):
    """Something other than an event (or an event class) was given."""

    def __init__(self, value: object, expected: str) -> None:
        super().__init__(f"expected {expected}, got {value!r} of type {type(value).__qualname__}")


class UndecodableEvent(EventError, ValueError):
    """Bytes that do not hold an event, or hold one whose fields do not fit its type."""

    def __init__(self, reason: str, data: bytes | str) -> None:
        shown = data[:120]
        super().__init__(f"cannot decode an event: {reason} (in {shown!r}{'…' if len(data) > 120 else ''})")
