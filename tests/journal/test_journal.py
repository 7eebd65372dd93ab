"""The journal: what is published outlives the process, and is read again in order."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
import subprocess
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import pytest

from lineside.bus import Bus, PolicyRefused, WouldDeadlock
from lineside.bus.journal import Durability, Journal, JournalRefused
from lineside.bus.journal.claim import is_claimed
from lineside.bus.journal.file import JournalFile
from lineside.bus.journal.filesystem import network_filesystem
from lineside.schemas import Event, TrainBatchEnd, UnknownEvent, decode

from .support import Done, Step, program, steps, written


def test_everything_published_is_on_disk_after_the_close(tmp_path: Path) -> None:
    written(tmp_path / "runs", 3000)
    assert steps(tmp_path / "runs") == list(range(1, 3001))


def test_an_event_is_read_as_it_was_published(tmp_path: Path) -> None:
    got: list[Event] = []
    with Bus(tmp_path) as bus:
        bus.subscribe(got.append)
        source = bus.source("a", attempt=2, rank=3)
        losses = {"loss": float("inf")}
        source.publish(
            TrainBatchEnd, epoch=1, batch=2, batches=None, batch_size=4, step=5, loss=float("inf"), losses=losses, lr={}
        )
        source.publish(Done, n=7)
    assert list(Journal(tmp_path).events()) == got
    assert [(event.run, event.attempt, event.rank, event.seq) for event in got] == [("a", 2, 3, 1), ("a", 2, 3, 2)]


def test_readers_far_behind_read_all_that_is_on_disk_while_the_bus_is_closed(tmp_path: Path) -> None:
    for attempt in range(8):
        bus = Bus(tmp_path / str(attempt), window=16)
        for run in range(20):
            source = bus.source(f"run-{run}")
            for n in range(100):
                source.publish(Step, n=n)
        bus.flush()
        streams = [bus.stream(Step, since="start") for _ in range(3)]
        with ThreadPoolExecutor(len(streams)) as pool:
            reading = [pool.submit(list[Step], stream) for stream in streams]
            bus.close()
            assert [[event.n for event in one.result()] for one in reading] == [[*range(100)] * 20] * len(streams)


def test_who_reads_on_after_the_bus_was_closed_leaves_no_file_open(tmp_path: Path) -> None:
    bus = Bus(tmp_path, window=16)
    for n in range(2000):
        bus.publish(Step(n=n))
    stream = bus.stream(Step, since="start")
    first = next(stream)
    bus.close()
    assert [first.n, *(event.n for event in stream)] == [*range(2000)]
    assert not [file.path for file in psutil.Process().open_files() if file.path.startswith(str(tmp_path))]


def test_a_flush_returns_when_everything_before_it_is_committed(tmp_path: Path) -> None:
    with Bus(tmp_path) as bus:
        for n in range(1, 200):
            bus.publish(Step, n=n)
            if n % 50 == 0:
                bus.flush()
                assert steps(tmp_path) == list(range(1, n + 1))


async def test_a_flush_lets_the_event_loop_go_on(tmp_path: Path) -> None:
    async with Bus(tmp_path) as bus:
        bus.publish(Step, n=1)
        with pytest.raises(WouldDeadlock, match="use await bus.aflush"):
            bus.flush()
        await asyncio.gather(bus.aflush(), bus.aflush())
        assert steps(tmp_path) == [1]


def test_a_flush_without_a_journal_says_how_to_get_one() -> None:
    with Bus() as bus, pytest.raises(PolicyRefused, match=r"this bus keeps none; make it as Bus\('runs/'\)"):
        bus.flush()


def test_history_comes_first_and_then_what_follows(tmp_path: Path) -> None:
    got: list[int] = []
    with Bus(tmp_path, window=64) as bus:
        for n in range(1, 2001):
            bus.publish(Step, n=n)
        bus.drain()
        bus.subscribe(lambda event: got.append(event.n), Step, since="start")
        for n in range(2001, 3001):
            bus.publish(Step, n=n)
        bus.drain()
        assert got == list(range(1, 3001))
        stream = bus.stream(Step, since=1990)
        late = bus.stream(Step, since="start", overflow="drop")
        assert [next(stream).n for _ in range(5)] == list(range(1991, 1996))
    assert [event.n for event in stream] == list(range(1996, 3001))
    assert [event.n for event in late] == list(range(1, 3001))


def test_history_goes_back_as_far_as_asked(tmp_path: Path) -> None:
    with Bus(tmp_path, window=64) as bus:
        for n in range(1, 1001):
            bus.publish(Step, n=n)
        bus.drain()
        everything = bus.stream(Step, since=timedelta(hours=1))
        nothing = bus.stream(Step, since=timedelta(0))
        bus.drain()
    assert [event.n for event in everything] == list(range(1, 1001))
    assert not list(nothing)
    assert not list(Journal(tmp_path).events(since=timedelta(0)))
    assert steps(tmp_path) == [event.n for event in Journal(tmp_path).events(Step, since=timedelta(hours=1))]


def test_types_families_and_runs_are_chosen(tmp_path: Path) -> None:
    with Bus(tmp_path) as bus:
        for n in range(100):
            bus.source("ab"[n % 2]).publish(Done if n % 10 == 0 else Step, n=n)
    journal = Journal(tmp_path)
    assert [event.n for event in journal.events(Done)] == list(range(0, 100, 10))
    assert steps(tmp_path, run="b") == list(range(1, 100, 2))
    assert len(list(journal.events("tests.journal.Done", Step))) == 100
    assert not list(journal.events(TrainBatchEnd))
    assert not list(journal.events(run="c"))


def test_each_bus_writes_a_file_of_its_own_and_readers_merge_them(tmp_path: Path) -> None:
    with Bus(tmp_path) as first, Bus(tmp_path) as second:
        for n in range(0, 100, 2):
            first.source("run", rank=0).publish(Step, n=n)
            first.flush()
            second.source("run", rank=1).publish(Step, n=n + 1)
            second.flush()
        assert first.journal != second.journal
    events = list(Journal(tmp_path).events(Step, run="run"))
    assert sorted(event.n for event in events) == list(range(100))
    assert [event.time for event in events] == sorted(event.time for event in events)
    for rank in (0, 1):
        assert [event.n for event in events if event.rank == rank] == list(range(rank, 100, 2))


RANK = """
with Bus(sys.argv[1]) as bus:
    source = bus.source("run", rank=int(sys.argv[2]))
    for n in range(500):
        source.publish(Step, n=n)
