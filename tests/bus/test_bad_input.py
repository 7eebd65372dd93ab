"""Bad input is refused where it is given, with what was wrong and what was expected."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Literal

import pytest

from lineside.bus import Bus, BusError, CallbackRefused, PolicyRefused, RunIdRefused
from lineside.schemas import Event, LinesideError, NotAnEvent, UnknownEventName

from .support import Tick


@pytest.mark.parametrize("use", [Bus.subscribe, Bus.on, Bus.stream])
def test_an_unknown_event_name_is_refused_with_the_closest(bus: Bus, use: Callable[..., object]) -> None:
    arguments: list[object] = [print] if use is Bus.subscribe else []
    with pytest.raises(UnknownEventName, match=r"'on_train_batch_ends'.*did you mean 'on_train_batch_end'"):
        use(bus, *arguments, "on_train_batch_ends")
    with pytest.raises(NotAnEvent, match="expected an event class, a type name or a callback name, got 42"):
        use(bus, *arguments, 42)


async def test_next_refuses_unknown_events_too(bus: Bus) -> None:
    with pytest.raises(NotAnEvent):
        await bus.next(int)  # type: ignore[type-var]  # pyright: ignore[reportArgumentType]


class Taker:
    def __call__(self, event: Event) -> None: ...

    def none(self) -> None: ...

    def two(self, event: Event, other: Event) -> None: ...

    def by_keyword(self, *, event: Event) -> None: ...

    def many(self, *events: Event) -> None: ...

    def one_or_two(self, event: Event, other: Event | None = None) -> None: ...

    def yielding(self, event: Event) -> Iterator[None]:
        yield

    async def awaited(self, event: Event) -> bool:
        return False

    async def async_yielding(self, event: Event) -> AsyncIterator[None]:
        yield


def return_generator(event: Event) -> object:
    return Taker().yielding(event)


class Yielding:
    def __call__(self, event: Event) -> Iterator[None]:
        yield


REFUSED: list[tuple[object, str]] = [
    (42, "cannot subscribe 42: it is not callable; expected a function that takes one event"),
    (None, "it is not callable"),
    (Taker().none, "it is called with one event, but it takes () -> 'None' (too many positional arguments)"),
    (Taker().two, "-> 'None' (missing a required argument: 'other')"),
    (Taker().by_keyword, "it takes (*, event: 'Event') -> 'None' (too many positional arguments)"),
    (functools.partial(Taker().two, Tick(n=1), Tick(n=2)), "too many positional arguments"),
    (Taker, "it is a class; subscribe an instance of it, or a function"),
    ("no.such.module:function", "No module named 'no'"),
    ("json:no_such_function", "has no attribute 'no_such_function'"),
    ("json", "expected 'package.module:function'"),
]
ACCEPTED: list[object] = [
    Taker(),
    Taker().many,
    Taker().one_or_two,
    functools.partial(Taker().two, Tick(n=1)),
    list[Event]().append,
    print,
    "builtins:print",
]


@pytest.mark.parametrize(("callback", "reason"), REFUSED, ids=[str(index) for index in range(len(REFUSED))])
def test_a_callback_that_cannot_be_called_with_one_event_is_refused(bus: Bus, callback: Any, reason: str) -> None:
    with pytest.raises(CallbackRefused) as refusal:
        bus.subscribe(callback, Tick)
    assert reason in str(refusal.value)
    if not isinstance(callback, str):
        with pytest.raises(CallbackRefused):
            bus.on(Tick)(callback)
    bus.drain()
    assert not bus.stats().subscriptions


@pytest.mark.parametrize("callback", ACCEPTED, ids=[str(index) for index in range(len(ACCEPTED))])
def test_whatever_can_be_called_with_one_event_is_accepted(bus: Bus, callback: Any) -> None:
    bus.subscribe(callback, Tick).cancel()


@pytest.mark.parametrize(
    "callback",
    [Taker().yielding, Taker().async_yielding, Yielding(), functools.partial(Taker().yielding)],
    ids=["plain", "async", "object", "partial"],
)
def test_a_generator_function_which_a_call_would_not_run_is_refused(bus: Bus, callback: Any) -> None:
    message = "it has a `yield`, so that a call would run nothing of it; write it without"
    with pytest.raises(CallbackRefused, match=message):
        bus.subscribe(callback, Tick)
    with pytest.raises(CallbackRefused, match=message):
        bus.on(Tick)(callback)


def test_an_async_callback_has_no_thread(bus: Bus) -> None:
    async def see(_: Tick) -> None: ...

    with pytest.raises(CallbackRefused, match="lane='thread' is for plain functions; an async one runs in lane='loop'"):
        bus.subscribe(see, Tick, lane="thread")


POLICIES: list[tuple[dict[str, Any], str]] = [
    ({"everry": 2}, "unknown keyword 'everry'; known are name, lane, where, every, once, run, since"),
    ({"every": 0}, "every=0: Input should be greater than or equal to 1"),
    ({"every": "often"}, "every='often': "),
    ({"lane": "gpu"}, "lane='gpu': Input should be 'loop', 'thread' or 'process'"),
    ({"overflow": "explode"}, "overflow='explode': Input should be 'spill', 'drop', 'latest' or 'wait'"),
    ({"where": 42}, "where=42: Input should be callable"),
    ({"since": -1}, "since=-1: "),
    ({"since": "yesterday"}, "since='yesterday': "),
    ({"timeout": 0}, "timeout=0: Input should be greater than 0"),
    ({"timeout": float("nan")}, "timeout=nan: Input should be"),
    ({"latency": -1}, "latency=-1: Input should be greater than or equal to 0"),
    ({"retries": -1}, "retries=-1: "),
    ({"max_failures": 0}, "max_failures=0: "),
    ({"name": ""}, "name='': "),
    ({"overflow": "wait", "backlog": 0}, "backlog=0: "),
    ({"backlog": 5}, "backlog= goes with overflow='wait'"),
]


@pytest.mark.parametrize(("policy", "reason"), POLICIES, ids=[str(policy) for policy, _ in POLICIES])
def test_a_policy_that_makes_no_sense_is_refused(bus: Bus, policy: dict[str, Any], reason: str) -> None:
    for attempt in (bus.on, bus.stream, functools.partial(bus.subscribe, print)):
        with pytest.raises(PolicyRefused) as refusal:
            attempt(Tick, **policy)
        assert str(refusal.value).startswith("cannot subscribe: ")
        assert reason in str(refusal.value)


@pytest.mark.parametrize(
    ("where", "reason"),
    [
        (Taker().awaited, "it is async, and the coroutine that a call returns is true of every event"),
        (Taker().yielding, "it has a `yield`, and the generator that a call returns is true of every event"),
        (Taker().none, "it takes () -> 'None' (too many positional arguments)"),
    ],
    ids=["async", "generator", "no argument"],
)
def test_a_filter_that_could_tell_no_event_from_another_is_refused(bus: Bus, where: Any, reason: str) -> None:
    for attempt in (bus.on, bus.stream, functools.partial(bus.subscribe, print)):
        with pytest.raises(PolicyRefused) as refusal:
            attempt(Tick, where=where)
        assert f"{reason}; expected a plain function of one event" in str(refusal.value)


@pytest.mark.parametrize("keyword", [{"lane": "loop"}, {"timeout": 1}, {"retries": 1}, {"max_failures": 1}], ids=str)
def test_a_stream_refuses_what_is_for_callbacks(bus: Bus, keyword: dict[str, Any]) -> None:
    with pytest.raises(PolicyRefused, match="is for callbacks; a stream has none"):
        bus.stream(Tick, **keyword)


@pytest.mark.parametrize(
    "setting",
    [
        {"window": 0},
        {"window_bytes": 0},
        {"latency": -1},
        {"latency": float("inf")},
        {"close_timeout": -1},
        {"close_timeout": float("inf")},
        {"close_timeout": 1e12},
        {"close_timeout": "5"},
        {"window": None},
    ],
    ids=str,
)
def test_a_bus_of_impossible_size_is_refused(setting: dict[str, Any]) -> None:
    with pytest.raises(PolicyRefused, match="^cannot make a bus: .*expected positive sizes and times of 0 or more"):
        Bus(**setting)


@pytest.mark.parametrize("value", [42, "Tick", None, int, object(), [Tick]], ids=lambda value: type(value).__name__)
def test_only_events_can_be_published(bus: Bus, value: Any) -> None:
    with pytest.raises(NotAnEvent, match="expected an event, or an event class and its fields, got"):
        bus.publish(value)
    with pytest.raises(NotAnEvent):
        bus.source("r").publish(value)


class Pretender:
    urgent = False


def test_what_only_looks_like_an_event_harms_no_other_event(bus: Bus) -> None:
    got: list[Event] = []
    bus.subscribe(got.append, Event)
    for n in range(3):
        bus.publish(Tick, n=n)
        bus.publish(Pretender())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    bus.publish(Tick, n=3)
    bus.drain(10)
    assert [event.n for event in got if isinstance(event, Tick)] == [0, 1, 2, 3]
    assert bus.stats().invalid == 3


@pytest.mark.parametrize("run", ["a/b", "..", "a b", "x" * 65, "é", "a\n"], ids=repr)
def test_an_id_that_could_not_be_a_file_name_is_refused(bus: Bus, run: str) -> None:
    with pytest.raises(RunIdRefused, match="is no run id: expected 1 to 64 of the characters A-Z a-z 0-9 _ -"):
        bus.source(run)


def test_every_error_of_the_bus_is_ours_and_also_the_fitting_builtin() -> None:
    import lineside.bus.errors as errors

    own = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, BusError)]
    assert len(own) > 8
    for error in own:
        assert issubclass(error, LinesideError)
        builtins = [base for base in error.__mro__ if base.__module__ == "builtins"]
        assert error is BusError or builtins[0] is not Exception


def test_a_plain_function_that_returns_a_coroutine_is_told_that_nobody_awaits_it(
    bus: Bus, caplog: pytest.LogCaptureFixture
) -> None:
    async def see(event: Tick) -> None:
        raise AssertionError

    subscription = bus.subscribe(lambda event: see(event), Tick)
    bus.publish(Tick, n=1)
    bus.drain()
    assert (subscription.stats.delivered, subscription.stats.failed) == (0, 1)
    assert "returned a coroutine, which nobody awaits in a thread; subscribe the async function itself" in caplog.text


@pytest.mark.parametrize("lane", ["thread", "loop"])
def test_a_plain_function_that_returns_a_generator_is_told_that_nothing_of_it_runs(
    bus: Bus, lane: Literal["thread", "loop"], caplog: pytest.LogCaptureFixture
) -> None:
    subscription = bus.subscribe(return_generator, Tick, lane=lane)
    bus.publish(Tick, n=1)
    bus.drain()
    assert (subscription.stats.delivered, subscription.stats.failed) == (0, 1)
    assert "it returned a generator, of which nothing runs; iterate over it there" in caplog.text


async def test_a_coroutine_that_a_plain_function_returns_on_the_loop_is_awaited() -> None:
    got: list[int] = []

    async def see(event: Tick) -> None:
        got.append(event.n)

    async with Bus() as bus:
        bus.subscribe(lambda event: see(event), Tick, lane="loop")
        bus.publish(Tick, n=1)
    assert got == [1]


def test_an_async_close_is_told_that_nobody_awaits_it(caplog: pytest.LogCaptureFixture) -> None:
    class Callback:
        def __call__(self, event: Tick) -> None: ...

        async def close(self) -> None:
            raise AssertionError

    with Bus() as bus:
        bus.subscribe(Callback(), Tick)
        bus.publish(Tick, n=1)
    assert "an async one would never be awaited" in caplog.text
