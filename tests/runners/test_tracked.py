"""A loop of the user's own tells the same as a trainer."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Iterable, Iterator
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lineside.bus import Bus, RunIdRefused
from lineside.bus.journal import Journal
from lineside.runners import TrackingRefused
from lineside.schemas import (
    Event,
    FitEpochEnd,
    RunEnd,
    RunStart,
    TrainBatchEnd,
    TrainBatchStart,
    TrainEnd,
    TrainEpochEnd,
    TrainEpochStart,
    TrainStart,
)

from .support import PATIENCE, events_of_run, make_loader, names, of


@pytest.fixture
def events(bus: Bus) -> list[Event]:
    """What the bus has told, after `bus.drain()`."""
    got: list[Event] = []
    bus.subscribe(got.append, Event)
    return got


def test_its_events_are_those_of_training(bus: Bus, events: list[Event]) -> None:
    with bus.run("digits", config={"width": 3}) as run:
        for epoch in range(2):
            for images, _ in run.track(make_loader(8), epochs=2):
                run.log(loss=images.mean() * 0 + epoch, aux=2, lr=0.1)
            run.log(accuracy=0.5 + epoch / 10)
    bus.drain(PATIENCE)
    batches = [TrainBatchStart, TrainBatchEnd] * 2
    epochs = [TrainEpochStart, *batches, TrainEpochEnd, FitEpochEnd]
    assert names(events) == [cls.__name__ for cls in (RunStart, TrainStart, *epochs, *epochs, TrainEnd, RunEnd)]
    assert {event.run for event in events} == {run.id}
    assert run.id.startswith("digits-")
    begun = of(events, RunStart)[0]
    assert (begun.kind, begun.model, begun.config) == ("train", "digits", {"width": 3})
    last = of(events, TrainBatchEnd)[-1]
    assert (last.epoch, last.batch, last.batches, last.batch_size, last.step) == (1, 1, 2, 4, 4)
    assert (last.loss, last.losses, last.lr) == (1.0, {"loss": 1.0, "aux": 2.0}, {"all": 0.1})
    assert [done.losses for done in of(events, TrainEpochEnd)] == [{"loss": 0.0, "aux": 2.0}, {"loss": 1.0, "aux": 2.0}]
    assert [done.metrics for done in of(events, FitEpochEnd)] == [{"accuracy": 0.5}, {"accuracy": 0.6}]
    assert of(events, TrainEnd)[0].metrics == {"accuracy": 0.6}
    assert of(events, RunEnd)[0].outcome == "completed"


def test_the_means_are_over_samples(bus: Bus, events: list[Event]) -> None:
    with bus.run() as run:
        for batch in run.track([torch.zeros(3), torch.zeros(1)]):
            run.log(loss=float(len(batch)))
    bus.drain(PATIENCE)
    done = of(events, TrainEpochEnd)[0]
    assert done.losses == {"loss": 2.5}
    assert (done.batches, done.samples) == (2, 4)


def test_a_batch_that_a_break_ends_is_told_if_anything_was_logged_of_it(bus: Bus, events: list[Event]) -> None:
    with bus.run() as run:
        for n in run.track(range(10)):
            run.log(loss=n)
            if n == 2:
                break
        for _ in run.track(iter(range(10))):
            break
    bus.drain(PATIENCE)
    assert [(end.epoch, end.batch, end.batches) for end in of(events, TrainBatchEnd)] == [(0, n, 10) for n in range(3)]
    assert [end.batches for end in of(events, TrainEpochEnd)] == [3, 0]


def test_an_error_in_the_loop_fails_the_run(bus: Bus, events: list[Event]) -> None:
    def train() -> None:
        with bus.run() as run:
            for n in run.track([1, 0]):
                run.log(loss=1 / n)

    with pytest.raises(ZeroDivisionError):
        train()
    bus.drain(PATIENCE)
    assert names(events)[-1] == "RunEnd"
    end = of(events, RunEnd)[0]
    assert (end.outcome, end.error.type) == ("failed", "ZeroDivisionError")
    assert len(of(events, TrainBatchEnd)) == 1
    assert not of(events, TrainEnd)


def test_an_interrupt_stops_the_run(bus: Bus, events: list[Event]) -> None:
    with pytest.raises(KeyboardInterrupt), bus.run():
        raise KeyboardInterrupt
    bus.drain(PATIENCE)
    assert (of(events, RunEnd)[0].outcome, of(events, RunEnd)[0].reason) == ("stopped", "interrupted")


async def test_a_loop_whose_task_is_cancelled_or_runs_out_of_time_was_stopped(bus: Bus, events: list[Event]) -> None:
    begun = asyncio.Event()

    async def loop() -> None:
        with bus.run() as run:
            for _ in run.track(range(9)):
                run.log(loss=1)
                begun.set()
                await asyncio.Event().wait()

    task = asyncio.create_task(loop())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(loop(), 0.01)
    await bus.adrain(PATIENCE)
    assert [(end.outcome, end.reason, end.error) for end in of(events, RunEnd)] == [("stopped", "cancelled", None)] * 2


def test_a_loop_in_a_generator_that_is_left_was_stopped(bus: Bus, events: list[Event]) -> None:
    def loop() -> Iterator[int]:
        with bus.run() as run:
            for batch in run.track(range(9)):
                run.log(loss=1)
                yield batch

    batches = loop()
    next(batches)
    batches.close()  # type: ignore[attr-defined]
    bus.drain(PATIENCE)
    assert [(end.outcome, end.reason, end.error) for end in of(events, RunEnd)] == [("stopped", "cancelled", None)]


@pytest.mark.parametrize(("code", "outcome"), [(None, "stopped"), (0, "stopped"), (3, "failed")])
def test_a_program_that_exits_within_the_loop_stops_the_run_unless_it_says_that_it_failed(
    bus: Bus, events: list[Event], code: int | None, outcome: str
) -> None:
    with pytest.raises(SystemExit), bus.run():
        sys.exit(code)
    bus.drain(PATIENCE)
    end = of(events, RunEnd)[0]
    assert (end.outcome, end.reason) == (outcome, "exit" if outcome == "stopped" else "3")


def test_it_can_be_stopped_from_anywhere(bus: Bus, events: list[Event]) -> None:
    with bus.run() as run:
        for epoch in range(3):
            for n in run.track(range(5)):
                run.log(loss=n)
                if (epoch, n) == (1, 2):
                    steered = bus.steering.get(run.id)
                    assert steered is not None
                    steered.stop("enough")
        assert run.stopping
    assert bus.steering.get(run.id) is None
    bus.drain(PATIENCE)
    assert len(of(events, TrainBatchEnd)) == 8
    assert len(of(events, FitEpochEnd)) == 2
    assert (of(events, RunEnd)[0].outcome, of(events, RunEnd)[0].reason) == ("stopped", "enough")


def test_it_stands_still_while_it_is_paused(bus: Bus) -> None:
    first, over = threading.Event(), threading.Event()
    done: list[int] = []

    def train() -> None:
        with bus.run(id="own") as run:
            for n in run.track(range(3)):
                done.append(n)
                if n == 0:
                    run.pause()
                    first.set()
        over.set()

    threading.Thread(target=train, daemon=True).start()
    assert first.wait(PATIENCE)
    steered = bus.steering.get("own")
    assert steered is not None
    assert steered.paused
    assert done == [0]
    steered.resume()
    assert over.wait(PATIENCE)
    assert done == [0, 1, 2]


def test_every_epoch_tells_exactly_the_metrics_that_were_logged_after_it(bus: Bus) -> None:
    with bus.run() as run:
        for epoch in range(4):
            for _ in run.track(range(1)):
                run.log(loss=1)
            if epoch % 2 == 0:
                run.log(accuracy=epoch / 10)
            if epoch == 0:
                run.log(recall=0.5)
    told = events_of_run(bus)  # read only now, when everything was logged
    metrics = [end.metrics for end in of(told, FitEpochEnd)]
    assert metrics == [{"accuracy": 0.0, "recall": 0.5}, {}, {"accuracy": 0.2}, {}]
    assert of(told, TrainEnd)[0].metrics == {"accuracy": 0.2, "recall": 0.5}


def test_what_is_changed_after_it_was_given_is_told_as_it_was(bus: Bus) -> None:
    config, value = {"layers": [3]}, torch.ones(())
    with bus.run(config=config) as run:
        for _ in run.track(range(1)):
            run.log(loss=value, lr=value)
            value.zero_()
        value.fill_(5)
        run.log(accuracy=value)
        value.zero_()
        config["layers"].append(4)
    told = events_of_run(bus)
    end = of(told, TrainBatchEnd)[0]
    assert (end.loss, end.lr) == (1.0, {"all": 1.0})
    assert of(told, FitEpochEnd)[0].metrics == {"accuracy": 5.0}
    assert of(told, RunStart)[0].config == {"layers": (3,)}


def test_what_json_has_no_form_for_in_a_config_is_told_by_its_repr(bus: Bus, events: list[Event]) -> None:
    layer = torch.nn.Linear(2, 1)
    with bus.run(config={"path": Path("data"), "layer": layer, "kinds": {1}}):
        pass
    bus.drain(PATIENCE)
    assert of(events, RunStart)[0].config == {"path": "data", "layer": repr(layer), "kinds": (1,)}


def test_a_config_that_is_within_itself_is_refused(bus: Bus) -> None:
    config: dict[str, object] = {}
    config["self"] = config
    with pytest.raises(
        TrackingRefused, match="config= expects a dict of settings, as JSON, got what cannot be written"
    ):
        bus.run(config=config)


def test_a_loop_that_is_stopped_goes_through_to_its_end(bus: Bus) -> None:
    with bus.run() as run:
        for epoch in range(4):
            for _ in run.track(range(2)):
                run.log(loss=1)
                if epoch == 1:
                    run.stop("enough")
            run.log(accuracy=epoch)
    told = events_of_run(bus)
    assert [end.metrics for end in of(told, FitEpochEnd)] == [{"accuracy": 0.0}, {"accuracy": 1.0}]
    assert (of(told, RunEnd)[0].outcome, of(told, RunEnd)[0].reason) == ("stopped", "enough")


class Bar:
    """Holds what it shows and its iterator, as a progress bar does."""

    def __init__(self, shown: Iterable[int]) -> None:
        self._iterator = iter(shown)

    def __iter__(self) -> Iterator[int]:
        return self._iterator


def test_a_pass_that_somebody_still_holds_after_a_break_ends_with_the_block(bus: Bus) -> None:
    with bus.run() as run:
        bar = Bar(run.track(range(9)))
        for n in bar:
            run.log(loss=n)
            if n == 1:
                break
        run.log(late=1)
    assert list(bar) == []
    told = events_of_run(bus)
    assert names(told)[-5:] == ["TrainBatchEnd", "TrainEpochEnd", "FitEpochEnd", "TrainEnd", "RunEnd"]
    assert of(told, TrainBatchEnd)[-1].losses == {"loss": 1.0, "late": 1.0}
    assert of(told, TrainEpochEnd)[0].batches == 2


def test_so_does_one_that_is_held_when_an_error_ends_the_block_and_cannot_hide_the_error(
    bus: Bus, events: list[Event]
) -> None:
    def train(loss: object) -> None:
        with bus.run() as run:
            bars.append(Bar(run.track(range(9))))
            for _ in bars[-1]:
                run.log(loss=loss)
                raise LookupError("lost")

    bars: list[Bar] = []
    with pytest.raises(LookupError, match="lost"):
        train(1)
    bus.drain(PATIENCE)
    assert names(events)[-3:] == ["TrainBatchEnd", "TrainEpochEnd", "RunEnd"]
    with pytest.raises(LookupError, match="lost"):
        train(torch.zeros((), device="meta"))  # it has no value that could be told
    bus.drain(PATIENCE)
    assert [list(bar) for bar in bars] == [[], []]
    assert [end.outcome for end in of(events, RunEnd)] == ["failed", "failed"]


def test_nothing_is_told_after_the_end_of_a_run_whose_loop_goes_on_in_another_thread(
    bus: Bus, events: list[Event]
) -> None:
    waiting, over = threading.Event(), threading.Event()

    def batches() -> Iterator[int]:
        yield 0
        waiting.set()
        assert over.wait(PATIENCE)
        yield 1

    with bus.run() as run:
        thread = threading.Thread(target=lambda: list(run.track(batches())), daemon=True)
        thread.start()
        assert waiting.wait(PATIENCE)
    over.set()
    thread.join(PATIENCE)
    bus.drain(PATIENCE)
    assert names(events)[-1] == "RunEnd"


def test_nothing_logged_is_told_as_not_a_number(bus: Bus, events: list[Event]) -> None:
    with bus.run() as run:
        for _ in run.track(range(1)):
            pass
    bus.drain(PATIENCE)
    assert str(of(events, TrainBatchEnd)[0].loss) == "nan"
    assert of(events, TrainEpochEnd)[0].losses == {}


def test_values_carry_no_graph_and_may_be_of_any_kind(bus: Bus, events: list[Event]) -> None:
    weight = torch.ones((), requires_grad=True)
    with bus.run() as run:
        for _ in run.track(range(1)):
            run.log(
                {"top 5": True}, loss=weight * 3, half=torch.ones(1, dtype=torch.float16), lr={"head": 1, "body": 2}
            )
    bus.drain(PATIENCE)
    end = of(events, TrainBatchEnd)[0]
    assert (end.loss, end.losses) == (3.0, {"loss": 3.0, "top 5": 1.0, "half": 1.0})
    assert end.lr == {"head": 1.0, "body": 2.0}


def test_the_numbers_of_numpy_and_the_rates_of_a_scheduler_can_be_logged_as_they_are(
    bus: Bus, events: list[Event]
) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], 0.25)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1)
    with bus.run() as run:
        for n in run.track(range(2)):
            loss = torch.tensor(3.0).numpy()
            run.log(loss=loss, one=np.ones((1, 1)), right=np.bool_(True), count=np.int64(7))
            run.log(lr=scheduler.get_last_lr() if n else [0.5, 0.25], share=Decimal("0.5"))
            loss.fill(9.0)
    bus.drain(PATIENCE)
    first, last = of(events, TrainBatchEnd)
    assert (first.loss, first.losses) == (3.0, {"loss": 3.0, "one": 1.0, "right": 1.0, "count": 7.0, "share": 0.5})
    assert (first.lr, last.lr) == ({"0": 0.5, "1": 0.25}, {"all": 0.25})


@pytest.mark.parametrize("rate", ["fast", ["fast"], [0.1, "fast"], {"head": "fast"}, np.ones(2)])
def test_a_learning_rate_that_is_no_number_is_named_as_it_was_given(bus: Bus, rate: Any) -> None:
    with bus.run() as run, pytest.raises(TrackingRefused, match=r"^log\(lr=\.\.\.\) expects a number"):
        run.log(lr=rate)


NO_NUMBERS: dict[str, Any] = {
    "text": "much",
    "none": None,
    "tensor": torch.zeros(2),
    "list": [1.0],
    "complex": 1j,
    "complex tensor": torch.zeros((), dtype=torch.complex64),
    "sparse tensor": torch.ones(1).to_sparse(),
    "too large": 10**5000,
    "array": np.ones(2),
    "array of text": np.array("much"),
    "decimal that signals": Decimal("snan"),
}


@pytest.mark.parametrize("value", NO_NUMBERS.values(), ids=NO_NUMBERS)
def test_what_is_no_number_is_refused_at_once(bus: Bus, value: Any) -> None:
    with bus.run() as run:
        for _ in run.track(range(1)):
            with pytest.raises(TrackingRefused, match=r"log\(loss=\.\.\.\) expects a number"):
                run.log(loss=value)


@pytest.mark.parametrize("values", [{1: 0.5}, {"loss": 1.0, None: 0.5}, 0.5, [("loss", 1.0)], torch.ones(2)])
def test_numbers_without_names_are_refused_and_nothing_of_the_batch_is_lost(
    bus: Bus, events: list[Event], values: Any
) -> None:
    with bus.run() as run:
        for _ in run.track(range(1)):
            with pytest.raises(TrackingRefused, match=r"name it by a str|expected numbers by name: log\(loss=\.\.\.\)"):
                run.log(values)
            with pytest.raises(TrackingRefused, match="name it by a str"):
                run.log(lr={0: 0.1})
            run.log(loss=2)
    bus.drain(PATIENCE)
    assert [(end.loss, end.losses, end.lr) for end in of(events, TrainBatchEnd)] == [(2.0, {"loss": 2.0}, {})]


def test_a_learning_rate_among_the_numbers_by_name_is_the_learning_rate(bus: Bus, events: list[Event]) -> None:
    with bus.run() as run:
        for _ in run.track(range(1)):
            run.log({"loss": 1.0, "lr": 0.5})
        run.log({"lr": 0.25})
    bus.drain(PATIENCE)
    assert [(end.losses, end.lr) for end in of(events, TrainBatchEnd)] == [({"loss": 1.0}, {"all": 0.5})]
    assert of(events, FitEpochEnd)[0].metrics == {}


def test_the_mean_of_a_long_epoch_is_as_exact_as_that_of_a_trainer(bus: Bus, events: list[Event]) -> None:
    losses = [2.0**24, 1.0, 1.0, 1.0]  # in single precision the first swallows the others
    with bus.run() as run:
        for loss in run.track(losses):
            run.log(loss=torch.tensor(loss))
    bus.drain(PATIENCE)
    assert of(events, TrainEpochEnd)[0].losses == {"loss": sum(losses) / 4}


@pytest.mark.parametrize("data", [None, 3, object()])
def test_what_cannot_be_iterated_over_is_refused_before_an_epoch_begins(
    bus: Bus, events: list[Event], data: Any
) -> None:
    with bus.run() as run, pytest.raises(TrackingRefused, match="expected a loader, or anything that can be iterated"):
        next(run.track(data))
    bus.drain(PATIENCE)
    assert names(events) == ["RunStart", "RunEnd"]


def test_a_dataset_is_as_long_as_it_says(bus: Bus) -> None:
    class Endless:
        """A map-style dataset that raises no IndexError."""

        def __len__(self) -> int:
            return 3

        def __getitem__(self, index: int) -> int:
            return index

    with bus.run() as run:
        assert list(islice(run.track(Endless()), 4)) == [0, 1, 2]  # type: ignore[arg-type]


@pytest.mark.parametrize("number", [{"epochs": "3"}, {"epochs": 0}, {"epoch": "1"}, {"epoch": -1}, {"step": 1.5}])
def test_a_place_that_is_no_whole_number_is_refused_before_an_epoch_begins(
    bus: Bus, events: list[Event], number: Any
) -> None:
    with bus.run() as run:
        with pytest.raises(TrackingRefused, match=r"expected a whole number from \d on"):
            next(run.track(range(3), **number))
        assert len(list(run.track(range(3), epochs=np.int64(1)))) == 3  # type: ignore[arg-type]
    bus.drain(PATIENCE)
    assert [end.epochs for end in of(events, FitEpochEnd)] == [1]


@pytest.mark.parametrize("argument", [{"rank": -1}, {"rank": "0"}, {"attempt": 1.5}, {"name": 3}, {"id": 3}])
def test_a_run_is_not_made_of_what_its_events_could_not_say(bus: Bus, argument: Any) -> None:
    with pytest.raises(TrackingRefused, match=r"expected (text|a whole number from \d on)"):
        bus.run(**argument)


def test_calls_at_the_wrong_place_say_what_to_do(bus: Bus) -> None:
    run = bus.run()
    with pytest.raises(TrackingRefused, match="outside of the run"):
        next(run.track(range(3)))
    with run:
        with pytest.raises(TrackingRefused, match="before any batch"):
            run.log(accuracy=1)
        run.log(lr=0.1)
        for _ in run.track(range(1)):
            with pytest.raises(TrackingRefused, match="within the loop over another one"):
                next(run.track(range(3)))
    with pytest.raises(TrackingRefused, match="outside of the run"):
        run.log(loss=1)
    with pytest.raises(TrackingRefused, match="make another one"), run:
        pass
    with pytest.raises(RunIdRefused):
        bus.run("../up")


def test_a_journal_sums_it_up_like_any_other(tmp_path: Path) -> None:
    with Bus(tmp_path) as bus, bus.run("digits") as run:
        for _ in run.track(range(3), epochs=1):
            run.log(loss=1.0)
        run.log(accuracy=0.75)
    summary = Journal(tmp_path).run(run.id)
    assert (summary.kind, summary.state, summary.model) == ("train", "finished", "digits")
    assert summary.metrics["accuracy"] == 0.75


def signatures(folder: Path) -> list[tuple[int, int, int]]:
    return [(event.attempt, event.rank, event.seq) for event in Journal(folder).events(run="own")]


def test_a_run_that_is_begun_again_by_its_id_is_the_next_attempt_so_that_its_events_can_be_told_apart(
    tmp_path: Path,
) -> None:
    for _ in range(2):
        with Bus(tmp_path) as bus:
            for _ in range(2):
                with bus.run(id="own") as run:
                    for _ in run.track(range(2)):
                        run.log(loss=1.0)
    found = signatures(tmp_path)
    assert len({*found}) == len(found)
    assert sorted({attempt for attempt, _, _ in found}) == [1, 2, 3, 4]
    assert Journal(tmp_path).run("own").attempt == 4


def test_without_a_journal_a_bus_knows_the_attempts_that_it_has_told_of(bus: Bus, events: list[Event]) -> None:
    for run in ("own", "other", "own"):
        with bus.run(id=run):
            pass
    bus.drain(PATIENCE)
    assert [start.attempt for start in of(events, RunStart)] == [1, 1, 2]


def test_runs_of_one_id_that_were_made_before_either_began_are_attempts_of_their_own(
    bus: Bus, events: list[Event]
) -> None:
    first, second = bus.run(id="own"), bus.run(id="own")
    for run in (second, first):
        with run:
            pass
    bus.drain(PATIENCE)
    assert [start.attempt for start in of(events, RunStart)] == [1, 2]


def test_the_ranks_of_a_run_have_their_attempts_in_common(tmp_path: Path) -> None:
    with Bus(tmp_path) as bus:
        for rank in (0, 1, 0, 1):
            with bus.run(id="own", rank=rank):
                pass
    assert [(start.attempt, start.rank) for start in Journal(tmp_path).events(RunStart)] == [
        (1, 0),
        (1, 1),
        (2, 0),
        (2, 1),
    ]
    assert Journal(tmp_path).run("own").ranks == 2


def test_a_loop_that_goes_on_from_a_checkpoint_says_from_where(tmp_path: Path) -> None:
    for first in (0, 2):
        with Bus(tmp_path) as bus, bus.run(id="own") as run:
            for epoch in range(first, first + 3):
                for _ in run.track(range(4), epochs=5, epoch=epoch, step=epoch * 4):
                    run.log(loss=float(10 * first + epoch))
    events = list(Journal(tmp_path).events(run="own"))
    second = [event for event in events if event.attempt == 2]
    assert [(start.epoch, start.step) for start in of(second, TrainStart)] == [(2, 8)]
    assert [(end.epoch, end.step) for end in of(second, TrainBatchEnd)] == [
        (e, 4 * e + b) for e in (2, 3, 4) for b in (1, 2, 3, 4)
    ]
    assert [end.epochs for end in of(second, TrainEnd)] == [5]
    frame = Journal(tmp_path).frame(FitEpochEnd, run="own")
    assert [*frame["epoch"]] == [0, 1, 2, 2, 3, 4]


def test_epochs_and_steps_go_forward(bus: Bus) -> None:
    with bus.run() as run:
        for _ in run.track(range(3), epoch=4, step=100):
            pass
        for place, told in (({"epoch": 4}, 5), ({"step": 102}, 103)):
            with pytest.raises(TrackingRefused, match=rf"lies behind what was told; expected {told} or more"):
                next(run.track(range(3), **place))
        for _ in run.track(range(1)):
            pass
    with pytest.raises(TrackingRefused, match=r"attempt=0; expected .* from 1 on"):
        bus.run(id="own", attempt=0)


def test_an_attempt_that_is_given_counts(bus: Bus, events: list[Event]) -> None:
    with bus.run(id="own", attempt=7):
        pass
    bus.drain(PATIENCE)
    assert [start.attempt for start in of(events, RunStart)] == [7]
