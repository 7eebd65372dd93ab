"""Reading one run along, and saying several times a second what has changed."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import TYPE_CHECKING, Any

from ...schemas import Event, RunEnd
from ..cells import apart
from ..errors import BusClosed
from .state import SHOWN, RunState, number

if TYPE_CHECKING:
    from ..bus import Bus
    from ..policy import Mark
    from ..stream import Stream

logger = logging.getLogger("lineside.bus")

PERIOD = 0.25
"""Seconds between two messages."""
PLACED_SECONDS = 5.0
"""How long it waits for a bus that is perhaps just being closed."""
REASON = "stopped from the notebook"

Message = dict[str, Any]


class Watch:
    """Reads what the bus remembers of a run, and what follows, in a thread that ends with the run.

    The thread wakes once in a while and reads what has come meanwhile, whatever the rate of the events: neither the
    publisher nor the loop notices. It keeps nothing of the runner, only what its events say.

    Args:
        bus: Where the run is published.
        run: Its id.
        begin: Where it begins.
        tell: Called with each message, by one thread at a time; None: nobody listens.
        held: Says whether somebody holds the run where it is; its events do not.
    """

    def __init__(
        self,
        bus: Bus,
        run: str,
        begin: Mark,
        tell: Callable[[Message], None] | None = None,
        held: Callable[[], bool] = lambda: False,
    ) -> None:
        self._run = run
        self._begin = begin
        self._tell = tell
        self._held = held
        self._steering = bus.steering
        self._state = RunState(run)
        self._heard = datetime.now().astimezone()
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._caught_up = threading.Event()
        self._told: dict[str, Any] = {}
        self._sent: dict[str, tuple[int, int]] = {}  # of each curve: its generation, and the rows that will not change
        self._version = 0
        self._listened = False
        self._placed = threading.Event()
        self._stream: Stream[Event] | None = None
        remembered: Iterable[Event] = ()
        try:
            self._stream = self._open(bus)
        except BusClosed:  # nothing more will come
            remembered = bus.remembered(*SHOWN, run=run, since=begin).events
        self._is_past = self._stream is None
        self._thread = threading.Thread(
            target=self._read, args=(remembered, self._stream), name=f"lineside-display-{run}", daemon=True
        )
        self._thread.start()

    def _open(self, bus: Bus) -> Stream[Event]:
        # A bus with a journal reads from there what its memory has forgotten. Without one, what is forgotten would
        # count as missed, and be announced to everybody, if it were asked for.
        with apart():  # all displays of the run share it, whichever cell came first
            stream: Stream[Event] = bus.stream(
                *SHOWN, since="start" if bus.journal is None else self._begin, latency=PERIOD
            )
        # A stream that is read before it has its place in the log would take itself to have read everything.
        bus.source(self._run).call(self._placed.set)
        return stream

    def close(self) -> None:
        """Read no more, and wait until the thread has ended."""
        self._over.set()
        self._placed.set()
        stream = self._stream
        if stream is not None:
            stream.close()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def wait(self, seconds: float) -> bool:
        """Wait until there is nothing more to read, `seconds` at most; return whether there is not."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def catch_up(self, seconds: float) -> bool:
        """Wait until everything published so far was read, `seconds` at most; return whether it was."""
        return self._caught_up.wait(seconds)

    # ---- what is to be shown

    def snapshot(self) -> Message:
        """Return everything that is shown, as JSON: for whoever begins to look."""
        with self._lock:
            message = self._message(self._head(), {})
            self._sent.clear()  # what is under way may arrive before or after it: the next message has everything, too
            return message

    def describe(self, name: str) -> str:
        """Return the run as a line of text, which says of when it is where it is not final."""
        from .text import line

        with self._lock:
            return line(name, self._state, self._doing(), self._heard)

    def refresh(self, **more: object) -> None:
        """Tell what has changed, if anything, and `more`."""
        with self._lock:
            self._send(more)

    def repeat(self) -> None:
        """Tell everything."""
        with self._lock:
            self._sent.clear()
            self._told = {}
            self._send({})

    def listen(self, listened: bool) -> None:
        """Say whether anybody looks: while nobody does, nothing is told. In the beginning nobody does."""
        with self._lock:
            if listened and not self._listened:
                self._sent.clear()
            self._listened = listened
            self._send({})

    # ---- what is asked of the run

    def steer(self, what: str) -> str:
        """Ask the run to ``"stop"``, ``"pause"`` or ``"resume"``; return why that cannot be, or nothing."""
        steerable = self._steering.get(self._run)
        if steerable is None:
            return "The run does not go on."
        match what:
            case "stop":
                steerable.stop(REASON)
            case "pause":
                steerable.pause()
            case "resume":
                steerable.resume()
            case _:
                return f"A run cannot be asked to {what}."
        return ""

    # ---- the thread

    def _read(self, remembered: Iterable[Event], stream: Stream[Event] | None) -> None:
        try:
            if stream is None:
                self._look_back(remembered)
            else:
                self._follow(stream)
        except Exception:
            logger.exception("the display of run %s has ended", self._run)
        finally:
            self._over.set()
            if stream is not None:
                stream.close()
            self._stream = None  # it has the bus's memory, and a notebook keeps its widgets for ever
            self._caught_up.set()

    def _look_back(self, remembered: Iterable[Event]) -> None:
        for event in remembered:
            if self._over.is_set() or self._take(event):
                break
        self._over.set()
        self.refresh()

    def _follow(self, stream: Stream[Event]) -> None:
        due = 0.0
        self._placed.wait(PLACED_SECONDS)
        with stream as events:
            for event in events:
                # Before its begin there may be an earlier attempt.
                if event.seq > self._begin.position and self._take(event):
                    break
                is_last = not events.stats.lag
                if is_last or time.monotonic() >= due:
                    self.refresh()
                    due = time.monotonic() + PERIOD
                if is_last:
                    self._caught_up.set()
                    if self._over.wait(PERIOD):
                        return
                    self.refresh()  # a run that was paused meanwhile publishes nothing that says so
                    due = time.monotonic() + PERIOD  # not at the first of those that came meanwhile, and at the last
        self._over.set()
        self.refresh()

    def _take(self, event: Event) -> bool:
        """Take in `event`; return whether it is the run's last."""
        with self._lock:
            self._state.take(event)
            if event.run == self._run:
                self._heard = event.time.astimezone()
        return isinstance(event, RunEnd) and event.run == self._run and not event.rank

    def _doing(self) -> str:
        """Return what the run does, in a word."""
        if self._state.outcome:
            return self._state.outcome
        steerable = self._steering.get(self._run)
        if steerable is None:
            ended = self._is_past or self._over.is_set()
            return "unheard" if ended else "running" if self._state.begun else "waiting"
        if steerable.stopping:
            return "stopping"
        return "held" if self._held() else "paused" if steerable.paused else "running"

    def _head(self) -> dict[str, Any]:
        doing = self._doing()
        steerable = doing in ("running", "held", "paused", "stopping") and self._steering.get(self._run) is not None
        return {**self._state.head(), "state": doing, "steerable": steerable, "time": self._heard.isoformat()}

    def _message(self, head: dict[str, Any], sent: dict[str, tuple[int, int]]) -> Message:
        """Return `head`, and of the curves what is not in `sent`, which is noted there."""
        self._version += 1
        self._told = head
        curves: dict[str, Any] = {}
        for name, curve in self._state.curves.items():
            generation, begin = sent.get(name, (-1, 0))
            begin = begin if generation == curve.generation else 0
            newest = None if curve.newest is None else number(curve.newest)
            curves[name] = {**curve.about, "newest": newest, "from": begin, "rows": curve.rows(begin)}
            sent[name] = (curve.generation, max(len(curve) - 1, 0))  # the last row may still change
        return {"version": self._version, "head": head, "curves": curves}

    def _send(self, more: dict[str, object]) -> None:
        """Tell it. Under the lock, so that messages leave in their order. `more` is told also while nobody looks."""
        if self._tell is None or not (self._listened or more):
            return
        head = self._head()
        message = self._message(head, self._sent) if self._listened and head != self._told else {}
        if message or more:
            self._tell({**message, **more})
