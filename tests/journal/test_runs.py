"""The runs of a journal in a few figures each, read while they run and after they are gone."""

from __future__ import annotations

import json
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from lineside.bus import Bus, Source
from lineside.bus.journal import InvalidSpeed, Journal, JournalRefused, RunSummary, UnknownRun, replay
from lineside.bus.journal import runs as module
from lineside.bus.journal.file import JournalFile
from lineside.schemas import (
    Event,
    FitEpochEnd,
    RunEnd,
    RunStart,
    TrainBatchEnd,
    TrainEpochStart,
    TrainStart,
    ValEnd,
    decode,
)

from .support import Done, Step


def start(source: Source, kind: str = "train") -> None:
    source.publish(RunStart, kind=kind, model="Net", device="cpu", host="here", pid=7)


def train(source: Source, epochs: int = 3, first: int = 0, batches: int = 40) -> None:
    source.publish(TrainStart, epoch=first, epochs=epochs, batches=batches, step=0)
    for epoch in range(first, epochs):
        source.publish(TrainEpochStart, epoch=epoch, epochs=epochs, batches=batches, lr={})
        for n in range(batches):
            fields: dict[str, Any] = {"epoch": epoch, "batch": n, "batches": batches, "batch_size": 4, "step": n}
            source.publish(TrainBatchEnd, **fields, loss=0.5, losses={}, lr={})
        judge(source, epoch, epochs, {"accuracy": 0.5 + epoch / 10})


def judge(source: Source, epoch: int, epochs: int, metrics: dict[str, float], *, final: bool = False) -> None:
    if metrics:
        rest: dict[str, Any] = {"losses": {}, "duration": 1.0, "speed": {}, "batches": 1, "samples": 4}
        source.publish(ValEnd, epoch=epoch, metrics=metrics, fitness=metrics["accuracy"], **rest)
    fields: dict[str, Any] = {"losses": {}, "best_fitness": None, "best_epoch": None, "best": None, "last": None}
    fitness = metrics.get("accuracy")
    source.publish(
        FitEpochEnd, epoch=epoch, epochs=epochs, metrics=metrics, fitness=fitness, final=final, duration=1.0, **fields
    )


def end(source: Source, outcome: str = "completed", kind: str = "train", **more: Any) -> None:
    source.publish(RunEnd, kind=kind, outcome=outcome, duration=12.5, **more)


def test_a_run_that_is_over_is_summed_up(tmp_path: Path) -> None:
    with Bus(tmp_path) as bus:
        source = bus.source("digits")
        start(source)
        train(source)
        judge(source, 1, 3, {"accuracy": 0.9}, final=True)
        end(source, reason="no improvement")
    summary = Journal(tmp_path).run("digits")
    events = list(Journal(tmp_path).events())
    assert summary == RunSummary(
        run="digits",
        kind="train",
        model="Net",
        state="finished",
        outcome="completed",
        reason="no improvement",
        error=None,
        started=events[0].time,
        ended=events[-1].time,
        updated=events[-1].time,
        duration=12.5,
        attempt=1,
        ranks=1,
        epoch=2,
        epochs=3,
        fitness=0.9,
        metrics={"accuracy": 0.9},
        host="here",
        pid=7,
        events=len(events),
    )
    assert Journal(tmp_path).runs() == [summary]
    assert RunSummary.model_validate_json(summary.model_dump_json()) == summary


def test_what_somebody_had_evaluated_in_between_is_not_how_good_the_run_is(tmp_path: Path) -> None:
    with Bus(tmp_path) as bus:
        source = bus.source("digits")
        start(source)
        train(source)
        rest: dict[str, Any] = {"losses": {}, "duration": 1.0, "speed": {}, "batches": 1, "samples": 4}
        source.publish(ValEnd, epoch=2, metrics={"accuracy": 0.1}, fitness=0.1, aside=True, **rest)
        end(source)
    summary = Journal(tmp_path).run("digits")
    assert (summary.fitness, summary.metrics) == (0.7, {"accuracy": 0.7})


def test_a_validation_with_a_loss_alone_has_that_for_a_number(tmp_path: Path) -> None:
    with Bus(tmp_path) as bus:
        source = bus.source("check")
        start(source, kind="val")
        facts: dict[str, Any] = {"duration": 1.0, "speed": {}, "batches": 1, "samples": 4}
        source.publish(ValEnd, epoch=0, metrics={}, losses={"loss": 0.25}, fitness=-0.25, **facts)
        end(source, kind="val")
    summary = Journal(tmp_path).run("check")
    assert (summary.fitness, summary.metrics) == (-0.25, {"loss": 0.25})


