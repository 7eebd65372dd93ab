from __future__ import annotations

import gc
import math
import re
import threading
import weakref
from collections.abc import Callable, Generator
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from lineside.bus import Bus, Mark
from lineside.bus.notebook.state import RunState
from lineside.bus.notebook.watch import Watch
from lineside.runners import TrackedRun
from lineside.schemas import (
    ErrorInfo,
    ExportEnd,
    ExportPhase,
    ExportStart,
    FitEpochEnd,
    NonFinite,
    PredictBatchEnd,
    PredictStart,
    RunEnd,
    RunStart,
    TrainBatchEnd,
    TrainEpochEnd,
    TrainEpochStart,
    ValBatchEnd,
    ValEnd,
    ValStart,
)
from tests.runners.support import make_trainer
from tests.snippets import run_code

from .support import PATIENCE, Told, text_of

UNKNOWN: dict[str, Any] = dict.fromkeys(("fitness", "best_fitness", "best_epoch", "best", "last"))


@pytest.fixture
def bus() -> Generator[Bus]:
    with Bus() as bus:
        yield bus


def leave(run: str) -> None:
    """Wait for the thread of a run that is over: it ends a moment after its result is there."""
    for thread in threading.enumerate():
        if run in thread.name:
            thread.join(PATIENCE)


class Frontend:
    """Puts together what a `Watch` tells, as the frontend does."""

    def __init__(self) -> None:
        self.head: dict[str, Any] = {}
        self.curves: dict[str, list[Any]] = {}
        self.messages: list[dict[str, Any]] = []
        self._changed = threading.Condition()

    def take(self, message: dict[str, Any]) -> None:
        with self._changed:
            self.messages.append(message)
            self.head = message.get("head", self.head)
            for name, curve in message.get("curves", {}).items():
                known = self.curves.setdefault(name, [])
                assert curve["from"] <= len(known), "a hole"
                known[curve["from"] :] = curve["rows"]
            self._changed.notify_all()

    def wait(self, wanted: Callable[[], object]) -> None:
        with self._changed:
            assert self._changed.wait_for(wanted, PATIENCE), self.head


def watch(run: Told, bus: Bus, frontend: Frontend | None = None) -> Watch:
    made = Watch(bus, run.id, run._begin, None if frontend is None else frontend.take)  # pyright: ignore[reportPrivateUsage]
    if frontend is not None:
        made.listen(True)
    return made


def told_of_epochs(frontend: Frontend, count: int) -> bool:
    return len(frontend.curves.get("train loss", ())) == count


# ---- the state


def test_the_events_of_a_training_come_to_its_place_its_numbers_and_its_curves(bus: Bus) -> None:
    run = Told(bus)
    run.begin()
    run.epoch(0, [4.0, 2.0])
    run.source.publish(
        FitEpochEnd,
        epoch=0,
        epochs=3,
        losses={"loss": 3.0},
        metrics={"loss": 2.5, "accuracy": 0.5},
        duration=2.0,
        **UNKNOWN,
    )
    run.batch(3, 1.0, epoch=1, batch=0, batches=2)
    seen = watch(run, bus)
    assert seen.catch_up(PATIENCE)
    shown = seen.snapshot()
    seen.close()
    head = shown["head"]
    assert (head["kind"], head["model"], head["device"]) == ("train", "Net", "cpu")
    assert (head["epoch"], head["epochs"], head["batch"], head["batches"]) == (1, 3, 1, 2)
    assert head["share"] == pytest.approx(1.5 / 3)
    assert head["numbers"] == {"loss": 1.0, "lr": 0.1}
    assert head["metrics"] == {"loss": 3.0, "val loss": 2.5, "accuracy": 0.5}
    drawn = {(curve["chart"], curve["label"]): [row[3] for row in curve["rows"]] for curve in shown["curves"].values()}
    assert drawn == {
        ("loss", "each step"): [4.0, 2.0, 1.0],
        ("loss", "train"): [3.0],
        ("loss", "val"): [2.5],
        ("accuracy", "val"): [0.5],
        ("learning rate", "all"): [0.1, 0.1, 0.1],
    }


def test_the_time_that_is_left_is_that_of_the_epochs_before() -> None:
    state = RunState("r")
    epoch: dict[str, Any] = {"run": "r", "epochs": 4, "metrics": {}, "losses": {}, **UNKNOWN}
    state.take(FitEpochEnd(epoch=0, duration=10.0, elapsed=10.0, **epoch))
    state.take(FitEpochEnd(epoch=1, duration=20.0, elapsed=30.0, **epoch))
    state.progress.has_epochs, state.progress.epochs = True, 4
    assert state.progress.left == pytest.approx(15.0 * 2)


