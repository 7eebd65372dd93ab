"""Portals: the way from the sequencer's thread into event loops."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future

Call = Callable[[], None]


class Portal:
    """Calls functions on a loop from another thread, many with one wake-up.

    Waking a loop costs a system call and a hand-over of the interpreter lock, so `post` collects
    and `flush` wakes once.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._calls: deque[tuple[Call, Call]] = deque()
        self._woken = False

    def post(self, call: Call, lost: Call) -> None:
        """Have `call` called on the loop at the next `flush`, or `lost` here if the loop is closed."""
        if self.loop.is_closed():  # then nobody flushes it any more
            lost()
        else:
            self._calls.append((call, lost))

    def flush(self) -> None:
        """Wake the loop, if anything was posted."""
        if not self._calls or (self._woken and not self.loop.is_closed()):
            return
        self._woken = True
        try:
            self.loop.call_soon_threadsafe(self._run)
        except RuntimeError:  # closed; asking beforehand would be a race
            while self._calls:
                self._calls.popleft()[1]()

    def _run(self) -> None:
        self._woken = False  # before the calls are taken: whoever posts from now on wakes the loop again
        for _ in range(len(self._calls)):
            self._calls.popleft()[0]()


class LoopThread:
    """An event loop in a daemon thread, for a bus that is not entered by ``async with``.

    Not a `concurrent.futures` executor: those are joined at interpreter exit, and a hung callback
    would keep the interpreter from ending.
    """

    def __init__(self) -> None:
        started: Future[asyncio.AbstractEventLoop] = Future()
        self._stop: asyncio.Event
        self._thread = threading.Thread(target=self._run, args=(started,), name="lineside-loop", daemon=True)
        self._thread.start()
        self.loop = started.result()

    def _run(self, started: Future[asyncio.AbstractEventLoop]) -> None:
        try:
            asyncio.run(self._main(started))
        except BaseException as error:
            if started.done():
                raise
            started.set_exception(error)

    async def _main(self, started: Future[asyncio.AbstractEventLoop]) -> None:
        self._stop = asyncio.Event()
        started.set_result(asyncio.get_running_loop())
        await self._stop.wait()

    def stop(self, timeout: float) -> bool:
        """Stop the loop; tasks left are cancelled. Return whether it ended within `timeout` seconds."""
        try:
            self.loop.call_soon_threadsafe(self._stop.set)
        except RuntimeError:
            return True
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout)
        return not self._thread.is_alive()


class Portals:
    """The portals of a bus: one for each loop that reads from it, and the default for async callbacks."""

    def __init__(self) -> None:
        self.entered: asyncio.AbstractEventLoop | None = None
        self._portals: dict[asyncio.AbstractEventLoop, Portal] = {}
        self._thread: LoopThread | None = None
        self._lock = threading.Lock()

    def enter(self, loop: asyncio.AbstractEventLoop) -> None:
        """Make `loop` the one that async callbacks run on."""
        self.entered = loop

    def default(self) -> Portal:
        """Return the portal of the loop that async callbacks run on, started if there is none."""
        if self.entered is not None:
            return self.of(self.entered)
        with self._lock:
            if self._thread is None:
                self._thread = LoopThread()
        return self.of(self._thread.loop)

    def of(self, loop: asyncio.AbstractEventLoop) -> Portal:
        """Return the portal of `loop`."""
        with self._lock:
            return self._portals.setdefault(loop, Portal(loop))

    def serves(self, loop: asyncio.AbstractEventLoop | None) -> bool:
        """Return whether async callbacks run on `loop`."""
        own = self._thread.loop if self._thread is not None else None
        return loop is not None and loop in (self.entered, own)

    def flush(self) -> None:
        """Wake every loop that has something to do, and forget those that are closed."""
        for loop, portal in list(self._portals.items()):  # no tuple: see `Inbox.waiting`
            portal.flush()
            if loop.is_closed():
                portal.flush()  # it may have been closed with calls under way
                with self._lock:
                    self._portals.pop(loop, None)

    def close(self, timeout: float) -> None:
        """Stop the loop that was started here, and wait for it `timeout` seconds at most."""
        self.flush()
        if self._thread is not None:
            self._thread.stop(timeout)
