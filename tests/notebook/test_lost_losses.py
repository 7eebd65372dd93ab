"""Losses that are lost, and losses that nobody logged: what is said of them."""
# pyright: reportUnknownMemberType=false
# The types of matplotlib are unfinished.

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from lineside.bus import Bus, Mark
from lineside.bus.notebook.state import RunState
from lineside.bus.notebook.watch import Watch
from lineside.runners import TrackedRun
from lineside.schemas import NonFinite, TrainStart
from tests.runners.support import make_trainer

from .support import PATIENCE, text_of


def lost(step: int) -> NonFinite:
    return NonFinite(run="r", epoch=step // 10, batch=step % 10, step=step, losses={"loss": math.nan})


def test_the_first_batch_whose_loss_was_lost_is_named_and_those_since_are_counted() -> None:
    state = RunState("r")
    state.take(lost(12))
    assert state.warning == "the loss was lost in epoch 2, batch 3: loss nan"
    state.take(lost(13))
    assert state.warning == "the loss was lost in epoch 2, batch 3: loss nan, and in 1 batch since"
    state.take(lost(20))
    assert state.warning == "the loss was lost in epoch 2, batch 3: loss nan, and in 2 batches since"


def test_a_loss_that_was_lost_in_what_a_resumed_run_does_again_is_not_held_against_it() -> None:
    state = RunState("r")
    state.take(lost(12))
    place: dict[str, Any] = {"epochs": 9, "batches": 10}
    state.take(TrainStart(run="r", attempt=2, epoch=2, step=20, **place))
    assert "epoch 2, batch 3" in state.warning
    state.take(TrainStart(run="r", attempt=3, epoch=1, step=10, **place))
    assert state.warning == ""


def shown(bus: Bus, run: TrackedRun) -> dict[str, Any]:
    seen = Watch(bus, run.id, Mark())
    assert seen.wait(PATIENCE)
    return seen.snapshot()


def test_a_loop_that_logs_no_loss_is_shown_and_drawn_without_one() -> None:
    with Bus() as bus, TrackedRun(bus, "own") as run:
        for number in run.track(range(4)):
            if number != 1:
                run.log(reward=1.0 * number, lr=0.1)
    told = shown(bus, run)
    assert told["head"]["numbers"] == {"reward": 3.0, "lr": 0.1}
    assert "loss" not in told["curves"]
    assert "loss" not in text_of(run)
    assert "loss by batch" not in [axes.get_title(loc="left") for axes in run.plot().axes]


def test_a_loop_that_logs_nothing_of_its_batches_is_shown_without_a_loss_once_an_epoch_is_over() -> None:
    with Bus() as bus, TrackedRun(bus, "own") as run:
        for _ in run.track(range(4)):
            run.log(lr=0.1)
        run.log(accuracy=0.5)
    told = shown(bus, run)
    assert told["head"]["numbers"] == {"lr": 0.1}
    assert "loss" not in text_of(run)
    assert [axes.get_title(loc="left") for axes in run.plot().axes] == ["accuracy", "learning rate"]


@pytest.mark.parametrize("first", [1.0, math.nan])
def test_a_loop_whose_loss_is_lost_is_shown_with_its_nan(first: float) -> None:
    with Bus() as bus, TrackedRun(bus, "own") as run:
        for number in run.track(range(2)):
            run.log(loss=math.nan if number else first, reward=1.0)
        for _ in run.track(range(1)):
            run.log(loss=math.nan, reward=1.0)
    told = shown(bus, run)
    assert told["head"]["numbers"] == {"loss": "nan", "reward": 1.0}
    assert "loss" in told["curves"]
    assert "loss by batch" in [axes.get_title(loc="left") for axes in run.plot().axes]


def lose(out: Tensor, _: Tensor) -> Tensor:
    return out.sum() * math.nan


def test_a_trainer_whose_loss_is_nan_from_the_first_batch_on_is_shown_with_it() -> None:
    trainer = make_trainer(Path("none"), epochs=1, save=False, validate=False, loss=lose)
    run = trainer.start()
    run.result(PATIENCE)
    assert "loss nan" in text_of(run)
    axes = run.plot("loss").axes[0]
    assert [text.get_text() for text in axes.texts] == ["no finite value"]