def test_a_lost_loss_is_said_and_leaves_the_curve_open(bus: Bus) -> None:
    run = Told(bus)
    run.begin()
    run.batch(1, math.nan)
    run.source.publish(NonFinite, epoch=0, batch=0, step=0, losses={"loss": math.nan})
    seen = watch(run, bus)
    assert seen.catch_up(PATIENCE)
    shown = seen.snapshot()
    seen.close()
    assert shown["head"]["numbers"]["loss"] == "nan"
    assert "the loss was lost in epoch 1, batch 1" in shown["head"]["warning"]
    assert shown["curves"]["loss"]["rows"] == [(1, None, None, None)]


def test_what_is_logged_after_an_epoch_without_batches_is_drawn_too(bus: Bus) -> None:
    with TrackedRun(bus, "own") as run:
        for accuracy, batches in ((0.5, [1]), (0.7, [])):
            for _ in run.track(batches):
                run.log(loss=1.0)
            run.log(accuracy=accuracy)
    seen = Watch(bus, run.id, Mark())
    assert seen.wait(PATIENCE)
    assert [row[3] for row in seen.snapshot()["curves"]["val accuracy"]["rows"]] == [0.5, 0.7]


def test_a_prediction_a_validation_and_an_export_have_their_own_progress() -> None:
    state = RunState("r")
    place: dict[str, Any] = {"run": "r", "epoch": 0, "batches": 4, "batch_size": 8}
    state.take(RunStart(run="r", kind="predict", model="Net", device="cpu"))
    state.take(PredictStart(run="r", source="a list", batch_size=8, batches=4))
    for batch in range(2):
        speed = {"preprocess": 1.0, "inference": 2.0}
        state.take(PredictBatchEnd(**place, batch=batch, inputs=("a",), results=(1,), speed=speed, elapsed=batch + 1.0))
    head = state.head()
    assert (head["doing"], head["share"], head["speed"], head["left"]) == ("predicting", 0.5, 8.0, 2.0)
    assert head["numbers"] == {"preprocess ms": 1.0, "inference ms": 2.0}

    state = RunState("r")
    state.take(RunStart(run="r", kind="val", model="Net", device="cpu"))
    state.take(ValStart(run="r", epoch=0, batches=4))
    state.take(ValBatchEnd(**place, batch=0, losses={"loss": 0.5}))
    assert (state.head()["doing"], state.head()["share"], state.head()["numbers"]) == (
        "validating",
        0.25,
        {"loss": 0.5},
    )
    state.take(
        ValEnd(
            run="r",
            epoch=0,
            batches=4,
            samples=32,
            metrics={"accuracy": 0.9},
            losses={},
            fitness=None,
            duration=1,
            speed={},
        )
    )
    assert state.head()["metrics"] == {"accuracy": 0.9}

    state = RunState("r")
    state.take(RunStart(run="r", kind="export", model="Net", device="cpu"))
    state.take(ExportStart(run="r", format="onnx", path=Path("net.onnx"), dynamic_batch=True))
    state.take(ExportPhase(run="r", format="onnx", phase="capture", duration=1.5))
    assert state.head()["phases"] == [["capture", 1.5]]
    state.take(
        ExportEnd(
            run="r", format="onnx", path=Path("net.onnx"), bytes=1000, max_error=1e-6, tolerance=1e-4, duration=2.0
        )
    )
    assert "net.onnx: 1 kB, verified" in state.head()["facts"]
    state.take(ExportStart(run="r", format="pt2", path=Path("net.pt2"), dynamic_batch=True))
    assert state.head()["allPhases"] == ["capture", "save", "verify"]


