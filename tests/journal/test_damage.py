"""What a journal survives: kill -9, torn and flipped bytes. Never a hole that is not named."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from lineside.bus import Bus
from lineside.bus.journal import Gap, Journal, Origin, Span, Tail
from lineside.bus.journal.errors import JournalUnreadable
from lineside.bus.journal.file import JournalFile

from .support import Done, Step, killed, program, steps, written

KILLS = int(os.environ.get("LINESIDE_KILLS", "20"))
TAILS = int(os.environ.get("LINESIDE_TAILS", "80"))


def test_what_was_acknowledged_is_there_after_a_kill(tmp_path: Path) -> None:
    chance = random.Random(7)
    for index in range(KILLS):
        folder = tmp_path / str(index)
        acknowledged = killed(program("publish_on(Bus(sys.argv[1], window=256))", folder), chance.randint(1, 30))
        found = steps(folder)
        assert len(found) >= acknowledged
        assert found == list(range(1, len(found) + 1))
        (path,) = Journal(folder).files()
        with closing(JournalFile.open(path)) as file:
            assert not file.check().holes


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
    with closing(JournalFile.open(path)) as file:
        check = file.check()
    assert [tuple(hole) for hole in check.holes] == [(500, 500)]
    assert check.events == 999
    assert steps(tmp_path) == [n for n in range(1, 1001) if n != 500]


def test_what_follows_a_damaged_place_is_read_from_its_first_event_on_however_long_the_steps_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = left_open(tmp_path, 3000)  # a chunk for every ten
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA journal_mode = DELETE")
    whole, page = path.read_bytes(), 4096
    lost: set[int] = set()
    for at in range(5 * page, len(whole), 7 * page):
        path.write_bytes(whole[:at] + bytes(page) + whole[at + page :])
        one_by_one = steps(path.parent)
        with monkeypatch.context() as patched:
            patched.setattr("lineside.bus.journal.file.CAREFUL_STEPS", 1)
            assert steps(path.parent) == one_by_one
        lost.add(3000 - len(one_by_one))
    assert max(lost) > 100  # so that the steps got long


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


class Committed(NamedTuple):
    """An event as it was told before the damage."""

    name: str
    origin: Origin
    body: bytes


def labelled(folder: Path) -> Path:
    """Return a file of small commits by several publishers of several types."""
    with Bus(folder) as bus:
        for n in range(1, 241):
            source = bus.source("abc"[n // 7 % 3], attempt=1 + n // 100, rank=n % 2)
            source.publish(Done if n % 5 == 0 else Step, n=n)
            if n % 16 == 0:
                bus.flush()
        path = bus.journal
    assert path is not None
    return path


def told(folder: Path, **choice: Any) -> tuple[dict[int, Committed], set[int]]:
    """Return what a tail tells by position, and the positions that it cannot tell of."""
    with Tail(folder, **choice) as tail:
        found: dict[int, Committed] = {}
        gaps: list[Gap] = []
        while some := tail.read():
            assert not found.keys() & {one.seq for one in some}
            found.update((one.seq, Committed(one.name, one.origin, one.body)) for one in some)
            gaps += tail.gaps()
        return found, positions([*gaps, *tail.gaps()])


def positions(spans: Iterable[Gap | Span]) -> set[int]:
    return {n for span in spans for n in range(span.first, min(span.last, 1000) + 1)}


def test_whatever_bit_is_flipped_what_is_read_is_what_was_committed(tmp_path: Path) -> None:
    path = labelled(tmp_path)
    whole = path.read_bytes()
    before, _ = told(tmp_path)
    assert before.keys() == set(range(1, 241))
    chance = random.Random(23)
    lost = unreadable = 0
    for _ in range(5 * TAILS):
        at, bit = chance.randrange(len(whole)), chance.randrange(8)
        data = bytearray(whole)
        data[at] ^= 1 << bit
        path.write_bytes(data)
        try:
            with closing(JournalFile.open(path)) as file:
                check = file.check()
        except (JournalUnreadable, sqlite3.DatabaseError):
            unreadable += 1
            continue
        found, named = told(tmp_path)
        where = f"bit {bit} of byte {at}"
        assert found.items() <= before.items(), where
        assert before.keys() - found.keys() <= named, where
        holes = positions([*check.holes, *check.gaps])
        assert before.keys() - found.keys() <= holes, where
        some, _ = told(tmp_path, run="b", names={"tests.journal.Step"}, ranks={1})
        wanted = {seq: one for seq, one in before.items() if (one.name, one.origin.run, one.origin.rank) == CHOICE}
        assert some.items() <= wanted.items(), where
        assert wanted.keys() - some.keys() <= holes, where
        events = [(event.seq, event.type, event.run) for event in Journal(tmp_path).events(Step, run="b")]
        expected = {(seq, CHOICE[0], "b") for seq, one in before.items() if (one.name, one.origin.run) == CHOICE[:2]}
        assert set(events) <= expected, where
        assert {seq for seq, *_ in expected - set(events)} <= holes, where
        lost += bool(before.keys() - found.keys())
    assert lost
    assert unreadable < TAILS


CHOICE = ("tests.journal.Step", "b", 1)


@pytest.mark.parametrize("column", ["position", "checksum", "type", "publisher"])
def test_a_flipped_bit_in_the_label_of_an_event_costs_that_event_and_no_other(tmp_path: Path, column: str) -> None:
    path = labelled(tmp_path)
    before, _ = told(tmp_path)
    with closing(sqlite3.connect(path)) as db:
        first, head = db.execute("SELECT first, heads FROM chunks WHERE first > 100 AND length(heads) > 64").fetchone()
    data = bytearray(path.read_bytes())
    size = len(head) // 4
    data[data.index(head) + ["position", "checksum", "type", "publisher"].index(column) * size + 4 * 2] ^= 1
    path.write_bytes(data)
    found, named = told(tmp_path)
    assert before.keys() - found.keys() == named == {first + 2}
    assert found.items() <= before.items()
    with closing(JournalFile.open(path)) as file:
        assert file.check().holes == [(first + 2, first + 2)]


@pytest.mark.parametrize("table", ["kinds", "origins"])
def test_a_file_whose_names_are_lost_is_left_out_with_a_warning(
    tmp_path: Path, table: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = labelled(tmp_path)
    with closing(sqlite3.connect(path)) as db:
        (size,) = db.execute("PRAGMA page_size").fetchone()
        (page,) = db.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (table,)).fetchone()
    data = bytearray(path.read_bytes())
    data[(page - 1) * size : page * size] = bytes(size)
    path.write_bytes(data)
    with Bus(tmp_path) as bus:
        bus.source("sound").publish(Step, n=1)
    assert [event.run for event in Journal(tmp_path).events(Step)] == ["sound"]
    assert f"cannot read {str(path)!r}" in caplog.text
