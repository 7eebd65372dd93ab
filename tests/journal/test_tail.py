"""Reading along: what any process publishes, as it is committed; cut off anywhere, nothing is lost or repeated."""

from __future__ import annotations

import itertools
import os
import random
import signal
import sqlite3
import subprocess
from collections.abc import Callable
from contextlib import AbstractContextManager
from copy import copy
from pathlib import Path
from typing import IO, Any
from unittest import mock

import pytest

from lineside.bus import Bus
from lineside.bus.journal import Gap, InvalidPosition, Journal, JournalRefused, JournalUnreadable, Origin, Tail, Told
from lineside.bus.journal.claim import Claim
from lineside.bus.journal.file import Durability, JournalFile, Lines
from lineside.bus.journal.pruning import remove
from lineside.bus.journal.writer import JournalWriter
from lineside.schemas import decode
from tests.bus.schedules import opened

from .support import Done, Step, program, written
from .tails import Schedule

SCHEDULES = int(os.environ.get("LINESIDE_TAILS", "80"))
FAULTY = 60
"""In so many schedules each fault must show."""

WRITER = """
bus = Bus(sys.argv[1], window=256)
source = bus.source("run", rank=int(sys.argv[2]))
n = 0
for _ in sys.stdin:
    for _ in range(37):
        n += 1
        source.publish(Step, n=n)
    bus.flush()
    print(n, flush=True)
"""


def go_on(writer: subprocess.Popen[str]) -> IO[str]:
    """Have `writer` publish some more, and return where it says how many there are on disk."""
    assert writer.stdin is not None
    assert writer.stdout is not None
    writer.stdin.write("\n")
    return writer.stdout


def everything(tail: Tail, limit: int = 500) -> list[Told]:
    told: list[Told] = []
    while found := tail.read(limit):
        told += found
    return told


def commit(writer: JournalWriter, seq: int, time: int) -> None:
    """Commit an event of a type and an attempt of its own."""
    writer.commit(Lines([seq], [f"Kind{seq}"], [Origin("run", seq, 0)], [b"{}"]), time)


def numbers(told: list[Told]) -> list[int]:
    return [event.n for event in map(decode, (one.body for one in told)) if isinstance(event, Step)]


def test_it_tells_what_is_committed_and_then_what_follows(tmp_path: Path) -> None:
    with Bus(tmp_path) as bus:
        source = bus.source("run", attempt=2, rank=1)
        tail = Tail(tmp_path)
        assert tail.read() == []
        source.publish(Step, n=1)
        bus.flush()
        (told,) = tail.read()
        assert bus.journal is not None
        assert (told.file, told.seq, told.name) == (bus.journal.name, 1, "tests.journal.Step")
        assert told.origin == Origin("run", 2, 1)
        assert decode(told.body) == next(Journal(tmp_path).events())
        assert tail.read() == []
        for n in range(2, 1000):
            source.publish(Step, n=n)
        bus.flush()
        assert numbers(everything(tail, limit=7)) == list(range(2, 1000))
    assert tail.read() == []


def test_files_that_come_later_are_found(tmp_path: Path) -> None:
    tail = Tail(tmp_path)
    assert (tail.read(), tail.position) == ([], "")
    for number in range(3):
        written(tmp_path, 10, run=f"run-{number}")
        told = everything(tail)
        assert {one.origin.run for one in told} == {f"run-{number}"}
        assert numbers(told) == list(range(1, 11))


def test_several_processes_are_merged_by_the_time_of_their_commits(tmp_path: Path) -> None:
    writers = [JournalWriter.create(tmp_path / f"{name}.sqlite", Durability.PROCESS, {}) for name in "ab"]
    for time in range(1, 9):
        commit(writers[time % 2], time, time)
    assert [one.seq for one in everything(Tail(tmp_path))] == list(range(1, 9))
    for writer in writers:
        writer.close()


