"""How far a run is, and what is left, where other limits than its epochs end it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lineside.bus.notebook.state import RunState
from lineside.bus.progress import Progress
from lineside.schemas import PretrainRoutineEnd, RunStart, TrainBatchEnd, TrainStart
from tests.runners.support import make_trainer

from .support import PATIENCE

BATCHES = 50


def after(batches: int, *, epochs: int | None, before: int = 0, **limits: Any) -> Progress:
    """Return the progress of a training after so many batches of 0.1 seconds each."""
    progress = Progress()
    progress.take(RunStart(kind="train", model="Net", device="cpu", config={"epochs": epochs, **limits}))
    progress.take(PretrainRoutineEnd(parameters=1, trainable=1, batches=BATCHES, val_batches=None))
    size: dict[str, Any] = {"batches": BATCHES}
    progress.take(TrainStart(epoch=before // BATCHES, epochs=epochs, step=before, elapsed=0.0, **size))
    for number in range(before, before + batches):
        place: dict[str, Any] = {"epoch": number // BATCHES, "batch": number % BATCHES, "batch_size": 2, **size}
        elapsed = (number + 1 - before) * 0.1
        progress.take(TrainBatchEnd(**place, step=number + 1, loss=1.0, losses={}, lr={}, elapsed=elapsed))
    return progress


@pytest.mark.parametrize("epochs", [None, 500])
def test_a_run_that_ends_by_its_steps_is_as_far_as_these(epochs: int | None) -> None:
    progress = after(120, epochs=epochs, max_steps=200)
    assert progress.share == pytest.approx(120 / 200)
    assert progress.left == pytest.approx(8.0)


@pytest.mark.parametrize("epochs", [None, 500])
def test_a_run_that_ends_by_its_time_is_as_far_as_that(epochs: int | None) -> None:
    progress = after(120, epochs=epochs, max_seconds=16.0)
    assert progress.share == pytest.approx(12 / 16)
    assert progress.left == pytest.approx(4.0)


def test_of_several_limits_the_one_that_is_reached_first_counts() -> None:
    progress = after(40, epochs=1, max_steps=1000, max_seconds=3600.0)
    assert progress.share == pytest.approx(40 / 50)
    assert progress.left == pytest.approx(1.0)
    assert after(1, epochs=1, max_seconds=3600.0).left is None  # not an hour, and how much less is not known yet


def test_the_speed_of_a_resumed_run_is_that_of_its_own_steps() -> None:
    progress = after(20, epochs=None, before=100, max_steps=200)
    assert progress.share == pytest.approx(120 / 200)
    assert progress.left == pytest.approx(8.0)


def test_what_a_loop_of_ones_own_calls_its_settings_limits_nothing() -> None:
    progress = Progress()
    progress.take(RunStart(kind="train", model="own", device="", config={"max_steps": 200}))
    progress.take(TrainStart(epoch=0, epochs=None, batches=None, step=0))
    progress.take(TrainBatchEnd(epoch=0, batch=0, batches=None, batch_size=2, step=1, loss=1.0, losses={}, lr={}))
    assert (progress.share, progress.left) == (None, None)


def test_a_trainer_tells_its_limits() -> None:
    run = make_trainer(Path("none"), epochs=None, max_steps=3, save=False, validate=False).start()
    run.result(PATIENCE)
    state = RunState(run.id)
    for event in run.stream():
        state.take(event)
    head = state.head()
    assert (head["step"], head["steps"], head["share"]) == (3, 3, 1.0)
