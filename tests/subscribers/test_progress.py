from __future__ import annotations

import io
import math
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from lineside.bus.subscribers import Progress
from lineside.bus.subscribers.live import LiveDisplay
from lineside.schemas import Event, ExportPhase, ExportStart, FitEpochEnd, RunEnd, RunStart, TrainBatchEnd, ValEnd

Story = Callable[[str], list[Event]]


@pytest.fixture
def plain(capsys: pytest.CaptureFixture[str]) -> Callable[[list[Event]], str]:
    def show(events: list[Event]) -> str:
        progress = Progress()
        for event in events:
            progress(event)
        progress.close()
        return capsys.readouterr().out

    return show


def drawn(events: list[Event], width: int = 80) -> str:
    """Return everything a terminal would have been sent."""
    terminal = io.StringIO()
    console = Console(file=terminal, force_terminal=True, width=width, color_system=None)
    display = LiveDisplay(console=console, refresh_seconds=0)
    for event in events:
        display.show(event)
    display.close()
    return terminal.getvalue()


# -- plain lines: what a file, a pipe or continuous integration gets


def test_training_is_a_line_an_epoch(plain: Callable[[list[Event]], str], story: Story) -> None:
    assert plain(story("train")).splitlines() == [
        "train    Net on cpu, run t",
        "         1,234 parameters, 2 batches an epoch",
        "epoch    1/2  loss 0.5000  accuracy 0.9000  2.50 s  best",
        "epoch    2/2  loss 0.5000  accuracy 0.9100  2.50 s  best",
        "final    2/2  accuracy 0.9100  2.50 s",
        "train    completed in 12.3 s",
    ]


def test_what_is_evaluated_in_between_is_a_line_of_its_own(plain: Callable[[list[Event]], str], story: Story) -> None:
    events = story("train")
    asked = next(event for event in story("val") if isinstance(event, ValEnd)).model_copy(
        update={"run": events[0].run, "aside": True}
    )
    shown = [*events[:-2], asked, *events[-2:]]
    assert "aside    accuracy 0.9000  loss 0.2500  8 samples, 0.50 s" in plain(shown).splitlines()
    assert any("aside" in line and "accuracy 0.9000" in line for line in drawn(shown).splitlines())


def test_validation_alone_is_a_line_of_its_own(plain: Callable[[list[Event]], str], story: Story) -> None:
    assert "val      accuracy 0.9000  loss 0.2500  8 samples, 0.50 s" in plain(story("val")).splitlines()


def test_predictions_come_one_a_line_as_json(plain: Callable[[list[Event]], str], story: Story) -> None:
    assert plain(story("predict")).splitlines() == [
        "predict  Net on cpu, run p",
        '0\t{"digit": 7}',
        '1\t{"digit": 3}',
        "predict  2 inputs in 1 batch, 0.10 s",
        "predict  stopped in 0.20 s: nobody reads",
    ]


def test_an_export_says_how_far_the_file_is_from_the_module(plain: Callable[[list[Event]], str], story: Story) -> None:
    shown = plain(story("export"))
    assert "net.onnx  312 kB, verified: largest difference 6.0e-06 (allowed 1e-04), 2.50 s" in shown


def test_trouble_is_said(plain: Callable[[list[Event]], str], story: Story) -> None:
    assert plain(story("trouble")).splitlines() == [
        "warning  epoch 2, batch 5: loss nan",
        "warning  webhook failed on ValEnd: OSError: refused; it is switched off",
        "warning  slow missed 20 events (overflow)",
        "train    failed in 1.00 s: OSError: refused",
    ]


@pytest.mark.parametrize("kind", ["train", "val", "export", "predict", "trouble"])
def test_plain_lines_hold_no_control_characters(plain: Callable[[list[Event]], str], story: Story, kind: str) -> None:
    assert plain(story(kind)).replace("\n", "").replace("\t", "").isprintable()


def test_of_a_loop_of_ones_own_no_device_is_named(plain: Callable[[list[Event]], str]) -> None:
    said = plain([RunStart(run="own-1", kind="train", model="own", device="")])
    assert said == "train    own, run own-1\n"


def test_other_ranks_stay_silent(plain: Callable[[list[Event]], str], story: Story) -> None:
    assert plain([event.model_copy(update={"rank": 1}) for event in story("train")]) == ""


def test_it_travels_to_another_process(capsys: pytest.CaptureFixture[str], story: Story) -> None:
    progress = Progress(plain=True)
    progress(story("val")[0])
    pickle.loads(pickle.dumps(progress))(story("val")[0])
    assert capsys.readouterr().out == "val      Net on cpu, run v\n" * 2


# -- drawn: what a terminal gets


def test_a_row_an_epoch_stays_under_one_header(story: Story) -> None:
    shown = drawn(story("train"))
    assert shown.count("epoch     loss   accuracy") == 1
    assert "1/2   0.5000     0.9000     0.01   2.50 s ★" in shown
    assert "2/2   0.5000     0.9100     0.01   2.50 s ★" in shown
    assert "completed in 12.3 s" in shown


