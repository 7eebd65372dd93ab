"""What may be asked of a run from outside its loop: to stop, to pause, to go on."""

from __future__ import annotations

import asyncio
import queue
import signal
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType

from .errors import WouldDeadlock


class Control:
    """Requests to one run. The loop looks at `requested` between two batches: one attribute test.

    Every method may be called from any thread and from a signal handler: nothing here takes a lock.
    """

    def __init__(self) -> None:
        self.requested = False
        """Whether the loop has to attend to anything."""
        self.reason: str | None = None
        """Why the run shall stop; None: it shall not."""
        self.signal: int | None = None
        """The signal that asked for it, if one did."""
        self._paused = False
        self._wake: queue.SimpleQueue[None] = queue.SimpleQueue()

    @property
    def stopping(self) -> bool:
        """Whether a stop was asked for."""
        return self.reason is not None

    @property
    def paused(self) -> bool:
        """Whether the loop stands, or is to stand at the next batch."""
        return self._paused

    def stop(self, reason: str, signal: int | None = None) -> None:
        """Ask for a stop at the next batch. The first reason counts. A paused loop goes on to its end."""
        if self.reason is None:
            self.reason, self.signal = reason, signal
        self.requested = True
        self._wake.put(None)

    def pause(self) -> None:
        """Ask the loop to stand still at the next batch until `resume` or `stop`."""
        self._paused = True
        self.requested = True

    def resume(self) -> None:
        """Let a paused loop go on."""
        self._paused = False
        self._wake.put(None)

    def interrupted(self) -> bool:
        """Called by the loop between two batches: stand still while a pause lasts, then say whether to stop."""
        if not self.requested:
            return False
        while self._paused and not self.stopping:
            self._wake.get()
        self.requested = False
        # Looked at again after the reset: what was asked for in between must not be lost.
        self.requested = self.stopping or self._paused
        return self.stopping


class Steered:
    """What goes on batch by batch, and can be asked from any thread to stop, to pause and to go on.

    Of what does not go on, nothing happens.
    """

    _control: Control

    def stop(self, reason: str = "stop() was called") -> None:
        """Ask it to stop at the next batch, and to save what it saves. The first reason counts."""
        self._control.stop(reason)

    def pause(self) -> None:
        """Ask it to stand still at the next batch until `resume` or `stop`."""
        self._control.pause()

    def resume(self) -> None:
        """Let it go on."""
        self._control.resume()


class Awaited:
    """Those a run is waiting for: its own thread, the task of an async hook, the holders of the loop.

    If one of them waited for the run in turn, neither would ever go on.

    Args:
        loop: The event loop that the run's async hooks need, if it was started on one.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        self._loop = loop
        self._members: set[object] = set()

    @contextmanager
    def caller(self) -> Generator[None]:
        """Count the calling task, or the calling thread where there is no task, for the length of the block."""
        member = self.enter()
        try:
            yield
        finally:
            self.leave(member)

    def enter(self) -> object:
        """Count the caller; return what `leave` takes."""
        member = _task() or threading.get_ident()
        self._members.add(member)
        return member

    def leave(self, member: object) -> None:
        """Count `member` no longer."""
        self._members.discard(member)

    def refuse(self, attempted: str) -> None:
        """Refuse to let the caller wait for the run if the run is waiting for the caller.

        Raises:
            WouldDeadlock: it is.
        """
        if threading.get_ident() in self._members or _task() in self._members:
            raise WouldDeadlock(
                attempted,
                "the run is waiting for the caller, which is inside one of its hooks or holds it",
                "return from the hook, or leave the `with run.hold(...)` block, first",
            )

    def refuse_blocking(self, attempted: str, instead: str) -> None:
        """Refuse to block the caller's thread until the run goes on, if the run may need it.

        Raises:
            WouldDeadlock: the run is waiting for the caller, or its async hooks need the caller's event loop.
        """
        self.refuse(attempted)
        if self._loop is not None and running_loop() is self._loop:
            raise WouldDeadlock(attempted, "it would hold up the event loop that the run's async hooks run on", instead)


LOOK_SECONDS = 0.2
"""Time between two looks whether an event loop was closed: it tells nobody."""


def wait_while_open(loop: asyncio.AbstractEventLoop | None, wait: Callable[[float | None], bool]) -> bool:
    """Call ``wait(seconds)`` until it returns true for what `loop` is to bring about; False: the loop was closed.

    Without a loop there is nothing to look at, and the wait may take any time.
    """
    while not wait(None if loop is None else LOOK_SECONDS):
        if loop is not None and loop.is_closed():
            return False
    return True


def running_loop() -> asyncio.AbstractEventLoop | None:
    """Return the event loop that runs in this thread, if any."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _task() -> asyncio.Task[object] | None:
    return None if running_loop() is None else asyncio.current_task()


@contextmanager
def stop_on_signals(stop: Callable[[str, int], None]) -> Generator[None]:
    """In the main thread, turn SIGINT and SIGTERM into a stop for the length of the block; the handlers are restored.

    The second SIGINT raises KeyboardInterrupt. A signal that is ignored stays ignored; other threads see no change.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    asked = False

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        asked = True
        stop(f"{signal.Signals(number).name} received", number)

    captured = [number for number in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(number) != signal.SIG_IGN]
    handlers = {number: signal.signal(number, handle) for number in captured}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
