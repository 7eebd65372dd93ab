from __future__ import annotations

import re
from collections.abc import Callable
from itertools import pairwise

import pytest

from lineside.bus.journal import Journal

from .notebooks import NAMES, VIEW, Executed, execute, read

Executor = Callable[[str], Executed]


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> Executor:
    """Executes a notebook once for all tests."""
    known: dict[str, Executed] = {}

    def once(name: str) -> Executed:
        if name not in known:
            known[name] = execute(name, tmp_path_factory.mktemp(name))
        return known[name]

    return once


@pytest.fixture
def watching(executed: Executor) -> Executed:
    return executed("watching")


@pytest.fixture
def steering(executed: Executor) -> Executed:
    return executed("steering")


@pytest.fixture
def comparing(executed: Executor) -> Executed:
    return executed("comparing")


# ---- all of them


def test_there_is_one_on_watching_one_on_steering_and_one_on_comparing() -> None:
    assert NAMES == ["comparing", "steering", "watching"]


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_is_kept_without_outputs(name: str) -> None:
    cells = [cell for cell in read(name).cells if cell.cell_type == "code"]
    assert [(cell.execution_count, cell.outputs) for cell in cells] == [(None, [])] * len(cells)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_no_cell_warns(executed: Executor, name: str) -> None:
    outputs = [output for cell in executed(name).cells for output in cell.outputs]
    assert [output["text"] for output in outputs if output.get("name") == "stderr"] == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "kept"), [("watching", ""), ("steering", "runs/train-"), ("comparing", "runs/widths/")]
)
def test_a_notebook_leaves_nothing_but_its_runs(executed: Executor, name: str, kept: str) -> None:
    left = executed(name).left
    assert bool(left) == bool(kept)
    assert {file for file in left if not file.startswith(kept)} == set()


# ---- watching


@pytest.mark.slow
def test_a_run_shows_itself_as_a_widget_and_as_a_text(watching: Executed) -> None:
    shown = watching.cell("run = trainer.start()").shown
    assert shown[VIEW]["model_id"]
    assert re.match(r"<Run train-\S+ (not begun|running), ", shown["text/plain"])


@pytest.mark.slow
def test_a_cell_waits_for_an_epoch_and_for_a_batch(watching: Executed) -> None:
    epoch, batch = watching.cell("await run.next").lines
    assert re.fullmatch(r"epoch \d+: accuracy 0\.\d+", epoch)
    assert 0 < float(batch.partition(": loss ")[2]) < 0.5


@pytest.mark.slow
def test_a_stream_gives_the_epochs_from_the_first_in_their_order(watching: Executed) -> None:
    lines = watching.cell("async for").lines
    assert [line.partition(":")[0] for line in lines] == [f"epoch {number}" for number in range(5)]


@pytest.mark.slow
def test_the_frame_has_a_row_for_each_batch(watching: Executed) -> None:
    head, *rows = watching.cell("run.frame").table
    assert head == ["epoch", "batch", "step", "loss", "lr.0"]
    assert len(rows) == 5
    for index, epoch, batch, step, loss, rate in rows:
        assert int(step) == int(index) + 1 == 20 * int(epoch) + int(batch) + 1
        assert float(loss) > 0
        assert float(rate) == 0.001


@pytest.mark.slow
def test_the_figure_is_a_picture(watching: Executed) -> None:
    width, height = watching.cell("run.plot()").picture
    assert width > height > 500


@pytest.mark.slow
def test_the_run_stops_and_the_callback_noted_each_best_epoch(watching: Executed) -> None:
    stopped, *bests = watching.cell("run.stop").lines
    assert re.fullmatch(r"stopped after \d+ epochs: seen enough", stopped)
    noted = [re.findall(r"epoch (\d+) was the best so far: (\S+)", line)[0] for line in bests]
    assert noted[0][0] == "0"
    assert len(noted) > 1
    for (epoch, accuracy), (later, better) in pairwise(noted):
        assert int(epoch) < int(later)
        assert float(accuracy) <= float(better)


@pytest.mark.slow
def test_a_loop_of_the_users_own_shows_itself_and_has_a_frame(watching: Executed) -> None:
    assert VIEW in watching.cell("bus.run(").shown
    head, *rows = watching.cell("mine.frame").table
    assert head == ["epoch", "losses.loss", "metrics.accuracy"]
    assert [int(epoch) for _, epoch, *_ in rows] == [0, 1, 2, 3, 4]
    assert float(rows[0][2]) > float(rows[-1][2])
    assert float(rows[-1][3]) > 0.8


