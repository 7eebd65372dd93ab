"""What may be asked of a run from outside its loop: to stop, to pause, to go on, and to do something in between."""

from __future__ import annotations

import queue
import signal
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any, cast

from .errors import InvalidArgument

if TYPE_CHECKING:
    from .jobs import Job


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
        self.said_end = False
        """Whether the end of the run is being told, or was: of its events only ``RunEnd`` may still come."""
        self._paused = False
        self._over = False
        self._jobs: queue.SimpleQueue[Job[Any]] = queue.SimpleQueue()
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

    def ask(self, job: Job[Any]) -> None:
        """Have `job` done by the run's thread the next time that its loop stands; it fails once the loop is over."""
        self._jobs.put(job)
        self.requested = True
        self._wake.put(None)
        if self._over:  # after the addition: `end` in another thread sees the job, or this one sees the end
            self._fail_jobs()

    def end(self) -> None:
        """The loop is over: what was asked for and not done fails."""
        self._over = True
        self._fail_jobs()

    def wake(self) -> None:
        """Have a loop that stands look whether it is to go on."""
        self._wake.put(None)

    def interrupted(self) -> bool:
        """Called by the loop between two batches: stand still while a pause lasts, then say whether to stop."""
        if not self.requested:
            return False
        self.stand(lambda: self.stopping or not self._paused)
        self.requested = False
        # Looked at again after the reset, and only ever set: what is asked for meanwhile must not be lost.
        if self.stopping or self._paused or not self._jobs.empty():
            self.requested = True
        return self.stopping

    def stand(self, over: Callable[[], bool], seconds: float | None = None) -> bool:
        """Stand still until ``over()``, at most `seconds`, and do the jobs that come; return whether it is over.

        Called by the run's thread. Whoever makes it over calls `wake` behind that.
        """
        deadline = None if seconds is None else time.monotonic() + seconds
        while not self._wake.empty():  # of an earlier stand
            self._wake.get_nowait()
        while True:
            self._do_jobs()
            if over():
                return True
            try:
                self._wake.get(timeout=None if deadline is None else max(deadline - time.monotonic(), 0.0))
            except queue.Empty:
                return over()

    def _do_jobs(self) -> None:
        """Do the jobs that can be done at this moment; the others wait on, if the loop is to go on."""
        for job in self._taken():
            if job.attempt():
                continue
            if self._over:  # at a stage behind the loop's end: whoever asked has found the queue empty meanwhile
                job.fail()
            else:
                self._jobs.put(job)  # at once: an interrupt that ends the run in another job must not lose it

    def _fail_jobs(self) -> None:
        for job in self._taken():
            job.fail()

    def _taken(self) -> Generator[Job[Any]]:
        for _ in range(self._jobs.qsize()):
            try:
                yield self._jobs.get_nowait()
            except queue.Empty:  # another thread has taken it
                return


class Steered:
    """What goes on batch by batch, and can be asked from any thread to stop, to pause and to go on.

    Of what does not go on, nothing happens.
    """

    _control: Control

    def stop(self, reason: str = "stop() was called") -> None:
        """Ask it to stop at the next batch, and to save what it saves. The first reason counts.

        Raises:
            InvalidArgument: `reason` is no text.
        """
        if not isinstance(cast("object", reason), str):
            raise InvalidArgument(f"stop() was given {reason!r:.40}", "expected the reason as text, or nothing")
        self._control.stop(reason)

    def pause(self) -> None:
        """Ask it to stand still at the next batch until `resume` or `stop`."""
        self._control.pause()

    def resume(self) -> None:
        """Let it go on."""
        self._control.resume()


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