def test_the_newest_run_comes_first_and_events_outside_of_runs_are_none(tmp_path: Path) -> None:
    with Bus(tmp_path) as bus:
        bus.publish(Step, n=1)
        for name in ("first", "second", "third"):
            start(bus.source(name), kind="val")
            bus.flush()
            end(bus.source(name), kind="val")
    summaries = Journal(tmp_path).runs()
    assert {summary.run for summary in summaries} == {"first", "second", "third"}
    times = [summary.started for summary in summaries if summary.started]
    assert times == sorted(times, reverse=True)
    assert {(summary.kind, summary.state, summary.events) for summary in summaries} == {("val", "finished", 2)}


def test_a_run_is_running_until_it_is_silent_for_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(tmp_path)
    with Bus(tmp_path) as bus:
        source = bus.source("live")
        start(source)
        source.publish(TrainStart, epoch=4, epochs=9, batches=None, step=0)
        bus.flush()
        summary = journal.run("live")
        assert (summary.state, summary.outcome, summary.ended, summary.epoch) == ("running", None, None, 4)
        assert (summary.fitness, summary.metrics) == (None, {})
        monkeypatch.setattr(module, "STALLED_SECONDS", -1.0)
        assert journal.run("live").state == "stalled"
        end(source, "stopped", reason="enough")
        bus.flush()
        summary = journal.run("live")
        assert (summary.state, summary.outcome, summary.reason) == ("finished", "stopped", "enough")


def test_a_failed_run_has_its_error(tmp_path: Path) -> None:
    with Bus(tmp_path) as bus:
        source = bus.source("bad")
        start(source)
        end(source, "failed", error={"type": "ValueError", "message": "seven"})
    summary = Journal(tmp_path).run("bad")
    assert (summary.state, summary.outcome) == ("failed", "failed")
    assert summary.error is not None
    assert summary.error.message == "seven"


KILLED = """
import sys
from lineside.bus import Bus
from lineside.schemas import RunStart

bus = Bus(sys.argv[1])
bus.source("killed").publish(RunStart, kind="train", model="Net", device="cpu")
bus.flush()
print("on disk", flush=True)
sys.stdin.read()
"""


def test_a_run_whose_process_was_killed_has_failed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    journal = Journal(tmp_path)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        assert journal.run("killed").state == "running"
        assert journal.run("killed").pid == writer.pid
        writer.send_signal(signal.SIGKILL)
    summary = journal.run("killed")
    assert (summary.state, summary.outcome) == ("failed", None)
    assert summary.error is not None
    assert summary.error.message.startswith("its process ended without a word; the last that it published is RunStart")


def test_what_no_runner_published_cannot_fail(tmp_path: Path) -> None:
    with Bus(tmp_path) as bus:
        bus.source("mine").publish(Step, n=1)
        bus.flush()
        assert Journal(tmp_path).run("mine").state == "running"
    summary = Journal(tmp_path).run("mine")
    assert (summary.state, summary.kind, summary.model, summary.started) == ("finished", None, None, None)


def test_a_resumed_run_is_one_run_and_its_newest_attempt_counts(tmp_path: Path) -> None:
    for attempt, outcome in ((1, "failed"), (2, "completed")):
        with Bus(tmp_path) as bus:
            source = bus.source("again", attempt=attempt)
            start(source)
            train(source, epochs=2 * attempt, first=2 * attempt - 2)
            end(source, outcome)
    (summary,) = Journal(tmp_path).runs()
    assert (summary.attempt, summary.state, summary.epoch, summary.epochs) == (2, "finished", 3, 4)
    assert summary.events == sum(1 for _ in Journal(tmp_path).events())


def test_ranks_are_one_run_and_the_failure_of_any_is_that_of_all(tmp_path: Path) -> None:
    with Bus(tmp_path) as zero, Bus(tmp_path) as one:
        sources = [bus.source("ddp", rank=rank) for rank, bus in enumerate((zero, one))]
        for source in sources:
            start(source)
        end(sources[1])
        zero.flush()
        one.flush()
        summary = Journal(tmp_path).run("ddp")
        assert (summary.ranks, summary.state) == (2, "running")
    with Bus(tmp_path) as bus:
        end(bus.source("ddp", rank=1), "failed", error={"type": "E", "message": "m"})
        end(bus.source("ddp", rank=0), "stopped")
    assert Journal(tmp_path).run("ddp").state == "failed"


