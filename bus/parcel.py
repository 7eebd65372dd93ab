"""A parcel: a batch of rows on its way to another process, each an event as plain bytes.

Raw fields travel raw, and are built and validated where they arrive. The sequencer makes the row of an event
while it has the raw fields at hand, once for all processes: pickling what pydantic has built takes ten times as long.
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import cache
from importlib import import_module
from typing import Any, TypeAlias

from pydantic import ValidationError

from ..schemas import Event, UnknownEvent, decode, encode
from ..schemas.event import wire_name
from .entry import Entry, Signature, Signer, WallClock, kind, sign

Names: TypeAlias = tuple[str, str, str]
"""Module, qualified name and wire name of an event class."""

Row: TypeAlias = bytes
"""An event's JSON, or one of these, pickled: `Names`, position, raw fields, signature and time; `Names` and the state
of a finished event; an exception that says why there is no event."""

Parcel: TypeAlias = list[Row]


class Misfit(Exception):
    """Fields do not fit their event."""


def names_of(cls: type[Event]) -> Names:
    """Return how another process finds `cls`."""
    return cls.__module__, cls.__qualname__, wire_name(cls)


def travels_raw(cls: type[Event]) -> bool:
    """Return whether another process can import `cls`; if not, its events travel built, as JSON."""
    return cls.__module__ != "__main__" and "<locals>" not in cls.__qualname__


def raw_row(names: Names, seq: int, fields: dict[str, Any], signer: Signer, when: int) -> Row:
    """Return the row of raw fields; raises whatever pickling them does."""
    signature = (signer.run, signer.attempt, signer.rank, signer.started)
    return pickle.dumps((names, seq, fields, signature, when), pickle.HIGHEST_PROTOCOL)


def row(seq: int, item: Event | Entry) -> Row:
    """Return the row of what the log holds at position `seq`; it says so if that cannot be sent."""
    cls = kind(item)
    try:
        if isinstance(item, tuple) and isinstance(item[0], type) and travels_raw(cls):
            _, fields, signer, when = item
            with suppress(Exception):  # it may be possible once they are validated
                return raw_row(names_of(cls), seq, fields, signer, when)
        event = _finish(seq, item)
        return _finished_row(event) if travels_raw(cls) else encode(event)
    except Misfit as error:
        return pickle.dumps(error)
    except Exception as error:
        return pickle.dumps(
            pickle.PicklingError(
                f"a {wire_name(cls)} cannot be sent to another process, because of {error!r}; "
                "publish values that can be pickled, or read it without lane='process'"
            )
        )


def _finished_row(event: Event) -> Row:
    return pickle.dumps((names_of(type(event)), event.__getstate__()), pickle.HIGHEST_PROTOCOL)


def _finish(seq: int, item: Event | Entry) -> Event:
    if isinstance(item, Event):
        return item
    what, fields, signer, when = item
    event = _validate(what, fields) if isinstance(what, type) else what.model_copy()
    sign(event, signer, seq, when, WallClock())
    return event


def _validate(cls: type[Event], fields: dict[str, Any]) -> Event:
    try:
        return cls.model_validate(fields)
    except BaseException as error:  # a validator is the user's code
        raise Misfit(explain(error)) from None


def explain(error: BaseException) -> str:
    """Return why fields do not fit, in a line."""
    if not isinstance(error, ValidationError):
        return repr(error)
    return "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()[:3])


class Unpacker:
    """Makes the events of a parcel, one at a time, so that one that cannot be made does not cost the others.

    The first of a class takes its time, because the class is imported and built: it is made inside of `first`.
    """

    def __init__(self, first: Callable[[], AbstractContextManager[None]] = nullcontext) -> None:
        self._clock = WallClock()
        self._first = first

    def event(self, row: Row) -> Event:
        """Return the event in `row`; of a class that cannot be imported here, an `UnknownEvent`.

        Raises:
            Misfit: its fields do not fit.
        """
        if row.startswith(b"{"):
            return decode(row)
        content = pickle.loads(row)
        if isinstance(content, Exception):
            raise content
        names, *rest = content
        if names in _met:
            return self._make(names, *rest)
        with self._first():
            _met.add(names)
            return self._make(names, *rest)

    def _make(self, names: Names, *rest: Any) -> Event:
        cls = _import(*names)
        if len(rest) == 1:
            return _restore(cls, *rest)
        seq, fields, signature, when = rest
        if cls is None:
            event: Event = UnknownEvent.model_validate({"type": names[-1], **fields})
        else:
            event = _validate(cls, fields)
        sign(event, Signature(*signature), seq, when, self._clock)
        return event


def _restore(cls: type[Event] | None, state: dict[str, Any]) -> Event:
    """Return a finished event, which is not validated again: that might change it, or refuse it."""
    if cls is None:
        return UnknownEvent.model_validate({**(state["__pydantic_extra__"] or {}), **state["__dict__"]})
    event = cls.__new__(cls)
    event.__setstate__(state)
    return event


_met: set[Names] = set()


@cache
def _import(module: str, qualname: str, _: str) -> type[Event] | None:
    try:
        found: Any = sys.modules.get(module) or import_module(module)
        for part in qualname.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError):
        return None
    return found  # type: ignore[no-any-return]