def test_an_evaluation_that_somebody_asked_for_in_between_is_not_the_runs_own() -> None:
    place: dict[str, Any] = {"run": "r", "epoch": 0}
    validation: dict[str, Any] = {"samples": 8, "losses": {}, "fitness": None, "duration": 1.0, "speed": {}}
    state = RunState("r")
    state.take(ValStart(**place, batches=2, aside=True))
    assert not state.begun  # or it would be taken for a validation
    state.take(RunStart(run="r", kind="train", model="Net", device="cpu"))
    state.take(TrainEpochStart(**place, epochs=2, batches=4, lr={"all": 0.1}))
    state.take(TrainBatchEnd(**place, batch=1, batches=4, batch_size=8, step=2, loss=0.5, losses={}, lr={}))
    before, curves = state.head(), {name: curve.rows() for name, curve in state.curves.items()}
    state.take(ValStart(**place, batches=100, aside=True))
    state.take(ValBatchEnd(**place, batch=0, batches=100, batch_size=8, losses={"loss": 9.0}, aside=True))
    state.take(ValEnd(**place, batches=100, metrics={"accuracy": 0.1}, **validation, aside=True))
    assert state.head() == before
    assert {name: curve.rows() for name, curve in state.curves.items()} == curves
    state.take(ValStart(**place, batches=100))
    assert (state.head()["doing"], state.head()["batches"]) == ("validating", 100)


def test_other_runs_and_other_ranks_are_left_out() -> None:
    state = RunState("r")
    state.take(RunStart(run="s", kind="val", model="Other", device="cpu"))
    state.take(RunStart(run="r", rank=1, kind="val", model="Other", device="cpu"))
    assert not state.begun


# ---- what is told, and when


def test_what_is_told_piece_by_piece_comes_to_what_is_told_at_once(bus: Bus) -> None:
    run, frontend = Told(bus), Frontend()
    seen = watch(run, bus, frontend)
    run.begin()
    for epoch in range(3):
        run.epoch(epoch, [1.0 / (1 + step) for step in range(500)])
        told = partial(told_of_epochs, frontend, epoch + 1)
        frontend.wait(told)
    run.end()
    frontend.wait(lambda: frontend.head["state"] == "completed")
    whole = seen.snapshot()
    assert frontend.head == whole["head"]
    assert frontend.curves == {name: curve["rows"] for name, curve in whole["curves"].items()}
    assert len(frontend.curves["loss"]) <= 600
    assert frontend.curves["loss"][0][0] == 1
    seen.close()


def test_a_row_that_grows_is_told_again(bus: Bus) -> None:
    run, frontend = Told(bus), Frontend()
    seen = watch(run, bus, frontend)
    run.begin()
    for step in range(701):  # more than there are rows: two points each, and one in the last
        run.batch(step + 1, 1.0)
    frontend.wait(lambda: frontend.curves.get("loss", [(0,)])[-1][0] == 701)
    run.batch(702, 9.0)
    frontend.wait(lambda: frontend.curves["loss"][-1] == (701, 1.0, 9.0, 5.0))
    assert len(frontend.curves["loss"]) == 351
    assert seen.snapshot()["curves"]["loss"]["newest"] == 9.0
    seen.close()


def test_a_thousand_events_are_a_handful_of_messages(bus: Bus) -> None:
    run, frontend = Told(bus), Frontend()
    seen = watch(run, bus, frontend)
    run.begin()
    for step in range(1000):
        run.batch(step + 1, 0.5)
    run.end()
    frontend.wait(lambda: frontend.head.get("state") == "completed")
    assert len(frontend.messages) < 50
    seen.close()


def test_while_nobody_looks_nothing_is_told_and_then_everything(bus: Bus) -> None:
    run, frontend = Told(bus), Frontend()
    seen = watch(run, bus, frontend)
    run.begin()
    frontend.wait(lambda: frontend.head.get("model") == "Net")
    seen.listen(False)
    told = len(frontend.messages)
    run.batch(1, 0.5)
    run.end()
    assert seen.wait(PATIENCE)
    assert len(frontend.messages) == told
    seen.listen(True)
    assert frontend.head["state"] == "completed"
    assert len(frontend.curves["loss"]) == 1


def test_the_reading_ends_with_the_run_and_leaves_no_subscription_and_no_thread(bus: Bus) -> None:
    run, frontend = Told(bus), Frontend()
    before = set(threading.enumerate())
    seen = watch(run, bus, frontend)
    bus.drain()  # now it is counted
    assert len(bus.stats().subscriptions) == 1
    run.begin()
    run.end()
    frontend.wait(lambda: frontend.head.get("state") == "completed")
    assert seen.wait(PATIENCE)
    bus.drain()
    assert bus.stats().subscriptions == ()
    assert set(threading.enumerate()) <= before


