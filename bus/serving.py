"""Whose callback the current code runs in, and what it reads: a wait there for the bus would be a wait for oneself."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol


class Served(Protocol):
    """A subscription, as far as those who wait are concerned."""

    name: str
    open: bool


class Turn:
    """A lane's turn to call back. What a callback leaves running behind it is not part of it any more."""

    __slots__ = ("over", "subscription")

    def __init__(self, subscription: Served) -> None:
        self.subscription = subscription
        self.over = False


_turn: ContextVar[Turn | None] = ContextVar("lineside turn", default=None)


@contextmanager
def serve(subscription: Served) -> Generator[None]:
    """Note that the code inside calls back for `subscription`."""
    turn = Turn(subscription)
    token = _turn.set(turn)
    try:
        yield
    finally:
        turn.over = True
        _turn.reset(token)


def serving() -> Served | None:
    """Return the subscription whose callback the current code runs in; None outside of callbacks."""
    turn = _turn.get()
    return None if turn is None or turn.over else turn.subscription


class _Reading(threading.local):
    stream: weakref.ref[Served] | None = None


_reading = _Reading()


def read_here(stream: Served) -> None:
    """Note that the current thread reads `stream`, which publishers wait for."""
    _reading.stream = weakref.ref(stream)


def reading() -> bool:
    """Return whether the current thread reads a stream that publishers wait for."""
    stream = None if _reading.stream is None else _reading.stream()
    return stream is not None and stream.open
