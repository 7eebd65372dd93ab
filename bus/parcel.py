"""A parcel: a batch of events on its way to another process, as few and as plain objects as possible.

Raw entries travel raw, and are built and validated where they arrive. What is the same for many events,
their classes and sources, is sent once: pickling costs the sender's interpreter lock.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from importlib import import_module
from typing import Any, NamedTuple, TypeAlias

from ..schemas import Event, UnknownEvent, decode, encode
from .entry import Entry, Signature, Signer, WallClock, kind, sign, wire_name

Row: TypeAlias = tuple[int, int, dict[str, Any], int | None, int] | bytes
"""Class (by place), position, fields, source (by place; None: the fields hold the envelope), time; or JSON."""


class Parcel(NamedTuple):
    """The rows, and what they refer to."""

    classes: list[tuple[str, str, str]]
    """Module, qualified name and wire name."""
    signatures: list[Signature]
    rows: list[Row]


def pack(items: Iterable[tuple[int, Event | Entry]]) -> Parcel:
    """Return `items`, positions and what the log holds there, in the form in which they travel."""
    classes: dict[type[Event], int] = {}
    signers: dict[Signer, int] = {}
    rows: list[Row] = []
    for seq, item in items:
        cls = kind(item)
        if cls.__module__ == "__main__":  # which the other process cannot import
            rows.append(encode(item if isinstance(item, Event) else _build(seq, item)))
        elif isinstance(item, Event):
            rows.append((classes.setdefault(cls, len(classes)), seq, dict(item.__dict__), None, 0))
        else:
            what, fields, signer, when = item
            if isinstance(what, Event):
                fields = dict(what.__dict__)
            place = signers.setdefault(signer, len(signers))
            rows.append((classes.setdefault(cls, len(classes)), seq, fields, place, when))
    return Parcel(
        [(cls.__module__, cls.__qualname__, wire_name(cls)) for cls in classes],
        [Signature(signer.run, signer.attempt, signer.rank, signer.started) for signer in signers],
        rows,
    )


def _build(seq: int, entry: Entry) -> Event:
    what, fields, signer, when = entry
    event = what.model_validate(fields) if isinstance(what, type) else what.model_copy()
    sign(event, signer, seq, when, WallClock())
    return event


class Unpacker:
    """Makes the events of a parcel, one at a time, so that one that cannot be made does not cost the others."""

    def __init__(self, parcel: Parcel) -> None:
        self._classes = [_import(*names) for names in parcel.classes]
        self._names = [name for _, _, name in parcel.classes]
        self._signatures: Sequence[Signature] = parcel.signatures
        self._clock = WallClock()

    def event(self, row: Row) -> Event:
        """Return the event in `row`; of a class that cannot be imported here, an `UnknownEvent`."""
        if isinstance(row, bytes):
            return decode(row)
        place, seq, fields, signer, when = row
        cls = self._classes[place]
        if cls is UnknownEvent:
            fields.setdefault("type", self._names[place])
        event = cls.model_validate(fields)
        if signer is not None:
            sign(event, self._signatures[signer], seq, when, self._clock)
        return event


def _import(module: str, qualname: str, _: str) -> type[Event]:
    try:
        found: Any = sys.modules.get(module) or import_module(module)
        for part in qualname.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError):
        return UnknownEvent
    return found  # type: ignore[no-any-return]
