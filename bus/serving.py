"""Whose callback the current code runs in: a wait there for the bus would be a wait for oneself."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Protocol


class Served(Protocol):
    """A subscription, as far as its callbacks are concerned."""

    name: str


serving: ContextVar[Served | None] = ContextVar("serving", default=None)
"""The subscription whose callback the current code runs in; None outside of callbacks."""