def test_an_epoch_without_validation_does_not_hide_the_last_metrics(tmp_path: Path) -> None:
    with Bus(tmp_path) as bus:
        source = bus.source("rare")
        start(source)
        judge(source, 0, 3, {"accuracy": 0.7})
        judge(source, 1, 3, {})
    summary = Journal(tmp_path).run("rare")
    assert (summary.fitness, summary.metrics) == (0.7, {"accuracy": 0.7})


def test_metrics_that_are_no_numbers_are_valid_json(tmp_path: Path) -> None:
    with Bus(tmp_path) as bus:
        judge(bus.source("nan"), 0, 1, {"accuracy": float("inf")})
    summary = Journal(tmp_path).run("nan")
    assert json.loads(summary.model_dump_json())["metrics"] == {"accuracy": "Infinity"}


def test_several_runs_in_one_file_are_told_apart(tmp_path: Path) -> None:
    with Bus(tmp_path) as bus:
        sources = [bus.source(f"run-{number}") for number in range(70)]  # more than a bit set has bits for
        for n in range(3):
            for number, source in enumerate(sources):
                for _ in range(number % 3):
                    source.publish(Step, n=n)
        for source in sources:
            end(source)
    summaries = Journal(tmp_path).runs()
    assert {summary.run: summary.events for summary in summaries} == {
        f"run-{number}": 3 * (number % 3) + 1 for number in range(70)
    }
    assert {summary.outcome for summary in summaries} == {"completed"}


def test_events_of_batches_are_not_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Bus(tmp_path) as bus:
        source = bus.source("large")
        start(source)
        train(source, batches=2000)
        end(source)
    decoded: list[bytes] = []

    def count(data: bytes) -> Event:
        decoded.append(data)
        return decode(data)

    monkeypatch.setattr(module, "decode", count)
    journal = Journal(tmp_path)
    assert journal.runs()[0].events == 6012
    assert len(decoded) <= 7
    journal.runs()  # nothing can have come to it
    assert len(decoded) <= 7


def test_what_has_come_since_is_added_to_what_was_known(tmp_path: Path) -> None:
    chance = random.Random(2)
    journal = Journal(tmp_path)
    with Bus(tmp_path) as one, Bus(tmp_path) as other:
        sources = [bus.source(run, rank=rank) for run in "ab" for rank, bus in enumerate((one, other))]
        for source in sources:
            start(source)
        for n in range(40):
            source = chance.choice(sources)
            for _ in range(chance.randrange(3)):
                source.publish(Step, n=n)
            if chance.random() < 0.3:
                judge(source, n, 40, {"accuracy": n / 40})
            for bus in (one, other):
                bus.flush()
            assert journal.runs() == Journal(tmp_path).runs()
    assert journal.runs() == Journal(tmp_path).runs()


def test_a_run_that_is_not_there_is_named_with_those_that_are_close(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    with pytest.raises(UnknownRun, match="no run 'digits' in .*; there are none"):
        journal.run("digits")
    with Bus(tmp_path) as bus:
        bus.source("digits-1").publish(Step, n=1)
    with pytest.raises(UnknownRun, match="did you mean digits-1"):
        journal.run("digits-2")
    with pytest.raises(LookupError, match="the newest are digits-1"):
        journal.run("quite other")
    with pytest.raises(JournalRefused, match="there is no such folder"):
        Journal(tmp_path / "absent").runs()


def test_a_damaged_file_tells_what_can_be_read_of_it(tmp_path: Path) -> None:
    with Bus(tmp_path) as bus:
        source = bus.source("hurt")
        start(source)
        train(source, batches=2000)
        end(source)
        path = bus.journal
    assert path is not None
    data = bytearray(path.read_bytes())
    middle = len(data) // 8192
    for page in range(middle, middle + 20):
        data[page * 4096 : page * 4096 + 64] = bytes(64)
    path.write_bytes(data)
    file = JournalFile.open(path)
    check = file.check()
    file.close()
    assert check.holes
    summary = Journal(tmp_path).run("hurt")
    assert (summary.state, summary.outcome, summary.model) == ("finished", "completed", "Net")


def test_a_file_that_is_cut_or_has_empty_pages_tells_of_all_runs_that_can_be_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Bus(tmp_path / "whole") as bus:
        for name in ("first", "second", "third"):
            start(bus.source(name), kind="val")
            for n in range(40):
                bus.source(name).publish(Done, n=n)
                bus.flush()  # many small chunks: the last page has some of them
        path = bus.journal
    assert path is not None
    whole = path.read_bytes()
    page = 4096
    torn = [whole[:-left] for left in range(512, page, 512)]
    torn += [whole[:at] + bytes(page) + whole[at + page :] for at in range(page, len(whole), page)]
    for number, data in enumerate(torn):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "torn.sqlite").write_bytes(data)
        there = {event.run for event in Journal(folder).events()}
        assert {summary.run for summary in Journal(folder).runs()} == there
    assert "torn.sqlite is damaged (events are counted in it that are not found)" in caplog.text