def test_a_closed_bus_is_told_as_the_end_of_what_is_heard() -> None:
    with Bus() as bus:
        run, frontend = Told(bus), Frontend()
        seen = watch(run, bus, frontend)
        run.begin()
        frontend.wait(lambda: frontend.head.get("model") == "Net")
    frontend.wait(lambda: frontend.head["state"] == "unheard")
    seen.close()


def test_a_run_whose_beginning_is_forgotten_says_so_and_nobody_is_said_to_have_missed_anything() -> None:
    with Bus(window=64) as bus:
        run = Told(bus)
        run.begin()
        for step in range(500):
            run.batch(step + 1, 0.5)
        bus.drain()
        seen = watch(run, bus)
        assert seen.catch_up(PATIENCE)
        head = seen.snapshot()["head"]
        seen.close()
        assert (head["kind"], head["partial"]) == ("train", True)
        assert not any(subscription.missed for subscription in bus.stats().subscriptions)


def test_with_a_journal_the_whole_of_a_long_run_is_shown(tmp_path: Path) -> None:
    with Bus(tmp_path / "runs", window=64) as bus:
        run = Told(bus)
        run.begin()
        for step in range(500):
            run.batch(step + 1, 9.0 if step == 3 else 0.5)
        run.end()
        bus.flush()
        seen = watch(run, bus)
        assert seen.catch_up(PATIENCE)
        shown = seen.snapshot()
        seen.close()
        assert shown["head"]["state"] == "completed"
        assert [row for row in shown["curves"]["loss"]["rows"] if row[2] == 9.0] == [(4, 9.0, 9.0, 9.0)]


def test_a_second_attempt_of_the_same_run_is_not_taken_for_the_first(bus: Bus) -> None:
    first = Told(bus)
    first.begin()
    first.end("stopped", reason="enough")
    second = Told(bus)
    second.begin()
    seen = watch(second, bus)
    assert seen.catch_up(PATIENCE)
    assert seen.snapshot()["head"]["state"] != "stopped"
    seen.close()


# ---- steering


class Wheel:
    def __init__(self) -> None:
        self.paused = self.stopping = False
        self.asked: list[str] = []

    def stop(self, reason: str) -> None:
        self.stopping = True
        self.asked.append(reason)

    def pause(self) -> None:
        self.paused = True

    def resume(self) -> None:
        self.paused = False


def test_a_run_is_paused_resumed_and_stopped_and_says_so(bus: Bus) -> None:
    run, frontend, wheel = Told(bus), Frontend(), Wheel()
    with bus.steering.within(run.id, wheel):
        seen = watch(run, bus, frontend)
        run.begin()
        frontend.wait(lambda: frontend.head.get("state") == "running")
        for what, state in (("pause", "paused"), ("resume", "running"), ("stop", "stopping")):
            assert seen.steer(what) == ""
            seen.refresh()
            assert frontend.head["state"] == state
        assert wheel.asked == ["stopped from the notebook"]
    assert seen.steer("pause") == "The run does not go on."
    seen.close()


def test_a_real_training_is_paused_and_shown_so_and_stopped(tmp_path: Path, bus: Bus) -> None:
    run = make_trainer(tmp_path, bus=bus, epochs=100_000, validate=False).start()
    frontend = Frontend()
    seen = Watch(bus, run.id, Mark(), frontend.take)
    seen.listen(True)
    frontend.wait(lambda: frontend.head.get("batch"))
    run.pause()  # not through the display
    frontend.wait(lambda: frontend.head["state"] == "paused")
    assert re.fullmatch(
        r"<Run train-\S+ paused, epoch \d+/100000, loss [\d.e-]+, as of \d\d:\d\d:\d\d>", seen.describe("Run")
    )
    seen.steer("resume")
    frontend.wait(lambda: frontend.head["state"] == "running")
    seen.steer("stop")
    frontend.wait(lambda: frontend.head["state"] == "stopped")
    assert frontend.head["reason"] == "stopped from the notebook"
    assert run.result(PATIENCE).outcome == "stopped"
    seen.close()


async def test_a_run_that_is_held_says_so_and_can_be_stopped(tmp_path: Path, bus: Bus) -> None:
    run = make_trainer(tmp_path, bus=bus, epochs=100_000, validate=False).start()
    async with run.hold(TrainEpochEnd):
        assert re.match(r"<Run train-\S+ held, epoch \d+/100000, ", text_of(run))
        seen = Watch(bus, run.id, Mark(), held=lambda: run.state == "held")
        assert seen.catch_up(PATIENCE)
        head = seen.snapshot()["head"]
        assert (head["state"], head["steerable"]) == ("held", True)
        seen.steer("stop")
        assert seen.snapshot()["head"]["state"] == "stopping"
    assert (await run).outcome == "stopped"
    seen.close()


