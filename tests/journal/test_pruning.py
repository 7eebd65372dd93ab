"""What is let go of a journal: the oldest, whole runs, and never what somebody is writing."""

from __future__ import annotations

import logging
import os
import random
import signal
import subprocess
import threading
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from lineside.bus import Bus
from lineside.bus.journal import InvalidRetention, Journal, PruneFailed, Tail
from lineside.bus.journal.claim import is_claimed

from .support import Done, Step, give_up, program, steps, written

NOTHING = timedelta()
PATIENCE = 60.0


def runs(folder: Path) -> set[str]:
    return {summary.run for summary in Journal(folder).runs()}


def test_the_oldest_runs_go_first(tmp_path: Path) -> None:
    paths = [written(tmp_path, 5, run=f"run-{number}") for number in range(5)]
    order = {summary.run: summary.updated for summary in Journal(tmp_path).runs()}
    removed = Journal(tmp_path).prune(max_runs=2)
    assert sorted(removed) == sorted(paths[:3])
    assert runs(tmp_path) == set(sorted(order, key=order.__getitem__)[3:])
    assert Journal(tmp_path).prune(max_runs=2) == []


def test_what_is_too_old_goes(tmp_path: Path) -> None:
    path = written(tmp_path, 5)
    assert Journal(tmp_path).prune(max_age=timedelta(hours=1)) == []
    assert Journal(tmp_path).prune(max_age=NOTHING) == [path]
    assert list(tmp_path.iterdir()) == []


def test_as_much_goes_as_is_too_large(tmp_path: Path) -> None:
    paths = [written(tmp_path, 500, run=f"run-{number}") for number in range(4)]
    size = sum(path.stat().st_size for path in paths)
    assert Journal(tmp_path).prune(max_bytes=size) == []
    assert Journal(tmp_path).prune(max_bytes=size - 1) == paths[:1]
    assert Journal(tmp_path).prune(max_bytes=0) == paths[1:]


def test_a_dry_run_only_says_what_would_go(tmp_path: Path) -> None:
    path = written(tmp_path, 5)
    assert Journal(tmp_path).prune(max_runs=0, dry_run=True) == [path]
    assert steps(tmp_path) == [1, 2, 3, 4, 5]


def test_no_limit_removes_nothing(tmp_path: Path) -> None:
    written(tmp_path, 5)
    assert Journal(tmp_path).prune() == []


def test_a_run_in_several_files_goes_as_a_whole_or_stays(tmp_path: Path) -> None:
    first = written(tmp_path, 5, run="resumed")
    other = written(tmp_path, 5, run="other")
    second = written(tmp_path, 5, run="resumed")
    assert Journal(tmp_path).prune(max_runs=1) == [other]  # it ended before the resumed one did
    assert sorted(Journal(tmp_path).prune(max_runs=0)) == sorted([first, second])


def test_a_file_that_is_written_is_never_touched_nor_the_rest_of_its_runs(tmp_path: Path) -> None:
    earlier = written(tmp_path, 5, run="resumed")
    with Bus(tmp_path) as bus:
        bus.source("resumed", attempt=2).publish(Step, n=6)
        bus.flush()
        dead = written(tmp_path, 5, run="other")
        assert Journal(tmp_path).prune(NOTHING, 0, 0) == [dead]
        bus.source("resumed", attempt=2).publish(Step, n=7)
        bus.flush()
        assert steps(tmp_path) == [1, 2, 3, 4, 5, 6, 7]
        live = bus.journal
    assert sorted(Journal(tmp_path).prune(max_runs=0)) == sorted(path for path in (earlier, live) if path)


def test_a_file_that_was_just_begun_is_not_touched(tmp_path: Path) -> None:
    with Bus(tmp_path) as bus:
        assert Journal(tmp_path).prune(NOTHING, 0, 0) == []
        bus.publish(Step, n=1)
        bus.flush()
        assert steps(tmp_path) == [1]


WRITER = """
bus = Bus(sys.argv[1])
for n, _ in enumerate(sys.stdin, 1):
    bus.source("run").publish(Step, n=n)
    bus.flush()
    print(n, flush=True)
"""


def test_the_file_of_another_process_stays_until_it_is_killed(tmp_path: Path) -> None:
    command = program(WRITER, tmp_path)
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "bufsize": 1}
    with subprocess.Popen(command, **pipes) as writer:
        assert writer.stdin is not None
        assert writer.stdout is not None
        for n in range(1, 4):
            writer.stdin.write("\n")
            assert int(writer.stdout.readline()) == n
            assert Journal(tmp_path).prune(NOTHING, 0, 0) == []
            assert steps(tmp_path) == list(range(1, n + 1))
        writer.send_signal(signal.SIGKILL)
    (path,) = Journal(tmp_path).files()
    assert path.with_name(path.name + "-wal").exists()
    assert Journal(tmp_path).prune(max_runs=0) == [path]
    assert list(tmp_path.iterdir()) == []  # what lay beside it is gone too


def test_other_files_are_left_alone(tmp_path: Path) -> None:
    written(tmp_path, 5)
    (tmp_path / "mine.sqlite").write_text("no database at all, and longer than a header of one hundred bytes" * 3)
    (tmp_path / "notes.txt").write_text("mine")
    Journal(tmp_path).prune(NOTHING, 0, 0)
    assert {path.name for path in tmp_path.iterdir()} == {"mine.sqlite", "notes.txt"}


def test_events_outside_of_runs_go_by_the_age_of_their_file(tmp_path: Path) -> None:
    with Bus(tmp_path) as bus:
        bus.publish(Step, n=1)
        path = bus.journal
    assert path is not None
    assert Journal(tmp_path).prune(timedelta(days=1), max_runs=0) == []
    os.utime(path, (0, 0))
    assert Journal(tmp_path).prune(timedelta(days=1)) == [path]


