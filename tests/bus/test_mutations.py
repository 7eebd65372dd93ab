"""The proof that the checks of a `Stage` can fail: each part of the bus is broken on purpose, and that is found out."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from unittest import mock

import pytest

from lineside.bus import DrainTimeout, Subscription
from lineside.bus.bell import Bell
from lineside.bus.inbox import Inbox
from lineside.bus.log import Cursor
from lineside.schemas import Event

from .schedules import play, shaken

Break = Callable[[], "mock._patch[Any]"]
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
    return mock.patch("lineside.bus.log.Cursor._count", lambda *_: None)


def count_one_too_many() -> Any:
    lose, now = Cursor.lose, sometimes()

    def broken(cursor: Cursor, *arguments: Any, **keywords: Any) -> None:
        lose(cursor, *arguments, **keywords)
        cursor.missed += cursor.missed > 0 and now()

    return mock.patch.object(Cursor, "lose", broken)


def keep_gaps_to_oneself() -> Any:
    return mock.patch("lineside.bus.subscription.Subscription._announce", lambda *_: None)


def miss_the_bell() -> Any:
    ring, now = Bell.ring, sometimes()

    def broken(bell: Bell) -> None:
        if not now():
            ring(bell)

    return mock.patch.object(Bell, "ring", broken)


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
    return mock.patch.object(Subscription, "fail", lambda *_: None)


def go_on_after_the_end() -> Any:
    return mock.patch.object(Subscription, "cancel", lambda _: None)


def wait_for_nobody() -> Any:
    return mock.patch("lineside.bus.sequencer.Sequencer._waited_for", lambda _: [])


def show_what_is_old() -> Any:
    return mock.patch("lineside.bus.subscription.sorted", lambda items, key: list(items)[:1], create=True)


def misnumber() -> Any:
    return mock.patch("lineside.bus.sequencer.sign", lambda event, *_: event.__dict__.update(seq=7))


def never_end_a_stream() -> Any:
    return mock.patch("lineside.bus.stream.Stream._at_end", lambda _: False)


def begin_too_early() -> Any:
    start = Cursor.start
    return mock.patch.object(Cursor, "start", lambda cursor, position: start(cursor, max(position - 2, 0)))


FAULTS = [
    skip_one,
    repeat_one,
    swap_two,
    forget_what_is_lost,
    count_one_too_many,
    keep_gaps_to_oneself,
    miss_the_bell,
    lose_on_the_way_in,
    jump_the_queue,
    overlook_failures,
    go_on_after_the_end,
    wait_for_nobody,
    show_what_is_old,
    misnumber,
    never_end_a_stream,
    begin_too_early,
]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found(fault: Callable[[], Any]) -> None:
    with shaken(), fault(), pytest.raises((AssertionError, DrainTimeout)):
        for seed in range(SCHEDULES):
            play(seed, patience=1.0)
