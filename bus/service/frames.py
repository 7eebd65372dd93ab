"""Frames: the forms in which events are sent. Their JSON is that of the journal: it is encoded only once."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

from pydantic_core import from_json, to_json

from ..journal.tail import Told


class Item(NamedTuple):
    """Something to tell a client."""

    id: str
    """Position to resume from; empty where it moves none."""
    event: str
    """Type of an event, or ``gap``, ``bye``, ``open``, ``run``; empty for a comment."""
    data: bytes
    """JSON."""
    told: Told | None = None
    """The event, where it is one."""


OPEN = "open"
BYE = Item("", "bye", b"{}")
HEARTBEAT = Item("", "", b"")


def sse(item: Item) -> bytes:
    """Return `item` as a block of an event stream."""
    if not item.event:
        return b":\n\n"
    if item.event == OPEN:  # a block without data moves the client's position and is no event for it
        return b"retry: 1000\nid: %b\n\n" % item.id.encode()
    head = f"id: {item.id}\n" if item.id else ""
    name = " ".join(item.event.splitlines())
    return f"{head}event: {name}\ndata: ".encode() + item.data + b"\n\n"


def message(item: Item) -> bytes:
    """Return `item` as a message of a WebSocket; a comment has none."""
    if not item.event:
        return b""
    head = f'{{"id":{json.dumps(item.id or None)},"event":{json.dumps(item.event)},"data":'
    return head.encode() + (item.data or b"null") + b"}"


def cloud(told: Told) -> bytes:
    """Return an event as CloudEvents 1.0 JSON; its id is unique within its source, the run."""
    run, attempt, rank = told.origin
    head = {
        "specversion": "1.0",
        "id": f"{attempt}/{rank}/{told.seq}",
        "source": f"/runs/{run}",
        "type": f"lineside.{told.name}",
        "time": from_json(told.body)["time"],
        "datacontenttype": "application/json",
    }
    return to_json(head)[:-1] + b',"data":' + told.body + b"}"


def plain(told: Told) -> bytes:
    """Return an event as its own JSON."""
    return told.body


@dataclass(frozen=True)
class Form:
    """How a client wants its events."""

    frame: Callable[[Item], bytes] = sse
    body: Callable[[Told], bytes] = plain
    joined: bool = True
    """Whether frames may be sent together."""

    def of(self, item: Item) -> bytes:
        """Return `item` in this form."""
        if item.told is not None and self.body is not plain:
            item = item._replace(data=self.body(item.told))
        return self.frame(item)


@dataclass(frozen=True)
class AllBut:
    """All names but some."""

    names: frozenset[str]

    def __contains__(self, name: object) -> bool:
        """Return whether `name` is none of them."""
        return name not in self.names


@dataclass(frozen=True)
class Choice:
    """Which events a client wants."""

    names: frozenset[str] | AllBut | None = None
    """Names of types; None: all."""
    ranks: frozenset[int] | None = None
    """None: all."""

    def admits(self, item: Item) -> bool:
        """Return whether `item` is for that client: what is no event is for all."""
        told = item.told
        if told is None:
            return True
        return (self.names is None or told.name in self.names) and (
            self.ranks is None or told.origin.rank in self.ranks
        )


EVERYTHING = Choice()


def join(frames: Iterable[bytes], limit: int) -> list[bytes]:
    """Return `frames` in as few pieces as possible of at most `limit` bytes, if no single one is larger."""
    pieces: list[bytes] = []
    waiting: list[bytes] = []
    size = 0
    for frame in frames:
        if waiting and size + len(frame) > limit:
            pieces.append(b"".join(waiting))
            waiting, size = [], 0
        waiting.append(frame)
        size += len(frame)
    return [*pieces, b"".join(waiting)] if waiting else pieces


class Batch:
    """Items that are sent together. Each form of them is made once, however many clients want it."""

    def __init__(self, items: Sequence[Item], end: Mapping[str, int] = MappingProxyType({})) -> None:
        self.items = items
        self.end = end
        """Position behind it, and behind what was passed over."""
        self.size = sum(len(item.data) + len(item.id) + len(item.event) + 24 for item in items)
        self.release: Callable[[], None] | None = None
        """Lets go of what was read ahead, for a client that is slow to take this."""
        self._made: dict[tuple[Form, Choice, int], list[bytes]] = {}

    def pieces(self, form: Form, choice: Choice, limit: int) -> list[bytes]:
        """Return what to send to a client that wants `choice` in `form`, in pieces of about `limit` bytes."""
        key = (form, choice, limit)
        made = self._made.get(key)
        if made is None:
            frames = [frame for item in self.items if choice.admits(item) and (frame := form.of(item))]
            made = self._made[key] = join(frames, limit) if form.joined else frames
        return made