def test_who_is_reading_a_file_that_goes_reads_it_to_its_end(tmp_path: Path) -> None:
    written(tmp_path, 1000)
    tail = Tail(tmp_path)
    told = tail.read(10)
    Journal(tmp_path).prune(max_runs=0)
    while found := tail.read(100):
        told += found
    assert [one.seq for one in told] == list(range(1, 1001))
    assert tail.position == ""


def test_the_dead_and_the_living_are_told_apart_in_any_mixture(tmp_path: Path) -> None:
    chance = random.Random(3)
    buses: list[Bus] = []
    for _ in range(12):
        bus = Bus(tmp_path)
        for _ in range(2):
            bus.source(f"run-{chance.randrange(16)}").publish(Step, n=1)
        bus.flush()
        if chance.random() < 0.6:
            bus.close()
        else:
            buses.append(bus)
    live = {path for path in Journal(tmp_path).files() if is_claimed(path)}
    assert len(live) == len(buses)
    while removed := Journal(tmp_path).prune(max_runs=len(runs(tmp_path)) - 1):
        assert not live & set(removed)
    kept = runs(tmp_path)
    for bus in buses:
        bus.close()
    linked = {summary.run for summary in Journal(tmp_path).runs()}
    assert linked == kept
    assert live <= set(Journal(tmp_path).files())


@pytest.mark.parametrize("limits", [{"max_age": timedelta(-1)}, {"max_bytes": -1}, {"max_runs": -1}])
def test_a_limit_below_nothing_is_refused(tmp_path: Path, limits: dict[str, int]) -> None:
    (name,) = limits
    with pytest.raises(InvalidRetention, match=f"{name}=.*: expected 0 or more, or None for no limit"):
        Journal(tmp_path, **limits)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=name):
        Journal(tmp_path).prune(**limits)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def pruner() -> threading.Thread | None:
    return next((thread for thread in threading.enumerate() if thread.name == "lineside-prune"), None)


def test_a_bus_that_begins_prunes_what_is_there(tmp_path: Path) -> None:
    paths = [written(tmp_path, 5, run=f"run-{number}") for number in range(4)]
    with Bus(Journal(tmp_path, max_runs=2)) as bus:
        if (thread := pruner()) is not None:
            thread.join()
        bus.publish(Step, n=6)
        bus.flush()
        assert set(Journal(tmp_path).files()) == {*paths[2:], bus.journal}


def test_a_folder_that_cannot_be_pruned_stops_no_bus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = written(tmp_path, 5)
    caplog.set_level(logging.WARNING)

    def refuse(path: Path) -> None:
        raise PruneFailed(path, "Permission denied")

    monkeypatch.setattr("lineside.bus.journal.folder.remove", refuse)
    with Bus(Journal(tmp_path, max_runs=0)):
        if (thread := pruner()) is not None:
            thread.join()
    assert f"the journal could not be pruned: cannot remove {str(path)!r}: Permission denied" in caplog.text


def left(folder: Path, run: str, *, dealt: int) -> Path:
    """Return the file of a bus whose durable subscription has dealt with `dealt` of 100 steps when it ends."""
    stuck, go = threading.Event(), threading.Event()

    def upload(event: Step) -> None:
        if event.n > dealt:
            stuck.set()
            go.wait(PATIENCE)
            raise SystemExit

    with Bus(folder) as bus:
        bus.subscribe(upload, Step, durable="uploader", retries=0)
        for n in range(1, 101):
            bus.source(run).publish(Step, n=n)
        bus.flush()
        if dealt < 100:
            assert stuck.wait(PATIENCE)
            give_up(bus)
        else:
            bus.source(run).publish(Done, n=0)  # of no interest to it
        path = bus.journal
    go.set()
    assert path is not None
    return path


def uploaded(folder: Path) -> list[int]:
    """Return what is left for the durable subscription of a new bus, whose own events are of no interest to it."""
    got: list[int] = []
    with Bus(folder) as bus:
        bus.subscribe(lambda event: got.append(event.n), Step, durable="uploader")
        bus.drain()
    return got


def test_what_a_durable_subscription_has_not_dealt_with_stays_until_it_has(tmp_path: Path) -> None:
    read, unread = left(tmp_path, "first", dealt=100), left(tmp_path, "second", dealt=0)
    assert Journal(tmp_path).prune(NOTHING, 0, 0) == [read]
    got = uploaded(tmp_path)
    assert got == list(range(1, 101))
    assert unread in Journal(tmp_path).prune(NOTHING, 0, 0)


def test_what_nobody_deals_with_goes_in_the_end_and_that_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = left(tmp_path, "first", dealt=0)
    assert Journal(tmp_path).prune(NOTHING, max_unread=timedelta(hours=1), dry_run=True) == []
    assert Journal(tmp_path).prune(max_unread=NOTHING) == []  # it is no limit of its own
    assert Journal(tmp_path).prune(NOTHING, max_unread=NOTHING, dry_run=True) == [path]
    assert "had not dealt with" not in caplog.text
    assert Journal(tmp_path).prune(NOTHING, max_unread=NOTHING) == [path]
    assert f"{path} was removed with events that the durable subscription uploader had not dealt with" in caplog.text
    assert "it was at position 0 of 100" in caplog.text
    assert uploaded(tmp_path) == []


def test_a_bus_that_begins_takes_nothing_from_a_durable_subscription(tmp_path: Path) -> None:
    left(tmp_path, "first", dealt=0)
    for _ in range(3):
        with Bus(Journal(tmp_path, max_age=NOTHING, max_bytes=0, max_runs=0)):
            if (thread := pruner()) is not None:
                thread.join()
    assert uploaded(tmp_path) == list(range(1, 101))
