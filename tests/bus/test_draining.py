"""`drain` waits for what was published before it, and never for itself."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from lineside.bus import Bus, CloseReport, DrainTimeout, WouldDeadlock
from tests.turns import begin, turn

from .support import KINDS, PATIENCE, Beat, Gated, Kind, Tick, collect, numbers, wait_for_lag

EVERY_KIND = pytest.mark.parametrize("kind", KINDS)


@EVERY_KIND
def test_a_drain_waits_for_the_callbacks(kind: Kind) -> None:
    got: list[Beat] = []
    with Bus(latency=1000) as bus:  # it does not wait for the latency of batch events
        collect(bus, kind, Tick, got.append)
        for n in range(300):
            bus.publish(Tick, n=n)
        bus.drain()
        assert numbers(got) == list(range(300))


async def test_an_async_drain_waits_for_the_callbacks_on_its_own_loop() -> None:
    got: list[int] = []

    async def see(event: Tick) -> None:
        await turn()
        got.append(event.n)

    async with Bus(latency=1000) as bus:
        bus.subscribe(see, Tick)
        for n in range(300):
            bus.publish(Tick, n=n)
        await bus.adrain()
        assert got == list(range(300))


def test_a_bus_without_readers_is_drained_when_it_has_numbered_everything(bus: Bus) -> None:
    bus.drain()
    for n in range(300):
        bus.publish(Tick, n=n)
    bus.drain()
    assert bus.position == 300


def test_a_drain_does_not_wait_for_streams(bus: Bus) -> None:
    with bus.stream(Tick) as stream:
        bus.publish(Tick, n=1)
        bus.drain()
        assert next(stream).n == 1


async def test_a_drain_does_not_wait_for_what_is_published_after_it(bus: Bus) -> None:
    first, more = Gated(), Gated()

    def see(event: Beat) -> None:
        if event.n == 1:
            first(event)
            bus.publish(Tick, n=2)
        else:
            more(event)

    bus.subscribe(see, Tick)
    bus.publish(Tick, n=1)
    drained = await begin(bus.adrain())
    first.open()
    await drained
    assert not more.got
    more.open()
    await bus.adrain()
    assert numbers(more.got) == [2]


def test_events_that_no_filter_lets_through_are_handled_too(bus: Bus) -> None:
    bus.subscribe(print, Tick, where=lambda _: False)
    bus.publish(Tick, n=1)
    bus.drain()


def test_many_may_drain_at_once(bus: Bus) -> None:
    got: list[Beat] = []
    bus.subscribe(got.append, Tick)

    def work(thread: int) -> bool:
        for n in range(20):
            bus.publish(Tick, n=100 * thread + n)
        bus.drain()
        return set(range(100 * thread, 100 * thread + 20)) <= set(numbers(list(got)))

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(4)))


def test_a_drain_that_takes_too_long_says_who_is_late(bus: Bus) -> None:
    stuck = Gated()
    subscription = bus.subscribe(stuck, Tick, name="stuck")
    for n in range(3):
        bus.publish(Tick, n=n)
    assert stuck.entered.wait(PATIENCE)
    wait_for_lag(subscription, 3)
    with pytest.raises(
        DrainTimeout, match=r"not drained within 0\.01 s: still waiting for stuck \(3 positions behind\)"
    ):
        bus.drain(0.01)
    stuck.open()
    bus.drain()


@pytest.mark.parametrize("end", ["cancel", "switch off"])
def test_a_drain_goes_on_when_the_one_it_waits_for_ends(bus: Bus, end: str) -> None:
    stuck = Gated()

    def see(event: Beat) -> None:
        stuck(event)
        raise ValueError

    subscription = bus.subscribe(see, Tick, max_failures=1)
    for n in range(3):
        bus.publish(Tick, n=n)
    with ThreadPoolExecutor(1) as pool:
        drained = pool.submit(bus.drain)
        assert stuck.entered.wait(PATIENCE)
        if end == "cancel":
            subscription.cancel()
            drained.result(PATIENCE)
        stuck.open()
        drained.result(PATIENCE)
    bus.drain()


SYNC_WAITS: list[Callable[[Bus], object]] = [Bus.drain, Bus.close]
ASYNC_WAITS: list[Callable[[Bus], Awaitable[None] | Awaitable[CloseReport]]] = [Bus.adrain, Bus.aclose]


@EVERY_KIND
@pytest.mark.parametrize("wait", SYNC_WAITS)
def test_a_callback_cannot_wait_for_itself(bus: Bus, kind: Kind, wait: Callable[[Bus], object]) -> None:
    errors: list[BaseException] = []

    def see(_: Beat) -> None:
        try:
            wait(bus)
        except WouldDeadlock as error:
            errors.append(error)

    collect(bus, kind, Tick, see, name="selfish")
    bus.publish(Tick, n=1)
    bus.drain()
    assert f"{wait.__name__}() inside the callback of selfish would wait for that callback" in str(errors[0])


@pytest.mark.parametrize("wait", ASYNC_WAITS)
def test_an_async_callback_cannot_wait_for_itself(bus: Bus, wait: Callable[[Bus], Awaitable[object]]) -> None:
    errors: list[BaseException] = []

    async def see(_: Beat) -> None:
        try:
            await wait(bus)
        except WouldDeadlock as error:
            errors.append(error)

    bus.subscribe(see, Tick)
    bus.publish(Tick, n=1)
    bus.drain()
    assert len(errors) == 1


def test_a_plain_callback_with_a_timeout_cannot_wait_for_itself(bus: Bus) -> None:
    errors: list[BaseException] = []

    def see(_: Beat) -> None:
        try:
            bus.drain()
        except WouldDeadlock as error:
            errors.append(error)

    bus.subscribe(see, Tick, timeout=PATIENCE)
    bus.publish(Tick, n=1)
    bus.drain()
    assert len(errors) == 1


def test_a_callback_may_wait_for_another_bus(bus: Bus) -> None:
    got: list[Beat] = []
    with Bus() as other:
        other.subscribe(got.append, Tick)

        def forward(event: Beat) -> None:
            other.publish(Tick, n=event.n)
            other.drain()

        bus.subscribe(forward, Tick)
        bus.publish(Tick, n=1)
        bus.drain()
        assert numbers(got) == [1]


@pytest.mark.parametrize("wait", SYNC_WAITS)
async def test_a_sync_wait_on_the_loop_of_the_callbacks_is_refused(wait: Callable[[Bus], object]) -> None:
    async with Bus() as bus:
        with pytest.raises(WouldDeadlock, match=rf"{wait.__name__}\(\) would stop the event loop .* await bus\.a"):
            wait(bus)


@pytest.mark.parametrize("wait", SYNC_WAITS)
def test_a_sync_wait_on_the_loop_in_the_background_is_refused(bus: Bus, wait: Callable[[Bus], object]) -> None:
    async def task() -> object:
        return wait(bus)

    with pytest.raises(WouldDeadlock, match="would stop the event loop"):
        asyncio.run_coroutine_threadsafe(task(), bus.loop).result(PATIENCE)


async def test_a_sync_wait_on_another_loop_is_fine(bus: Bus) -> None:
    got: list[Beat] = []

    async def see(event: Tick) -> None:
        got.append(event)

    bus.subscribe(see, Tick)
    bus.publish(Tick, n=1)
    bus.drain()
    bus.publish(Tick, n=2)
    await bus.adrain()
    assert numbers(got) == [1, 2]


def test_a_validator_cannot_wait_for_the_thread_it_runs_in(bus: Bus) -> None:
    errors: list[BaseException] = []

    class Impatient(Beat, name="tests.Impatient"):
        def model_post_init(self, context: object, /) -> None:
            try:
                bus.drain()
            except WouldDeadlock as error:
                errors.append(error)

    bus.subscribe(print, Impatient, where=lambda _: False)
    bus.publish(Impatient, n=1)
    bus.drain(PATIENCE)
    assert len(errors) == 1


def test_a_closed_bus_is_drained() -> None:
    bus = Bus()
    bus.close()
    bus.drain()
    asyncio.run(bus.adrain())


async def test_a_cancelled_drain_leaves_the_bus_as_it_was() -> None:
    gate = threading.Event()
    async with Bus() as bus:
        bus.subscribe(lambda _: gate.wait(PATIENCE), Tick)
        bus.publish(Tick, n=1)
        drain = await begin(bus.adrain())
        drain.cancel()
        with pytest.raises(asyncio.CancelledError):
            await drain
        gate.set()
        await bus.adrain()
        assert bus.stats().subscriptions[0].delivered == 1


async def test_a_task_that_a_callback_left_behind_may_drain() -> None:
    tasks: list[asyncio.Task[None]] = []
    async with Bus() as bus:

        async def spawn(_: Tick) -> None:
            tasks.append(asyncio.create_task(later()))

        returned = asyncio.Event()

        async def later() -> None:
            await returned.wait()
            await bus.adrain()

        bus.subscribe(spawn, Tick)
        bus.publish(Tick, n=1)
        await bus.adrain()
        returned.set()
        await asyncio.wait_for(tasks[0], PATIENCE)