"""


def test_several_processes_write_one_folder(tmp_path: Path) -> None:
    ranks = [subprocess.Popen(program(RANK, tmp_path, rank)) for rank in range(3)]
    assert [rank.wait(60) for rank in ranks] == [0, 0, 0]
    events = list(Journal(tmp_path).events(Step, run="run"))
    for rank in range(3):
        assert [event.n for event in events if event.rank == rank] == list(range(500))


def test_a_type_that_this_process_does_not_know_survives(tmp_path: Path) -> None:
    with Bus(tmp_path) as bus:
        bus.publish(decode(b'{"type": "tests.journal.Elsewhere", "colour": "red"}'))
    (event,) = Journal(tmp_path).events()
    assert isinstance(event, UnknownEvent)
    assert (event.type, event.fields) == ("tests.journal.Elsewhere", {"colour": "red"})


def test_fields_that_do_not_fit_leave_a_gap_and_no_hole(tmp_path: Path) -> None:
    with Bus(tmp_path) as bus:
        for n in range(20):
            bus.publish(Step, n="many" if n % 5 == 0 else n)
        path = bus.journal
    assert path is not None
    with closing(JournalFile.open(path)) as file:
        with_gaps = file.check()
    assert not with_gaps.holes
    assert with_gaps.events == 16 + 4  # the steps, and what was said of the others


def test_an_event_that_json_cannot_hold_costs_no_other(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Odd(Event, name="tests.journal.Odd"):
        what: object

    with Bus(tmp_path) as bus:
        bus.publish(Step, n=1)
        bus.publish(Odd, what=object())
        bus.publish(Step, n=2)
    assert steps(tmp_path) == [1, 2]
    assert "journal failed on Odd" in caplog.text


def test_the_file_is_claimed_while_it_is_written(tmp_path: Path) -> None:
    with Bus(tmp_path) as bus:
        path = bus.journal
        assert path is not None
        assert is_claimed(path)
    assert not is_claimed(path)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]  # one plain file, that can be copied


@pytest.mark.parametrize(("durability", "synchronous"), [("process", 1), (Durability.POWER, 2)])
def test_what_a_commit_survives_is_stated(tmp_path: Path, durability: str, synchronous: int) -> None:
    with Bus(Journal(tmp_path, durability=durability)) as bus:
        path = bus.journal
        assert path is not None
        with closing(JournalFile.open(path)) as file:
            assert file.about()["durability"] == durability
        archive = bus._log.archive  # pyright: ignore[reportPrivateUsage]  # no reader can see it from outside
        assert archive.writer._one("PRAGMA synchronous") == synchronous  # type: ignore[union-attr]  # pyright: ignore


def test_a_folder_that_cannot_be_made_is_refused_at_once(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(JournalRefused, match="cannot keep a journal in"):
        Bus(file)
    with pytest.raises(JournalRefused, match="there is no such folder"):
        Journal(tmp_path / "nowhere").events()


def test_a_network_filesystem_is_known_and_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(
        "22 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n"
        f"23 22 0:50 / {tmp_path}/my\\040share rw,relatime shared:1 - nfs4 server:/export rw\n"
    )
    assert network_filesystem(tmp_path / "my share" / "runs", mounts) == "nfs4"
    assert network_filesystem(tmp_path / "my shares", mounts) is None

    def share(_: Path) -> str:
        return "nfs4"

    monkeypatch.setattr("lineside.bus.journal.folder.network_filesystem", share)
    with pytest.raises(JournalRefused, match="is on a network filesystem .nfs4., where SQLite may damage it; name a"):
        Bus(tmp_path / "runs")


def test_other_files_in_the_folder_are_left_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    written(tmp_path, 10)
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "broken.sqlite").write_text("no database at all, and longer than a header of one hundred bytes" * 3)
    other = sqlite3.connect(tmp_path / "other.sqlite")
    other.execute("CREATE TABLE mine (x)")
    other.close()
    assert steps(tmp_path) == list(range(1, 11))
    assert "broken.sqlite' as a journal: file is not a database; it is left out" in caplog.text
    assert "other.sqlite' as a journal: it is no journal of Lineside" in caplog.text
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_closed_file_can_be_copied_and_read_where_nothing_can_be_written(tmp_path: Path) -> None:
    path = written(tmp_path / "runs", 100)
    elsewhere = tmp_path / "copy"
    elsewhere.mkdir()
    shutil.copy(path, elsewhere)
    elsewhere.chmod(0o555)
    assert steps(elsewhere) == list(range(1, 101))


def test_the_time_of_the_first_event_is_kept(tmp_path: Path) -> None:
    path = written(tmp_path, 10)
    with closing(JournalFile.open(path)) as file:
        assert file.position_at(0) == 0
        assert file.position_at(int(datetime.now(UTC).timestamp() * 1000)) >= 0
