"""A disk that refuses: nobody is stopped, what is not kept is counted, and nothing else is missing."""

from __future__ import annotations

import asyncio
import errno
import os
import queue
import random
import threading
from contextlib import closing
from pathlib import Path

import pytest

from lineside.bus import Bus
from lineside.bus.journal import Durability, Journal, JournalDegraded, JournalRefused
from lineside.bus.journal.file import JournalFile
from lineside.schemas import Event, EventsMissed
from lineside.schemas import JournalDegraded as Degraded
from lineside.schemas import JournalRecovered as Recovered

from .disk import SYNCS, WRITES, Disk, FullDisk
from .support import Step, steps

MOODS = int(os.environ.get("LINESIDE_KILLS", "10"))
PATIENCE = 60.0


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lineside.bus.journal.recorder.RETRY_SECONDS", 0.01)


@pytest.mark.parametrize(
    ("error", "calls", "durability", "message"),
    [
        (errno.ENOSPC, WRITES, Durability.PROCESS, "database or disk is full"),
        (errno.EIO, WRITES, Durability.PROCESS, "disk I/O error"),
        (errno.EIO, SYNCS, Durability.POWER, "disk I/O error"),
        (errno.ENOSPC, SYNCS, Durability.POWER, "disk I/O error"),
    ],
    ids=["no room", "a write that fails", "a sync that fails", "no room at a sync"],
)
def test_a_disk_that_refuses_stops_nobody_and_nothing_is_lost_that_fits_into_memory(
    tmp_path: Path, error: int, calls: tuple[str, ...], durability: Durability, message: str
) -> None:
    said, got = list[Event](), list[int]()
    with FullDisk(error, calls) as disk, disk.under(lambda: Bus(Journal(tmp_path, durability=durability))) as bus:
        bus.subscribe(said.append, Degraded, Recovered)
        bus.subscribe(lambda event: got.append(event.n), Step)
        bus.publish(Step, n=1)
        bus.flush()
        disk.full = True
        for n in range(2, 100):
            bus.publish(Step, n=n)
        with pytest.raises(JournalDegraded, match=f"could not be written: {message}"):
            bus.flush()
        bus.drain()  # waits for no disk
        assert got == list(range(1, 100))
        assert steps(tmp_path) == [1]
        disk.full = False
        for n in range(100, 200):
            bus.publish(Step, n=n)
        while not any(isinstance(event, Recovered) for event in said):
            bus.drain()
        bus.flush()
        assert steps(tmp_path) == got == list(range(1, 200))
    first, last = said
    assert isinstance(first, Degraded)
    assert isinstance(last, Recovered)
    assert (first.error, last.missed) == (message, 0)


def test_what_a_disk_refuses_for_too_long_is_counted_and_the_rest_is_kept(tmp_path: Path) -> None:
    missed: list[EventsMissed] = []

    def lost() -> int:
        return sum(gap.count for gap in missed if gap.subscription == "journal")

    with FullDisk() as disk, disk.under(lambda: Bus(tmp_path, window=64)) as bus:
        bus.subscribe(missed.append, EventsMissed)
        disk.full = True
        bus.publish(Step, n=0)
        assert disk.refused.wait(PATIENCE)
        for n in range(1, 5000):
            bus.publish(Step, n=n)
        bus.drain()
        disk.full = False
        bus.publish(Step, n=5000)
        while not 0 < bus.stats().subscriptions[0].missed == lost():
            bus.drain()
        path = bus.journal
    assert path is not None
    found = [event.seq for event in Journal(tmp_path).events()]
    assert found == sorted(found)
    assert steps(tmp_path)[-1] == 5000
    assert lost() >= 4000
    assert len(found) + lost() == found[-1]  # what was said of the disk is among them
    with closing(JournalFile.open(path)) as file:
        check = file.check()
    assert not check.holes
    assert sum(gap.last - gap.first + 1 for gap in check.gaps) == lost()


def test_who_fell_behind_on_a_disk_that_failed_is_told_what_it_missed(tmp_path: Path) -> None:
    with FullDisk(errno.EIO) as disk, disk.under(lambda: Bus(tmp_path, window=64)) as bus:
        stream = bus.stream(Step)
        for n in range(1000):
            bus.publish(Step, n=n)
        bus.flush()
        disk.full = True
        for n in range(1000, 5000):
            bus.publish(Step, n=n)
        bus.drain()
        disk.full = False
        bus.publish(Step, n=5000)
    got = [event.n for event in stream]
    assert got == sorted(got)
    assert got[:1000] == list(range(1000))
    assert got[-1] == 5000
    assert stream.missed
    assert len(got) + stream.missed == 5001


