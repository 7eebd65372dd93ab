"""What one publish costs the thread that publishes, paced at 1 kHz and in a burst.

    python benchmarks/publish.py [--quick] [--json FILE]

A worker thread publishes `TrainBatchEnd` while the main thread runs an event loop with 0 to 1,000 async callbacks that
do nothing. Only the call itself is timed, two clock readings included: the row `nothing` is what those cost alone.
The peers are handed a payload that was built before; `publish(Class, fields)` is what a runner calls, and
`publish(instance)` is our like for like.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue
from threading import Thread
from time import perf_counter_ns

import peers
from harness import Report, Spread, Table, arguments, interleave, paired, percentile
from readers import BATCH, Counter, Small, batch_end

from lineside import Bus
from lineside.schemas import Event, TrainBatchEnd

PERIOD_NS = 1_000_000
"""1 kHz."""
AWAKE_NS = 200_000
"""The publisher is awake for this long before it publishes, as one that computes would be; it sleeps before that."""

Send = Callable[[], object]
Setup = Callable[[Sequence[Counter]], AbstractAsyncContextManager[Send]]


@dataclass(frozen=True)
class Cost:
    """What one round found: nanoseconds a publish."""

    paced: list[int]
    burst: float


# ------------------------------------------------------------------------------------------------------ our contenders


@asynccontextmanager
async def by_fields(counters: Sequence[Counter], lane: str = "loop") -> AsyncIterator[Send]:
    """What a runner does: the class and its raw fields."""
    async with Bus() as bus:
        _subscribe(bus, counters, lane)
        publish = bus.source("benchmark").publish
        losses, lr = BATCH["losses"], BATCH["lr"]
        yield lambda: publish(
            TrainBatchEnd,
            epoch=1,
            batch=7,
            batches=100,
            batch_size=64,
            step=107,
            loss=0.25,
            losses=losses,
            lr=lr,
            seconds=0.01,
        )


@asynccontextmanager
async def small(counters: Sequence[Counter]) -> AsyncIterator[Send]:
    """The same with an event of two fields instead of nine."""
    async with Bus() as bus:
        _subscribe(bus, counters, "loop", Small)
        publish = bus.source("benchmark").publish
        yield lambda: publish(Small, step=107, loss=0.25)


@asynccontextmanager
async def by_instance(counters: Sequence[Counter]) -> AsyncIterator[Send]:
    """A payload that was built before, as the peers get it."""
    async with Bus() as bus:
        _subscribe(bus, counters, "loop")
        publish, event = bus.source("benchmark").publish, batch_end()
        yield lambda: publish(event)


def _subscribe(bus: Bus, counters: Sequence[Counter], lane: str, cls: type[Event] = TrainBatchEnd) -> None:
    for counter in counters:
        callback = counter.receive if lane == "loop" else counter.count
        bus.subscribe(callback, cls, lane=lane)


# -------------------------------------------------------------------------------------------------------- the baselines


@asynccontextmanager
async def nothing(_: Sequence[Counter]) -> AsyncIterator[Send]:
    """Two clock readings and an empty call."""
    yield lambda: None


@asynccontextmanager
async def thread_queues(counters: Sequence[Counter]) -> AsyncIterator[Send]:
    """One `queue.SimpleQueue` and one thread a subscriber, by hand."""
    inboxes: list[SimpleQueue[object]] = [SimpleQueue() for _ in counters]
    threads = [Thread(target=_serve, args=pair) for pair in zip(inboxes, counters, strict=True)]
    for thread in threads:
        thread.start()
    event = batch_end()

    def send() -> None:
        for inbox in inboxes:
            inbox.put(event)

    yield send
    for inbox in inboxes:
        inbox.put(None)
    for thread in threads:
        thread.join()


def _serve(inbox: SimpleQueue[object], counter: Counter) -> None:
    while (event := inbox.get()) is not None:
        counter.count(event)


@asynccontextmanager
async def _peer(setup: peers.Peer, counters: Sequence[Counter]) -> AsyncIterator[Send]:
    async with setup([counter.receive for counter in counters]) as publish:
        event = batch_end()
        yield lambda: publish(event)


ASYNC: dict[str, Setup] = {
    "nothing (two clock readings)": nothing,
    "lineside publish(Class, fields)": by_fields,
    "lineside publish(Class, two fields)": small,
    "lineside publish(instance)": by_instance,
    "plain list of functions, inline": partial(_peer, peers.plain_list),
    "loop.call_soon_threadsafe": partial(_peer, peers.call_soon),
    "pyee": partial(_peer, peers.pyee),
    "blinker": partial(_peer, peers.blinker),
    "psygnal": partial(_peer, peers.psygnal_signal),
    "bubus": partial(_peer, peers.bubus),
}
THREADED: dict[str, Setup] = {
    "lineside, thread lane": partial(by_fields, lane="thread"),
    "a SimpleQueue and a thread each": thread_queues,
}
OURS = "lineside publish(Class, fields)"


# ------------------------------------------------------------------------------------------------------------ measuring


def measure(setup: Setup, subscribers: int, paced: int, burst: int) -> Cost:
    """Publish from a worker thread while this thread runs the loop."""

    async def run() -> Cost:
        async with setup([Counter() for _ in range(subscribers)]) as send:
            await _worker(partial(_paced, send, min(paced, 50)))  # warm up
            times = await _worker(partial(_paced, send, paced))
            await asyncio.sleep(0.05)
            return Cost(times, await _worker(partial(_burst, send, burst)))

    return asyncio.run(run())


def _worker(work: Callable[[], list[int] | float]) -> Awaitable[list[int] | float]:
    return asyncio.to_thread(work)


def _paced(send: Send, number: int) -> list[int]:
    times = []
    due = perf_counter_ns()
    for _ in range(number):
        due += PERIOD_NS
        time.sleep(max(0, due - AWAKE_NS - perf_counter_ns()) / 1e9)
        while perf_counter_ns() < due:
            pass
        start = perf_counter_ns()
        send()
        times.append(perf_counter_ns() - start)
    return times


def _burst(send: Send, number: int) -> float:
    start = perf_counter_ns()
    for _ in range(number):
        send()
    return (perf_counter_ns() - start) / number


def compare(setups: dict[str, Setup], subscribers: int, rounds: int, *, quick: bool) -> dict[str, list[Cost]]:
    # The peers make a task per subscriber and event: keep what they pile up in a burst to 200,000.
    paced = 10 if quick else (1000 if subscribers < 100 else 300)
    burst = 50 if quick else min(20_000, 200_000 // max(subscribers, 1))
    runs = {name: partial(measure, setup, subscribers, paced, burst) for name, setup in setups.items()}
    return interleave(runs, rounds)


def table(title: str, costs: dict[str, list[Cost]], baseline: str) -> Table:
    shown = Table(
        title,
        {"contender": "{}", "p50 µs": "{:.2f}", "p99 µs": "{:.1f}", "burst mean µs": "{:.2f}", "p50 ratio": "{:.2f}x"},
    )
    base = [percentile(cost.paced, 50) for cost in costs[baseline]]
    for name, rounds in costs.items():
        p50 = [percentile(cost.paced, 50) for cost in rounds]
        p99 = [percentile(cost.paced, 99) / 1e3 for cost in rounds]
        bursts = Spread.of([cost.burst / 1e3 for cost in rounds])
        shown.add(name, Spread.of([value / 1e3 for value in p50]), Spread.of(p99), bursts, paired(p50, base))
    return shown


def main() -> None:
    options = arguments("nanoseconds a publish")
    report = Report("publish", options)
    rounds = options.rounds or (1 if options.quick else 5)
    for subscribers in (1,) if options.quick else (0, 1, 10, 1000):
        costs = compare(ASYNC, subscribers, rounds, quick=options.quick)
        title = f"publish to {subscribers} async subscribers; ratio to ours; median (min..max) of {rounds} rounds"
        report.show(table(title, costs, OURS))
    for subscribers in (1,) if options.quick else (1, 10):
        costs = compare(THREADED, subscribers, rounds, quick=options.quick)
        report.show(table(f"publish to {subscribers} sync subscribers, a thread each", costs, "lineside, thread lane"))
    report.show(flat(rounds, quick=options.quick))
    report.finish()


def flat(rounds: int, *, quick: bool) -> Table:
    """Compare ours with itself, for few and for many subscribers, in the same rounds."""
    sizes = (1, 10) if quick else (1, 10, 100, 1000)
    runs = {str(size): partial(measure, by_fields, size, 10 if quick else 1000, 50) for size in sizes}
    return table("ours: the same for any number of subscribers?", interleave(runs, rounds), "1")


if __name__ == "__main__":
    main()
