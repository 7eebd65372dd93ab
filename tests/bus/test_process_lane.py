"""The process lane: a callback in a process of its own, supervised, and accounted for when it dies."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import psutil
import pytest

from lineside.bus import Bus, CallbackRefused
from lineside.schemas import Event, EventsMissed, SubscriberFailed, UnknownEvent

from .support import PATIENCE, lines

pytestmark = pytest.mark.usefixtures("nothing_is_left_of_processes")


def test_a_function_runs_in_another_process_in_order(workers: Any, log: Path) -> None:
    with Bus() as bus:
        subscription = bus.subscribe(workers.note, workers.Job, workers.Errand, lane="process")
        source = bus.source("run-1")
        for n in range(500):
            if n % 3 == 0:
                source.publish(workers.Job(n=n))
            else:
                source.publish(workers.Errand if n % 100 == 1 else workers.Job, n=n)
        bus.drain()
        assert subscription.stats.delivered == 500
    told = [line.split() for line in lines(log)]
    assert [int(n) for _, _, _, n, _ in told] == list(range(500))
    assert [int(seq) for _, _, seq, _, _ in told] == list(range(1, 501))
    assert {run for _, run, _, _, _ in told} == {"run-1"}
    assert {kind for kind, *_ in told} == {"workers.Job", "workers.Errand"}
    pids = {int(pid) for *_, pid in told}
    assert len(pids) == 1
    assert os.getpid() not in pids


def test_a_callback_may_be_named(workers: Any, log: Path) -> None:
    with Bus() as bus:
        subscription = bus.subscribe("lineside_workers:note", "workers.Job", lane="process")
        bus.publish(workers.Job, n=7)
        bus.drain()
    assert subscription.name == "note-1"
    assert lines(log)[0].split()[3] == "7"


def test_a_callable_object_keeps_its_state_and_is_closed(workers: Any, log: Path) -> None:
    with Bus() as bus:
        bus.subscribe(workers.Counter(10), workers.Job, lane="process")
        for n in range(3):
            bus.publish(workers.Job, n=n)
            bus.drain()
    assert lines(log) == ["11", "12", "13", "closed"]


def test_an_async_function_runs_on_a_loop_there(workers: Any, log: Path) -> None:
    with Bus() as bus:
        bus.subscribe(workers.note_later, workers.Job, lane="process")
        for n in range(3):
            bus.publish(workers.Job, n=n)
        bus.drain()
    assert lines(log) == ["0 True", "1 True", "2 True"]


def test_a_predicate_stays_here_and_need_not_be_importable(workers: Any, log: Path) -> None:
    with Bus() as bus:
        subscription = bus.subscribe(
            workers.note, workers.Job, lane="process", where=lambda event: event.n > 2, every=2
        )
        for n in range(10):
            bus.publish(workers.Job, n=n)
        bus.drain()
        assert (subscription.stats.delivered, subscription.stats.filtered) == (4, 6)
    assert [line.split()[3] for line in lines(log)] == ["3", "5", "7", "9"]


def test_a_late_reader_in_another_process_gets_the_past(workers: Any, log: Path) -> None:
    with Bus() as bus:
        for n in range(5):
            bus.publish(workers.Job, n=n)
        bus.subscribe(workers.note, workers.Job, lane="process", since=2)
        bus.drain()
    assert [line.split()[3] for line in lines(log)] == ["2", "3", "4"]


def test_a_failure_there_is_announced_here_with_its_traceback(workers: Any, log: Path) -> None:
    failures: list[SubscriberFailed] = []
    with Bus() as bus:
        bus.subscribe(failures.append, SubscriberFailed)
        subscription = bus.subscribe(workers.fail, workers.Job, lane="process", name="far")
        for n in range(4):
            bus.publish(workers.Job, n=n)
        bus.drain()
        assert (subscription.stats.delivered, subscription.stats.failed) == (2, 2)
    assert lines(log) == ["0", "2"]
    assert [(failure.event, failure.event_seq, failure.failures) for failure in failures] == [
        ("workers.Job", 2, 1),
        ("workers.Job", 4, 1),
    ]
    assert (failures[0].error.type, failures[0].error.message) == ("ValueError", "no 1")
    assert 'raise ValueError(f"no {number(event)}")' in failures[0].error.traceback


def test_a_function_that_returns_a_generator_there_has_failed(workers: Any, caplog: pytest.LogCaptureFixture) -> None:
    with Bus() as bus:
        subscription = bus.subscribe(workers.return_generator, workers.Job, lane="process")
        bus.publish(workers.Job, n=1)
        bus.drain()
        assert (subscription.stats.delivered, subscription.stats.failed) == (0, 1)
    assert "it returned a generator, of which nothing runs; iterate over it there" in caplog.text


def test_many_failures_there_switch_it_off(workers: Any) -> None:
    with Bus() as bus:
        subscription = bus.subscribe(workers.fail, workers.Job, lane="process", max_failures=2)
        for _ in range(10):
            bus.publish(workers.Job, n=1)
        bus.drain()
        assert (subscription.stats.failed, subscription.stats.state) == (2, "switched off")


def test_a_flood_of_failures_there_blocks_neither_side(workers: Any) -> None:
    with Bus() as bus:
        subscription = bus.subscribe(workers.fail, workers.Job, lane="process", latency=0, max_failures=10_000)
        for _ in range(2000):
            bus.publish(workers.Job, n=1)
        bus.drain(PATIENCE)
        assert subscription.stats.failed == 2000


def test_what_was_done_there_is_counted_though_nobody_asks(workers: Any, log: Path) -> None:
    with Bus() as bus:
        subscription = bus.subscribe(workers.note, workers.Job, lane="process")
        bus.publish(workers.Job, n=1)
        deadline = time.monotonic() + PATIENCE
        while not subscription.stats.delivered:
            assert time.monotonic() < deadline
    assert len(lines(log)) == 1


def test_what_was_done_there_before_a_cancel_is_counted(workers: Any, log: Path) -> None:
    with Bus() as bus:
        subscription = bus.subscribe(workers.note, workers.Job, lane="process", latency=0)
        for n in range(100):
            bus.publish(workers.Job, n=n)
            if n == 50:
                bus.drain(PATIENCE)
        subscription.cancel()
    assert subscription.stats.delivered == len(lines(log)) >= 51


def test_a_call_there_is_tried_again_if_asked_for(workers: Any, log: Path) -> None:
    with Bus() as bus:
        subscription = bus.subscribe(workers.fail_once, workers.Job, lane="process", retries=1)
        bus.publish(workers.Job, n=1)
        bus.drain()
        assert (subscription.stats.delivered, subscription.stats.failed) == (1, 0)
    assert lines(log) == ["1", "1"]


def gaps(missed: list[EventsMissed]) -> list[tuple[str | None, str, int, int]]:
    return [(gap.subscription, gap.reason, gap.first, gap.count) for gap in missed]


def test_fields_that_do_not_fit_are_nobodys_failure(workers: Any, log: Path) -> None:
    missed: list[EventsMissed] = []
    failures: list[SubscriberFailed] = []
    with Bus() as bus:
        bus.subscribe(missed.append, EventsMissed)
        bus.subscribe(failures.append, SubscriberFailed)
        subscription = bus.subscribe(workers.note, workers.Job, lane="process", max_failures=1)
        for _ in range(3):
            bus.publish(workers.Job, n="many")
        bus.publish(workers.Job, n=1)
        bus.drain()
        bus.drain()
        assert (subscription.stats.delivered, subscription.stats.failed) == (1, 0)
        assert bus.stats().invalid == 3
    assert not failures
    assert gaps(missed) == [(None, "invalid", seq, 1) for seq in (1, 2, 3)]
    assert missed[0].detail == "n: Input should be a valid integer, unable to parse string as an integer"


def test_fields_that_do_not_fit_are_announced_once_whoever_finds_out(workers: Any, log: Path) -> None:
    missed: list[EventsMissed] = []
    with Bus() as bus:
        bus.subscribe(missed.append, EventsMissed)
        for _ in range(2):
            bus.subscribe(workers.note, workers.Job, lane="process")
        bus.publish(workers.Job, n="many")
        bus.drain()
        bus.subscribe(workers.note, workers.Job, since="start")
        bus.subscribe(workers.note, workers.Job, since="start", lane="process")
        bus.drain()
        bus.publish(workers.Job, n="too many")
        bus.drain()
        bus.drain()
        assert bus.stats().invalid == 2
    assert [gap.first for gap in missed] == [1, 3]


def test_publishers_do_not_wait_for_events_that_there_will_never_be(workers: Any, log: Path) -> None:
    with Bus() as bus:
        subscription = bus.subscribe(workers.note, workers.Job, lane="process", overflow="wait", backlog=2)
        for n in ("many", 1) * 4:
            bus.publish(workers.Job, n=n)
        bus.drain(PATIENCE)
        assert subscription.stats.delivered == 4


def test_late_fields_that_are_lost_are_nobodys_failure(workers: Any, log: Path) -> None:
    class Lost:
        def ready(self) -> bool:
            return True

        def result(self) -> Any:
            raise OSError("the device is gone")

    missed: list[EventsMissed] = []
    with Bus() as bus:
        bus.subscribe(missed.append, EventsMissed)
        subscription = bus.subscribe(workers.note, workers.Job, lane="process")
        bus.source("run-1").publish_when(Lost(), workers.Job, n=1)
        bus.drain()
        bus.drain()
        assert subscription.stats.failed == 0
    assert gaps(missed) == [(None, "invalid", 1, 1)]
    assert missed[0].detail.startswith("late fields")


def test_a_value_that_cannot_be_sent_costs_no_other_event(workers: Any, log: Path) -> None:
    failures: list[SubscriberFailed] = []
    missed: list[EventsMissed] = []
    here: list[Any] = []
    with Bus() as bus:
        bus.subscribe(failures.append, SubscriberFailed)
        bus.subscribe(missed.append, EventsMissed)
        subscription = bus.subscribe(workers.note, workers.Job, workers.Baggage, lane="process")
        bus.publish(workers.Job, n=1)
        bus.publish(workers.Job, n=lambda: 1)  # fits nowhere
        bus.publish(workers.Baggage, content=lambda: 1)  # fits, and cannot be sent
        bus.publish(workers.Baggage(content=lambda: 1))
        bus.publish(workers.Job, n=2)
        bus.drain()
        bus.subscribe(here.append, workers.Baggage, since="start")
        bus.drain()
        assert (subscription.stats.delivered, subscription.stats.failed) == (2, 2)
        assert subscription.stats.state == "active"
    assert [line.split()[3] for line in lines(log)] == ["1", "2"]
    assert gaps(missed) == [(None, "invalid", 2, 1)]
    assert [failure.event_seq for failure in failures] == [3, 4]
    assert "a workers.Baggage cannot be sent to another process" in failures[0].error.message
    assert len(here) == 2


def test_events_of_a_class_that_cannot_be_imported_are_checked_here(workers: Any, log: Path) -> None:
    class Local(Event, name="workers.Local"):
        n: int

    missed: list[EventsMissed] = []
    with Bus() as bus:
        bus.subscribe(missed.append, EventsMissed)
        subscription = bus.subscribe(workers.note, Local, lane="process")
        bus.publish(Local, n="many")
        bus.publish(Local, n=1)
        bus.drain()
        bus.drain()
        assert (subscription.stats.delivered, subscription.stats.failed) == (1, 0)
    assert [line.split()[3] for line in lines(log)] == ["1"]
    assert gaps(missed) == [(None, "invalid", 1, 1)]


def test_a_finished_event_arrives_as_it_is(workers: Any, log: Path) -> None:
    """Validating it again would change it, or refuse what validating has made of it."""
    with Bus() as bus:
        subscription = bus.subscribe(workers.note_fields, workers.Changed, UnknownEvent, lane="process")
        event = workers.Changed(n=1, NAME="a")
        bus.publish(event)
        bus.publish(workers.Changed, n=1, NAME="a")
        bus.publish(UnknownEvent.model_validate({"type": "Foreign", "colour": "red"}))
        bus.drain()
        with bus.subscribe(id, workers.Changed):  # now it is built here
            bus.publish(event)
            bus.publish(workers.Changed, n=1, NAME="a")
            bus.drain()
        assert subscription.stats.failed == 0
    changed = "{'n': 2, 'name': 'a'} ['n', 'name'] A"
    raw, *finished = [line for line in lines(log) if "Foreign" not in line]
    assert [raw, *finished] == [changed] * 4
    assert [line for line in lines(log) if "Foreign" in line] == ["Foreign {'colour': 'red'}"]


def test_an_error_that_cannot_be_printed_is_a_failure_like_another(workers: Any, log: Path) -> None:
    failures: list[SubscriberFailed] = []
    with Bus() as bus:
        bus.subscribe(failures.append, SubscriberFailed)
        bus.subscribe(workers.fail_rudely, workers.Job, lane="process")
        bus.publish(workers.Job, n=1)
        bus.drain()
        bus.drain()
    assert [failure.error.type for failure in failures] == ["Rude"]


def test_a_plain_function_that_wraps_an_async_one_is_awaited_there(workers: Any, log: Path) -> None:
    with Bus() as bus:
        bus.subscribe(workers.note_through, workers.Job, lane="process")
        bus.publish(workers.Job, n=1)
        bus.drain()
    assert lines(log) == ["1 True"]


def test_a_time_limit_does_not_count_what_has_to_be_imported(workers: Any, log: Path) -> None:
    slow = import_module("lineside_slow")
    with Bus() as bus:
        subscription = bus.subscribe(workers.note, slow.Slow, lane="process", timeout=1.0)
        bus.publish(slow.Slow, n=1)
        bus.drain()
        assert (subscription.stats.delivered, subscription.stats.failed) == (1, 0)


def test_a_time_limit_is_for_each_try(workers: Any, log: Path) -> None:
    with Bus() as bus:
        subscription = bus.subscribe(workers.fail_five_times, workers.Job, lane="process", timeout=1.0, retries=5)
        bus.publish(workers.Job, n=1)  # the pauses alone take 1.5 s
        bus.drain()
        assert (subscription.stats.delivered, subscription.stats.failed) == (1, 0)


@pytest.mark.parametrize(("retries", "delivered"), [(2, 1), (1, 0)])
def test_a_call_there_that_hangs_is_tried_again_if_asked_for(
    workers: Any, log: Path, retries: int, delivered: int
) -> None:
    with Bus() as bus:
        subscription = bus.subscribe(workers.fail_then_hang, workers.Job, lane="process", timeout=5.0, retries=retries)
        bus.publish(workers.Job, n=1)
        bus.drain()
        bus.publish(workers.Job, n=2)
        bus.drain()
        assert (subscription.stats.delivered, subscription.stats.failed) == (delivered + 1, 1 - delivered)
    assert lines(log) == ["1"] * (retries + 1) + ["2"]


def test_a_process_that_is_killed_in_a_batch_is_started_again_where_it_was(workers: Any, log: Path) -> None:
    with Bus() as bus:
        subscription = bus.subscribe(workers.die_once, workers.Job, lane="process")
        for n in range(50):
            bus.publish(workers.Job, n=n)
        bus.drain()
        assert (subscription.stats.delivered, subscription.stats.failed) == (50, 0)
    told = [int(line) for line in lines(log)]
    again = told.index(5) + 1  # what it had not confirmed it does once more
    assert told[:again] == list(range(6))
    assert told[again:] == list(range(told[again], 50))
    assert told[again] <= 5


def test_a_process_that_is_killed_while_it_waits_is_started_again(workers: Any, log: Path) -> None:
    with Bus() as bus:
        subscription = bus.subscribe(workers.note, workers.Job, lane="process")
        for n in range(3):
            bus.publish(workers.Job, n=n)
            bus.drain()
            os.kill(int(lines(log)[-1].split()[-1]), signal.SIGKILL)
        assert (subscription.stats.delivered, subscription.stats.failed) == (3, 0)
    assert [line.split()[3] for line in lines(log)] == ["0", "1", "2"]
    assert len({line.split()[4] for line in lines(log)}) == 3


def test_an_event_that_kills_its_process_is_given_up_the_second_time(workers: Any, log: Path) -> None:
    failures: list[SubscriberFailed] = []
    with Bus() as bus:
        bus.subscribe(failures.append, SubscriberFailed)
        subscription = bus.subscribe(workers.die, workers.Job, lane="process", name="far")
        for n in range(10):
            bus.publish(workers.Job, n=n)
        bus.drain()
        assert (subscription.stats.delivered, subscription.stats.failed) == (9, 1)
        assert subscription.stats.state == "active"
    told = lines(log)
    assert told.count("5") == 2
    assert told[-4:] == ["6", "7", "8", "9"]
    assert [(failure.error.type, failure.error.message) for failure in failures] == [
        ("SidecarDied", "the process of far ended with signal 9")
    ]


@pytest.mark.parametrize("callback", ["hang", "hang_later"])
def test_a_callback_there_that_hangs_is_killed_and_the_next_event_comes(workers: Any, log: Path, callback: str) -> None:
    failures: list[SubscriberFailed] = []
    with Bus() as bus:
        bus.subscribe(failures.append, SubscriberFailed)
        subscription = bus.subscribe(getattr(workers, callback), workers.Job, lane="process", timeout=3.0)
        for n in range(4):
            bus.publish(workers.Job, n=n)
        bus.drain()
        assert (subscription.stats.delivered, subscription.stats.failed) == (3, 1)
    assert lines(log) == ["0", "1", "2", "3"]
    assert [failure.error.type for failure in failures] == ["CallbackTimeout"]


def test_a_process_that_hangs_is_killed_by_the_close(
    workers: Any, log: Path, processes: Callable[[], set[psutil.Process]]
) -> None:
    os.mkfifo(log)
    with Bus() as bus:
        bus.subscribe(workers.hang, workers.Job, lane="process", name="far")
        bus.publish(workers.Job, n=1)
        assert log.read_text() == "1\n"  # returns when the callback has closed the pipe: it hangs now
        report = bus.close(timeout=1.0)
    assert report.left == {"far": 1}
    assert report.hung == ("far",)
    for child in processes():
        child.wait(PATIENCE)


def test_cancelling_ends_the_process(workers: Any, log: Path, processes: Callable[[], set[psutil.Process]]) -> None:
    with Bus() as bus:
        subscription = bus.subscribe(workers.Counter(0), workers.Job, lane="process")
        bus.publish(workers.Job, n=1)
        bus.drain()
        (child,) = processes()
        subscription.cancel()
        child.wait(PATIENCE)
    assert lines(log) == ["1", "closed"]


def test_an_overflow_is_announced_for_a_process_too(workers: Any, log: Path) -> None:
    missed: list[EventsMissed] = []
    with Bus(window=256) as bus:
        bus.subscribe(missed.append, EventsMissed)
        subscription = bus.subscribe(workers.note, workers.Job, lane="process", overflow="drop")
        for n in range(2000):  # it is still importing
            bus.publish(workers.Job, n=n)
        bus.drain()
        bus.drain()
        assert subscription.stats.delivered + subscription.stats.missed == 2000
    told = [int(line.split()[3]) for line in lines(log)]
    assert told == sorted(told)
    assert len(told) == subscription.stats.delivered
    assert sum(gap.count for gap in missed) == subscription.stats.missed > 0


def test_a_callback_that_cannot_be_loaded_there_is_switched_off(workers: Any, caplog: pytest.LogCaptureFixture) -> None:
    with Bus() as bus:
        subscription = bus.subscribe(workers.Homebody(), workers.Job, lane="process", name="far")
        bus.publish(workers.Job, n=1)
        bus.drain()
        assert subscription.stats.state == "switched off"
    assert "far was switched off: its process could not start: LookupError: not here" in caplog.text


@pytest.mark.parametrize(
    ("executable", "reason"),
    [("/nonexistent/python", "No such file or directory"), ("/bin/false", "it ended with exit status 1")],
)
def test_a_process_that_cannot_be_started_is_given_up(
    workers: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, executable: str, reason: str
) -> None:
    with Bus() as bus:
        subscription = bus.subscribe(workers.note, workers.Job, lane="process", name="far")
        monkeypatch.setattr(sys, "executable", executable)
        bus.publish(workers.Job, n=1)
        bus.drain(PATIENCE)
        assert subscription.stats.state == "switched off"
    assert "far was switched off: its process could not start" in caplog.text
    assert reason in caplog.text


def test_files_in_the_working_directory_do_not_take_the_place_of_modules(
    workers: Any, log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("token", "queue", "pydantic"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit")
    monkeypatch.chdir(tmp_path)
    with Bus() as bus:
        subscription = bus.subscribe(workers.note, workers.Job, lane="process")
        bus.publish(workers.Job, n=1)
        bus.drain()
        assert subscription.stats.delivered == 1


def test_a_callback_that_no_other_process_can_import_is_refused(bus: Bus) -> None:
    def local(event: object) -> None: ...

    for callback in (local, lambda event: None):  # pyright: ignore[reportUnknownLambdaType, reportUnknownVariableType]
        with pytest.raises(CallbackRefused, match=r"another process cannot import it .*at the top of a module"):
            bus.subscribe(callback, lane="process")  # pyright: ignore[reportUnknownArgumentType]