def test_a_run_a_type_and_a_rank_can_be_chosen(tmp_path: Path) -> None:
    with Bus(tmp_path) as bus:
        sources = [bus.source(run, rank=rank) for run, rank in (("a", 0), ("a", 1), ("b", 0))]
        for n in range(300):
            sources[n % 3].publish(Done if n % 2 else Step, n=n)

    def told(**choice: Any) -> list[tuple[str, int, str]]:
        return [(one.origin.run, one.origin.rank, one.name) for one in everything(Tail(tmp_path, **choice), 11)]

    every = told()
    assert len(every) == 300
    assert told(run="a") == [one for one in every if one[0] == "a"]
    assert told(run="a", ranks={1}) == [one for one in every if one[:2] == ("a", 1)]
    assert told(names={"tests.journal.Done"}) == [one for one in every if one[2].endswith("Done")]
    assert told(run="absent") == told(names=()) == []


def test_from_every_place_it_goes_on_with_the_next_event(tmp_path: Path) -> None:
    with Bus(tmp_path) as one, Bus(tmp_path) as other:
        for n in range(60):
            (one, other)[n % 7 > 3].publish(Step, n=n)
            if n % 10 == 0:
                one.flush()
                other.flush()
    written(tmp_path, 30)
    every = everything(Tail(tmp_path))
    assert len(every) == 90
    for index, told in enumerate(every):
        assert everything(Tail(tmp_path, after=told.position)) == every[index + 1 :]
    with Tail(tmp_path) as tail:
        for index in range(0, 90, 4):
            with Tail(tmp_path, after=tail.position) as behind:
                assert behind.read(1) == every[index : index + 1]
            tail.read(4)


def test_a_position_is_short_where_one_run_is_read_and_outlives_other_files(tmp_path: Path) -> None:
    paths = [written(tmp_path, 20, run=f"run-{number}") for number in range(5)]
    with Tail(tmp_path, run="run-3") as tail:
        told = tail.read(7)
    assert len(told[-1].position) < 20
    for path in paths[:3]:
        remove(path)
    written(tmp_path, 20, run="run-3")
    rest = everything(Tail(tmp_path, run="run-3", after=told[-1].position))
    assert numbers(rest) == [*range(8, 21), *range(1, 21)]


@pytest.mark.parametrize(
    "position", ["7", "x", "0123456789.", "0123456789.1-", "0123456789.1-0123456789.2", "../etc", "0123456789.1\n"]
)
def test_what_is_no_position_is_refused(tmp_path: Path, position: str) -> None:
    with pytest.raises(InvalidPosition, match="is no position in a journal; give one that came with an event"):
        Tail(tmp_path, after=position)


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(JournalRefused, match="there is no such folder"):
        Tail(tmp_path / "absent")


def test_a_file_that_cannot_be_opened_now_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path, 10)

    def refuse(*_: object) -> sqlite3.Connection:
        raise sqlite3.OperationalError("unable to open database file")

    with Tail(tmp_path) as tail, monkeypatch.context() as patch:
        patch.setattr("lineside.bus.journal.file.connect", refuse)
        patch.setattr("lineside.bus.journal.tail.opens", lambda _: False)  # pyright: ignore
        assert tail.read() == tail.read() == []
        patch.undo()
        assert numbers(tail.read()) == list(range(1, 11))


def test_a_disk_that_refuses_is_told_and_nothing_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(tmp_path, 10)

    def refuse(_: JournalFile) -> int:
        raise sqlite3.OperationalError("disk I/O error")

    with Tail(tmp_path) as tail, monkeypatch.context() as patch:
        patch.setattr(JournalFile, "last_readable", refuse)
        with pytest.raises(JournalUnreadable, match="disk I/O error"):
            tail.read()
        patch.undo()
        assert numbers(tail.read()) == list(range(1, 11))


def test_what_processes_write_is_read_along_until_they_are_killed(tmp_path: Path) -> None:
    chance = random.Random(5)
    command = program(WRITER, tmp_path)
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "bufsize": 1}
    writers = [subprocess.Popen([*command, str(rank)], **pipes) for rank in range(2)]
    told: list[Told] = []
    position = ""
    for _ in range(40):
        rank = chance.randrange(2)
        acknowledged = int(go_on(writers[rank]).readline())
        tail = Tail(tmp_path, run="run", after=position)
        found = everything(tail, chance.choice((3, 50, 500)))
        told += found
        position = found[-1].position if found and chance.random() < 0.5 else tail.position
        tail.close()
        assert numbers([one for one in told if one.origin.rank == rank])[-1] >= acknowledged
    for writer in writers:
        go_on(writer)
        writer.send_signal(signal.SIGKILL)
        writer.communicate()
    told += everything(Tail(tmp_path, run="run", after=position))
    for rank in range(2):
        seen = numbers([one for one in told if one.origin.rank == rank])
        assert seen == list(range(1, len(seen) + 1))
    assert len(told) == sum(1 for _ in Journal(tmp_path).events())


