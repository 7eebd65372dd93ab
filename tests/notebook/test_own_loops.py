"""Loops of one's own in a notebook: in which epoch they are, and what is drawn of them."""

from __future__ import annotations

from lineside.bus import Bus, Mark
from lineside.bus.notebook.state import SHOWN, RunState
from lineside.bus.notebook.watch import Watch
from lineside.runners import TrackedRun

from .support import PATIENCE, text_of


def test_a_loop_of_ones_own_that_is_stopped_is_told_with_the_epoch_in_which_it_was() -> None:
    with Bus() as bus, TrackedRun(bus, "own") as run:
        for number in range(2):
            for _ in run.track(range(4), epochs=5):
                run.log(loss=1.0)
                if number == 1:
                    run.stop("enough")
    assert "stopped, enough, epoch 2/5" in text_of(run)
    seen = Watch(bus, run.id, Mark())
    assert seen.wait(PATIENCE)
    assert seen.snapshot()["head"]["current"] == 2


def test_what_a_loop_of_ones_own_logs_besides_its_loss_has_a_curve_before_an_epoch_is_over() -> None:
    with Bus() as bus, TrackedRun(bus, "own") as run:
        told = RunState(run.id)
        for number in run.track(number for number in range(3)):
            run.log(loss=1.0, reward=number)
            if number == 2:
                for event in bus.remembered(*SHOWN, run=run.id).events:
                    told.take(event)
    curve = told.curves["loss reward"]
    assert curve.about == {"chart": "reward", "label": "each step", "dense": True}
    assert [row[3] for row in curve.rows()] == [0.0, 1.0]