async def test_a_flush_goes_on_waiting_where_a_disk_came_round_before_it_had_got_that_far(tmp_path: Path) -> None:
    first, refuse, second, accept = (threading.Event() for _ in range(4))

    def answer(_call: str) -> int:
        if not first.is_set():
            first.set()
            refuse.wait(PATIENCE)
            return errno.ENOSPC
        if steps(tmp_path) == [1, 2]:  # the disk came round, and what follows is written
            second.set()
            accept.wait(PATIENCE)
        return 0

    begun, got = list[bool](), queue.SimpleQueue[int]()
    with Disk(lambda call: answer(call) if begun else 0) as disk, disk.under(lambda: Bus(tmp_path)) as bus:
        bus.subscribe(lambda event: got.put(event.n), Step)
        bus.publish(Step, n=1)
        await bus.aflush()
        begun.append(True)
        bus.publish(Step, n=2)
        assert await asyncio.to_thread(first.wait, PATIENCE)
        bus.publish(Step, n=3)
        flush = asyncio.create_task(bus.aflush())
        for n in (4, 5):  # what comes after the call: the flush waits for the disk by then
            await asyncio.sleep(0)
            bus.publish(Step, n=n)
            while got.get() != n:
                pass
        refuse.set()
        assert second.wait(PATIENCE)  # the event loop stands still: the flush hears of both at once
        for _ in range(10):
            await asyncio.sleep(0)
        early = flush.done()
        accept.set()
        await flush
        assert not early
        assert steps(tmp_path)[:3] == [1, 2, 3]


class Moody(Disk):
    """Refuses any call, now with this error and now with that, for as long as it pleases."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.left = 0
        self.error = 0
        self.healed = False
        super().__init__(self.answer)

    def answer(self, _call: str) -> int:
        if not self.left:
            self.error = self.chance.choice((0, 0, errno.ENOSPC, errno.EIO))
            self.left = self.chance.randint(1, 12)
        self.left -= 1
        return 0 if self.healed else self.error


@pytest.mark.parametrize("seed", range(MOODS))
def test_whatever_a_disk_refuses_what_was_acknowledged_is_there_and_the_rest_is_counted(
    tmp_path: Path, seed: int
) -> None:
    got, published = list[int](), 0
    with Moody(seed) as disk:
        disk.healed = True
        durability = (Durability.PROCESS, Durability.POWER)[seed % 2]
        with disk.under(lambda: Bus(Journal(tmp_path, durability=durability), window=256)) as bus:
            reader = bus.subscribe(lambda event: got.append(event.n), Step)
            disk.healed = False
            for _ in range(40):
                for _ in range(disk.chance.randint(1, 200)):
                    published += 1
                    bus.publish(Step, n=published)
                missed = bus.stats().subscriptions[0].missed
                try:
                    bus.flush()
                except JournalDegraded:
                    continue
                if bus.stats().subscriptions[0].missed == missed == 0:
                    assert steps(tmp_path) == list(range(1, published + 1))
            disk.healed = True
            while bus.stats().subscriptions[0].lag:
                bus.drain()
            path, missed = bus.journal, bus.stats().subscriptions[0].missed
    assert got == sorted(set(got))
    assert len(got) + reader.stats.missed == published
    assert path is not None
    with closing(JournalFile.open(path)) as file:
        check = file.check()
    assert disk.refused.is_set()
    assert not check.holes
    assert sum(gap.last - gap.first + 1 for gap in check.gaps) == missed
    found = [event.seq for event in Journal(tmp_path).events()]
    assert len(found) + missed == found[-1]


def test_on_a_full_disk_no_journal_is_begun_and_nothing_left(tmp_path: Path) -> None:
    def refused() -> str:
        with pytest.raises(JournalRefused) as caught:
            Bus(tmp_path)
        return str(caught.value)

    with FullDisk() as disk:
        disk.full = True
        assert f"cannot keep a journal in {str(tmp_path)!r}: database or disk is full" in disk.under(refused)
    assert list(tmp_path.iterdir()) == []
