"""A disk that refuses: the kernel itself answers with an error, to the threads of one bus and to nobody else.

A seccomp filter has the kernel ask here before it carries out a system call that writes (seccomp_unotify(2)). It binds
the thread that asks for it and those that come of it, wants no rights, and needs Linux 5.8 on x86-64 or arm64.
"""

from __future__ import annotations

import ctypes
import errno
import os
import select
import struct
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from fcntl import ioctl
from types import TracebackType
from typing import NamedTuple, Self, TypeVar

T = TypeVar("T")


class Calls(NamedTuple):
    """Numbers of system calls on a machine."""

    seccomp: int
    pwrite64: int
    fsync: int
    fdatasync: int


CALLS = {"x86_64": Calls(317, 18, 74, 75), "aarch64": Calls(277, 68, 82, 83)}
WRITES, SYNCS = ("pwrite64",), ("fsync", "fdatasync")
ASK, ALLOW = 0x7FC00000, 0x7FFF0000
LOAD, IF_EQUAL, RETURN = 0x20, 0x15, 0x06
RECEIVE, SEND = 0xC0502100, 0xC0182101


class Disk:
    """Refuses what `refuses` says while it is in use.

    Args:
        refuses: Is given the name of each system call that writes (``pwrite64``, ``fsync``, ``fdatasync``) before it is
            carried out, and returns the error that the kernel answers with instead, or 0.
    """

    def __init__(self, refuses: Callable[[str], int]) -> None:
        self.refuses = refuses
        self.refused = threading.Event()
        """Whether it has refused anything."""
        self._listener = -1
        self._over, self._end = os.pipe()
        self._keeper = threading.Thread(target=self._keep, daemon=True)

    def under(self, make: Callable[[], T]) -> T:
        """Return what `make` makes. The threads that it starts, and those that these start, write to this disk."""

        def run() -> T:
            self._listener = _listen()
            self._keeper.start()
            return make()

        with ThreadPoolExecutor(1) as pool:
            return pool.submit(run).result()

    def _keep(self) -> None:
        names = {number: name for name, number in _calls()._asdict().items()}
        waiting = select.poll()
        waiting.register(self._over, select.POLLIN)
        waiting.register(self._listener, select.POLLIN)
        while self._over not in (ready := dict(waiting.poll())):
            if not ready[self._listener] & select.POLLIN:  # none of those threads is left
                return
            asked, error = bytearray(80), 0
            with suppress(FileNotFoundError):  # of a thread that a signal interrupted: it asks again
                ioctl(self._listener, RECEIVE, asked)
                number, call = struct.unpack_from("<Q8xi", asked)
                error = self.refuses(names[call])
                ioctl(self._listener, SEND, bytearray(struct.pack("<QqiI", number, 0, -error, not error)))
            if error:
                self.refused.set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.write(self._end, b".")
        if self._listener >= 0:
            self._keeper.join()
            os.close(self._listener)
        os.close(self._over)
        os.close(self._end)


def _calls() -> Calls:
    return CALLS[os.uname().machine]


def _listen() -> int:
    """Return where the kernel asks what becomes of the calls of this thread, and of those that it starts."""
    libc = ctypes.CDLL(None, use_errno=True)
    calls = _calls()
    asked = (calls.pwrite64, calls.fsync, calls.fdatasync)
    jumps = [(IF_EQUAL, len(asked) - index, 0, call) for index, call in enumerate(asked)]
    steps = [(LOAD, 0, 0, 0), *jumps, (RETURN, 0, 0, ALLOW), (RETURN, 0, 0, ASK)]
    program = ctypes.create_string_buffer(b"".join(struct.pack("<HBBI", *step) for step in steps))
    filter_ = struct.pack("<HxxxxxxQ", len(steps), ctypes.addressof(program))
    libc.prctl(38, 1, 0, 0, 0)  # no new privileges: what is started from here must not gain any
    listener = libc.syscall(calls.seccomp, 1, 8, filter_)
    if listener < 0:
        raise OSError(ctypes.get_errno(), f"seccomp: {os.strerror(ctypes.get_errno())}; expected Linux 5.8 or later")
    return int(listener)


class FullDisk(Disk):
    """Has no room while it is `full`; or fails otherwise, with `error`, at `calls`."""

    def __init__(self, error: int = errno.ENOSPC, calls: tuple[str, ...] = WRITES) -> None:
        self.full = False
        super().__init__(lambda call: error if self.full and call in calls else 0)
