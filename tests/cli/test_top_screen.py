"""What ``lineside top`` says of runs, on the table and on the page of one, and how much it reads for that."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lineside.bus import Bus
from lineside.bus.journal import Durability, Journal, Origin
from lineside.bus.journal.claim import Claim
from lineside.bus.journal.file import Lines
from lineside.bus.journal.writer import JournalWriter
from lineside.schemas import (
    BatchEnd,
    ErrorInfo,
    Event,
    ExportPhase,
    FitEpochEnd,
    PredictBatchEnd,
    PretrainRoutineEnd,
    RunEnd,
    RunStart,
    SubscriberFailed,
    TrainBatchEnd,
    TrainEpochStart,
    TrainStart,
    ValBatchEnd,
    ValEnd,
)
from lineside.top.curves import Curve, chart, sparkline
from lineside.top.following import Follower
from lineside.top.sampling import WHOLE, Reader
from lineside.top.screen import Screen
from lineside.top.watching import Folder

from .watched import BATCHES, begin, drawn, end, judge, line, train, watched

Lineside = Callable[..., Any]


# -- what it says ------------------------------------------------------------------------------------


def test_the_ranks_of_a_run_are_one_row(tmp_path: Path) -> None:
    with Bus(tmp_path) as first, Bus(tmp_path) as second:
        for rank, bus in enumerate((first, second)):
            train(begin(bus, "both", rank, world=2), batches=2 + rank)
            bus.flush()
        shown = drawn(tmp_path)
        assert shown.count("both") == 1
        assert line(shown, "both")[:5] == ["▌", "both", "●", "running", "train"]
        assert "train \N{MULTIPLICATION SIGN}2" in shown
        assert "2/4" in shown  # of rank 0
        assert "TrainBatchEnd rank 1" in drawn(tmp_path, "enter")


def test_a_validation_and_a_prediction_have_their_batches(tmp_path: Path) -> None:
    with Bus(tmp_path) as bus:
        kinds: list[tuple[str, type[BatchEnd], dict[str, Any]]] = [
            ("val", ValBatchEnd, {"losses": {"loss": 0.25}}),
            ("predict", PredictBatchEnd, {"inputs": ("0",), "results": (1,), "speed": {}}),
        ]
        for kind, event, rest in kinds:
            source = bus.source(kind)
            source.publish(RunStart, kind=kind, model="Net", device="cpu")
            source.publish(event, epoch=0, batch=0, batches=4, batch_size=2, **rest)
        bus.flush()
        shown = drawn(tmp_path)
    assert "25%" in line(shown, "  val ")
    assert "0.2500" in line(shown, "  val ")
    assert {"25%", "1/4"} <= set(line(shown, " predict "))


def test_speed_and_time_left_are_measured_by_the_clock_of_the_run(tmp_path: Path) -> None:
    rest: dict[str, Any] = {"run": "slow", "batches": 100, "losses": {}, "lr": {}, "loss": 1.0, "batch_size": 8}
    told: list[Event] = [
        RunStart(run="slow", kind="train", model="Net", device="cpu"),
        TrainStart(run="slow", epoch=0, epochs=2, batches=100, step=0, elapsed=2.0),
        TrainEpochStart(run="slow", epoch=0, epochs=2, batches=100, lr={}, elapsed=2.0),
        *(TrainBatchEnd(epoch=0, batch=n, step=n + 1, elapsed=2 + (n + 1) / 10, **rest) for n in range(50)),
    ]
    path = tmp_path / "slow.sqlite"
    claim = Claim(path)  # its writer is alive
    writer = JournalWriter.create(path, Durability.PROCESS, {})
    count = len(told)
    bodies = [event.model_copy(update={"seq": seq}).model_dump_json().encode() for seq, event in enumerate(told, 1)]
    names = [event.type for event in told]
    writer.commit(Lines([*range(1, count + 1)], names, [Origin("slow", 1, 0)] * count, bodies), 1)
    shown = drawn(tmp_path, columns=180)
    assert {"80/s", "10", "0:15", "1/2", "50/100"} <= set(line(shown, "slow"))
    writer.close()
    claim.release()


def test_a_failed_run_says_why(tmp_path: Path) -> None:
    with Bus(tmp_path) as bus:
        end(begin(bus, "lost"), "failed", ErrorInfo(type="torch.OutOfMemoryError", message="no\nmemory"))
    assert "OutOfMemoryError: no memory" in drawn(tmp_path, "enter")


def test_many_epochs_are_told_whole_at_any_width(tmp_path: Path) -> None:
    for run, epochs in (("hundreds", 300), ("thousands", 10_000)):
        with Bus(tmp_path) as bus:
            source = begin(bus, run, epochs=epochs)
            source.publish(TrainEpochStart, epoch=epochs - 1, epochs=epochs, batches=BATCHES, lr={})
            end(source)
    for columns in (80, 120, 180):
        shown = drawn(tmp_path, columns=columns)
        assert "300/300" in line(shown, "hundreds")
        assert "10000/10000" in line(shown, "thousands")


def test_an_export_is_as_far_as_the_phases_that_its_format_has(tmp_path: Path) -> None:
    with Bus(tmp_path) as bus:
        source = bus.source("small")
        source.publish(RunStart, kind="export", model="Net", device="cpu")
        for phase in ("capture", "save"):
            source.publish(ExportPhase, format="pt2", phase=phase, duration=0.1)
        bus.flush()
        assert "67%" in line(drawn(tmp_path), "small")
        source.publish(RunEnd, kind="export", outcome="completed", duration=0.3)
    assert "100%" in line(drawn(tmp_path), "small")


def test_a_run_that_steps_end_is_as_far_as_its_steps(tmp_path: Path) -> None:
    with Bus(tmp_path) as bus:
        source = bus.source("steps")
        source.publish(RunStart, kind="train", model="Net", device="cpu", config={"epochs": 500, "max_steps": 7})
        source.publish(PretrainRoutineEnd, parameters=1, trainable=1, batches=BATCHES, val_batches=None)
        source.publish(TrainStart, epoch=0, epochs=500, batches=BATCHES, step=0)
        train(source)
        train(source, epoch=1, batches=2)
        bus.flush()
        run = watched(tmp_path)
        assert run.done == (6, 7)
        assert run.begin is not None
        assert run.follower.batch is not None
        assert run.seconds_left == pytest.approx((run.follower.batch.elapsed - run.begin.elapsed) / 6)


def test_a_run_that_time_ends_is_as_far_as_its_time(tmp_path: Path) -> None:
    with Bus(tmp_path) as bus:
        source = bus.source("seconds")
        source.publish(RunStart, kind="train", model="Net", device="cpu", config={"epochs": 500, "max_seconds": 1e-6})
        source.publish(PretrainRoutineEnd, parameters=1, trainable=1, batches=BATCHES, val_batches=None)
        source.publish(TrainStart, epoch=0, epochs=500, batches=BATCHES, step=0)
        train(source)
        bus.flush()
        run = watched(tmp_path)
        assert run.follower.batch is not None
        assert run.done == (run.follower.batch.elapsed, 1e-6)
        assert run.seconds_left == 0


def test_a_loop_of_ones_own_that_logs_other_values_has_no_loss(tmp_path: Path) -> None:
    with Bus(tmp_path) as bus, bus.run("own") as run:
        for batch in run.track(range(4), epochs=2):
            run.log(reward=batch)
        run.log(accuracy=0.5)
        for batch in run.track(range(4), epochs=2):
            run.log(reward=batch)
        bus.flush()
        assert watched(tmp_path).loss is None
        assert "nan" not in drawn(tmp_path)
        assert "nan" not in drawn(tmp_path, "enter")


def test_the_final_evaluation_of_the_best_epoch_is_no_further_point_of_a_curve(tmp_path: Path) -> None:
    with Bus(tmp_path) as bus:
        source = begin(bus, "best-in-the-middle")
        for epoch, accuracy in enumerate((0.25, 0.75, 0.5)):
            train(source, epoch)
            judge(source, epoch, accuracy)
        found: dict[str, Any] = {"metrics": {"accuracy": 0.75}, "losses": {"loss": 0.25}, "fitness": 0.75}
        source.publish(ValEnd, epoch=1, batches=1, samples=4, duration=0.5, speed={}, **found)
        best: dict[str, Any] = {"best_fitness": 0.75, "best_epoch": 1, "best": None, "last": None}
        source.publish(FitEpochEnd, epoch=1, epochs=3, final=True, duration=0.5, **found, **best)
        end(source)
    assert "accuracy 0.5000   by epoch" in drawn(tmp_path, "enter")
    assert "best accuracy 0.7500" in drawn(tmp_path, "enter")


def test_of_the_epochs_of_a_loop_of_ones_own_none_is_called_the_best(tmp_path: Path) -> None:
    with Bus(tmp_path) as bus, bus.run("own") as run:
        for accuracy in (0.75, 0.5):
            for _ in run.track(range(4)):
                run.log(loss=1.5)
            run.log(accuracy=accuracy)
    assert watched(tmp_path).best is None
    assert "accuracy" not in drawn(tmp_path)
    assert "accuracy 0.5000   by epoch" in drawn(tmp_path, "enter")


def test_the_loss_of_a_validation_that_is_over_is_its_mean(tmp_path: Path) -> None:
    with Bus(tmp_path) as bus:
        source = bus.source("val")
        source.publish(RunStart, kind="val", model="Net", device="cpu")
        for batch, loss in enumerate((0.25, 0.75)):
            place = {"epoch": 0, "batch": batch, "batches": 2, "batch_size": 4}
            source.publish(ValBatchEnd, **place, losses={"loss": loss})
        bus.flush()
        assert watched(tmp_path).loss == 0.75
        found: dict[str, Any] = {"metrics": {}, "losses": {"loss": 0.5}, "fitness": None}
        source.publish(ValEnd, epoch=0, batches=2, samples=8, duration=0.5, speed={}, **found)
        source.publish(RunEnd, kind="val", outcome="completed", duration=1.0)
        bus.flush()
        assert watched(tmp_path).loss == 0.5
        assert "loss 0.7500   by batch" in drawn(tmp_path, "enter")


def test_what_is_logged_besides_a_loss_or_without_one_is_drawn_by_step(tmp_path: Path) -> None:
    with Bus(tmp_path) as bus, bus.run("own") as run:
        for batch in run.track(batch for batch in range(4)):
            run.log(reward=batch)
        run.log(reward=0.5)
    shown = drawn(tmp_path, "enter")
    assert "reward 3.0000   by step" in shown
    assert "val reward 0.5000   by epoch" in shown


def test_the_speed_of_a_run_is_that_of_all_its_ranks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Follower, "samples_a_second", 40.0)
    with Bus(tmp_path) as bus:
        train(begin(bus, "both", world=2))
        bus.flush()
        assert "80/s" in line(drawn(tmp_path), "both")


def test_a_loss_that_is_lost_is_told(tmp_path: Path) -> None:
    with Bus(tmp_path) as bus:
        with bus.run(id="lost-at-last") as run:
            for loss in run.track([0.5, float("nan")]):
                run.log(loss=loss, reward=1)
        bus.flush()
        assert "nan" in line(drawn(tmp_path), "lost-at-last")
        with bus.run(id="from-the-first") as run:
            for _ in run.track(range(2)):
                run.log(loss=float("nan"))
        bus.flush()
        assert "nan" in line(drawn(tmp_path), "from-the-first")


def test_what_a_loop_of_ones_own_calls_its_settings_limits_nothing(tmp_path: Path) -> None:
    with Bus(tmp_path) as bus:
        source = bus.source("own")
        source.publish(RunStart, kind="train", model="own", device="", config={"max_steps": 5})
        source.publish(TrainStart, epoch=0, epochs=2, batches=BATCHES, step=0)
        train(source)
        bus.flush()
        assert watched(tmp_path).done == (1, 2)


def test_what_has_several_lines_takes_one_line_of_the_page(tmp_path: Path) -> None:
    with Bus(tmp_path) as bus:
        source = bus.source("lines")
        source.publish(RunStart, kind="train", model="Net\nwork", device="cpu")
        error = ErrorInfo(type="ValueError", message="one\ntwo\n\nthree")
        failed: dict[str, Any] = {"event": "ValEnd", "event_seq": 1, "failures": 1, "switched_off": False}
        source.publish(SubscriberFailed, subscription="mine\nown", error=error, **failed)
        rest: dict[str, Any] = {"losses": {}, "fitness": None, "batches": 1, "samples": 4, "duration": 0.5, "speed": {}}
        for epoch in range(2):
            source.publish(ValEnd, epoch=epoch, metrics={"my\nmetric": 0.5 + epoch}, **rest)
        bus.flush()
        for keys in ([], ["enter"]):
            shown = drawn(tmp_path, *keys).split("\n")
            assert len(shown) == 40
            assert shown[-1].lstrip().startswith("q leave")
        assert "mine own failed on ValEnd: ValueError: one two three" in "\n".join(shown)


def test_a_value_that_is_not_finite_is_what_a_curve_is_at(tmp_path: Path) -> None:
    with Bus(tmp_path) as bus:
        source = begin(bus, "lost")
        train(source, loss=0.5)
        train(source, epoch=1, loss=float("nan"))
        judge(source, accuracy=0.75)
        judge(source, epoch=1, accuracy=float("nan"))
        bus.flush()
        shown = drawn(tmp_path, "enter")
    assert "loss nan   by step" in shown
    assert "accuracy nan   by epoch" in shown


def test_what_a_loop_of_ones_own_found_after_an_epoch_is_drawn(tmp_path: Path) -> None:
    with Bus(tmp_path) as bus, bus.run("own") as run:
        for value in (0.25, 0.5):
            for _ in run.track(range(4)):
                run.log(loss=1.5)
            run.log(accuracy=value, loss=value)
    shown = drawn(tmp_path, "enter")
    assert "loss 1.5000   by step" in shown
    assert "accuracy 0.5000   by epoch" in shown
    assert "val loss 0.5000   by epoch" in shown


def test_a_metric_that_was_never_finite_says_so(tmp_path: Path) -> None:
    with Bus(tmp_path) as bus:
        source = begin(bus, "lost")
        train(source)
        judge(source, accuracy=float("nan"))
        bus.flush()
        shown = drawn(tmp_path, "enter")
    assert "accuracy nan   by epoch" in shown
    assert "no finite value" in shown


def test_values_as_large_as_a_float_can_be_are_drawn(tmp_path: Path) -> None:
    with Bus(tmp_path) as bus:
        source = begin(bus, "large")
        for step, loss in enumerate((1e308, -1e308, 1e308, 1e308), 1):
            rest: dict[str, Any] = {"batches": 4, "batch_size": 8, "losses": {}, "lr": {}}
            source.publish(TrainBatchEnd, epoch=0, batch=step - 1, step=step, loss=loss, **rest)
        bus.flush()
        assert "█▁██" in drawn(tmp_path, columns=180)
        assert "1.0e+308" in drawn(tmp_path, "enter")
    curve = Curve(most=2)
    for step in range(8):
        curve.add(step, 1e308)
    assert curve.values == [1e308] * len(curve.values)


def test_a_resumed_run_is_one_row_whose_curve_goes_on(tmp_path: Path) -> None:
    for attempt in (1, 2):
        with Bus(tmp_path) as bus:
            source = bus.source("run", attempt=attempt)
            source.publish(RunStart, kind="train", model="Net", device="cpu")
            train(source, epoch=attempt - 1, loss=float(attempt))
    run = watched(tmp_path)
    assert run.follower.curve.steps == [1, 2, 3, 4, 5, 6, 7, 8]


def test_more_runs_than_lines_scroll_with_the_chosen_one(tmp_path: Path) -> None:
    with Bus(tmp_path) as bus:
        for number in range(30):
            begin(bus, f"run-{number:02}")
        bus.flush()
        shown = drawn(tmp_path, "last", lines=14)
        assert "▌ run-00" in shown
        assert "▌ run-29" in drawn(tmp_path, "last", "first", lines=14)
        assert shown.count("run-") == 10


def test_a_run_that_is_open_stays_when_it_ends(tmp_path: Path) -> None:
    with Bus(tmp_path) as bus, Screen(Folder(tmp_path)) as screen:
        source = begin(bus, "first")
        begin(bus, "second")
        bus.flush()
        screen.look()
        for key in ("a", "last", "enter"):
            screen.press(key)
        assert "first   ● running" in screen.draw(120, 30).plain
        end(source)
        bus.flush()
        screen.look()
        assert "first   ✓ finished" in screen.draw(120, 30).plain
        screen.press("escape")
        assert "first" not in screen.draw(120, 30).plain.replace(str(tmp_path), "")


def test_what_runs_say_cannot_command_the_terminal(tmp_path: Path, lineside: Lineside) -> None:
    with Bus(tmp_path) as bus:
        source = bus.source("sly")
        source.publish(RunStart, kind="train", model="\x1b[2JNet", device="\x1b]0;title\x07")
        end(source, "failed", ErrorInfo(type="Error", message="\x1b[31mred\x9b"))
    for keys in ([], ["enter"]):
        assert drawn(tmp_path, *keys).replace("\n", "").isprintable()
    assert lineside("top", tmp_path).out.replace("\n", "").isprintable()


def test_a_file_is_no_folder(lineside: Lineside, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert lineside("top", tmp_path / "file").code == 2


def test_what_a_file_is_damaged_by_is_said_on_the_screen(tmp_path: Path) -> None:
    with Bus(tmp_path) as bus:
        begin(bus, "sound")
    (tmp_path / "broken.sqlite").write_bytes(b"no journal at all" * 100)
    assert "broken.sqlite" in drawn(tmp_path).splitlines()[-1]


def test_a_warning_leaves_the_keys_their_room_and_goes_after_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / f"{'long' * 40}.sqlite").write_bytes(b"no journal at all" * 100)
    with Bus(tmp_path) as bus:
        begin(bus, "sound")
    with Screen(Folder(tmp_path)) as screen:
        screen.look()
        shown = screen.draw(100, 20).plain.splitlines()[-1]
        assert "cannot read" in shown
        assert all(key in shown for key in ("q leave", "select", "open", "a only live"))
        monkeypatch.setattr("lineside.top.screen.NOTE_SECONDS", 0.0)  # a while later
        assert screen.draw(100, 20).plain.endswith("1 run")


def test_a_folder_that_may_not_be_read_is_an_error_and_said_on_the_screen(lineside: Lineside, tmp_path: Path) -> None:
    folder = tmp_path / ("long" * 100)  # which the system refuses, whoever asks
    for command in ("top", "runs"):
        done = lineside(command, folder)
        assert done.code == 1
        assert "cannot read a journal from" in done.err
        assert "File name too long" in done.err
    assert "File name too long" in drawn(folder, columns=600).splitlines()[-1]


@pytest.mark.parametrize("seconds", ["inf", "nan", "1e300", "0"])
def test_an_interval_that_nobody_can_wait_for_is_refused(lineside: Lineside, tmp_path: Path, seconds: str) -> None:
    done = lineside("top", tmp_path, "--interval", seconds)
    assert done.code == 2
    assert "expected seconds from 0.05 to 86400" in " ".join(done.err.replace("│", "").split())


# -- how much it reads -------------------------------------------------------------------------------


def test_of_a_long_file_all_of_the_end_is_read_though_it_lies_in_a_large_chunk(tmp_path: Path) -> None:
    writer = JournalWriter.create(tmp_path / "shared.sqlite", Durability.PROCESS, {})
    rest: dict[str, Any] = {"batches": None, "batch_size": 8, "loss": 0.5, "losses": {}, "lr": {}}
    told = [("long", n) for n in range(2 * WHOLE)] + [("short", n) for n in range(8)]
    batches = [TrainBatchEnd(run=run, epoch=0, batch=n, step=n + 1, **rest) for run, n in told]
    bodies = [event.model_copy(update={"seq": seq}).model_dump_json().encode() for seq, event in enumerate(batches, 1)]
    for after, upto in ((0, WHOLE), (WHOLE, len(told))):  # each is a chunk
        some = slice(after, upto)
        origins = [Origin(run, 1, 0) for run, _ in told[some]]
        lines = Lines([*range(after + 1, upto + 1)], [batches[0].type] * len(origins), origins, bodies[some])
        writer.commit(lines, 1)
    found = Reader(writer.path, ("short",), {batches[0].type}, 32).read()
    writer.close()
    assert [record.seq for _, record in found] == [*range(2 * WHOLE + 1, len(told) + 1)]


def test_of_a_long_run_samples_are_read_and_then_only_what_is_new(tmp_path: Path) -> None:
    with Bus(tmp_path) as bus:
        source = begin(bus, "long", epochs=1)
        for step in range(1, 4 * WHOLE):
            rest: dict[str, Any] = {"batches": None, "batch_size": 8, "losses": {}, "lr": {}}
            source.publish(TrainBatchEnd, epoch=0, batch=step - 1, step=step, loss=1.0, **rest)
        bus.flush()
        (path,) = Journal(tmp_path).files()
        reader = Reader(path, ("long",), {"TrainBatchEnd"}, places=8)
        found = reader.read()
        assert len(found) < WHOLE // 2
        assert found[-1][1].seq == 4 * WHOLE + 1
        assert found[0][1].seq < 1000
        assert reader.read() == []
        source.publish(TrainStart, epoch=0, epochs=1, batches=None, step=0)
        train(source, batches=3)
        bus.flush()
        assert len(reader.read()) == 3


def test_a_run_that_others_came_after_in_its_process_is_told_to_its_end(tmp_path: Path) -> None:
    with Bus(tmp_path) as bus:
        first = begin(bus, "first", epochs=1)
        train(first)
        end(first)
        source = begin(bus, "second", epochs=1)
        rest: dict[str, Any] = {"batches": None, "batch_size": 8, "losses": {}, "lr": {}}
        for step in range(1, 2 * WHOLE):
            source.publish(TrainBatchEnd, epoch=0, batch=step - 1, step=step, loss=1.0, **rest)
        bus.flush()
        shown = drawn(tmp_path, "down", "enter")
    assert "batch 4/4" in shown
    assert "RunEnd" in shown


def test_runs_that_are_over_are_not_read_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with Bus(tmp_path) as bus:
        train(begin(bus, "over"))
    folder = Folder(tmp_path)
    folder.look()
    folder.follow(folder.runs_now)
    (path,) = folder.files()
    path.write_bytes(b"whoever reads it now finds nothing")
    (before,) = folder.runs_now
    folder.look()
    folder.follow(folder.runs_now)
    assert folder.runs_now == [before]
    assert before.follower.batch is not None
    assert caplog.text == ""


# -- curves ------------------------------------------------------------------------------------------


def test_a_curve_keeps_its_begin_and_its_end_however_long_it_gets() -> None:
    curve = Curve(most=16)
    for step in range(1000):
        curve.add(step, float(step))
    curve.add(1000, float("nan"))
    assert len(curve.steps) <= 16
    assert curve.steps[0] == 0
    assert curve.values[0] < 100
    assert curve.values[-1] > 900
    assert curve.values == sorted(curve.values)
    curve.cut(500)
    assert curve.steps[-1] < 500


def test_a_sparkline_goes_from_the_smallest_to_the_largest() -> None:
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7], 8) == "▁▂▃▄▅▆▇█"
    assert sparkline([1, 3, 7, 9], 2) == "▁█"
    assert sparkline([5, 5], 8) == "▄▄"
    assert sparkline([], 8) == ""


def test_a_chart_has_its_range_its_steps_and_a_line_without_gaps() -> None:
    from rich.text import Text

    curve = Curve(most=64)
    for step, value in ((1, 8.0), (5, 4.0), (9, 0.0)):
        curve.add(step, value)
    title, *rows, steps = [row.plain for row in chart(Text("loss"), curve, 29, 6, "")]
    assert title.strip() == "loss"
    assert steps.split() == ["1", "9"]
    assert [row.split("│")[0].strip() for row in rows] == ["8.0000", "", "", "0.0000"]
    dots = [row.split("│")[1] for row in rows]
    for column in range(20):
        assert any(ord(row[column]) > 0x2800 for row in dots)
    assert {len(row) for row in rows} == {29}
