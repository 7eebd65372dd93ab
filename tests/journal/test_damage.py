"""What a journal survives: kill -9, torn and flipped bytes, a disk that is full. Never a hole that is not named."""

from __future__ import annotations

import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from lineside.bus import Bus
from lineside.bus.journal import Journal, JournalDegraded
from lineside.bus.journal.errors import JournalUnreadable
from lineside.bus.journal.file import JournalFile, JournalWriter
from lineside.schemas import Event, EventsMissed
from lineside.schemas import JournalDegraded as Degraded
from lineside.schemas import JournalRecovered as Recovered

from .support import Step, steps, written

KILLS = int(os.environ.get("LINESIDE_KILLS", "20"))
TAILS = int(os.environ.get("LINESIDE_TAILS", "80"))
PATIENCE = 60.0

WRITER = """
import sys, threading
from lineside.bus import Bus
from lineside.schemas import Event

class Step(Event, name="tests.journal.Step", urgent=False):
    n: int

bus = Bus(sys.argv[1], window=256)
n = 0
while True:
    for _ in range(37):
        n += 1
        bus.publish(Step, n=n)
    bus.flush()
    print(n, flush=True)
"""


def test_what_was_acknowledged_is_there_after_a_kill(tmp_path: Path) -> None:
    chance = random.Random(7)
    for index in range(KILLS):
        folder = tmp_path / str(index)
        with subprocess.Popen([sys.executable, "-c", WRITER, folder], stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            acknowledged = 0
            for _ in range(chance.randint(1, 30)):
                acknowledged = int(writer.stdout.readline())
            writer.send_signal(signal.SIGKILL)
        found = steps(folder)
        assert len(found) >= acknowledged
        assert found == list(range(1, len(found) + 1))
        (path,) = Journal(folder).files()
        assert not JournalFile.open(path).check().holes


def left_open(tmp_path: Path, count: int) -> Path:
    """Return a journal file with everything in its write-ahead log, as a killed writer leaves it."""
    with Bus(tmp_path / "live") as bus:
        for n in range(1, count + 1):
            bus.publish(Step, n=n)
            if n % 10 == 0:
                bus.flush()
        bus.flush()
        path = bus.journal
        assert path is not None
        killed = tmp_path / "killed"
        killed.mkdir()
        for file in (path, path.with_name(path.name + "-wal")):
            shutil.copy(file, killed)
    return killed / path.name


def test_a_torn_or_flipped_tail_leaves_a_prefix_of_commits(tmp_path: Path) -> None:
    path = left_open(tmp_path, 300)
    wal = path.with_name(path.name + "-wal")
    whole = wal.read_bytes()
    chance = random.Random(3)
    lengths: set[int] = set()
    for _ in range(TAILS):
        torn = bytearray(whole)
        if chance.random() < 0.5:
            del torn[chance.randrange(32, len(torn)) :]
        else:
            torn[chance.randrange(32, len(torn))] ^= 1 << chance.randrange(8)
        wal.write_bytes(torn)
        path.with_name(path.name + "-shm").unlink(missing_ok=True)
        try:
            file = JournalFile.open(path)
        except JournalUnreadable:  # torn before the tables were made
            continue
        check = file.check()
        found = [int(record.body.partition(b'"n":')[2].rstrip(b"}")) for record in file.records()]
        file.close()
        assert found == list(range(1, len(found) + 1))
        assert not check.holes
        lengths.add(len(found))
    assert len(lengths) > 10  # it was torn at many places


def test_a_flipped_bit_in_an_event_costs_that_event_and_is_named(tmp_path: Path) -> None:
    path = written(tmp_path, 1000)
    data = bytearray(path.read_bytes())
    at = data.index(b'"n":500}')
    data[at + 5] ^= 1
    path.write_bytes(data)
    check = JournalFile.open(path).check()
    assert [tuple(hole) for hole in check.holes] == [(500, 500)]
    assert check.events == 999
    assert steps(tmp_path) == [n for n in range(1, 1001) if n != 500]


def test_flipped_bits_anywhere_lose_nothing_without_a_word(tmp_path: Path) -> None:
    path = written(tmp_path, 3000)
    whole = path.read_bytes()
    chance = random.Random(11)
    lost = unreadable = 0
    for _ in range(TAILS):
        data = bytearray(whole)
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        path.write_bytes(data)
        try:
            file = JournalFile.open(path)
            check = file.check()
            found = [int(record.body.partition(b'"n":')[2].rstrip(b"}")) for record in file.records()]
            file.close()
        except (JournalUnreadable, sqlite3.DatabaseError):
            unreadable += 1
            continue
        named = {n for hole in check.holes for n in range(hole.first, hole.last + 1)}
        assert found == sorted(set(found))
        assert set(range(1, 3001)) - set(found) <= named | {n for gap in check.gaps for n in range(gap[0], gap[1] + 1)}
        lost += bool(named)
    assert lost
    assert unreadable < TAILS // 10


class Disk:
    """Refuses commits while it is full."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, error: str) -> None:
        self.full = False
        self.refused = threading.Event()
        write = JournalWriter._write  # pyright: ignore[reportPrivateUsage]

        def refuse(writer: JournalWriter, *arguments: Any) -> None:
            write(writer, *arguments)  # some of it is written, and has to be undone
            if self.full:
                self.refused.set()
                raise sqlite3.OperationalError(error)

        monkeypatch.setattr(JournalWriter, "_write", refuse)
        monkeypatch.setattr("lineside.bus.journal.recorder.RETRY_SECONDS", 0.01)


def test_a_full_disk_stops_nobody_and_nothing_is_lost_that_fits_into_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(monkeypatch, "database or disk is full")
    said: list[Event] = []
    with Bus(tmp_path) as bus:
        bus.subscribe(said.append, Degraded, Recovered)
        bus.publish(Step, n=1)
        bus.flush()
        disk.full = True
        for n in range(2, 100):
            bus.publish(Step, n=n)
        with pytest.raises(JournalDegraded, match="could not be written: database or disk is full"):
            bus.flush()
        bus.drain()  # waits for no disk
        assert steps(tmp_path) == [1]
        disk.full = False
        for n in range(100, 200):
            bus.publish(Step, n=n)
        while not any(isinstance(event, Recovered) for event in said):
            bus.drain()
        bus.flush()
        assert steps(tmp_path) == list(range(1, 200))
    first, last = said
    assert isinstance(first, Degraded)
    assert isinstance(last, Recovered)
    assert (first.error, last.missed) == ("database or disk is full", 0)


def test_what_a_disk_refuses_for_too_long_is_counted_and_the_rest_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(monkeypatch, "disk I/O error")
    missed: list[EventsMissed] = []
    with Bus(tmp_path, window=64) as bus:
        bus.subscribe(missed.append, EventsMissed)
        disk.full = True
        bus.publish(Step, n=0)
        assert disk.refused.wait(PATIENCE)
        for n in range(1, 5000):
            bus.publish(Step, n=n)
        bus.drain()
        disk.full = False
        bus.publish(Step, n=5000)
        while bus.stats().subscriptions[0].missed == 0:
            bus.drain()
        bus.drain()
        path = bus.journal
    assert path is not None
    found = [event.seq for event in Journal(tmp_path).events()]
    assert found == sorted(found)
    assert steps(tmp_path)[-1] == 5000
    lost = sum(gap.count for gap in missed if gap.subscription == "journal")
    assert lost >= 4000
    assert len(found) + lost == found[-1]  # what was said of the disk is among them
    check = JournalFile.open(path).check()
    assert not check.holes
    assert sum(gap.last - gap.first + 1 for gap in check.gaps) == lost


def test_who_fell_behind_on_a_disk_that_failed_is_told_what_it_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(monkeypatch, "disk I/O error")
    with Bus(tmp_path, window=64) as bus:
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
