"""Errors about events.

::

    LinesideError
    └── EventError
        ├── UnknownEventName  (also LookupError)   no event has that name
        ├── EventRefused      (also TypeError)     a class whose events would not arrive as they were sent
        ├── DuplicateEvent    (also TypeError)     two classes claim one name
        ├── NotAnEvent        (also TypeError)     an event was expected
        ├── UnencodableEvent  (also ValueError)    a value that JSON cannot hold
        └── UndecodableEvent  (also ValueError)    bytes that are no event
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any


class LinesideError(Exception):
    """The base of every error this package raises on purpose. All of them can be pickled, e.g. by a process pool."""

    def __reduce__(self) -> tuple[Any, ...]:
        # Exceptions are pickled with the arguments of their built-in base, here the message; the class takes others.
        made_from: Any = super().__reduce__()
        _, args, *state = made_from
        return _remake, (type(self), args), *state


def _remake(cls: type[LinesideError], args: tuple[Any, ...]) -> LinesideError:
    error = cls.__new__(cls, *args)
    builtin: Any = next(base for base in cls.__mro__ if base.__module__ == "builtins")
    builtin.__init__(error, *args)
    return error


class EventError(LinesideError):
    """Something is wrong with an event or with its name."""


class UnknownEventName(EventError, LookupError):
    """No event class and no callback has the given name."""

    def __init__(self, name: str, known: Iterable[str]) -> None:
        close = get_close_matches(name, list(known), n=3)
        hint = f"did you mean {' or '.join(map(repr, close))}?" if close else "lineside.schemas.events() lists them all"
        super().__init__(f"no event is named {name!r}: {hint}")


class EventRefused(EventError, TypeError):
    """The class of an event, or of a part of one, that could not be written and read again without loss."""

    def __init__(self, cls: type, problem: str, instead: str) -> None:
        super().__init__(f"{cls.__module__}.{cls.__qualname__}: {problem}; {instead}")


class DuplicateEvent(EventError, TypeError):
    """Two event classes claim the same wire name or callback name; they could not be told apart."""

    def __init__(self, name: str, taken: type, claimant: str) -> None:
        super().__init__(
            f"{claimant} cannot be an event named {name!r}: {taken.__module__}.{taken.__qualname__} has that name; "
            "rename the class or give it another: "
            f"class {claimant.rpartition('.')[2]}(Event, name='...', callback='...')"
        )


class NotAnEvent(EventError, TypeError):
    """Something other than an event (or an event class) was given."""

    def __init__(self, value: object, expected: str) -> None:
        super().__init__(f"expected {expected}, got {value!r} of type {type(value).__qualname__}")


class UnencodableEvent(EventError, ValueError):
    """An event with a value that has no form in JSON."""

    def __init__(self, event: str, reason: str) -> None:
        super().__init__(
            f"cannot encode {event}: {reason}; put into it what JSON can hold, e.g. in a field of type JsonObject, "
            "which refuses the rest when the event is made"
        )


class UndecodableEvent(EventError, ValueError):
    """Bytes that do not hold an event, or hold one whose fields do not fit its type."""

    def __init__(self, reason: str, data: bytes | str) -> None:
        shown = data[:120]
        super().__init__(f"cannot decode an event: {reason} (in {shown!r}{'…' if len(data) > 120 else ''})")