def test_the_file_of_a_dead_writer_is_closed_once_it_is_read(tmp_path: Path) -> None:
    def here() -> list[str]:
        return [path for path in opened() if path.startswith(str(tmp_path))]

    for number in range(5):
        written(tmp_path, 10, run=f"run-{number}")
    tail = Tail(tmp_path)
    before = here()
    assert len(everything(tail)) == 50
    assert here() == before


def test_who_comes_while_it_looks_is_told_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "live.sqlite"
    claim = Claim(path)
    writer = JournalWriter.create(path, Durability.PROCESS, {})
    seqs = itertools.count(1)

    def publish() -> None:
        seq = next(seqs)
        commit(writer, seq, seq)

    def interrupted(method: Callable[[JournalFile], Any]) -> Callable[[JournalFile], Any]:
        def read(file: JournalFile) -> Any:
            value = copy(method(file))
            if file is not writer and next(turns) % 7 == 0:
                publish()  # somebody new, right behind what was seen
            return value

        return read

    turns = itertools.count()
    publish()
    for name in ("last_readable", "kinds", "origins"):
        monkeypatch.setattr(JournalFile, name, interrupted(getattr(JournalFile, name)))
    tail = Tail(tmp_path, run="run", names={f"Kind{seq}" for seq in range(5000)})
    told = [one.seq for _ in range(30) for one in tail.read(10)]
    monkeypatch.undo()
    told += [one.seq for one in everything(tail)]
    assert told == list(range(1, next(seqs)))
    tail.close()
    writer.close()
    claim.release()


# -- damage ------------------------------------------------------------------------------------------


def test_what_cannot_be_told_is_a_gap_at_its_place(tmp_path: Path) -> None:
    path = written(tmp_path, 1000)
    data = bytearray(path.read_bytes())
    data[data.index(b'"n":500}') + 5] ^= 1
    path.write_bytes(data)
    tail = Tail(tmp_path)
    assert numbers(tail.read(499)) == list(range(1, 500))
    assert tail.gaps() == []
    assert numbers(tail.read(1)) == [501]
    assert tail.gaps() == [Gap(path.name, 500, 500)]
    assert tail.gaps() == []
    assert numbers(everything(tail)) == list(range(502, 1001))


def test_positions_that_were_never_written_are_gaps(tmp_path: Path) -> None:
    with Bus(tmp_path) as bus:
        for n in range(1, 11):
            bus.publish(Step, n="no number" if n in (4, 5) else n)
    tail = Tail(tmp_path)
    assert numbers(everything(tail)) == [1, 2, 3, 6, 7, 8, 9, 10]
    assert {n for gap in tail.gaps() for n in range(gap.first, gap.last + 1)} == {4, 5}


def test_what_json_cannot_hold_is_a_gap(tmp_path: Path) -> None:
    class Thing(Step, name="tests.journal.Thing"):
        what: object

    with Bus(tmp_path) as bus:
        bus.publish(Step, n=1)
        bus.publish(Thing, n=2, what=object())
        bus.publish(Step, n=3)
        assert bus.journal is not None
        name = bus.journal.name
    tail = Tail(tmp_path, names={"tests.journal.Step", "tests.journal.Thing"})
    assert numbers(everything(tail)) == [1, 3]
    assert Gap(name, 2, 2) in tail.gaps()