def test_however_a_file_is_damaged_its_runs_are_asked_for_without_an_error(tmp_path: Path) -> None:
    with Bus(tmp_path / "whole") as bus:
        for name in ("first", "second", "third"):
            for n in range(20):
                bus.source(name).publish(Done, n=n)
                bus.flush()
        path = bus.journal
    assert path is not None
    whole, chance = path.read_bytes(), random.Random(1)
    for number in range(500):
        hurt = bytearray(whole)
        for at in [chance.randrange(4096, len(hurt)) for _ in range(chance.choice([1, 20, 100]))]:
            hurt[at] = chance.randrange(256)
        if number % 2:
            at = chance.randrange(4096, len(hurt) - 512)
            hurt[at : at + 512] = bytes(512)
        (tmp_path / f"{number}.sqlite").write_bytes(hurt)
    assert {summary.run for summary in Journal(tmp_path).runs()} >= {"first", "second", "third"}


def test_behind_an_empty_page_nothing_is_looked_for_forever_nor_read_twice(tmp_path: Path) -> None:
    with Bus(tmp_path) as bus:
        for n in range(300):
            start(bus.source(f"run-{n % 3}"))
            if n % 3 == 2:
                bus.flush()
        path = bus.journal
    assert path is not None
    whole, page = path.read_bytes(), 4096
    for at in range(page, len(whole), page):
        for empty in (page, page // 2):  # the second has rows that say nothing
            path.write_bytes(whole[: at + page - empty] + bytes(empty) + whole[at + page :])
            try:
                found = list(Journal(tmp_path).events())
            except sqlite3.DatabaseError:  # nothing says whose events they are
                continue
            assert len({(event.run, event.seq) for event in found}) == len(found)


def test_what_is_no_journal_is_left_out_with_one_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "other.sqlite").write_text("no database at all, and longer than a header of one hundred bytes" * 3)
    journal = Journal(tmp_path)
    assert journal.runs() == journal.runs() == []
    assert caplog.text.count("it is left out") == 1


# -- replay ------------------------------------------------------------------------------------------


def test_a_replay_gives_a_subscriber_what_the_run_gave(tmp_path: Path) -> None:
    with Bus(tmp_path / "runs") as bus:
        live: list[Event] = []
        bus.subscribe(live.append)
        start(bus.source("digits"))
        train(bus.source("digits"))
        bus.source("other").publish(Step, n=1)
    again: list[Event] = []
    assert replay(Journal(tmp_path / "runs"), "digits", again.append, speed=float("inf")) == 131
    assert again == [event for event in live if event.run == "digits"]


def test_a_replay_keeps_the_pauses_divided_by_the_speed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Bus(tmp_path) as bus:
        for attempt in (1, 2):
            source = bus.source("run", attempt=attempt)
            for n in range(3):
                source.publish(Done, n=n)
    seconds = iter(range(0, 600, 20))
    events = [
        event.model_copy(update={"time": event.time + timedelta(seconds=next(seconds) - event.time.second)})
        for event in Journal(tmp_path).events()
    ]
    journal = Journal(tmp_path)

    def kept(run: str) -> Iterator[Event]:
        return iter(events)

    monkeypatch.setattr(journal, "events", kept)
    monkeypatch.setattr("lineside.bus.journal.replaying.time.monotonic", lambda: 100.0)
    waits: list[float] = []
    replay(journal, "run", lambda _: None, speed=10, wait=waits.append)
    assert waits == pytest.approx([2, 4, 2, 4], abs=0.2)  # from the begin of each attempt


@pytest.mark.parametrize("speed", [0, -1.0, float("nan")])
def test_a_speed_that_is_none_is_refused(tmp_path: Path, speed: float) -> None:
    with pytest.raises(InvalidSpeed, match="expected more than 0"):
        replay(Journal(tmp_path), "run", print, speed)


def test_a_folder_that_was_moved_is_still_read(tmp_path: Path) -> None:
    with Bus(tmp_path / "runs") as bus:
        start(bus.source("moved"))
        end(bus.source("moved"))
    shutil.move(tmp_path / "runs", tmp_path / "kept")
    assert [summary.run for summary in Journal(tmp_path / "kept").runs()] == ["moved"]
