"""Events and callbacks that the tests of the bus share."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Literal

from typing_extensions import Unpack

from lineside.bus import Bus, PolicyKeywords, Subscription
from lineside.schemas import Event
from tests.turns import turn

PATIENCE = 60.0
"""Seconds after which a wait that should have ended has failed."""
IMPORTABLE = Path(__file__).with_name("importable")
"""Where the callbacks are that another process can import."""


class Beat(Event, name="tests.Beat", family=True):
    n: int


class Tick(Beat, name="tests.Tick", urgent=False):
    """An event of a batch: it may wait for others."""


class Tock(Beat, name="tests.Tock"):
    """An urgent event."""


Kind = Literal["sync", "sync on the loop", "async"]
KINDS: tuple[Kind, ...] = ("sync", "sync on the loop", "async")


def collect(
    bus: Bus, kind: Kind, cls: type[Event], seen: Callable[[Beat], object], **policy: Unpack[PolicyKeywords]
) -> Subscription:
    """Have `seen` called with each event by a callback of that kind."""

    async def later(event: Beat) -> None:
        await turn()
        seen(event)

    def now(event: Beat) -> None:
        seen(event)

    if kind == "async":
        return bus.subscribe(later, cls, **policy)
    if kind == "sync on the loop":
        policy["lane"] = "loop"
    return bus.subscribe(now, cls, **policy)


def wait_for_lag(subscription: Subscription, events: int) -> None:
    """Wait until it is known to be so far behind: events get their numbers in another thread, which tells nobody."""
    deadline = time.monotonic() + PATIENCE
    while subscription.stats.lag < events and time.monotonic() < deadline:
        time.sleep(0.001)


def numbers(events: Iterable[Event]) -> list[int]:
    return [event.n for event in events if isinstance(event, Beat)]


class Gated:
    """A callback that holds every event until it is opened."""

    def __init__(self) -> None:
        self.got: list[Beat] = []
        self.entered = threading.Event()
        self._opened = threading.Event()

    def __call__(self, event: Beat) -> None:
        self.entered.set()
        assert self._opened.wait(PATIENCE)
        self.got.append(event)

    def open(self) -> None:
        self._opened.set()


class Closable:
    """A callback that counts how often it was closed."""

    def __init__(self) -> None:
        self.got: list[Beat] = []
        self.closed = 0

    def __call__(self, event: Beat) -> None:
        assert not self.closed
        self.got.append(event)

    def close(self) -> None:
        self.closed += 1


class AsyncClosable(Closable):
    async def __call__(self, event: Beat) -> None:  # type: ignore[override]  # as users do it
        super().__call__(event)


def run_script(
    code: str, *, timeout: float = PATIENCE, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run `code` in another interpreter, which must end by itself and well."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=timeout,
        env={**os.environ, **(env or {})},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done


def lines(log: Path) -> list[str]:
    """Return what the callbacks of other processes have told."""
    return log.read_text().splitlines()
