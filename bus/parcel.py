"""A parcel: a batch of rows on its way to another process, each an event as plain bytes.

Raw fields travel raw, and are built and validated where they arrive. The sequencer makes the row of an event
while it has the raw fields at hand, once for all processes: pickling what pydantic has built takes ten times as long.
"""

from __future__ import annotations

import pickle
import sys
from functools import cache
from importlib import import_module
from typing import Any, TypeAlias

from ..schemas import Event, UnknownEvent, decode, encode
from .entry import Entry, Signature, Signer, WallClock, kind, sign, wire_name

Names: TypeAlias = tuple[str, str, str]
"""Module, qualified name and wire name of an event class."""

Row: TypeAlias = bytes
"""An event's JSON, or a pickled tuple: `Names`, position, fields, signature (None: it is in the fields), time."""

Parcel: TypeAlias = list[Row]


def names_of(cls: type[Event]) -> Names:
    """Return how another process finds `cls`."""
    return cls.__module__, cls.__qualname__, wire_name(cls)


def travels_raw(cls: type[Event]) -> bool:
    """Return whether another process can import `cls`; if not, its events travel built, as JSON."""
    return cls.__module__ != "__main__"


def raw_row(names: Names, seq: int, fields: dict[str, Any], signer: Signer, when: int) -> Row:
    """Return the row of raw fields; raises whatever pickling them does."""
    signature = (signer.run, signer.attempt, signer.rank, signer.started)
    return pickle.dumps((names, seq, fields, signature, when), pickle.HIGHEST_PROTOCOL)


def row(seq: int, item: Event | Entry) -> Row:
    """Return the row of what the log holds at position `seq`."""
    cls = kind(item)
    if not travels_raw(cls):
        return encode(item if isinstance(item, Event) else _build(seq, item))
    if isinstance(item, Event):
        return pickle.dumps((names_of(cls), seq, dict(item.__dict__), None, 0), pickle.HIGHEST_PROTOCOL)
    what, fields, signer, when = item
    return raw_row(names_of(cls), seq, dict(what.__dict__) if isinstance(what, Event) else fields, signer, when)


def _build(seq: int, entry: Entry) -> Event:
    what, fields, signer, when = entry
    event = what.model_validate(fields) if isinstance(what, type) else what.model_copy()
    sign(event, signer, seq, when, WallClock())
    return event


class Unpacker:
    """Makes the events of a parcel, one at a time, so that one that cannot be made does not cost the others."""

    def __init__(self) -> None:
        self._clock = WallClock()

    def event(self, row: Row) -> Event:
        """Return the event in `row`; of a class that cannot be imported here, an `UnknownEvent`."""
        if row.startswith(b"{"):
            return decode(row)
        names, seq, fields, signature, when = pickle.loads(row)
        cls = _import(*names)
        if cls is UnknownEvent:
            fields.setdefault("type", names[-1])
        event = cls.model_validate(fields)
        if signature is not None:
            sign(event, Signature(*signature), seq, when, self._clock)
        return event


@cache
def _import(module: str, qualname: str, _: str) -> type[Event]:
    try:
        found: Any = sys.modules.get(module) or import_module(module)
        for part in qualname.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError):
        return UnknownEvent
    return found  # type: ignore[no-any-return]