def test_flipped_bits_anywhere_lose_nothing_without_a_word(tmp_path: Path) -> None:
    path = written(tmp_path, 3000)
    whole = path.read_bytes()
    chance = random.Random(11)
    lost = 0
    for _ in range(SCHEDULES):
        data = bytearray(whole)
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        path.write_bytes(data)
        tail = Tail(tmp_path)
        try:
            JournalFile.open(path).close()
            told = [one.seq for one in everything(tail)]
        except JournalUnreadable:
            continue
        gaps = {n for gap in tail.gaps() for n in range(gap.first, min(gap.last, 3000) + 1)}
        assert told == sorted(set(told))
        assert set(range(1, (told or [0])[-1] + 1)) - set(told) <= gaps
        lost += len(told) < 3000
    assert lost


# -- random schedules, and whether they would notice ----------------------------------------------------


@pytest.mark.parametrize("seed", range(SCHEDULES))
def test_in_a_random_schedule_nothing_is_lost_or_repeated(tmp_path: Path, seed: int) -> None:
    Schedule(tmp_path, seed).play()


TAIL = "lineside.bus.journal.tail."


def skip_one() -> Any:
    take = Tail.read

    def broken(tail: Tail, limit: int = 500) -> list[Told]:
        told = take(tail, limit)
        return told[1:] if len(told) > 3 else told

    return mock.patch.object(Tail, "read", broken)


def tell_more_than_asked() -> Any:
    take = Tail.read
    return mock.patch.object(Tail, "read", lambda tail, limit=500: take(tail, limit + 1))  # pyright: ignore


def swap_two() -> Any:
    take = Tail.read
    return mock.patch.object(Tail, "read", lambda tail, limit=500: take(tail, limit)[::-1])  # pyright: ignore


def forget_where_it_was() -> Any:
    return mock.patch(TAIL + "_parse", return_value={})


def be_further_than_it_told() -> Any:
    def part(file: Any) -> str:
        return f"{file.key}.{file._reached}" if file._reached else ""

    return mock.patch(TAIL + "_FileTail.part", part)


def forget_the_other_files() -> Any:
    def alone(_: Tail, file: Any) -> tuple[str, str]:
        return f"{file.key}.", ""

    return mock.patch.object(Tail, "_positions_around", alone)


def take_the_living_for_dead() -> Any:
    return mock.patch(TAIL + "is_claimed", return_value=False)


def overlook_new_files() -> Any:
    look = Tail._look_around  # pyright: ignore[reportPrivateUsage]

    def once(tail: Tail) -> None:
        if not tail.__dict__.get("_files"):
            look(tail)

    return mock.patch.object(Tail, "_look_around", once)


def begin_a_chunk_again() -> Any:
    def from_the_first(reached: int, first: int) -> int:
        return first

    return mock.patch(TAIL + "max", from_the_first, create=True)


def keep_gaps_to_oneself() -> Any:
    return mock.patch.object(Tail, "gaps", return_value=[])


def see_gaps_everywhere() -> Any:
    return mock.patch(TAIL + "JournalFile.committed", return_value=[])


def choose_any_rank() -> Any:
    origins = "_Choice.origins"
    return mock.patch(TAIL + origins, return_value=None)


FAULTS: list[tuple[Callable[[], AbstractContextManager[Any]], str]] = [
    (skip_one, "lost"),
    (tell_more_than_asked, "more was told than was asked for"),
    (swap_two, "out of order|told twice"),
    (forget_where_it_was, "told twice"),
    (be_further_than_it_told, "lost"),
    (forget_the_other_files, "told twice"),
    (take_the_living_for_dead, "lost"),
    (overlook_new_files, "lost"),
    (begin_a_chunk_again, "told twice|a gap that is none"),
    (keep_gaps_to_oneself, "a gap was not told"),
    (see_gaps_everywhere, "a gap that is none|a gap was not told"),
    (choose_any_rank, "told unasked"),
]


@pytest.mark.parametrize(("fault", "words"), FAULTS, ids=[fault.__name__ for fault, _ in FAULTS])
def test_a_fault_shows_in_the_schedules(
    tmp_path: Path, fault: Callable[[], AbstractContextManager[Any]], words: str
) -> None:
    with fault(), pytest.raises(AssertionError, match=words):
        play(tmp_path, FAULTY)


def play(folder: Path, schedules: int) -> None:
    for seed in range(schedules):
        inside = folder / str(seed)
        inside.mkdir()
        Schedule(inside, seed).play()