# ---- steering


@pytest.mark.slow
def test_the_run_waits_for_the_hook_that_halves_the_learning_rate(steering: Executed) -> None:
    lines = steering.cell("async for").lines
    assert lines == [
        f"epoch {epoch}: learning rate {rate}" for epoch, rate in enumerate(("0.001", "0.001", *2 * ["0.0005"]))
    ]


@pytest.mark.slow
def test_what_is_changed_while_the_run_is_held_counts_from_the_next_epoch(steering: Executed) -> None:
    held, went_on = steering.cell('group["lr"] /= 10').lines
    number = int(re.findall(r"epoch (\d+): held", held)[0])
    ((later, rate),) = re.findall(r"epoch (\d+): running, learning rate (\S+)", went_on)
    assert int(later) > number
    assert rate == "5e-05"


@pytest.mark.slow
def test_a_held_run_is_evaluated_on_other_data_and_keeps_a_checkpoint(steering: Executed) -> None:
    found, kept = steering.cell("run.evaluate").lines
    (accuracy,) = re.findall(r"epoch \d+: accuracy (\S+) on 270 digits held back", found)
    assert float(accuracy) > 0.8
    assert kept.removeprefix("kept in ") in steering.left


@pytest.mark.slow
def test_who_holds_a_run_and_awaits_it_is_told_why_not(steering: Executed) -> None:
    (line,) = steering.cell("WouldDeadlock").lines
    assert line.startswith("await run would wait for ever: run train-")
    assert "a hold on TrainEpochEnd" in line


@pytest.mark.slow
def test_a_run_is_paused_resumed_and_stopped(steering: Executed) -> None:
    paused, running, stopped = steering.cell("run.pause()").lines
    assert (paused, running) == ("paused", "running")
    assert re.fullmatch(r"stopped after \d+ epochs: good enough", stopped)


@pytest.mark.slow
def test_the_checkpoint_is_where_the_run_goes_on(steering: Executed) -> None:
    found, kept = steering.cell("run.evaluate").lines
    epoch, run = int(re.findall(r"epoch (\d+)", found)[0]), kept.split("/")[1]
    assert VIEW in steering.cell("resume=kept").shown
    (line,) = steering.cell("await resumed").lines
    assert line == f"attempt 2 of {run}: completed, epochs {epoch + 1} to {epoch + 2}"


# ---- comparing


@pytest.mark.slow
def test_three_runs_are_compared_and_the_best_is_named(comparing: Executed) -> None:
    said = dict(re.findall(r"(\S+): completed, accuracy (\S+)", "\n".join(comparing.cell("runs = []").lines)))
    assert [run.rpartition("-")[0] for run in said] == ["width-2", "width-8", "width-24"]
    head, _, *rows = comparing.cell("best = ").table
    assert head == ["epoch", "metrics.accuracy", "parameters"]
    accuracies = {run: float(accuracy) for run, _, accuracy, _ in rows}
    assert set(accuracies) == set(said)
    assert all(accuracies[run] > float(last) - 0.001 for run, last in said.items())
    assert list(accuracies) == sorted(accuracies, key=lambda run: -accuracies[run])
    assert comparing.cell("is the best").lines == [f"{rows[0][0]} is the best: {float(rows[0][2]):.3f}"]


@pytest.mark.slow
def test_the_journal_has_the_three_runs_and_keeps_them(comparing: Executed) -> None:
    lines = comparing.cell("journal.runs()").lines
    runs = [line.partition(":")[0] for line in lines]
    assert all(": finished, epoch 5 of 5, " in line for line in lines)
    assert [summary.run for summary in Journal(comparing.folder / "runs" / "widths").runs()] == runs
    assert len(runs) == 3


@pytest.mark.slow
@pytest.mark.parametrize("cell", ["against=wider", "curves[best.index]", "journal.plot"])
def test_the_figures_of_several_runs_are_pictures(comparing: Executed, cell: str) -> None:
    width, height = comparing.cell(cell).picture
    assert width > height > 300


@pytest.mark.slow
def test_our_figures_are_as_sharp_after_somebody_else_drew_with_pyplot(comparing: Executed) -> None:
    before, after = comparing.cell("against=wider").picture, comparing.cell("journal.plot").picture
    assert after == before
