"""Whose callback the current code runs in, and what it reads: a wait there for the bus would be a wait for oneself."""

from __future__ import annotations

import threading
import weakref
from contextvars import ContextVar
from typing import Protocol


class Served(Protocol):
    """A subscription, as far as those who wait are concerned."""

    name: str
    open: bool


serving: ContextVar[Served | None] = ContextVar("serving", default=None)
"""The subscription whose callback the current code runs in; None outside of callbacks."""


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
