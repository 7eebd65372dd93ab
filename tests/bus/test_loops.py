"""Where callbacks run: the entered loop, or one in the background; and what happens when a loop goes away."""

from __future__ import annotations

import asyncio
import threading
from contextvars import ContextVar

import pytest

from lineside.bus import Bus
from tests.turns import turn

from .support import KINDS, PATIENCE, Beat, Closable, Kind, Tick, collect, numbers

colour: ContextVar[str] = ContextVar("colour", default="none")


async def test_async_callbacks_run_on_the_loop_the_bus_was_entered_on() -> None:
    loops: list[asyncio.AbstractEventLoop] = []

    async def see(_: Tick) -> None:
        loops.append(asyncio.get_running_loop())

    async with Bus() as bus:
        assert bus.loop is asyncio.get_running_loop()
        bus.subscribe(see, Tick)
        bus.publish(Tick, n=1)
    assert loops == [asyncio.get_running_loop()]


async def test_async_callbacks_of_a_plain_bus_run_on_a_loop_in_the_background(bus: Bus) -> None:
    loops: set[asyncio.AbstractEventLoop] = set()
    threads: set[int] = set()
    before = loop_threads()

    async def see(_: Tick) -> None:
        loops.add(asyncio.get_running_loop())
        threads.add(threading.get_ident())

    for _ in range(3):
        bus.subscribe(see, Tick)
    bus.publish(Tick, n=1)
    bus.drain()  # from a running loop, because another one does the work
    assert loops == {bus.loop}
    assert bus.loop is not asyncio.get_running_loop()
    assert threads == {thread.ident for thread in loop_threads() - before}


def loop_threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name == "lineside-loop"}


async def test_plain_callbacks_run_on_the_loop_if_asked_for() -> None:
    threads: list[int] = []
    async with Bus() as bus:
        bus.subscribe(lambda _: threads.append(threading.get_ident()), Tick, lane="loop")
        bus.publish(Tick, n=1)
    assert threads == [threading.get_ident()]


def test_no_loop_is_started_where_nothing_needs_one() -> None:
    before = loop_threads()
    with Bus() as bus:
        bus.subscribe(print, Tick, where=lambda _: False)
        bus.publish(Tick, n=1)
        bus.drain()
        assert loop_threads() == before


def test_the_loop_in_the_background_takes_other_work_too(bus: Bus) -> None:
    async def double(n: int) -> int:
        return 2 * n

    assert asyncio.run_coroutine_threadsafe(double(3), bus.loop).result(PATIENCE) == 6


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("timeout", [None, PATIENCE])
def test_a_callback_does_not_inherit_the_context_of_the_publisher(bus: Bus, kind: Kind, timeout: float | None) -> None:
    colours: list[str] = []

    def see(_: Beat) -> None:
        colours.append(colour.get())
        colour.set("blue")

    token = colour.set("red")
    if timeout is None:
        collect(bus, kind, Tick, see)
    else:
        collect(bus, kind, Tick, see, timeout=timeout)
    bus.publish(Tick, n=1)
    bus.drain()
    colour.reset(token)
    assert colours == ["none"]


def test_a_loop_that_ended_takes_its_callbacks_with_it_and_nobody_else(caplog: pytest.LogCaptureFixture) -> None:
    seen: list[int] = []
    got: list[Beat] = []

    async def see(event: Tick) -> None:
        seen.append(event.n)

    async def enter(bus: Bus) -> None:
        await bus.__aenter__()
        bus.subscribe(see, Tick, name="homeless")
        bus.publish(Tick, n=1)
        await bus.adrain()

    with Bus() as bus:
        bus.subscribe(got.append, Tick)
        asyncio.run(enter(bus))
        for n in range(2, 50):
            bus.publish(Tick, n=n)
        bus.drain(PATIENCE)
        assert seen == [1]
        assert numbers(got) == list(range(1, 50))
        assert [other.name for other in bus.stats().subscriptions] == ["list.append-1"]
    assert "homeless was switched off: its task was cancelled" in caplog.text


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_loop_that_was_closed_under_its_callbacks_is_noticed(caplog: pytest.LogCaptureFixture) -> None:
    got: list[Beat] = []
    callback = Closable()
    with Bus() as bus:
        bus.subscribe(got.append, Tick)
        loop = asyncio.new_event_loop()

        async def enter() -> None:
            await bus.__aenter__()
            bus.subscribe(callback, Tick, lane="loop", name="homeless")
            bus.publish(Tick, n=1)
            await bus.adrain()

        loop.run_until_complete(enter())
        for task in asyncio.all_tasks(loop):
            task._log_destroy_pending = False  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
        loop.close()  # nobody cancelled its tasks
        with bus.stream(Tick) as stream:  # reading on yet another loop must not hide the loss of the first
            bus.publish(Tick, n=2)

            async def read() -> int:
                return (await anext(stream)).n

            assert asyncio.run(read()) == 2
        bus.publish(Tick, n=3)
        bus.drain(PATIENCE)
    assert numbers(got) == [1, 2, 3]
    assert numbers(callback.got) == [1]
    assert callback.closed == 1
    assert "homeless was switched off: the event loop that it ran on was closed" in caplog.text


def test_a_subscription_made_after_its_loop_ended_is_switched_off(caplog: pytest.LogCaptureFixture) -> None:
    async def enter(bus: Bus) -> None:
        await bus.__aenter__()

    async def see(_: Tick) -> None:
        raise AssertionError

    with Bus() as bus:
        asyncio.run(enter(bus))
        bus.subscribe(see, Tick, name="homeless")
        bus.publish(Tick, n=1)
        bus.drain(PATIENCE)
    assert "homeless was switched off: the event loop that it ran on was closed" in caplog.text


async def test_a_task_that_somebody_cancels_is_switched_off(caplog: pytest.LogCaptureFixture) -> None:
    got: list[Beat] = []

    async def see(_: Tick) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await turn()

    async with Bus() as bus:
        bus.subscribe(see, Tick, name="reckless")
        bus.subscribe(got.append, Tick)
        for n in range(3):
            bus.publish(Tick, n=n)
        await bus.adrain(PATIENCE)
    assert numbers(got) == [0, 1, 2]
    assert "reckless was switched off: its task was cancelled" in caplog.text


async def test_callbacks_of_one_loop_take_turns() -> None:
    turns: list[str] = []

    def reader(name: str) -> None:
        async def see(event: Tick) -> None:
            turns.append(name)
            sum(range(2000))  # some work: turns are measured in time

        bus.subscribe(see, Tick)

    async with Bus() as bus:
        reader("a")
        reader("b")
        for n in range(1000):
            bus.publish(Tick, n=n)
        await bus.adrain()
    halves = "".join(turns)
    assert halves.index("b") < 500  # the first has not eaten the whole backlog before the second began
