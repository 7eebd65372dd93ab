"""What a flood leaves in memory: 100,000 events to 10 subscribers, published as fast as one thread can.

    python benchmarks/flood.py [--quick] [--json FILE]

Every contender runs in a fresh process; the figure is the peak of its resident memory above what it held before the
flood. The second table is a subscriber that does not return from its first event, and 10 million events after it: with
`overflow="drop"` it misses them, with `"spill"` it gets every one of them, in order, when it goes on.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import peers
from harness import Report, Spread, Table, arguments, interleave, paired
from readers import BATCH, Counter

from lineside import Bus
from lineside.schemas import TrainBatchEnd

MEGABYTE = 1e6
SUBSCRIBERS = 10
OURS = "lineside"


@dataclass(frozen=True)
class Flood:
    """What one process found."""

    megabytes: float
    publish_seconds: float
    delivered: int
    missed: int


# ---------------------------------------------------------------------------------------------------- in the child


Publish = Callable[..., object]
Missed = Callable[[], int]
Setup = Callable[[Sequence[Counter]], AbstractAsyncContextManager[tuple[Publish, Missed]]]


@asynccontextmanager
async def lineside(
    counters: Sequence[Counter], overflow: str = "drop", stuck: bool = False
) -> AsyncIterator[tuple[Publish, Missed]]:
    bus, reader = Bus(), Stuck()
    async with bus:
        subscriptions = [bus.subscribe(counter.receive, TrainBatchEnd, overflow=overflow) for counter in counters]
        if stuck:
            subscriptions.append(bus.subscribe(reader.receive, TrainBatchEnd, overflow=overflow))
        source, published = bus.source("benchmark"), 0

        def publish(**fields: object) -> None:
            nonlocal published
            source.publish(TrainBatchEnd, **fields)
            published += 1

        yield publish, lambda: sum(s.stats.missed for s in subscriptions)
        if stuck:
            reader.gate.set()
            await bus.adrain()
            missed = subscriptions[0].stats.missed
            assert reader.seen + missed == published, f"{reader.seen} + {missed} of {published}"
        for subscription in subscriptions:
            subscription.cancel()


class Stuck:
    """Does not return from its first event until the gate is opened; then checks the order of all that follow."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.seen = self.last = 0

    async def receive(self, event: TrainBatchEnd) -> None:
        await self.gate.wait()
        assert event.seq > self.last, f"{event.seq} came after {self.last}"
        self.last = event.seq
        self.seen += 1


@asynccontextmanager
async def peer(setup: peers.Peer, counters: Sequence[Counter]) -> AsyncIterator[tuple[Publish, Missed]]:
    async with setup([counter.receive for counter in counters]) as publish:
        yield lambda **fields: publish(TrainBatchEnd(**fields)), lambda: 0


SETUPS: dict[str, Setup] = {
    OURS: lineside,
    'lineside, overflow="wait"': partial(lineside, overflow="wait"),
    "an asyncio.Queue each": partial(peer, peers.queues),
    "psygnal": partial(peer, peers.psygnal_signal),
    "blinker": partial(peer, peers.blinker),
    "pyee": partial(peer, peers.pyee),
}
STUCK: dict[str, Setup] = {
    'one subscriber stuck, overflow="drop"': partial(lineside, stuck=True),
    'one subscriber stuck, overflow="spill"': partial(lineside, stuck=True, overflow="spill"),
}


async def flood(setup: Setup, number: int, subscribers: int) -> Flood:
    counters = [Counter() for _ in range(subscribers)]
    async with setup(counters) as (publish, missed):
        await asyncio.to_thread(_publish, publish, 100)
        await _handled(counters, missed, 100)
        before = _begin_peak()
        took = await asyncio.to_thread(_publish, publish, number)
        await _handled(counters, missed, number + 100)
        peak = _status("VmHWM") - before
        return Flood(peak / MEGABYTE, took, sum(counter.seen for counter in counters), missed())


def _publish(publish: Publish, number: int) -> float:
    start = time.perf_counter()
    for batch in range(number):
        publish(**{**BATCH, "batch": batch})
    return time.perf_counter() - start


async def _handled(counters: Sequence[Counter], missed: Missed, number: int) -> None:
    """Wait until every event was delivered or announced as missed."""
    while counters and sum(counter.seen for counter in counters) + missed() < number * len(counters):  # noqa: ASYNC110
        await asyncio.sleep(0.01)


def _begin_peak() -> float:
    """Let the kernel's record of the peak begin anew; return what is resident now, in bytes."""
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def _status(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def child(name: str, number: int) -> None:
    setup, subscribers = (STUCK[name], 0) if name in STUCK else (SETUPS[name], SUBSCRIBERS)
    found = asyncio.run(flood(setup, number, subscribers))
    print(json.dumps([found.megabytes, found.publish_seconds, found.delivered, found.missed]))


# --------------------------------------------------------------------------------------------------- in the parent


def measure(name: str, number: int) -> Flood:
    command = [sys.executable, __file__, "--child", name, "--events", str(number)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return Flood(*json.loads(output.splitlines()[-1]))


def table(title: str, results: dict[str, list[Flood]], baseline: str) -> Table:
    columns = {
        "contender": "{}",
        "peak MB": "{:,.1f}",
        "ratio to ours": "{:.1f}x",
        "publishing s": "{:.2f}",
        "delivered": "{:,}",
        "missed": "{:,}",
    }
    shown = Table(title, columns)
    base = [max(found.megabytes, 0.1) for found in results[baseline]]
    for name, rounds in results.items():
        peaks = [found.megabytes for found in rounds]
        took = Spread.of([found.publish_seconds for found in rounds])
        shown.add(name, Spread.of(peaks), paired(peaks, base), took, rounds[-1].delivered, rounds[-1].missed)
    return shown


def main() -> None:
    if "--child" in sys.argv:
        parser = argparse.ArgumentParser()
        parser.add_argument("--child")
        parser.add_argument("--events", type=int)
        options = parser.parse_args()
        child(options.child, options.events)
        return
    options = arguments(
        "memory of a flood", stuck_events={"type": int, "default": 10_000_000, "help": "events of table 2"}
    )
    report = Report("flood", options)
    rounds = options.rounds or (1 if options.quick else 3)
    number = 1000 if options.quick else 100_000
    names = [OURS, "pyee"] if options.quick else list(SETUPS)
    floods = interleave({name: partial(measure, name, number) for name in names}, rounds)
    report.show(table(f"{number:,} events to {SUBSCRIBERS} async subscribers, a process each", floods, OURS))
    stuck = 1000 if options.quick else options.stuck_events
    found = {name: [measure(name, stuck)] for name in STUCK}
    report.show(table(f"a stuck subscriber and {stuck:,} events", found, next(iter(STUCK))))
    report.finish()


if __name__ == "__main__":
    main()
