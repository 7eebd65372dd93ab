"""The process lane: a callback in a process of its own, out of the training loop's interpreter lock.

A thread feeds the process in batches over a pipe and keeps what the process has not confirmed, which is sent
again to a new process if it dies.
Raw entries are sent as they are: the other process builds and validates the payloads.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from importlib import import_module
from multiprocessing.connection import Connection
from typing import Any, NamedTuple, TypeAlias

from ..schemas import ErrorInfo, Event
from .entry import Entry, kind
from .errors import CallbackRefused, CallbackTimeout, SidecarDied
from .parcel import Parcel, row
from .policy import Overflow, Policy
from .subscription import RemoteFailure, Subscription

Items: TypeAlias = list[tuple[int, Event | Entry]]
"""Positions, and what the log holds there."""

EXIT_SECONDS = 2.0
"""How long a process may take to finish after its last event."""
START_SECONDS = 60.0
"""How long it may take to import the callback."""
LISTEN_SECONDS = 0.1
"""Time between two looks for reports while nothing is published."""
PIPE_BYTES = 32 << 10
"""What surely fits into a pipe."""


class Job(NamedTuple):
    """The first message: what the process is for."""

    path: list[str]
    name: str
    callback: bytes
    policy: Policy


def pickle_callback(callback: object) -> bytes:
    """Return `callback` in a form that another process can load.

    Raises:
        CallbackRefused: it is not importable there.
    """
    module = getattr(callback, "__module__", None) or type(callback).__module__
    if module == "__main__" or type(callback).__module__ == "__main__":
        raise CallbackRefused(
            callback,
            "another process cannot import it from the script or notebook you run; "
            "put it into a module and pass it, or its name 'package.module:function', with lane='process'",
        )
    try:
        return pickle.dumps(callback)
    except Exception as error:
        raise CallbackRefused(
            callback, f"another process cannot import it ({error}); expected a function at the top of a module"
        ) from None


def import_callback(name: str) -> Callable[..., Any]:
    """Return the function that ``"package.module:function"`` names.

    Raises:
        CallbackRefused: there is none.
    """
    module, _, attribute = name.partition(":")
    if not attribute:
        raise CallbackRefused(name, "expected 'package.module:function'")
    try:
        found = import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise CallbackRefused(name, str(error)) from None
    return found  # type: ignore[return-value]


class Sidecar:
    """A running process and the two pipes to it."""

    def __init__(self, job: Job) -> None:
        child_in, out = os.pipe()
        inn, child_out = os.pipe()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "lineside.bus.sidecar", str(child_in), str(child_out)],
            pass_fds=(child_in, child_out),
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for the trainer; the process ends when the pipe does
        )
        os.close(child_in)
        os.close(child_out)
        self._out = Connection(out, readable=False)
        self._in = Connection(inn, writable=False)
        self._job = job
        self.send(job)

    def send(self, message: object) -> None:
        """Hand over `message`; waits while the pipe is full."""
        self._out.send_bytes(pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL))

    def receive(self, timeout: float | None) -> Any:
        """Return the next message.

        Raises:
            TimeoutError: none came within `timeout` seconds.
            EOFError: the process ended.
        """
        if not self._in.poll(timeout):
            raise TimeoutError
        return pickle.loads(self._in.recv_bytes())

    def reported(self, timeout: float = 0.0) -> bool:
        """Return whether a message has come, or comes within `timeout` seconds."""
        return self._in.poll(timeout)

    def kill(self) -> None:
        """End it now."""
        self._process.kill()

    def close(self, timeout: float = EXIT_SECONDS) -> str:
        """Let it finish what it has, then end it; return how it ended."""
        # Closing is not enough: a forked worker of the trainer may hold a copy of the pipe.
        with contextlib.suppress(OSError):
            self.send(None)
        self._out.close()
        try:
            status = self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self._process.kill()
            status = self._process.wait()
        self._in.close()
        return f"signal {-status}" if status < 0 else f"exit status {status}"


class Feeder:
    """The worker of a process lane: feeds the process, supervises it, and accounts for what it did.

    It does not wait for reports, but hears them when it next has something to send: each wake-up of this thread is a
    hand-over of the interpreter lock. Where somebody waits for the process, it waits too.
    """

    def __init__(self, subscription: Subscription, callback: bytes) -> None:
        self._subscription = subscription
        policy = subscription.policy
        self._job = Job(sys.path, subscription.name, callback, _portable(policy))
        self._at_once = policy.timeout is not None or policy.overflow is Overflow.WAIT
        self._sidecar: Sidecar | None = None
        self._careful = False
        self._unsent: Items = []
        self._unconfirmed: deque[tuple[int, Event | Entry]] = deque()
        self._bytes = 0
        """Size of what was sent since the process had confirmed everything."""
        self._guard = threading.Lock()
        self._abandoned = False

    @property
    def patience(self) -> float | None:
        """See `Worker.patience`."""
        return LISTEN_SECONDS if self._unconfirmed else None

    def serve(self) -> bool:
        """Hear what the process has done and send it the next batch; return whether there was any."""
        begin = time.perf_counter()
        try:
            self._listen()
            return self._feed()
        except TimeoutError:
            self._give_up(self._unconfirmed.popleft(), "timeout")
            self._take_back()
        except (EOFError, OSError):
            self._recover()
        finally:
            self._subscription.seconds += time.perf_counter() - begin
        return True

    def _feed(self) -> bool:
        if not self._unsent:
            self._unsent = self._subscription.take_items()
        if not self._unsent:
            if not self._unconfirmed:
                self._subscription.rest()
            return False
        sidecar = self._ready()
        if sidecar is None:
            return False
        parcel = self._pack(self._unsent)
        size = sum(map(len, parcel))
        # The process may be writing reports that nobody reads while we write: what it has not read must fit the pipe.
        if self._unconfirmed and self._bytes + size > PIPE_BYTES:
            self._hear(sidecar)
            return True
        items, self._unsent = self._unsent, []
        self._unconfirmed += items
        self._bytes += size
        sidecar.send((self._careful or self._subscription.policy.timeout is not None, parcel))
        return True

    def _pack(self, items: Items) -> Parcel:
        packed = self._subscription.cursor.log.packed
        return [packed.get(seq) or row(seq, item) for seq, item in items]

    def _listen(self) -> None:
        """Hear the reports that have come, and where somebody waits for them, those to come."""
        sidecar = self._sidecar
        while sidecar is not None and self._unconfirmed and self._subscription.open:
            if not (self._at_once or self._careful or self._subscription.waiters) and not sidecar.reported():
                return
            self._hear(sidecar)

    def _hear(self, sidecar: Sidecar) -> None:
        """Wait for word of the process, and account for the events it has dealt with."""
        word, detail = sidecar.receive(self._subscription.policy.timeout)
        if word == "done":
            self._subscription.delivered += detail
            confirmed = [self._unconfirmed.popleft() for _ in range(detail)]
        else:
            confirmed = [self._unconfirmed.popleft()]
            seq, item = confirmed[0]
            self._subscription.fail(kind(item), seq, RemoteFailure(ErrorInfo.model_validate(detail)))
        self._careful = self._careful and bool(self._unconfirmed)
        self._settle(confirmed[-1][0])

    def _settle(self, position: int) -> None:
        if not self._unconfirmed:
            self._bytes = 0
        if self._subscription.open:
            self._subscription.settle(position)

    def _recover(self) -> None:
        """The process died: find out at which event by having the next one tell of each, or leave that event out."""
        if self._careful and self._unconfirmed:
            culprit = self._unconfirmed.popleft()
            self._give_up(culprit, "death")
        else:
            self._end()
        self._careful = True
        self._take_back()

    def _take_back(self) -> None:
        """Have a new process do what the last one has not confirmed."""
        self._unsent = [*self._unconfirmed, *self._unsent]
        self._unconfirmed.clear()
        self._bytes = 0

    def _give_up(self, item: tuple[int, Event | Entry], cause: str) -> None:
        name, timeout = self._subscription.name, self._subscription.policy.timeout
        if cause == "timeout" and self._sidecar is not None:
            self._sidecar.kill()
        status = self._end()
        error = CallbackTimeout(name, timeout or 0) if cause == "timeout" else SidecarDied(name, status)
        self._subscription.fail(kind(item[1]), item[0], error)
        self._settle(item[0])

    def _ready(self) -> Sidecar | None:
        """Return the process, started if need be; None where that failed for good."""
        if self._sidecar is not None:
            return self._sidecar
        with self._guard:
            if self._abandoned:
                return None
            self._sidecar = Sidecar(self._job)
        try:
            word, detail = self._sidecar.receive(START_SECONDS)
        except (TimeoutError, EOFError, OSError) as error:
            word, detail = "refused", repr(error)
        if word == "ready":
            return self._sidecar
        self._end()
        self._subscription.die(f"its process could not start: {detail}")
        return None

    def _end(self) -> str:
        sidecar, self._sidecar = self._sidecar, None
        return sidecar.close() if sidecar is not None else ""

    def close(self) -> None:
        """Let the process finish, hear what it did, and end it."""
        if self._sidecar is not None and self._subscription.state != "switched off":
            with contextlib.suppress(TimeoutError, EOFError, OSError):
                while self._unconfirmed and self._sidecar.reported(EXIT_SECONDS):
                    self._hear(self._sidecar)
        self._end()

    def abandon(self) -> None:
        """End the process: the deadline has passed."""
        with self._guard:
            self._abandoned = True
            if self._sidecar is not None:
                self._sidecar.kill()


def _portable(policy: Policy) -> Policy:
    """The part of `policy` that concerns the call itself; the rest, predicates among it, stays here."""
    return Policy.model_validate({"retries": policy.retries})
