"""Delivered events a second, from a worker thread to 1, 10 and 100 async subscribers.

    python benchmarks/throughput.py [--quick] [--json FILE]

The clock runs from the first publish to the last callback. Every contender delivers the same validated pydantic
payload: ours builds it in the sequencer, for the peers the publisher builds it. Every delivery is counted, and a
contender that loses one fails: ours runs with `overflow="wait"`, and bubus, which refuses more than 100 events on
their way, gets them in lots of 40.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from time import perf_counter, sleep
from typing import Any

import peers
from harness import Report, Spread, Table, arguments, interleave, paired
from readers import BATCH, SMALL, Counter, Small

from lineside import Bus
from lineside.schemas import Event, TrainBatchEnd

PublishFields = Callable[..., object]
Setup = Callable[[type[Event], Sequence[Counter]], AbstractAsyncContextManager[PublishFields]]

ALLOWED_SECONDS = 120.0
FEWEST, MOST = 60, 200_000
"""Events in one measurement. It should be long beside the time that events of a batch wait for one another."""


@asynccontextmanager
async def lineside(cls: type[Event], counters: Sequence[Counter]) -> AsyncIterator[PublishFields]:
    async with Bus() as bus:
        for counter in counters:
            bus.subscribe(counter.receive, cls, overflow="wait")
        yield partial(bus.source("benchmark").publish, cls)


@asynccontextmanager
async def _peer(setup: peers.Peer, cls: type[Event], counters: Sequence[Counter]) -> AsyncIterator[PublishFields]:
    async with setup([counter.receive for counter in counters]) as publish:
        yield lambda **fields: publish(cls(**fields))


@asynccontextmanager
async def bubus_in_lots(cls: type[Event], counters: Sequence[Counter]) -> AsyncIterator[PublishFields]:
    async with _peer(peers.bubus, cls, counters) as publish:
        sent = 0

        def publish_slowly(**fields: object) -> None:
            nonlocal sent
            publish(**fields)
            sent += 1
            while sent % 40 == 0 and counters[-1].seen < sent:
                sleep(0.0005)

        yield publish_slowly


CONTENDERS: dict[str, Setup] = {
    "lineside": lineside,
    "an asyncio.Queue each": partial(_peer, peers.queues),
    "loop.call_soon_threadsafe": partial(_peer, peers.call_soon),
    "pyee": partial(_peer, peers.pyee),
    "blinker": partial(_peer, peers.blinker),
    "psygnal": partial(_peer, peers.psygnal_signal),
    "bubus": bubus_in_lots,
}
OURS = "lineside"


@dataclass(frozen=True)
class Payload:
    """An event class and the fields that are published."""

    cls: type[Event]
    fields: dict[str, Any]


BIG = Payload(TrainBatchEnd, BATCH)
LITTLE = Payload(Small, SMALL)


def measure(setup: Setup, payload: Payload, fanout: int, number: int) -> float:
    """Return the deliveries a second of `number` events to `fanout` subscribers."""

    async def run() -> float:
        counters = [Counter() for _ in range(fanout)]
        async with setup(payload.cls, counters) as publish:
            start = perf_counter()
            await asyncio.gather(
                asyncio.to_thread(_publish, publish, payload.fields, number), _counted(counters, number)
            )
            seconds = perf_counter() - start
        seen = [counter.seen for counter in counters]
        assert seen == [number] * fanout, f"delivered {seen}, published {number} to each"
        return number * fanout / seconds

    return asyncio.run(run())


def _publish(publish: PublishFields, fields: dict[str, Any], number: int) -> None:
    for _ in range(number):
        publish(**fields)


async def _counted(counters: Sequence[Counter], number: int) -> None:
    async with asyncio.timeout(ALLOWED_SECONDS):  # a poll each millisecond costs every contender the same
        while min(counter.seen for counter in counters) < number:  # noqa: ASYNC110
            await asyncio.sleep(0.001)


def numbers(payload: Payload, fanout: int, seconds: float) -> dict[str, int]:
    """Return how many events each contender delivers in about `seconds`, from trials that grow until they are long."""
    return {name: _number(setup, payload, fanout, seconds) for name, setup in CONTENDERS.items()}


def _number(setup: Setup, payload: Payload, fanout: int, seconds: float) -> int:
    number = FEWEST
    while True:
        rate = measure(setup, payload, fanout, number) / fanout
        if number >= min(rate * seconds / 4, MOST):
            return max(FEWEST, min(MOST, int(rate * seconds)))
        number *= 8


def main() -> None:
    options = arguments("delivered events a second")
    report = Report("throughput", options)
    rounds = options.rounds or (1 if options.quick else 5)
    for payload, fanout in ((BIG, 1),) if options.quick else ((BIG, 1), (BIG, 10), (BIG, 100), (LITTLE, 1)):
        many = dict.fromkeys(CONTENDERS, 50) if options.quick else numbers(payload, fanout, seconds=1.0)
        runs = {name: partial(measure, setup, payload, fanout, many[name]) for name, setup in CONTENDERS.items()}
        report.show(_table(payload, fanout, rounds, interleave(runs, rounds)))
    report.finish()


def _table(payload: Payload, fanout: int, rounds: int, rates: dict[str, list[float]]) -> Table:
    title = f"{payload.cls.__name__} to {fanout} async subscribers; median (min..max) of {rounds} rounds"
    table = Table(
        title, {"contender": "{}", "deliveries/s": "{:,.0f}", "events/s": "{:,.0f}", "ratio to ours": "{:.3f}x"}
    )
    for name, values in rates.items():
        events = Spread.of([value / fanout for value in values])
        table.add(name, Spread.of(values), events, paired(values, rates[OURS]))
    return table


if __name__ == "__main__":
    main()
