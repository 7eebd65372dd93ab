"""The process lane: a callback in a process of its own, out of the training loop's interpreter lock.

A thread feeds the process in batches over a pipe and keeps what the process has not confirmed, which is sent
again to a new process if it dies.
Raw entries are sent as they are: the other process builds and validates the payloads.
"""

from __future__ import annotations

import contextlib
import pickle
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Generator
from multiprocessing.connection import Pipe
from typing import Any, NamedTuple, TypeAlias

from ..schemas import ErrorInfo, Event
from .entry import Entry, kind
from .errors import CallbackTimeout, SidecarDied
from .parcel import row
from .policy import Overflow
from .subscription import RemoteFailure, Subscription

Items: TypeAlias = list[tuple[int, Event | Entry]]
"""Positions, and what the log holds there."""

Refuse: TypeAlias = Callable[[int, Entry, str], None]
"""Announces that the fields of an entry do not fit: position, entry, reason."""

EXIT_SECONDS = 2.0
"""How long a process may take to finish after its last event."""
START_SECONDS = 60.0
"""How long it may take to import the callback, and with a time limit, to make an event."""
LISTEN_SECONDS = 0.1
"""Time between two looks for reports while nothing is published."""
PIPE_BYTES = 32 << 10
"""What surely fits into a pipe."""

# It has to find this package wherever the parent did. What the parent's path adds comes last at first, or a file in the
# working directory could take the place of a module that the interpreter needs to start.
START = (
    "import sys; path = sys.argv[3:]; sys.path += path; "
    "from lineside.bus.sidecar import main; main(int(sys.argv[1]), int(sys.argv[2]), path)"
)


class Job(NamedTuple):
    """The first message: what the process is for."""

    name: str
    callback: bytes
    retries: int
    limited: bool
    """Whether calls have a time limit."""


@contextlib.contextmanager
def _ended() -> Generator[None]:
    """Say in one way that the process ended; other errors of the operating system are none of its death."""
    try:
        yield
    except OSError:
        raise EOFError from None


