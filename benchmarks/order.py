"""Order and accounting: a million events from four threads to ten subscriptions in every lane.

    python benchmarks/order.py [--quick] [--json FILE]

A check with figures: it fails if any subscription sees one inversion, or if delivered + missed differs from published.
First every subscription is waited for (`overflow="wait"`), then none is, with slow ones among them: they miss events
(`"drop"`) or read them back from disk (`"spill"`).
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from harness import Report, Table, arguments
from readers import OrderCheck, Tick

from lineside import Bus
from lineside.bus import Subscription

PUBLISHERS = 4
LANES = ("loop", "loop", "loop", "loop", "thread", "thread", "thread", "thread", "process", "process")


class Sleepy(OrderCheck):
    """Sleeps a little now and then, so that it falls behind."""

    async def receive(self, event: Tick) -> None:
        self.handle(event)
        if self.seen % 64 == 0:
            await asyncio.sleep(0.002)


def run(number: int, overflow: str) -> Table:
    """Publish `number` events and return what became of them."""
    with tempfile.TemporaryDirectory() as folder, Bus() as bus:
        checks = [_check(index, overflow, Path(folder)) for index in range(len(LANES))]
        readers = [_subscribe(bus, *pair, overflow) for pair in zip(checks, LANES, strict=True)]
        start = time.perf_counter()
        with ThreadPoolExecutor(PUBLISHERS) as pool:
            list(pool.map(lambda publisher: _publish(bus, publisher, number // PUBLISHERS), range(PUBLISHERS)))
        bus.drain(timeout=600)
        seconds = time.perf_counter() - start
        return _table(overflow, number, seconds, list(zip(checks, readers, strict=True)))


def _check(index: int, overflow: str, folder: Path) -> OrderCheck:
    kind = Sleepy if overflow != "wait" and index < 2 else OrderCheck
    return kind(folder / f"inversions-{index}")


def _subscribe(bus: Bus, check: OrderCheck, lane: str, overflow: str) -> Subscription:
    callback = check.receive if lane == "loop" else check.handle
    return bus.subscribe(callback, Tick, lane=lane, overflow=overflow)


def _publish(bus: Bus, publisher: int, number: int) -> None:
    publish = bus.source(f"publisher-{publisher}").publish
    for index in range(number):
        publish(Tick, publisher=publisher, number=index)


def _table(overflow: str, number: int, seconds: float, pairs: list[tuple[OrderCheck, Subscription]]) -> Table:
    columns = {"subscription": "{}", "delivered": "{:,}", "missed": "{:,}", "sum": "{:,}", "inversions": "{:,}"}
    table = Table(f'overflow="{overflow}": {number:,} events from {PUBLISHERS} threads in {seconds:.1f} s', columns)
    for check, subscription in pairs:
        stats = subscription.stats
        inversions = len(check.path.read_text().splitlines()) if check.path and check.path.exists() else 0
        delivered = stats.delivered if stats.lane == "process" else check.seen
        table.add(f"{stats.lane} {stats.name}", delivered, stats.missed, delivered + stats.missed, inversions)
        assert delivered == stats.delivered, (
            f"{stats.name} was called {delivered} times, its stats say {stats.delivered}"
        )
        assert delivered + stats.missed == number, f"{stats.name}: {delivered} + {stats.missed} is not {number}"
        assert inversions == 0, f"{stats.name}: {inversions} inversions"
        assert overflow == "drop" or not stats.missed, f"{stats.name} missed {stats.missed}"
    return table


def main() -> None:
    options = arguments("order and accounting", events={"type": int, "default": 1_000_000})
    report = Report("order", options)
    number = 2000 if options.quick else options.events // PUBLISHERS * PUBLISHERS
    for overflow in ("wait", "drop", "spill"):
        report.show(run(number, overflow))
    print("\nno inversion; delivered + missed = published for every subscription")
    report.finish()


if __name__ == "__main__":
    main()
