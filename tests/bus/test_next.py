"""`await bus.next(...)` gives the next match."""

from __future__ import annotations

import asyncio

import pytest

from lineside.bus import Bus, BusClosed, NextTimeout
from lineside.schemas import RunEnd
from tests.turns import begin

from .support import Tick, Tock


async def test_the_next_event_is_the_first_one_published_after_the_call(bus: Bus) -> None:
    bus.publish(Tick, n=1)
    waiting = await begin(bus.next(Tick))
    bus.publish(Tock, n=2)
    bus.publish(Tick, n=3)
    assert (await waiting).n == 3


async def test_the_next_event_may_be_of_several_types_and_has_to_match(bus: Bus) -> None:
    waiting = await begin(bus.next(Tick, Tock, where=lambda event: event.n > 1))
    for n in range(5):
        bus.publish(Tock, n=n)
    event = await waiting
    assert (type(event), event.n) == (Tock, 2)


async def test_the_next_event_of_a_run(bus: Bus) -> None:
    waiting = await begin(bus.next(Tick, run="b"))
    bus.source("a").publish(Tick, n=1)
    bus.source("b").publish(Tick, n=2)
    assert (await waiting).n == 2


async def test_waiting_for_the_next_event_has_a_limit(bus: Bus) -> None:
    with pytest.raises(NextTimeout, match=r"no Tick or Tock was published within 0\.01 s"):
        await bus.next(Tick, Tock, timeout=0.01)
    bus.drain()
    assert not bus.stats().subscriptions


async def test_the_next_event_of_a_run_that_ends_never_comes(bus: Bus) -> None:
    waiting = await begin(bus.next(Tick, run="a"))
    bus.source("a").publish(RunEnd, kind="train", outcome="failed", duration=0)
    with pytest.raises(BusClosed, match="no Tick will come"):
        await waiting


async def test_the_next_event_of_a_bus_that_closes_never_comes() -> None:
    async with Bus() as bus:
        waiting = await begin(bus.next(Tick))
    with pytest.raises(BusClosed, match="no Tick will come"):
        await waiting


async def test_whoever_waits_hears_of_an_error_in_the_predicate(bus: Bus) -> None:
    waiting = await begin(bus.next(Tick, where=lambda event: 1 / event.n > 0))
    bus.publish(Tick, n=0)
    with pytest.raises(ZeroDivisionError):
        await waiting


async def test_giving_up_the_wait_releases_the_subscription(bus: Bus) -> None:
    waiting = await begin(bus.next(Tick))
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    bus.drain()
    assert not bus.stats().subscriptions