class Sidecar:
    """A running process and the two pipes to it."""

    def __init__(self) -> None:
        child_in, self._out = Pipe(duplex=False)
        self._in, child_out = Pipe(duplex=False)
        ends = (child_in.fileno(), child_out.fileno())
        with child_in, child_out:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", START, *map(str, ends), *sys.path],
                pass_fds=ends,
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is for the trainer; the process ends when the pipe does
            )

    def send(self, message: object) -> None:
        """Hand over `message`; waits while the pipe is full.

        Raises:
            EOFError: the process ended.
        """
        with _ended():
            self._out.send_bytes(pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL))

    def receive(self, timeout: float | None) -> Any:
        """Return the next message.

        Raises:
            TimeoutError: none came within `timeout` seconds.
            EOFError: the process ended.
        """
        if not self._in.poll(timeout):
            raise TimeoutError
        with _ended():
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
        with contextlib.suppress(EOFError):
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

    def __init__(self, subscription: Subscription, callback: bytes, refuse: Refuse) -> None:
        self._subscription = subscription
        self._refuse = refuse
        policy = subscription.policy
        self._job = Job(subscription.name, callback, policy.retries, policy.timeout is not None)
        self._at_once = policy.timeout is not None or policy.overflow is Overflow.WAIT
        self._sidecar: Sidecar | None = None
        self._careful = False
        self._unsent: Items = []
        self._unconfirmed: deque[tuple[int, Event | Entry]] = deque()
        self._bytes = 0
        """Size of what was sent since the process had confirmed everything."""
        self._running = True
        """Whether the time limit runs."""
        self._tries = 0
        """With a time limit: how often the oldest of the unconfirmed has failed."""
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
            self._time_out()
        except EOFError:
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
        packed = self._subscription.cursor.log.packed
        parcel = [packed.get(seq) or row(seq, item) for seq, item in self._unsent]
        size = sum(map(len, parcel))
        # The process may be writing reports that nobody reads while we write: what it has not read must fit the pipe.
        if self._unconfirmed and self._bytes + size > PIPE_BYTES:
            self._hear(sidecar)
            return True
        items, self._unsent = self._unsent, []
        self._unconfirmed += items
        self._bytes += size
        sidecar.send((self._careful or self._job.limited, self._tries, parcel))
        return True

    def _listen(self) -> None:
        """Hear the reports that have come, and where somebody waits for them, those to come."""
        sidecar = self._sidecar
        while sidecar is not None and self._unconfirmed and self._subscription.open:
            if not (self._at_once or self._careful or self._subscription.waiters) and not sidecar.reported():
                return
            self._hear(sidecar)

    @property
    def _limit(self) -> float | None:
        timeout = self._subscription.policy.timeout
        return timeout if timeout is None or self._running else START_SECONDS

    def _hear(self, sidecar: Sidecar) -> None:
        """Wait for word of the process, and account for the events it has dealt with."""
        word, detail = sidecar.receive(self._limit)
        if word in ("stopped", "running"):
            self._running = word == "running"
            self._tries += detail
            return
        confirmed = [self._unconfirmed.popleft() for _ in range(detail if word == "done" else 1)]
        seq, item = confirmed[-1]
        if word == "done":
            self._subscription.delivered += detail
        elif word == "invalid" and isinstance(item, tuple):  # not built here: then it did fit
            self._subscription.invalid += 1
            self._refuse(seq, item, detail["message"])
        else:
            self._subscription.fail(kind(item), seq, RemoteFailure(ErrorInfo.model_validate(detail)))
        self._careful = self._careful and bool(self._unconfirmed)
        self._settle(seq)

    def _settle(self, position: int) -> None:
        self._running, self._tries = True, 0
        if not self._unconfirmed:
            self._bytes = 0
        if self._subscription.open:
            self._subscription.settle(position)

    def _time_out(self) -> None:
        """It took too long: end the process, and try again or leave that event out."""
        if self._sidecar is not None:
            self._sidecar.kill()
        self._end()
        self._tries += 1
        if not self._running or self._tries > self._job.retries:
            self._give_up(CallbackTimeout(self._subscription.name, self._limit or 0))
        self._take_back()

    def _recover(self) -> None:
        """The process died: find out at which event by having the next one tell of each, or leave that event out."""
        status = self._end()
        if self._careful and self._unconfirmed:
            self._give_up(SidecarDied(self._subscription.name, status))
        self._careful = True
        self._take_back()

    def _take_back(self) -> None:
        """Have a new process do what the last one has not confirmed."""
        self._unsent = [*self._unconfirmed, *self._unsent]
        self._unconfirmed.clear()
        self._bytes = 0
        self._running = True

    def _give_up(self, error: Exception) -> None:
        seq, item = self._unconfirmed.popleft()
        self._subscription.fail(kind(item), seq, error)
        self._settle(seq)

    def _ready(self) -> Sidecar | None:
        """Return the process, started if need be; None where that failed for good."""
        if self._sidecar is not None:
            return self._sidecar
        try:
            word, reason = self._start()
        except TimeoutError:
            word, reason = "refused", f"it did not answer within {START_SECONDS:g} s"
        except EOFError:
            word, reason = "refused", ""
        except OSError as error:
            word, reason = "refused", str(error)
        if word == "ready":
            return self._sidecar
        status = self._end()
        if word == "refused":
            self._subscription.die(f"its process could not start: {reason or f'it ended with {status}'}")
        return None

    def _start(self) -> Any:
        """Start the process; return its first message."""
        with self._guard:
            if self._abandoned:
                return "abandoned", ""
            sidecar = self._sidecar = Sidecar()
        sidecar.send(self._job)
        return sidecar.receive(START_SECONDS)

    def _end(self) -> str:
        sidecar, self._sidecar = self._sidecar, None
        return sidecar.close() if sidecar is not None else ""

    def close(self) -> None:
        """Let the process finish, hear what it did, and end it."""
        if self._sidecar is not None and self._subscription.state != "switched off":
            with contextlib.suppress(TimeoutError, EOFError):
                while self._unconfirmed and self._sidecar.reported(EXIT_SECONDS):
                    self._hear(self._sidecar)
        self._end()

    def abandon(self) -> None:
        """End the process: the deadline has passed."""
        with self._guard:
            self._abandoned = True
            if self._sidecar is not None:
                self._sidecar.kill()