def test_bars_show_epochs_batches_losses_rates_and_the_time_left(story: Story) -> None:
    events = story("train")
    first_batch = next(index for index, event in enumerate(events) if isinstance(event, TrainBatchEnd))
    shown = drawn(events[: first_batch + 1])
    assert "epochs" in shown
    assert "1/2" in shown
    assert "0:03 left" in shown  # a quarter took one second
    assert "loss 0.5000  lr 0.01" in shown


def test_a_run_that_a_number_of_steps_ends_has_a_bar_of_them_and_the_time_that_they_take(story: Story) -> None:
    events = story("train")
    first_batch = next(index for index, event in enumerate(events) if isinstance(event, TrainBatchEnd))
    begin = events[0].model_copy(update={"config": {"max_steps": 3}})
    shown = drawn([begin, *events[1 : first_batch + 1]])
    assert "1/2" in shown
    assert "steps" in shown
    assert "1/3" in shown
    assert "0:02 left" in shown  # of three steps one took a second


def test_the_bar_of_a_loop_of_ones_own_shows_its_loss_beside_what_else_it_logs_and_no_loss_where_it_logs_none() -> None:
    begin: Event = RunStart(run="own", kind="train", model="own", device="")
    place: dict[str, Any] = {"run": "own", "epoch": 0, "batch": 0, "batches": 2, "batch_size": 1, "step": 1, "lr": {}}
    both = drawn([begin, TrainBatchEnd(**place, loss=0.5, losses={"reward": 2.0})])
    assert "loss 0.5000  reward 2.0000" in both
    other = drawn([begin, TrainBatchEnd(**place, loss=math.nan, losses={"reward": 2.0})])
    assert "reward 2.0000" in other
    assert "loss" not in other


def test_validation_within_training_has_its_bar(story: Story) -> None:
    assert "validate" in drawn(story("train"))


def test_an_export_shows_the_phase_in_work(story: Story) -> None:
    assert "capture 1.50 s  lower …" in drawn(story("export")[:3])


def test_an_export_waits_for_no_phase_that_its_format_does_not_have() -> None:
    shown: list[Event] = [
        RunStart(run="x", kind="export", model="Net", device="cpu"),
        ExportStart(run="x", format="pt2", path=Path("net.pt2"), dynamic_batch=True),
        ExportPhase(run="x", format="pt2", phase="capture", duration=1.5),
        ExportPhase(run="x", format="pt2", phase="save", duration=0.5),
    ]
    assert "capture 1.50 s  save …" in drawn(shown[:-1])
    assert "capture 1.50 s  save 0.50 s  verify …" in drawn(shown)
    assert "lower" not in drawn(shown)


def test_predictions_stay_as_lines(story: Story) -> None:
    assert '1        {"digit": 3}' in drawn(story("predict"))


def test_the_cursor_is_shown_again_when_the_last_run_ends(story: Story) -> None:
    hide, show = "\x1b[?25l", "\x1b[?25h"
    shown = drawn(story("train"))
    assert hide in shown
    assert shown.rindex(show) > shown.rindex(hide)


def test_two_runs_at_once_are_drawn_below_each_other(story: Story) -> None:
    train, predict = story("train"), story("predict")
    shown = drawn([*train[:4], *predict[:3], *train[4:], *predict[3:]])
    assert "completed in 12.3 s" in shown
    assert "stopped in 0.20 s: nobody reads" in shown


def test_nothing_is_wider_than_the_terminal(story: Story) -> None:
    names = {f"a_metric_of_name_{number}": 0.5 for number in range(9)}
    events = [e.model_copy(update={"metrics": names}) if isinstance(e, FitEpochEnd) else e for e in story("train")]
    terminal = io.StringIO()
    display = LiveDisplay(console=Console(file=terminal, force_terminal=False, width=60))
    for event in events:
        display.show(event)
    assert max(len(line) for line in terminal.getvalue().splitlines()) <= 60


def test_on_a_narrow_terminal_it_is_the_notes_that_give_way(story: Story) -> None:
    events = story("train")
    first_batch = next(index for index, event in enumerate(events) if isinstance(event, TrainBatchEnd))
    losses = {f"a_loss_of_name_{number}": 0.5 for number in range(9)}
    shown = drawn([*events[:first_batch], events[first_batch].model_copy(update={"losses": losses})], width=60)
    assert " batches  ━" in shown
    assert " 1/2 " in shown


def test_an_unknown_number_of_epochs_or_batches_is_fine(story: Story) -> None:
    unknown = {"epochs": None, "batches": None}
    events = [
        e.model_copy(update={name: None for name in unknown if hasattr(e, name)})
        if not isinstance(e, (RunStart, RunEnd))
        else e
        for e in story("train")
    ]
    assert "1/?" in drawn(events)


def test_events_of_runs_that_began_before_are_ignored(story: Story) -> None:
    assert drawn(story("train")[3:6]) == ""
