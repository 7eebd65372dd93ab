"""Whom a run waits for: its hooks and those who hold it. If one of them waited for the run, both would for ever.

Whatever is started from within a hook, or while holding, counts as a part of it for as long as it lasts: a task, what
``asyncio.gather`` or ``asyncio.to_thread`` make. What is left running behind it does not.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar

from .errors import WouldDeadlock
from .loops import running_loop


class Stay:
    """One stay of a run: with a hook, or with somebody who holds it."""

    __slots__ = ("awaited", "held", "over", "serves", "since", "what")

    def __init__(self, awaited: Awaited, what: str, *, held: bool = False) -> None:
        self.awaited = awaited
        self.what = what
        """Whom the run waits for, e.g. ``the hook `report` at FitEpochEnd``."""
        self.held = held
        self.serves = held
        """Whether the run's thread does meanwhile what is asked of the run."""
        self.over = False
        self.since = time.monotonic()


_within: ContextVar[tuple[Stay, ...]] = ContextVar("lineside stays", default=())


class Awaited:
    """Those that one run waits for.

    Args:
        run: Its id.
        loop: The event loop that its async hooks need, if it was started on one.
        needs: Whether another loop is needed: by the hooks, where there is no `loop`, or by the bus.
    """

    def __init__(
        self,
        run: str = "",
        loop: asyncio.AbstractEventLoop | None = None,
        needs: Callable[[asyncio.AbstractEventLoop], bool] = lambda _: False,
    ) -> None:
        self.run = run
        self._loop = loop
        self._needs = needs
        self._threads: set[int] = set()
        self._holders: dict[object, Stay] = {}
        self._stay: Stay | None = None
        self._waits: dict[object, str] = {}

    # ---- the run's side

    def caller(self) -> AbstractContextManager[None]:
        """Return a block in which the calling thread is one of the run's; for any number of threads."""
        return _Caller(self._threads)

    @property
    def in_own_thread(self) -> bool:
        """Whether the caller is in a thread of the run's: in a hook, or in what the run calls to do its work."""
        return threading.get_ident() in self._threads

    @contextmanager
    def hook(self, name: str, event: str) -> Generator[Stay]:
        """In the run's thread: call a hook in the block, or have it called."""
        stay = Stay(self, f"the hook `{name}` at {event}")
        token = _within.set((*_within.get(), stay))
        before, self._stay = self._stay, stay
        try:
            yield stay
        finally:
            stay.over = True
            self._stay = before
            _within.reset(token)

    @contextmanager
    def holder(self, stay: Stay) -> Generator[None]:
        """In the run's thread: stand still in the block, because somebody holds the run."""
        stay.since = time.monotonic()
        before, self._stay = self._stay, stay
        try:
            yield
        finally:
            self._stay = before

    @property
    def held(self) -> bool:
        """Whether somebody holds the run."""
        stay = self._stay
        return stay is not None and stay.held and not stay.over

    # ---- the holder's side

    def enter(self, stay: Stay) -> object:
        """The caller holds the run; return what `leave` takes."""
        member = _task() or threading.get_ident()
        self._holders[member] = stay
        _within.set((*_current(), stay))
        return member

    def leave(self, stay: Stay, member: object) -> None:
        """The holder has let go. May be called elsewhere than `enter` was."""
        stay.over = True
        self._holders.pop(member, None)
        _within.set(_current())

    # ---- those who wait for the run

    @contextmanager
    def waiting(self, what: str) -> Generator[None]:
        """Somebody waits for the run in the block: what the run says when it is kept waiting itself."""
        token = object()
        self._waits[token] = what
        try:
            yield
        finally:
            del self._waits[token]

    @property
    def waits(self) -> list[str]:
        """What waits for the run, each named once."""
        return list(dict.fromkeys(list(self._waits.values())))

    def within(self) -> Stay | None:
        """Return the stay that the caller is a part of; None where the run does not wait for the caller."""
        for stay in reversed(_current()):
            if stay.awaited is self:
                return stay
        return self._holders.get(_task() or threading.get_ident())

    def refuse(self, attempted: str) -> None:
        """Refuse to let the caller wait for the run if the run is waiting for the caller.

        Raises:
            WouldDeadlock: it is.
        """
        stay = self.within()
        if stay is None and not self.in_own_thread:
            return
        whom = "what is called in its own thread" if stay is None else stay.what
        because = f"run {self.run} waits for {whom}, and `{attempted}` would wait for the run"
        if stay is not None and stay.held:
            raise WouldDeadlock(attempted, because, "leave the `with run.hold(...)` block first")
        raise WouldDeadlock(attempted, because, "return from the hook first")

    def refuse_blocking(self, attempted: str, instead: str) -> None:
        """Refuse to block the caller's thread until the run goes on, if the run may need it.

        Raises:
            WouldDeadlock: the run is waiting for the caller, or needs the caller's event loop.
        """
        self.refuse(attempted)
        self.refuse_needed_loop(attempted, instead)

    def refuse_needed_loop(self, attempted: str, instead: str) -> None:
        """Refuse to block an event loop that the run may need before it goes on.

        Raises:
            WouldDeadlock: the caller is on such a loop.
        """
        loop = running_loop()
        if loop is not None and (loop is self._loop or self._needs(loop)):
            because = (
                f"run {self.run} may wait for its async hooks, or its bus for async callbacks, on this event loop, "
                f"which `{attempted}` would hold up"
            )
            raise WouldDeadlock(attempted, because, instead)


class _Caller:
    """See `Awaited.caller`. A class, because entering a generator costs a small batch of a prediction too much."""

    __slots__ = ("_threads",)

    def __init__(self, threads: set[int]) -> None:
        self._threads = threads

    def __enter__(self) -> None:
        self._threads.add(threading.get_ident())

    def __exit__(self, *_: object) -> None:
        self._threads.discard(threading.get_ident())


def _current() -> tuple[Stay, ...]:
    return tuple(stay for stay in _within.get() if not stay.over)


def _task() -> asyncio.Task[object] | None:
    return None if running_loop() is None else asyncio.current_task()
