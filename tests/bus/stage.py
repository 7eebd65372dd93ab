"""A bus under test, with everybody who publishes and reads on it, and the rules that must hold when it is over.

A `Stage` offers the moves of a schedule (publish, subscribe, cancel, drain …), whoever chooses them: hypothesis in
`test_machine.py`, a seeded random generator in `test_schedules.py`. `Stage.finish` closes the bus and checks what
every reader saw against the ledger, which is what the log was given, in the order in which it was given:

* every published event is in the ledger once, and those of one thread in the order of that thread;
* a reader sees events of its types only, each at most once, in the order of the ledger;
* delivered + failed + filtered + missed is what was published for it while it read;
* a reader that missed nothing saw exactly what its filters let through, up to where it was cancelled;
* what it missed was announced, with the right count and the right bounds;
* no thread is left.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Literal, cast
from unittest import mock

from lineside.bus import Bus, BusClosed, PolicyKeywords, Stream, Subscription
from lineside.bus.entry import Item, kind
from lineside.bus.log import Log
from lineside.schemas import Event, EventsMissed, SubscriberFailed

from .support import PATIENCE, Beat, Kind, Tick, Tock, collect

Behaviour = Literal["note", "fail", "echo", "leave", "recruit"]
BEHAVIOURS: tuple[Behaviour, ...] = ("note", "fail", "echo", "leave", "recruit")
ECHOES = 5
"""How many events a reader that answers publishes at most."""


class Mark(Event, name="tests.Mark", urgent=False):
    """Says where in the ledger something was done."""

    n: int


@dataclass(frozen=True)
class Line:
    """What the log was given at one position."""

    seq: int
    cls: type
    n: int | None
    """None where it was invalid."""


ledger: list[Line] = []


@contextmanager
def small_pieces() -> Generator[None]:
    """Make chunks, slices and batches so small that their bounds are met all the time; keep the ledger."""
    extend = Log.extend

    def listen(log: Log, items: Sequence[Item], weight: int) -> None:
        for seq, item in enumerate(items, log.head + 1):
            ledger.append(Line(seq, kind(item), _number(item)))
        extend(log, items, weight)

    with (
        mock.patch("lineside.bus.log.CHUNK_EVENTS", 4),
        mock.patch("lineside.bus.subscription.BATCH", 3),
        mock.patch.object(Log, "extend", listen),
    ):
        yield


def _number(item: Item) -> int | None:
    what, fields = (item[0], item[1]) if isinstance(item, tuple) else (item, {})
    number = fields.get("n", getattr(what, "n", None))
    return number if isinstance(number, int) else None


@dataclass
class Reader:
    """A subscription or a stream, and what it was given."""

    cls: type[Event]
    policy: PolicyKeywords
    behaviour: Behaviour = "note"
    calls: list[Beat] = field(default_factory=list[Beat])
    echoes: list[int] = field(default_factory=list[int])
    gate: threading.Event = field(default_factory=threading.Event)
    after: tuple[int, int] = (0, 0)
    """Numbers of the marks between which it began."""
    handle: Subscription | Stream[Event] | None = None
    thread: threading.Thread | None = None
    cancelled: bool = False
    raised: int = 0

    @property
    def stats(self) -> Any:
        assert self.handle is not None
        return self.handle.stats

    @property
    def complete(self) -> bool:
        """Whether it read to the end."""
        return self.stats.state in ("active", "ended") and not (self.policy.get("once") and self.calls)


@dataclass(frozen=True)
class Announced:
    """What the bus has said of its readers at some time."""

    lost: Mapping[str, int]
    """Events that those who still read have missed."""
    gaps: Sequence[EventsMissed]
    failures: Mapping[str, int]


class Late:
    """Fields that come when the stage says so."""

    def __init__(self, n: int) -> None:
        self.come = False
        self._n = n

    def ready(self) -> bool:
        return self.come

    def result(self) -> Mapping[str, object]:
        return {"n": self._n}


class Stage:
    """One bus, from its opening to its close."""

    def __init__(
        self,
        *,
        window: int = 16,
        latency: float = 0.02,
        patience: float = PATIENCE,
        journal: str | None = None,
    ) -> None:
        ledger.clear()
        self._before = set(threading.enumerate())
        self.bus = Bus(journal, window=window, latency=latency)
        self.readers: list[Reader] = []
        """Those that the moves made, in their order."""
        self._recruits: list[Reader] = []
        """Those that callbacks made: how many there are at a moment no seed decides."""
        self._patience = patience
        self._numbers = itertools.count(1)
        self._published: list[list[int]] = [[]]
        """Numbers published by each thread, the stage's own first."""
        self._refused = 0
        self._storms: list[threading.Thread] = []
        self._late: list[Late] = []
        self._gaps: list[EventsMissed] = []
        self._failures: list[SubscriberFailed] = []
        self._monitors = (
            self.bus.subscribe(self._gaps.append, EventsMissed),
            self.bus.subscribe(self._failures.append, SubscriberFailed),
        )

    @property
    def _all(self) -> list[Reader]:
        return self.readers + self._recruits

    # -- moves -------------------------------------------------------------------------------------

    def publish(self, cls: type[Beat], *, as_instance: bool = False) -> None:
        n = next(self._numbers)
        if as_instance:
            self.bus.publish(cls(n=n))
        else:
            self.bus.publish(cls, n=n)
        self._published[0].append(n)
        self._arrive()

    def publish_misfit(self) -> None:
        self.bus.publish(Tick, n="many")
        self._refused += 1

    def publish_late(self) -> None:
        late = Late(next(self._numbers))
        self._late.append(late)
        self.bus.source("late").publish_when(late, Tick)
        self._published[0].append(late.result()["n"])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

    def storm(self, threads: int, count: int) -> None:
        """Have threads publish while the schedule goes on."""
        for _ in range(threads):
            numbers: list[int] = []
            self._published.append(numbers)
            thread = threading.Thread(target=self._publish_many, args=(numbers, count), daemon=True)
            self._storms.append(thread)
            thread.start()
        self._arrive()

    def _arrive(self) -> None:
        """Let late fields come, now that something was published behind them."""
        for late in self._late:
            late.come = True
        self._late.clear()

    def _publish_many(self, numbers: list[int], count: int) -> None:
        for index in range(count):
            n = next(self._numbers)
            numbers.append(n)
            self.bus.publish(Tock if index % 7 == 0 else Tick, n=n)

    def subscribe(
        self, kind: Kind, cls: type[Event], behaviour: Behaviour = "note", *, gated: bool = False, **policy: Any
    ) -> Reader:
        reader = Reader(cls, cast("PolicyKeywords", policy), behaviour)
        with self._between_marks(reader):
            reader.handle = collect(self.bus, kind, cls, self._act(reader), max_failures=10_000, **policy)
            if not gated:
                reader.gate.set()  # not before: its first call may cancel it
        self.readers.append(reader)
        return reader

    def stream(self, cls: type[Event], *, asynchronous: bool = False, **policy: Any) -> Reader:
        reader = Reader(cls, cast("PolicyKeywords", policy))
        reader.gate.set()

        def read(stream: Stream[Event]) -> None:
            for event in stream:
                self._note(reader, event)

        async def read_async(stream: Stream[Event]) -> None:
            async for event in stream:
                self._note(reader, event)

        def read_on_a_loop(stream: Stream[Event]) -> None:
            asyncio.run(read_async(stream))

        with self._between_marks(reader):
            stream = reader.handle = self.bus.stream(cls, **policy)
            target = read_on_a_loop if asynchronous else read
            reader.thread = threading.Thread(target=target, args=(stream,), daemon=True)
            reader.thread.start()  # at once: the next to publish may have to wait for it
        self.readers.append(reader)
        return reader

    def cancel(self, reader: Reader) -> None:
        reader.cancelled = True
        if isinstance(reader.handle, Subscription):
            reader.handle.cancel()
        elif reader.handle is not None:
            reader.handle.close()
        reader.gate.set()

    def drain(self) -> None:
        """Let everything come to rest."""
        self._let_all_go()
        position = -1
        while position < self.bus.position:  # until nobody answers any more
            position = self.bus.position
            self.bus.drain(self._patience)  # waits for the callbacks
            self.bus.drain(self._patience)  # numbers what they published

    @contextmanager
    def _between_marks(self, reader: Reader) -> Generator[None]:
        before, after = next(self._numbers), next(self._numbers)
        self.bus.publish(Mark, n=before)
        yield
        self.bus.publish(Mark, n=after)
        reader.after = (before, after)
        self._published[0] += [before, after]

    # -- what readers do ---------------------------------------------------------------------------

    def _note(self, reader: Reader, event: Event) -> None:
        reader.calls.append(cast(Beat, event))

    def _act(self, reader: Reader) -> Callable[[Beat], None]:
        def act(event: Beat) -> None:
            reader.gate.wait(self._patience)
            self._note(reader, event)
            if reader.behaviour == "fail" and event.n % 3 == 0:
                reader.raised += 1
                raise ValueError(event.n)
            if reader.behaviour == "echo" and len(reader.echoes) < ECHOES:
                n = next(self._numbers)
                reader.echoes.append(n)
                self.bus.publish(Tick, n=n)
            if reader.behaviour == "leave" and len(reader.calls) == 3:
                self.cancel(reader)
            if reader.behaviour == "recruit" and len(reader.calls) == 2:
                self._recruit(event)

        return act

    def _recruit(self, event: Beat) -> None:
        recruit = Reader(Tick, {})
        with suppress(BusClosed):
            recruit.handle = self.bus.subscribe(lambda event: self._note(recruit, event), Tick)
            recruit.after = (event.n, -1)
            self._recruits.append(recruit)

    # -- the end -----------------------------------------------------------------------------------

    def finish(self, *, drained: bool = True) -> None:
        """Close the bus and check that the rules held."""
        self._let_all_go()
        announced = self._drain_and_note() if drained else None
        report = self.bus.close(self._patience)
        for reader in self._all:
            if reader.thread is not None:
                reader.thread.join(self._patience)
                assert not reader.thread.is_alive(), "a stream did not end"
        assert report.complete, report
        self._check_ledger()
        for reader in self._all:
            self._check_reader(reader)
        if announced is not None:
            self._check_announcements(announced)
        self._check_threads()

    def _let_all_go(self) -> None:
        for reader in self._all:
            reader.gate.set()
        self._arrive()
        for thread in self._storms:
            thread.join(self._patience)

    def _drain_and_note(self) -> Announced | None:
        """Return what was announced until now; None if those who listen have missed some of it."""
        self.drain()
        lost = {reader.stats.name: reader.stats.missed for reader in self._all if reader.complete}
        failures = Counter(failure.subscription for failure in self._failures)
        listening = not any(monitor.missed for monitor in self._monitors)
        return Announced(lost, list(self._gaps), failures) if listening else None

    def _check_ledger(self) -> None:
        numbers = [line.n for line in ledger if line.n is not None and issubclass(line.cls, (Beat, Mark))]
        assert [line.seq for line in ledger] == list(range(1, self.bus.position + 1)), "positions have holes"
        place = {n: index for index, n in enumerate(numbers)}
        assert len(place) == len(numbers), "an event is in the log twice"
        published = [*self._published, *(reader.echoes for reader in self._all)]
        echoed_too_late = self.bus.stats().refused
        assert 0 <= sum(map(len, published)) - len(numbers) <= echoed_too_late, "an event is not in the log"
        for thread in published:
            own = [place[n] for n in thread if n in place]
            assert own == sorted(own), "the events of a thread changed places"

    def _check_reader(self, reader: Reader) -> None:
        seqs = [event.seq for event in reader.calls]
        assert seqs == sorted(set(seqs)), "a reader saw events twice or out of order"
        lines = {line.seq: line for line in ledger}
        for event in reader.calls:
            assert isinstance(event, reader.cls), "a reader saw an event of another type"
            line = lines[event.seq]
            assert (line.n, line.cls) == (event.n, type(event)), "an event has another's position"
        stats = reader.stats
        assert not reader.cancelled or stats.state in ("cancelled", "ended"), "a reader was not cancelled"
        assert stats.state != "switched off", "a reader was switched off"
        assert reader.behaviour != "leave" or len(reader.calls) <= 3, "a reader was called after it was cancelled"
        assert stats.failed == reader.raised, "failures were not counted"
        assert stats.delivered + stats.failed == len(reader.calls), "a reader was called more or less than it says"
        if reader.policy.get("overflow") == "wait" and reader.policy.get("since") != "start":
            assert not stats.missed, "a publisher did not wait"
        if reader.policy.get("overflow", "spill") == "spill":
            assert not stats.missed, "what left memory was not read back"
        least, most = (self._offered(reader, mark) for mark in reversed(self._begin(reader)))
        handled = stats.delivered + stats.failed + stats.filtered + stats.missed
        if reader.policy.get("since") != "start" or not stats.missed:  # what went before it began is of all types
            assert handled <= len(most), "a reader accounts for more than there was"
        if reader.complete:
            assert handled >= len(least), "a reader does not account for all there was"
            self._check_newest(reader, least)
        if not stats.missed and least == most:
            expected = list(self._filter(reader, least))
            assert seqs == [line.seq for line in expected][: len(seqs)], (
                f"a filter let through what it should not: {reader} saw {seqs} of {least}"
            )
            assert not reader.complete or len(seqs) == len(expected), "a filter kept out what it should not"

    def _begin(self, reader: Reader) -> tuple[int, int]:
        """Return positions between which the reader began."""
        places = {line.n: line.seq for line in ledger}
        before, after = reader.after
        latest = places[after] if after > 0 else self.bus.position
        if reader.policy.get("since") == "start":  # with the oldest that was in memory
            return 0, latest
        return places[before], latest

    def _offered(self, reader: Reader, after: int) -> list[Line]:
        return [line for line in ledger[after:] if issubclass(line.cls, reader.cls) and line.n is not None]

    def _filter(self, reader: Reader, offered: list[Line]) -> Iterator[Line]:
        """Yield what the filters let through: the policy's meaning, written down once more."""
        where, every, once = reader.policy.get("where"), reader.policy.get("every", 1), reader.policy.get("once")
        passed = [line for line in offered if where is None or where(line)]
        yield from passed[::every][: 1 if once else None]

    def _check_newest(self, reader: Reader, offered: list[Line]) -> None:
        plain = not any(reader.policy.get(key) for key in ("where", "every", "once", "since"))
        if reader.policy.get("overflow") == "latest" and plain and offered:
            assert offered[-1].seq in [event.seq for event in reader.calls], "a display was not shown the newest event"

    def _check_announcements(self, announced: Announced) -> None:
        counts = Counter[str | None]()
        for gap in announced.gaps:
            if gap.reason == "overflow":
                counts[gap.subscription] += gap.count
        for reader in self._all:
            name = reader.stats.name
            if name not in announced.lost:
                continue  # what it was doing when it was cancelled nobody waits for
            assert announced.failures[name] == reader.raised, "a failure was not announced"
            if reader.policy.get("overflow") == "latest":
                continue
            if isinstance(reader.handle, Subscription):  # a stream may not have been read to the end yet
                assert counts[name] == announced.lost[name], "a gap was announced with a wrong count, or not at all"
            seen = {event.seq for event in reader.calls}
            for gap in (gap for gap in announced.gaps if gap.subscription == name):
                assert not seen & set(range(gap.first, gap.last + 1)), "what was announced as missed was seen"

    def _check_threads(self) -> None:
        for thread in set(threading.enumerate()) - self._before:
            thread.join(self._patience)
            assert not thread.is_alive(), f"{thread} is left"
