"""A route: what the sequencer does with the events of one class."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Sequence
from typing import Any

from ..schemas import Event
from .parcel import names_of, travels_raw
from .policy import Overflow
from .subscription import Subscription

NUMBERS: tuple[object, ...] = (int, float, bool, int | None, float | None, dict[str, float])
"""Types of fields that weigh next to nothing."""

BUILD_SECONDS = 1.0
"""Longest time that a fork waits for a class to be built, or for its first event."""

_building = threading.RLock()
"""Held while pydantic builds a class, and validates an event of it for the first time.

Both take locks, and let other threads run meanwhile: a child that was forked then would find them held for ever.
"""


def _let_fork() -> None:
    with contextlib.suppress(RuntimeError):  # the time was up
        _building.release()


def _renew() -> None:
    global _building
    _building = threading.RLock()


os.register_at_fork(
    before=lambda: _building.acquire(timeout=BUILD_SECONDS), after_in_parent=_let_fork, after_in_child=_renew
)


class Route:
    """The readers of one event class, and how to build its events. Made anew when a subscription comes or goes."""

    __slots__ = ("build", "cls", "heavy", "last", "names", "offered", "readers", "validate", "waiting")

    def __init__(self, cls: type[Event], readers: Sequence[Subscription]) -> None:
        self.cls = cls
        self.readers = tuple(readers)
        self.waiting = tuple(reader for reader in readers if reader.policy.overflow is Overflow.WAIT)
        """Those that publishers wait for."""
        self.build = any(reader.lane != "process" or reader.admits is not None for reader in readers)
        """Whether anybody in this process wants the payload."""
        travels = travels_raw(cls) and any(reader.lane == "process" for reader in readers)
        self.names = names_of(cls) if travels else None
        """Where its events go to other processes: how they find the class there."""
        self.validate = _validator(cls)
        self.heavy = _fields_to_weigh(cls)
        """Names of the fields that do not weigh about the same in all events of the class."""
        self.last = 0
        """Position of the newest event."""
        self.offered = 0
        """Events of the current slice."""

    def validate_first(self, fields: Any) -> Event:
        """Build the first event."""
        with _building:
            return self.validate(fields)


def _validator(cls: type[Event]) -> Callable[[Any], Event]:
    complete = cls.__pydantic_complete__
    if not complete:
        with _building, contextlib.suppress(Exception):  # validating will say why, event by event
            complete = cls.model_rebuild(raise_errors=False) is not False
    return cls.__pydantic_validator__.validate_python if complete else cls.model_validate


def _fields_to_weigh(cls: type[Event]) -> tuple[str, ...]:
    own = {name: field for name, field in cls.model_fields.items() if name not in Event.model_fields}
    return tuple(name for name, field in own.items() if field.annotation not in NUMBERS)
