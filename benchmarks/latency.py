"""How long an event takes from its publish to the start of a callback, at 1 kHz from a worker thread.

    python benchmarks/latency.py [--quick] [--json FILE]

Two classes of events: those that wake their readers at once, and those of a batch, which travel together (50 ms apart,
unless a subscription asks for less). Each with and without slow neighbours: one async and one plain subscriber that
sleep 5 ms at every event. The ratio is to `loop.call_soon_threadsafe` in the same rounds.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter_ns
from typing import Literal

import peers
from harness import Report, Spread, Table, arguments, interleave, paired, percentile
from readers import BatchPing, Ping, RemoteStopwatch, Stopwatch

from lineside import Bus

PERIOD_NS = 1_000_000
SLOW_SECONDS = 0.005
WARM_UP = 10
"""Events before the measured ones, which start threads and processes."""
BASELINE = "loop.call_soon_threadsafe"

Lane = Literal["loop", "thread", "process"]
PingClass = type[Ping] | type[BatchPing]


async def slow(_: object) -> None:
    await asyncio.sleep(SLOW_SECONDS)


def slow_plain(_: object) -> None:
    time.sleep(SLOW_SECONDS)


def paced(publish: Callable[[], object], number: int) -> None:
    """Call `publish` a thousand times a second."""
    due = perf_counter_ns()
    for _ in range(number):
        due += PERIOD_NS
        time.sleep(max(0, due - perf_counter_ns()) / 1e9)
        publish()


# ------------------------------------------------------------------------------------------------------ our contenders


def lineside(cls: PingClass, lane: Lane, number: int, *, neighbours: bool, latency: float | None = None) -> list[int]:
    """Return the latencies on our bus, in ns."""

    async def run(folder: Path) -> list[int]:
        async with Bus() as bus:
            here, there = Stopwatch(), RemoteStopwatch(folder / "times")
            callback = {"loop": here.receive, "thread": here.handle, "process": there}[lane]
            policy = {} if latency is None else {"latency": latency}
            bus.subscribe(callback, cls, lane=lane, **policy)
            slept = Stopwatch()
            beside = [bus.subscribe(_slept(slept), cls), bus.subscribe(slow_plain, cls)] if neighbours else []
            source = bus.source("benchmark")
            await _warm_up(bus, source.publish, cls)
            await asyncio.to_thread(paced, lambda: source.publish(cls, sent=perf_counter_ns()), number)
            times = await _collected(there.times if lane == "process" else lambda: here.times, WARM_UP + number)
            for subscription in beside:
                subscription.cancel()
            assert slept.seqs == sorted(slept.seqs), "a slow neighbour got its events out of order"
            return times[WARM_UP:]

    with tempfile.TemporaryDirectory() as folder:
        return asyncio.run(run(Path(folder)))


def _slept(watch: Stopwatch) -> Callable[[Ping], object]:
    async def receive(event: Ping) -> None:
        await watch.receive(event)
        await asyncio.sleep(SLOW_SECONDS)

    return receive


async def _warm_up(bus: Bus, publish: Callable[..., object], cls: PingClass) -> None:
    """Start the lanes: threads and processes begin with their first event."""
    for _ in range(WARM_UP):
        publish(cls, sent=perf_counter_ns())
    await bus.adrain(timeout=30)


# -------------------------------------------------------------------------------------------------------------- peers


def peer(setup: peers.Peer, number: int, *, neighbours: bool) -> list[int]:
    """Return the latencies of a peer, whose publisher builds the payload, in ns."""

    async def run() -> list[int]:
        watch = Stopwatch()
        async with setup([watch.receive, slow] if neighbours else [watch.receive]) as publish:
            await asyncio.to_thread(paced, lambda: publish(Ping(sent=perf_counter_ns())), number)
            return await _collected(lambda: watch.times, number)

    return asyncio.run(run())


async def _collected(times: Callable[[], list[int]], number: int) -> list[int]:
    """Wait until `number` latencies are there, or none has come for a second."""
    seen, since = -1, time.monotonic()
    while len(found := times()) < number and time.monotonic() - since < 1.0:
        if len(found) > seen:
            seen, since = len(found), time.monotonic()
        await asyncio.sleep(0.01)
    return found


# ---------------------------------------------------------------------------------------------------------- measuring


@dataclass(frozen=True)
class Case:
    """A contender: what it measures, with or without neighbours."""

    measure: Callable[..., list[int]]
    neighbours: bool


def cases(number: int) -> dict[str, Case]:
    plain = {
        BASELINE: partial(peer, peers.call_soon, number),
        "an asyncio.Queue each": partial(peer, peers.queues, number),
        "pyee": partial(peer, peers.pyee, number),
        "blinker": partial(peer, peers.blinker, number),
        "psygnal": partial(peer, peers.psygnal_signal, number),
        "bubus": partial(peer, peers.bubus, number),
        "lineside, urgent, loop lane": partial(lineside, Ping, "loop", number),
        "lineside, urgent, thread lane": partial(lineside, Ping, "thread", number),
        "lineside, urgent, process lane": partial(lineside, Ping, "process", number),
        "lineside, batch, loop lane": partial(lineside, BatchPing, "loop", number),
        "lineside, batch, thread lane": partial(lineside, BatchPing, "thread", number),
        "lineside, batch, process lane": partial(lineside, BatchPing, "process", number),
        "lineside, batch, loop lane, latency=0": partial(lineside, BatchPing, "loop", number, latency=0.0),
    }
    return {
        name + (" + slow neighbours" if beside else ""): Case(run, beside)
        for beside in (False, True)
        for name, run in plain.items()
    }


def main() -> None:
    options = arguments("latency from publish to callback")
    report = Report("latency", options)
    rounds = options.rounds or (1 if options.quick else 3)
    every = cases(20 if options.quick else 1000)
    if options.quick:
        every = {name: case for name, case in every.items() if name.startswith((BASELINE, "lineside, urgent, loop"))}
    for beside in (False, True):
        chosen = {
            name: partial(case.measure, neighbours=beside) for name, case in every.items() if case.neighbours is beside
        }
        report.show(table(beside, interleave(chosen, rounds)))
    report.finish()


def table(beside: bool, results: dict[str, list[list[int]]]) -> Table:
    who = "two slow neighbours" if beside else "alone"
    title = f"ms from publish to callback, 1 kHz, {who}; median (min..max) of the rounds"
    columns = {
        "contender": "{}",
        "p50 ms": "{:.3f}",
        "p99 ms": "{:.2f}",
        "max ms": "{:.1f}",
        "p50 ratio": "{:.2f}x",
        "got": "{:,}",
    }
    shown = Table(title, columns)
    base = [percentile(times, 50) for name, rounds in results.items() if name.startswith(BASELINE) for times in rounds]
    for name, rounds in results.items():
        p50 = [percentile(times, 50) for times in rounds]
        p99, worst = ([percentile(times, q) / 1e6 for times in rounds] for q in (99, 100))
        got = sum(len(times) for times in rounds)
        shown.add(name, Spread.of([t / 1e6 for t in p50]), Spread.of(p99), Spread.of(worst), paired(p50, base), got)
    return shown


if __name__ == "__main__":
    main()
