"""A callback that fails harms nobody: it is logged once, counted, announced and, after many times, switched off."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import NoReturn

import pytest

from lineside.bus import Bus, WouldDeadlock
from lineside.schemas import Event, EventsMissed, SubscriberFailed
from tests.turns import turn

from .support import KINDS, PATIENCE, AsyncClosable, Beat, Closable, Kind, Tick, Tock, collect, numbers, run_script

EVERY_KIND = pytest.mark.parametrize("kind", KINDS)


@contextmanager
def failures(bus: Bus) -> Generator[list[SubscriberFailed]]:
    """The failures announced inside the block."""
    announced: list[SubscriberFailed] = []
    with bus.subscribe(announced.append, SubscriberFailed):
        yield announced
        bus.drain()  # waits for the callbacks that fail
        bus.drain()  # waits for what was published when they did


def fail(event: Beat) -> NoReturn:
    raise ValueError(f"no {event.n}")


@EVERY_KIND
def test_the_next_event_comes_all_the_same(bus: Bus, kind: Kind) -> None:
    got: list[int] = []

    def see(event: Beat) -> None:
        if event.n % 2:
            raise ValueError(event.n)
        got.append(event.n)

    subscription = collect(bus, kind, Tick, see)
    for n in range(20):
        bus.publish(Tick, n=n)
    bus.drain()
    assert got == list(range(0, 20, 2))
    assert (subscription.stats.delivered, subscription.stats.failed) == (10, 10)
    assert subscription.stats.state == "active"


@EVERY_KIND
def test_nobody_else_notices(bus: Bus, kind: Kind) -> None:
    got: list[Beat] = []
    collect(bus, kind, Tick, fail)
    collect(bus, kind, Tick, got.append)
    for n in range(100):
        bus.publish(Tick, n=n)
    bus.drain()
    assert numbers(got) == list(range(100))


@EVERY_KIND
def test_a_failure_is_announced_with_what_where_and_why(bus: Bus, kind: Kind) -> None:
    with failures(bus) as announced:
        collect(bus, kind, Tick, fail, name="broken")
        bus.publish(Tick, n=7)
    (failure,) = announced
    assert (failure.subscription, failure.event, failure.event_seq) == ("broken", "tests.Tick", 1)
    assert (failure.failures, failure.switched_off) == (1, False)
    assert (failure.error.type, failure.error.message) == ("ValueError", "no 7")
    assert failure.error.traceback.startswith("Traceback")
    assert 'raise ValueError(f"no {event.n}")' in failure.error.traceback


@EVERY_KIND
def test_failures_are_logged_once_in_a_while_with_their_traceback(
    bus: Bus, kind: Kind, caplog: pytest.LogCaptureFixture
) -> None:
    def see(event: Beat) -> None:
        if event.n != 3:
            fail(event)

    collect(bus, kind, Tick, see, name="broken")
    with caplog.at_level(logging.INFO, "lineside.bus"):
        for n in range(7):
            bus.publish(Tick, n=n)
        bus.drain()
    (first,) = caplog.records
    assert first.getMessage() == "broken failed on Tick (seq 1)"
    assert first.exc_info is not None
    assert first.exc_info[0] is ValueError


@EVERY_KIND
def test_many_failures_in_a_row_switch_it_off(bus: Bus, kind: Kind, caplog: pytest.LogCaptureFixture) -> None:
    calls: list[int] = []

    def see(event: Beat) -> None:
        calls.append(event.n)
        if event.n != 1:
            fail(event)

    with failures(bus) as announced:
        subscription = collect(bus, kind, Tick, see, max_failures=3)
        for n in range(100):
            bus.publish(Tick, n=n)
        bus.drain()
    assert calls == [0, 1, 2, 3, 4]
    assert subscription.stats.state == "switched off"
    assert [(failure.failures, failure.switched_off) for failure in announced] == [
        (1, False),
        (1, False),
        (2, False),
        (3, True),
    ]
    assert caplog.records[-1].getMessage().endswith("switched off after 3 failures in a row")
    bus.drain()
    assert not bus.stats().subscriptions


@EVERY_KIND
def test_a_call_is_tried_again_if_asked_for(bus: Bus, kind: Kind) -> None:
    calls: list[int] = []

    def see(event: Beat) -> None:
        calls.append(event.n)
        if calls.count(event.n) <= event.n:
            fail(event)

    with failures(bus) as announced:
        subscription = collect(bus, kind, Tick, see, retries=1)
        for n in range(3):
            bus.publish(Tick, n=n)
    assert calls == [0, 1, 1, 2, 2]  # in order: the next event waits for the retries of this one
    assert (subscription.stats.delivered, subscription.stats.failed) == (2, 1)
    assert [failure.event_seq for failure in announced] == [3]


class Rude(Exception):
    def __str__(self) -> str:
        raise RuntimeError("not even that")


ERRORS: list[Callable[[], BaseException]] = [
    asyncio.CancelledError,
    SystemExit,
    StopIteration,
    StopAsyncIteration,
    MemoryError,
    Rude,
    lambda: ExceptionGroup("several", [ValueError(1), KeyError(2)]),
]


@EVERY_KIND
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: getattr(error, "__name__", "group"))
def test_any_exception_is_a_failure_like_another(bus: Bus, kind: Kind, error: Callable[[], BaseException]) -> None:
    got: list[int] = []

    def see(event: Beat) -> None:
        if event.n == 1:
            raise error()
        got.append(event.n)

    with failures(bus) as announced:
        subscription = collect(bus, kind, Tick, see)
        for n in range(3):
            bus.publish(Tick, n=n)
    assert got == [0, 2]
    assert (subscription.stats.delivered, subscription.stats.failed) == (2, 1)
    assert len(announced) == 1


def test_even_a_keyboard_interrupt_raised_in_a_thread_stays_there(bus: Bus) -> None:
    got: list[int] = []

    def see(event: Tick) -> None:
        if event.n == 1:
            raise KeyboardInterrupt
        got.append(event.n)

    bus.subscribe(see, Tick)
    for n in range(3):
        bus.publish(Tick, n=n)
    bus.drain()
    assert got == [0, 2]


@EVERY_KIND
def test_a_failing_reader_of_failures_does_not_feed_itself(bus: Bus, kind: Kind) -> None:
    def see(_: Event) -> NoReturn:
        raise ValueError

    everything = collect(bus, kind, Event, see, max_failures=1000)
    bus.publish(Tick, n=1)
    for _ in range(10):
        bus.drain()
    # Tick, the failure on Tick; a failure on that failure is counted and logged, and not announced.
    assert bus.position == 2
    assert everything.stats.failed == 2


def test_two_failing_readers_of_failures_do_not_feed_each_other(bus: Bus) -> None:
    def see(_: Event) -> NoReturn:
        raise ValueError

    bus.subscribe(see, SubscriberFailed, max_failures=1000)
    bus.subscribe(see, SubscriberFailed, EventsMissed, max_failures=1000)
    bus.subscribe(fail, Tick)
    bus.publish(Tick, n=1)
    for _ in range(10):
        bus.drain()
    assert bus.position == 2


def test_an_async_callback_that_hangs_is_cancelled(bus: Bus) -> None:
    cancelled: list[int] = []
    got: list[int] = []

    async def see(event: Tick) -> None:
        if event.n == 1:
            try:
                await asyncio.Event().wait()
            finally:
                cancelled.append(event.n)
        got.append(event.n)

    with failures(bus) as announced:
        bus.subscribe(see, Tick, timeout=0.05, name="slow")
        for n in range(3):
            bus.publish(Tick, n=n)
    assert cancelled == [1]
    assert got == [0, 2]
    assert [failure.error.type for failure in announced] == ["CallbackTimeout"]
    assert announced[0].error.message == "slow did not return within its timeout of 0.05 s"


def test_a_plain_callback_that_hangs_is_left_behind(bus: Bus) -> None:
    release = threading.Event()
    got: list[int] = []

    def see(event: Tick) -> None:
        if event.n == 1:
            assert release.wait(PATIENCE)
        else:
            got.append(event.n)

    with failures(bus) as announced:
        subscription = bus.subscribe(see, Tick, timeout=2.0)
        for n in range(3):
            bus.publish(Tick, n=n)
    assert got == [0, 2]
    assert [failure.error.type for failure in announced] == ["CallbackTimeout"]
    assert subscription.stats.lane == "thread"
    release.set()


def test_a_callback_that_hangs_is_tried_again_too(bus: Bus) -> None:
    calls: list[int] = []

    async def see(event: Tick) -> None:
        calls.append(event.n)
        if len(calls) == 1:
            await asyncio.Event().wait()

    subscription = bus.subscribe(see, Tick, timeout=0.05, retries=2)
    bus.publish(Tick, n=1)
    bus.drain()
    assert calls == [1, 1]
    assert (subscription.stats.delivered, subscription.stats.failed) == (1, 0)


def test_a_timeout_of_the_callback_itself_is_not_taken_for_ours(bus: Bus) -> None:
    async def see(_: Tick) -> None:
        raise TimeoutError("the server did not answer")

    def see_plainly(_: Tick) -> None:
        raise TimeoutError("the server did not answer")

    with failures(bus) as announced:
        bus.subscribe(see, Tick, timeout=PATIENCE)
        bus.subscribe(see_plainly, Tick, timeout=PATIENCE)
        bus.publish(Tick, n=1)
    assert [(failure.error.type, failure.error.message) for failure in announced] == [
        ("TimeoutError", "the server did not answer")
    ] * 2


def test_a_callback_that_is_cancelled_for_its_timeout_may_still_await_its_cleanup(bus: Bus) -> None:
    cleaned: list[int] = []

    async def see(event: Tick) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await turn()
            cleaned.append(event.n)

    with failures(bus) as announced:
        bus.subscribe(see, Tick, timeout=0.05)
        bus.publish(Tick, n=1)
    assert cleaned == [1]
    assert [failure.error.type for failure in announced] == ["CallbackTimeout"]


def test_a_plain_callback_with_a_timeout_keeps_its_thread_until_it_hangs(bus: Bus) -> None:
    release = threading.Event()
    threads: list[threading.Thread] = []

    def see(event: Tick) -> None:
        threads.append(threading.current_thread())
        if event.n == 2:
            assert release.wait(PATIENCE)

    with bus.subscribe(see, Tick, timeout=2.0) as subscription:
        for n in range(5):
            bus.publish(Tick, n=n)
        bus.drain()
        assert subscription.stats.failed == 1
    before, after = threads[0], threads[-1]
    assert threads == [before] * 3 + [after] * 2
    assert before is not after
    release.set()
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()


def test_a_plain_callback_with_a_timeout_is_refused_a_wait_for_itself(bus: Bus) -> None:
    refused: list[WouldDeadlock] = []

    def see(_: Tick) -> None:
        try:
            bus.drain()
        except WouldDeadlock as refusal:
            refused.append(refusal)

    bus.subscribe(see, Tick, timeout=PATIENCE)
    for n in range(2):
        bus.publish(Tick, n=n)
        bus.drain(PATIENCE)
    assert len(refused) == 2


@EVERY_KIND
def test_a_callback_within_its_timeout_is_none_the_wiser(bus: Bus, kind: Kind) -> None:
    got: list[Beat] = []
    collect(bus, kind, Tick, got.append, timeout=PATIENCE)
    for n in range(20):
        bus.publish(Tick, n=n)
    bus.drain()
    assert numbers(got) == list(range(20))


# -- fields that do not fit ------------------------------------------------------------------------


def test_fields_that_do_not_fit_are_announced_and_the_next_event_comes(
    bus: Bus, caplog: pytest.LogCaptureFixture
) -> None:
    got: list[Event] = []
    bus.subscribe(got.append, Event)
    bus.publish(Tick, n=1)
    bus.publish(Tick, n="many", colour="red")
    bus.publish(Tick, n=3)
    bus.drain()
    bus.drain()
    assert numbers(got) == [1, 3]
    (missed,) = [event for event in got if isinstance(event, EventsMissed)]
    assert (missed.subscription, missed.reason, missed.count) == (None, "invalid", 1)
    assert (missed.first, missed.last) == (2, 2)
    assert "n: Input should be a valid integer" in missed.detail
    assert "colour: Extra inputs are not permitted" in missed.detail
    assert "a published Tick is not delivered" in caplog.text
    assert bus.stats().invalid == 1


def test_a_family_is_no_event(bus: Bus) -> None:
    got: list[Event] = []
    bus.subscribe(got.append, Event)
    bus.publish(Beat, n=1)
    bus.drain()
    bus.drain()
    assert [type(event) for event in got] == [EventsMissed]
    assert "family" in str(got[0])


class Checked(Beat, name="tests.Checked"):
    def model_post_init(self, context: object, /) -> None:
        if self.n == 1:
            raise SystemExit("a validator is the user's code")
        if self.n == 2:
            raise LookupError("so it may raise anything")


def test_a_validator_that_raises_is_a_misfit_like_another(bus: Bus) -> None:
    got: list[Event] = []
    bus.subscribe(got.append, Event)
    for n in range(4):
        bus.publish(Checked, n=n)
    for _ in range(2):
        bus.drain(PATIENCE)
    assert numbers(got) == [0, 3]
    assert [event.first for event in got if isinstance(event, EventsMissed)] == [2, 3]


class Prophecy(Beat, name="tests.Prophecy"):
    of: NeverDefined  # type: ignore[name-defined]  # noqa: F821  # pyright: ignore[reportUndefinedVariable]


class Enigma:
    """Something that pydantic knows nothing of."""


class Riddle(Beat, name="tests.Riddle"):
    of: Enigma


@pytest.mark.parametrize(("cls", "reason"), [(Prophecy, "NeverDefined"), (Riddle, "Enigma")])
def test_a_class_that_pydantic_cannot_build_is_a_misfit(bus: Bus, cls: type[Event], reason: str) -> None:
    got: list[Event] = []
    bus.subscribe(got.append, Event)
    bus.publish(cls, n=1, of=2)
    bus.publish(Tick, n=3)
    for _ in range(2):
        bus.drain(PATIENCE)
    assert numbers(got) == [3]
    (missed,) = [event for event in got if isinstance(event, EventsMissed)]
    assert reason in missed.detail


class Baggage(Event, name="tests.Baggage"):
    content: object


class Unweighable:
    @property
    def nbytes(self) -> int:
        raise RuntimeError("no scales")


def test_a_value_that_cannot_be_weighed_harms_no_other_event(bus: Bus) -> None:
    knot: list[object] = []
    knot.append(knot)
    got: list[Event] = []
    bus.subscribe(got.append, Event)
    for content in (Unweighable(), knot):
        bus.publish(Tick, n=1)
        bus.publish(Baggage, content=content)
        bus.publish(Tick, n=2)
        bus.drain(PATIENCE)
    assert numbers(got) == [1, 2, 1, 2]
    assert [event.seq for event in got if isinstance(event, Beat)] == [1, 3, 4, 6]
    assert len(got) + bus.stats().invalid >= 6


def test_a_validator_may_publish(bus: Bus) -> None:
    got: list[Beat] = []

    class Echo(Beat, name="tests.Echo"):
        def model_post_init(self, context: object, /) -> None:
            bus.publish(Tick, n=self.n + 1)

    bus.subscribe(got.append, Beat)
    bus.publish(Echo, n=1)
    for _ in range(2):
        bus.drain(PATIENCE)
    assert numbers(got) == [1, 2]


def test_an_async_callback_that_no_loop_can_be_started_for_costs_nobody_else() -> None:
    done = run_script(
        """
        import os, resource
        from lineside.bus import Bus
        from lineside.schemas import Event

        class Step(Event):
            n: int

        async def later(event): ...

        with Bus() as bus:
            subscription = bus.subscribe(later, Step, name="homeless")
            got = []
            bus.subscribe(got.append, Step)
            _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
            taken = len(os.listdir("/proc/self/fd")) - 1
            resource.setrlimit(resource.RLIMIT_NOFILE, (taken, most))
            bus.publish(Step, n=1)
            bus.drain(10)
            bus.publish(Step, n=2)
            bus.drain(10)
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
            print(subscription.stats.state, len(got))
        """
    )
    assert done.stdout == "switched off 2\n"
    assert "homeless was switched off: no event loop could be started for it: [Errno 24]" in done.stderr


def test_a_callback_that_no_thread_can_be_started_for_costs_nobody_else(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    got: list[Beat] = []
    bus.subscribe(got.append, Tick)
    bus.publish(Tick, n=1)
    bus.drain(PATIENCE)
    closable = Closable()
    homeless = bus.subscribe(closable, Tick, name="homeless")
    with monkeypatch.context() as limits:
        limits.setattr(threading.Thread, "start", refuse_to_start)
        bus.publish(Tick, n=2)
        bus.drain(PATIENCE)
    bus.publish(Tick, n=3)
    bus.drain(PATIENCE)
    assert numbers(got) == [1, 2, 3]
    assert homeless.stats.state == "switched off"
    assert closable.closed == 1


def refuse_to_start(thread: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


# -- callbacks with close() ------------------------------------------------------------------------


@pytest.mark.parametrize("make", [Closable, AsyncClosable])
def test_a_callback_is_closed_once_after_its_last_event(make: type[Closable]) -> None:
    one, other, idle = make(), make(), make()
    with Bus() as bus:
        bus.subscribe(one, Tick)
        bus.subscribe(idle, Tock)
        subscription = bus.subscribe(other, Tick)
        bus.publish(Tick, n=1)
        bus.drain()
        subscription.cancel()
        bus.publish(Tick, n=2)
    assert (numbers(one.got), one.closed) == ([1, 2], 1)
    assert (numbers(other.got), other.closed) == ([1], 1)
    assert (numbers(idle.got), idle.closed) == ([], 1)


@pytest.mark.parametrize("make", [Closable, AsyncClosable])
def test_a_callback_that_never_was_called_is_closed_when_it_is_cancelled(make: type[Closable]) -> None:
    callback = make()
    with Bus() as bus:
        bus.subscribe(callback, Tick).cancel()
    assert callback.closed == 1


@pytest.mark.parametrize("make", [Closable, AsyncClosable])
def test_a_callback_that_is_switched_off_is_closed(make: type[Closable]) -> None:
    callback = make()
    with Bus() as bus:
        bus.subscribe(callback, Tick, where=lambda event: 1 / event.n > 0, max_failures=1)
        bus.publish(Tick, n=0)
    assert callback.closed == 1


def test_a_close_that_raises_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    class Sticky:
        def __call__(self, event: Tick) -> None: ...

        def close(self) -> None:
            raise OSError("stuck")

    with Bus() as bus:
        bus.subscribe(Sticky(), Tick)
        bus.publish(Tick, n=1)
    assert "Sticky" in caplog.text
    assert "OSError: stuck" in caplog.text