# ---- as text


def test_without_a_notebook_a_run_is_a_line_of_text_that_says_of_when_it_is(bus: Bus) -> None:
    run = Told(bus)
    run.begin()
    run.epoch(0, [4.0, 2.0])
    line = text_of(run)
    found = re.fullmatch(r"<Told train-1 running, epoch 1/3, loss 2.0000, as of (\d\d:\d\d:\d\d)>", line)
    assert found, line
    assert datetime.strptime(found[1], "%H:%M:%S")
    run.end("failed", error=ErrorInfo(type="builtins.ValueError", message="no"), reason="no")
    assert text_of(run) == "<Told train-1 failed, ValueError: no, epoch 1/3, loss 2.0000, 12.0 s>"
    bus.drain()  # who has just left is not counted any more
    assert bus.stats().subscriptions == ()


def test_a_loop_of_ones_own_displays_itself(bus: Bus) -> None:
    with TrackedRun(bus, "own") as run:
        for batch in run.track([[1], [2]], epochs=1):
            run.log(loss=float(batch[0]))
        run.log(accuracy=0.5)
    line = text_of(run)
    assert re.fullmatch(r"<TrackedRun own-\S+ completed, 1 epoch, loss 1.5000, accuracy 0.5000, \d+ ms>", line), line


@pytest.mark.parametrize("outcome", ["completed", "stopped", "failed"])
def test_a_run_that_is_displayed_only_after_its_bus_was_closed_says_how_it_ended_and_its_numbers(outcome: str) -> None:
    with Bus() as bus:
        run = Told(bus)
        run.begin()
        run.epoch(0, [4.0, 2.0])
        run.end(outcome)
    assert text_of(run).startswith(f"<Told train-1 {outcome}, ")
    assert text_of(run).endswith("loss 2.0000, 12.0 s>")
    seen = watch(run, bus)
    assert seen.wait(PATIENCE)
    assert [row[3] for row in seen.snapshot()["curves"]["loss"]["rows"]] == [4.0, 2.0]


def test_a_run_whose_bus_was_closed_before_its_end_is_not_heard_any_more() -> None:
    with Bus() as bus:
        run = Told(bus)
        run.begin()
    assert "train-1 not heard any more, epoch 1/3" in text_of(run)


def test_a_display_keeps_neither_the_run_nor_its_model(tmp_path: Path, bus: Bus) -> None:
    trainer = make_trainer(tmp_path, bus=bus, validate=False)
    model = weakref.ref(trainer.model)
    run = trainer.start()
    seen = Watch(bus, run.id, Mark())
    run.result(PATIENCE)
    leave(run.id)
    del trainer, run
    gc.collect()
    assert model() is None
    seen.close()


def test_a_display_of_a_run_that_is_over_keeps_nothing_of_what_the_bus_remembers(tmp_path: Path) -> None:
    run = make_trainer(tmp_path, validate=False).start()
    own = run._bus  # pyright: ignore[reportPrivateUsage]
    log, seen = weakref.ref(own._log), Watch(own, run.id, Mark())  # pyright: ignore[reportPrivateUsage]
    assert seen.wait(PATIENCE)
    run.result(PATIENCE)
    leave(run.id)
    own.close()
    del run, own
    gc.collect()
    assert log() is None
    assert seen.snapshot()["head"]["state"] == "completed"


@pytest.mark.slow
def test_importing_and_printing_loads_no_widgets() -> None:
    code = """
    import sys
    import lineside.runners
    from lineside import Bus
    with Bus() as bus:
        run = lineside.runners.TrackedRun(bus)
        with run:
            pass
        print("TrackedRun" in run._repr_mimebundle_()["text/plain"])
    print({"anywidget", "ipywidgets", "traitlets", "IPython"} & {*sys.modules})
    """
    assert run_code(code) == "True\nset()\n"


def test_the_end_of_a_run_that_failed_is_told_with_its_error() -> None:
    state = RunState("r")
    error = ErrorInfo(type="torch.cuda.OutOfMemoryError", message="too large")
    state.take(RunEnd(run="r", kind="train", outcome="failed", error=error, duration=1.0))
    assert state.head()["error"] == {"type": "OutOfMemoryError", "message": "too large"}
