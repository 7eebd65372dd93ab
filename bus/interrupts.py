"""Interrupts: what the user means who presses Ctrl-C, or a notebook's stop button, while waiting for a run."""

from __future__ import annotations

import asyncio
import signal
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from types import FrameType, TracebackType
from typing import Self, TypeAlias, cast

Handler: TypeAlias = Callable[[int, FrameType | None], object]

REASON = "interrupted"
"""Why a run was stopped that was waited for when the interrupt came."""

TURNS = 64
"""Turns of an event loop after which its answer to an interrupt, the cancellation of a task, has come, if it comes."""


class Watch:
    """Calls `stop` with a reason when an interrupt (SIGINT) ends what the caller does from `begin` to `end`.

    As a context manager it is that for the length of the block. It adds to what an interrupt does and takes nothing
    away: the handler that is in place is called all the same. Whether an interrupt means the caller is seen by its
    consequence: the thread is interrupted in the caller's code, or its task is cancelled. The cancellation of a task
    for another reason, such as a timeout, is no interrupt. Only in the main thread does it do anything, for signals
    come nowhere else.

    Args:
        stop: Is called in the main thread, perhaps several times, and must not block.
        blocking: Whether the caller stops its thread meanwhile. An interrupt then raises KeyboardInterrupt there, also
            where the event loop would only have cancelled the task, which could not notice.
    """

    __slots__ = ("_capture", "_stop", "_task", "blocking")

    def __init__(self, stop: Callable[[str], object], *, blocking: bool = False) -> None:
        self.blocking = blocking
        self._stop = stop
        self._capture: _Capture | None = None
        self._task: weakref.ref[asyncio.Task[object]] | None = None
        """The task that waits; None for plain code. Weak: its error would keep alive what is watched for."""

    @property
    def active(self) -> bool:
        """Whether it has begun and not ended."""
        return self._capture is not None

    @property
    def in_task(self) -> bool:
        """Whether a task waits, and not plain code."""
        return self._task is not None

    @property
    def task(self) -> asyncio.Task[object] | None:
        """The task that waits, if it still exists."""
        return None if self._task is None else self._task()

    def is_of(self, running: asyncio.Task[object] | None) -> bool:
        """Whether it is for the task that is `running`, or for plain code where none is."""
        return self._task is None if running is None else self.task is running

    def begin(self, *, blocking: bool | None = None) -> None:
        """Watch from here on; again, for the task that calls now and the handler that is in place now."""
        if blocking is not None:
            self.blocking = blocking
        if threading.current_thread() is not threading.main_thread():
            return
        task = _current_task()
        self._task = None if task is None else weakref.ref(task)
        capture = _captured()
        if self._capture is not capture:
            self.end()
        self._capture = capture
        if capture is not None:
            capture.watches.add(self)

    def end(self) -> None:
        """Watch no longer. From any thread; ending twice is fine.

        In a thread that is not the main one the handler cannot be taken back: it stays, and adds nothing.
        """
        capture, self._capture = self._capture, None
        if capture is not None:
            capture.leave(self)

    def __enter__(self) -> Self:
        self.begin()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()
        if isinstance(error, KeyboardInterrupt):  # also where the handler of somebody else has raised it
            self.interrupt()

    def interrupt(self) -> None:
        """The interrupt meant the caller."""
        self._stop(REASON)

    def defer(self) -> None:
        """From here to `deliver` an interrupt of this thread means the caller, and waits; a second one does not.

        For what must not be left half done. The two may nest, also those of several watches.
        """
        _here.deferring.append(self)

    def deliver(self) -> None:
        """Have the interrupt that waited do what it would have done, unless the thread still defers it elsewhere."""
        here = _here
        del here.deferring[-1:]  # a second interrupt has emptied it
        if here.deferred is None or here.deferring:
            return
        interrupt, here.deferred = here.deferred, None
        interrupt()
        if _current_task() is not None:  # the event loop has only cancelled the task, which was standing still
            raise KeyboardInterrupt

    def look(self, before: int, turns: int = TURNS) -> None:
        """See whether the task was cancelled since it had been `before` times, now and in the loop's next turns."""
        task = self.task
        if not self.active or task is None:
            return
        if task.cancelling() > before:
            self.interrupt()
        elif turns:
            with suppress(RuntimeError):  # the loop is closed: nothing is cancelled any more
                task.get_loop().call_soon_threadsafe(self.look, before, turns - 1)


class _Here(threading.local):
    """What this thread defers interrupts for, and the one that waits. They come to the main thread alone."""

    def __init__(self) -> None:
        self.deferring: list[Watch] = []
        self.deferred: Callable[[], object] | None = None


_here = _Here()


class _Capture:
    """A handler of SIGINT in front of the one that was in place, for as long as anybody watches."""

    def __init__(self, previous: Handler) -> None:
        self.watches: set[Watch] = set()
        # asyncio's own has the main task, and so its error, and whatever that keeps alive. Who runs the loop holds it.
        self._kept: Callable[[], Handler | None] = weakref.ref(previous) if _main_task(previous) else lambda: previous

    @property
    def _previous(self) -> Handler:
        """The handler that was in place, or what asyncio would have put back for its own, which it did not find."""
        handler = self._kept()
        task = _main_task(handler)
        return signal.default_int_handler if handler is None or (task and task.done()) else handler

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Tell whom it means, then do what would have been done."""
        running, here = _current_task(), _here
        watches = list(self.watches)
        for watch in watches:
            if watch.blocking or watch in here.deferring or watch.is_of(running):
                watch.interrupt()
        if here.deferring and here.deferred is None:
            here.deferred = partial(self._previous, number, None)
            return
        here.deferred = None
        here.deferring.clear()
        before = [(watch, 0 if (task := watch.task) is None else task.cancelling()) for watch in watches]
        try:
            self._previous(number, frame)
        except BaseException:
            if running is None:  # it comes out of the event loop itself, which ends with all that waits there
                for watch in watches:
                    watch.interrupt()
            raise
        for watch, cancelled in before:
            watch.look(cancelled)
        if any(watch.blocking for watch in watches):
            raise KeyboardInterrupt

    def leave(self, watch: Watch) -> None:
        """`watch` is over. With the last one the handler that was there before comes back, if it was not replaced."""
        self.watches.discard(watch)
        in_main_thread = threading.current_thread() is threading.main_thread()
        if not self.watches and in_main_thread and _owner(signal.getsignal(signal.SIGINT)) is self:
            signal.signal(signal.SIGINT, self._previous)


def _main_task(handler: Handler | None) -> asyncio.Task[object] | None:
    """Return the task that asyncio's handler cancels; None: it is not asyncio's."""
    keywords: dict[str, object] = getattr(handler, "keywords", {})
    task = keywords.get("main_task")
    return cast("asyncio.Task[object]", task) if isinstance(task, asyncio.Task) else None


def _captured() -> _Capture | None:
    """Return the capture whose handler is in place, putting one there; None where there is no handler to add to."""
    handler = signal.getsignal(signal.SIGINT)
    owner = _owner(handler)
    if owner is not None:
        return owner
    if not callable(handler):  # interrupts are ignored, or nobody can survive them
        return None
    capture = _Capture(handler)
    signal.signal(signal.SIGINT, capture.handle)
    return capture


def _owner(handler: object) -> _Capture | None:
    owner = getattr(handler, "__self__", None)
    return owner if isinstance(owner, _Capture) else None


def _current_task() -> asyncio.Task[object] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:  # no loop runs in this thread
        return None
