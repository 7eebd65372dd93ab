"""A bell: one thread waits for it, anyone rings it, also a signal handler."""

from __future__ import annotations

import contextlib
import threading


class Bell:
    """A wake-up flag. Ringing twice is ringing once.

    Made of a bare lock, because every other primitive takes a lock of its own inside, and a signal
    handler that interrupted its holder would wait for ever.
    """

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()

    def ring(self) -> None:
        """Wake the one who waits, or let the next wait return at once."""
        if self._lock.locked():  # an exception costs ten times as much as this look
            with contextlib.suppress(RuntimeError):  # somebody else rang in between
                self._lock.release()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it rings or `timeout` seconds have passed; return whether it rang."""
        return self._lock.acquire(timeout=-1 if timeout is None else timeout)
