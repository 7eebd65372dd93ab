"""The proof that the checks of a `Stage` can fail: each part of the bus is broken on purpose, and that is found out."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any
from unittest import mock

import pytest

from lineside.bus import DrainTimeout, Subscription
from lineside.bus.bell import Bell
from lineside.bus.inbox import Inbox
from lineside.bus.journal.archive import ArchiveBacklog
from lineside.bus.log import Archived, Cursor
from lineside.bus.source import Source
from lineside.schemas import Event, SubscriberFailed

from .schedules import play, shaken

SCHEDULES = 300
"""In so many schedules each fault must show."""
OFTEN = 5
"""A fault happens every so many times."""


def sometimes() -> Callable[[], bool]:
    count = itertools.count(1)
    return lambda: next(count) % OFTEN == 0


def skip_one() -> Any:
    take, now = Cursor.take, sometimes()

    def broken(cursor: Cursor, limit: int) -> list[Any]:
        items = take(cursor, limit)
        return items[1:] if len(items) > 1 and now() else items

    return mock.patch.object(Cursor, "take", broken)


def repeat_one() -> Any:
    take, now = Cursor.take, sometimes()

    def broken(cursor: Cursor, limit: int) -> list[Any]:
        items = take(cursor, limit)
        return [items[0], *items] if items and now() else items

    return mock.patch.object(Cursor, "take", broken)


def swap_two() -> Any:
    deliver, now = Subscription.deliver, sometimes()

    def broken(subscription: Subscription, events: Sequence[Event]) -> Iterator[Event]:
        return deliver(subscription, events[::-1] if now() else events)

    return mock.patch.object(Subscription, "deliver", broken)


def forget_what_is_lost() -> Any:
    return mock.patch("lineside.bus.log.Cursor._count", return_value=None)


def count_one_too_many() -> Any:
    lose, now = Cursor.lose, sometimes()

    def broken(cursor: Cursor, *arguments: Any, **keywords: Any) -> None:
        lose(cursor, *arguments, **keywords)
        cursor.missed += cursor.missed > 0 and now()

    return mock.patch.object(Cursor, "lose", broken)


def keep_failures_to_oneself() -> Any:
    announce = Source.announce

    def broken(source: Source, event: type[Event], /, **fields: Any) -> None:
        if event is not SubscriberFailed:
            announce(source, event, **fields)

    return mock.patch.object(Source, "announce", broken)


def break_a_lane() -> Any:
    return mock.patch("lineside.bus.subscription._describe", side_effect=RuntimeError)


def keep_gaps_to_oneself() -> Any:
    return mock.patch("lineside.bus.subscription.Subscription._announce", return_value=None)


@contextmanager
def miss_the_bell() -> Generator[None]:
    ring, now = Bell.ring, sometimes()
    missed: list[Bell] = []

    def broken(bell: Bell) -> None:
        if now():
            missed.append(bell)
        else:
            ring(bell)

    with mock.patch.object(Bell, "ring", broken):
        yield
    for bell in missed:
        ring(bell)  # or their threads would wait for ever


def lose_on_the_way_in() -> Any:
    append, now = Inbox.append, sometimes()

    def broken(inbox: Inbox, entry: Any) -> None:
        if not now():
            append(inbox, entry)

    return mock.patch.object(Inbox, "append", broken, create=True)


def jump_the_queue() -> Any:
    append, now = Inbox.append, sometimes()

    def broken(inbox: Inbox, entry: Any) -> None:
        (Inbox.appendleft if now() else append)(inbox, entry)

    return mock.patch.object(Inbox, "append", broken, create=True)


def overlook_failures() -> Any:
    return mock.patch.object(Subscription, "fail", return_value=None)


def go_on_after_the_end() -> Any:
    return mock.patch.object(Subscription, "cancel", return_value=None)


def wait_for_nobody() -> Any:
    return mock.patch("lineside.bus.sequencer.Sequencer._waited_for", return_value=[])


def show_what_is_old() -> Any:
    def broken(items: Iterable[Any], key: object) -> list[Any]:
        return list(items)[:1]

    return mock.patch("lineside.bus.subscription.sorted", broken, create=True)


def misnumber() -> Any:
    def broken(event: Any, *_: object) -> None:
        event.__dict__.update(seq=7)

    return mock.patch("lineside.bus.sequencer.sign", broken)


def never_end_a_stream() -> Any:
    return mock.patch("lineside.bus.stream.Stream._at_end", return_value=False)


def begin_too_early() -> Any:
    start = Cursor.start

    def broken(cursor: Cursor, position: int, oldest: int) -> None:
        start(cursor, max(position - 2, 0), oldest)

    return mock.patch.object(Cursor, "start", broken)


def skip_one_on_disk() -> Any:
    take = ArchiveBacklog.take

    def broken(backlog: ArchiveBacklog, *arguments: Any) -> Archived:
        items, reached = take(backlog, *arguments)
        return Archived(items[1:], reached)

    return mock.patch.object(ArchiveBacklog, "take", broken)


def repeat_one_from_disk() -> Any:
    take = ArchiveBacklog.take

    def broken(backlog: ArchiveBacklog, *arguments: Any) -> Archived:
        items, reached = take(backlog, *arguments)
        return Archived([*items, *items[-1:]], reached)

    return mock.patch.object(ArchiveBacklog, "take", broken)


def let_go_before_it_is_on_disk() -> Any:
    return mock.patch("lineside.bus.sequencer.Sequencer._archived", return_value=1 << 40)


def spill_nothing() -> Any:
    return mock.patch("lineside.bus.sequencer.Sequencer._archived", return_value=0)


FAULTS: list[tuple[Callable[[], AbstractContextManager[Any]], str]] = [
    (skip_one, "does not account for all|a filter let through what it should not"),
    (repeat_one, "saw events twice|accounts for more than there was|was called more or less than it says"),
    (swap_two, "saw events twice or out of order"),
    (forget_what_is_lost, "does not account for all"),
    (count_one_too_many, "accounts for more than there was|wrong count"),
    (keep_gaps_to_oneself, "a gap was announced with a wrong count, or not at all"),
    (miss_the_bell, "hung=|not drained within|a stream did not end|is left"),
    (lose_on_the_way_in, "an event is not in the log"),
    (jump_the_queue, "the events of a thread changed places|in the log twice"),
    (overlook_failures, "failures were not counted"),
    (keep_failures_to_oneself, "a failure was not announced"),
    (break_a_lane, "a reader was switched off"),
    (go_on_after_the_end, "was not cancelled|called after it was cancelled|a stream did not end"),
    (wait_for_nobody, "a publisher did not wait"),
    (show_what_is_old, "a reader does not account for all|a display was not shown the newest event"),
    (misnumber, "saw events twice|an event has another's position"),
    (never_end_a_stream, "a stream did not end"),
    (skip_one_on_disk, "does not account for all"),
    (repeat_one_from_disk, "saw events twice"),
    (let_go_before_it_is_on_disk, "does not account for all"),
    (spill_nothing, "what left memory was not read back"),
    (begin_too_early, "accounts for more than there was|a filter let through"),
]


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> None:  # pyright: ignore[reportUnusedFunction]
    """Override: a bus that is broken on purpose may hang for ever, and nobody waits for what it leaves."""


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize(("fault", "rule"), FAULTS, ids=[fault.__name__ for fault, _ in FAULTS])
def test_a_fault_breaks_the_rule_that_it_should(fault: Callable[[], AbstractContextManager[Any]], rule: str) -> None:
    with shaken(), fault():
        assert any(breaks(rule, seed) for seed in range(SCHEDULES))


def breaks(rule: str, seed: int) -> bool:
    """Play a schedule; return whether it broke `rule`, which may be after others."""
    try:
        play(seed, patience=1.0)
    except (AssertionError, DrainTimeout) as error:
        return re.search(rule, str(error)) is not None
    return False
