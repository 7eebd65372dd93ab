"""A run as a figure."""
# pyright: reportUnknownMemberType=false
# The types of matplotlib are unfinished.

from __future__ import annotations

import io
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.lines import Line2D

from lineside import Bus, Event, FitEpochEnd, RunEnd, TrainBatchEnd
from lineside.bus.journal import Journal
from lineside.bus.notebook import MatplotlibMissing, NoRun, NothingToPlot
from lineside.bus.notebook.curves import Story
from lineside.bus.notebook.plot import RunFigure, draw
from lineside.runners import TrackedRun
from tests.runners.support import make_trainer
from tests.snippets import run_code


def titles(figure: RunFigure) -> list[str]:
    return [axes.get_title(loc="left") for axes in figure.axes]


def test_a_figure_shows_what_the_events_say() -> None:
    run = make_trainer(Path("none"), epochs=3, save=False).start()
    run.result(60)
    figure = run.plot()
    losses, epochs = figure.axes[0], figure.axes[1]
    batches = [event.loss for event in run.stream(TrainBatchEnd)]
    assert np.array_equal(np.asarray(losses.lines[0].get_ydata()), batches)
    told = [event for event in run.stream(FitEpochEnd) if not event.final]
    assert np.array_equal(np.asarray(epochs.lines[0].get_ydata()), [event.losses["loss"] for event in told])
    assert np.array_equal(np.asarray(epochs.lines[0].get_xdata()), [1, 2, 3])
    assert np.array_equal(np.asarray(epochs.lines[1].get_ydata()), [event.metrics["loss"] for event in told])
    assert [line.get_label() for line in epochs.lines] == ["train", "validation"]
    rates = [next(iter(event.lr.values())) for event in run.stream(TrainBatchEnd)]
    assert np.array_equal(np.asarray(figure.axes[-1].lines[0].get_ydata()), rates)
    assert figure.get_suptitle() == f"{run.id}   ·   completed"
    assert titles(figure)[-1] == "learning rate"


def test_chosen_curves_are_drawn_in_the_order_asked_for() -> None:
    run = make_trainer(Path("none"), epochs=2, save=False).start()
    run.result(60)
    assert titles(run.plot("lr", "loss"))[0] == "learning rate"
    with pytest.raises(NothingToPlot, match=r"'los'.*there are .*loss"):
        run.plot("los")


def test_something_to_compare_with_that_is_no_run_is_refused() -> None:
    run = make_trainer(Path("none"), epochs=1, save=False).start()
    run.result(60)
    wrong: list[Any] = ["another", ["another"], 3]
    for against in wrong:
        with pytest.raises(NoRun, match=r"expected a run, or a list of runs; .*Journal\('runs/'\)\.plot"):
            run.plot(against=against)


def test_runs_are_compared_in_the_same_axes(tmp_path: Path) -> None:
    with Bus(tmp_path) as bus:
        runs = [make_trainer(Path("none"), epochs=2, save=False, bus=bus).start() for _ in range(2)]
        for run in runs:
            run.result(60)
        compared = runs[0].plot("loss", against=runs[1:])
    stored = Journal(tmp_path).plot(runs[0].id, runs[1].id, curves=["loss"])
    for figure in (compared, stored):
        assert len(figure.axes[0].lines) == 2
        assert [text.get_text() for text in figure.legends[0].get_texts()] == [f"{run.id} · completed" for run in runs]


def test_what_a_loop_of_ones_own_logs_in_its_only_epoch_is_drawn_by_batches_too() -> None:
    with Bus() as bus, TrackedRun(bus, "own") as run:
        for number in run.track(range(4)):
            run.log(loss=1.0, reward=number)
        once = titles(run.plot())
        for number in run.track(range(4)):
            run.log(loss=1.0, reward=number)
    assert once == ["loss by batch", "reward by batch"]
    assert titles(run.plot()) == ["loss by batch", "loss by epoch", "reward by epoch"]
    with Bus() as bus, TrackedRun(bus, "own") as run:
        for number in run.track(range(4)):
            run.log(reward=number)
    assert titles(run.plot()) == ["reward by batch", "reward by epoch"]
    with Bus() as bus, TrackedRun(bus, "own") as run:
        for number in run.track(range(4)):
            run.log(loss=1.0, reward=number)
    assert titles(run.plot()) == ["loss by batch", "loss by epoch", "reward by batch", "reward by epoch"]


def test_a_run_that_is_over_and_told_nothing_to_draw_gives_a_figure_that_says_so() -> None:
    with Bus() as bus, TrackedRun(bus, "nothing") as run:
        pass
    assert [text.get_text() for text in run.plot().texts if text.get_text()][-1] == "nothing to draw"


def test_a_run_that_told_nothing_yet_gives_a_figure_that_says_so() -> None:
    with Bus() as bus:
        figure = TrackedRun(bus, "nothing").plot()
    assert [text.get_text() for text in figure.texts if text.get_text()][-1] == "nothing to draw yet"


def test_losses_that_are_no_numbers_leave_gaps() -> None:
    with Bus() as bus, TrackedRun(bus, "gaps") as run:
        for number in run.track([1, 2, 3]):
            run.log(loss=math.inf if number == 2 else 1.0 * number)
        figure = run.plot("loss")
    assert np.array_equal(np.asarray(figure.axes[0].lines[0].get_ydata()), [1.0, math.nan, 3.0], equal_nan=True)


def test_a_figure_saves_itself_and_shows_itself() -> None:
    with Bus() as bus, TrackedRun(bus, "saved") as run:
        for _ in run.track(range(100)):
            run.log(loss=1.0)
        figure = run.plot()
    figure.savefig(file := io.BytesIO(), format="png")
    assert file.getvalue().startswith(b"\x89PNG")
    data, size = figure._repr_png_()  # pyright: ignore[reportPrivateUsage]  # what a notebook asks for
    assert data.startswith(b"\x89PNG")
    assert size["width"] == round(figure.get_size_inches()[0] * 100)


def test_the_best_value_is_said_of_one_run_and_only_ringed_where_those_of_others_could_lie_over_it() -> None:
    runs = [make_trainer(Path("none"), epochs=2, save=False).start() for _ in range(2)]
    best = [run.result(60).best_fitness for run in runs]
    alone, both = runs[0].plot("metrics").axes[0], runs[0].plot("metrics", against=runs[1:]).axes[0]
    assert [text.get_text() for text in alone.texts] == [f"{best[0]:.4g}"]
    assert not both.texts
    assert (len(alone.lines), len(both.lines)) == (2, 4)  # a curve and a ring each


def lines(figure: RunFigure, panel: int = 0) -> list[Line2D]:
    return list(figure.axes[panel].lines)


def drawn(run: TrackedRun, values: list[float], *curves: str) -> RunFigure:
    """Return a figure of `run`, in which these losses are logged."""
    with run:
        for value in run.track(values):
            run.log(loss=value)
    figure = run.plot(*curves)
    figure.savefig(io.BytesIO(), format="png")
    return figure


@pytest.mark.parametrize("count", [5, 90])
def test_a_number_that_has_none_beside_it_is_a_dot(count: int) -> None:
    with Bus() as bus:
        values = [math.nan] * count
        values[2] = 1.0
        figure = drawn(TrackedRun(bus, "one"), values, "loss")
    assert lines(figure)[0].get_marker() == "o"
    assert lines(figure)[0].get_markevery() == [2]


def test_a_line_of_many_epochs_has_a_dot_only_where_nothing_else_would_be_seen() -> None:
    with Bus() as bus:
        with TrackedRun(bus, "many") as run:
            for epoch in range(50):
                for _ in run.track([1]):
                    run.log(loss=1.0)
                run.log(accuracy=math.nan if epoch in (20, 22) else 0.5)
        assert lines(run.plot("metrics.accuracy"))[0].get_markevery() == [21]


def test_losses_that_no_axis_has_room_for_leave_gaps() -> None:
    with Bus() as bus:
        figure = drawn(TrackedRun(bus, "huge"), [1.0, 1.7e308, -1.7e308, 2.0], "loss")
    assert np.array_equal(np.asarray(lines(figure)[0].get_ydata()), [1.0, math.nan, math.nan, 2.0], equal_nan=True)


def test_an_epoch_is_a_whole_number_also_where_there_is_one() -> None:
    with Bus() as bus:
        figure = drawn(TrackedRun(bus, "one"), [1.0, 2.0])
    for axes in figure.axes:
        assert all(float(tick).is_integer() for tick in axes.get_xticks())


def test_names_are_written_as_they_are_and_no_formula() -> None:
    with Bus() as bus, TrackedRun(bus, "names") as run:
        for _ in run.track([1]):
            run.log(loss=1.0, lr={"$a_{$": 0.1, "_b": 0.2})
        run.log({"cost $_{$": 1.0})
    figure = run.plot()
    figure.savefig(io.BytesIO(), format="png")
    assert "cost $_{$" in titles(figure)
    legend = figure.axes[-1].get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["$a_{$", "_b"]


@pytest.mark.parametrize("count", [2, 4])
def test_the_legend_of_several_runs_is_within_the_figure(count: int) -> None:
    with Bus() as bus:
        runs = [TrackedRun(bus, id=f"train-20261122-071522-9f3{number}") for number in range(count)]
        for run in runs:
            drawn(run, [1.0, 2.0])
        figure = runs[0].plot("loss", against=runs[1:])
    figure.savefig(io.BytesIO(), format="png")
    assert figure.bbox.x1 >= figure.legends[0].get_window_extent().x1


def test_another_run_may_be_given_as_it_is() -> None:
    with Bus() as bus:
        first, second = TrackedRun(bus, "first"), TrackedRun(bus, "second")
        drawn(second, [1.0, 2.0])
        drawn(first, [1.0, 2.0])
        assert len(lines(first.plot("loss", against=second))) == 2


def test_only_what_some_run_has_is_named_beside_the_title() -> None:
    validated = [make_trainer(Path("none"), epochs=2, save=False).start() for _ in range(2)]
    trained = [make_trainer(Path("none"), epochs=2, save=False, validate=False).start() for _ in range(2)]
    for run in (*validated, *trained):
        run.result(60)
    figure = validated[0].plot("losses", against=validated[1:])
    legend = figure.axes[0].get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["train", "validation"]
    figure.savefig(io.BytesIO(), format="png")
    assert legend.get_window_extent().y0 >= figure.axes[0].bbox.y1  # above the lines
    assert trained[0].plot("losses", against=trained[1:]).axes[0].get_legend() is None


@pytest.mark.parametrize("has_length", [True, False])
def test_what_a_resumed_run_did_again_is_drawn_once(has_length: bool) -> None:
    def attempt(number: int, batches: range) -> Iterator[Event]:
        base: dict[str, Any] = {"run": "r", "attempt": number}
        for batch in batches:
            place: dict[str, Any] = {"epoch": batch // 4, "batch": batch % 4, "batches": 4 if has_length else None}
            values: dict[str, Any] = {"step": batch + 1, "loss": 1.0 * number, "losses": {}, "lr": {}}
            yield TrainBatchEnd(**base, **place, **values, batch_size=2)
            if batch % 4 == 3:
                unknown: dict[str, Any] = dict.fromkeys(("fitness", "best_fitness", "best_epoch", "best", "last"))
                means: dict[str, Any] = {"losses": {"loss": 1.0 * number}, "metrics": {}, "duration": 1.0}
                yield FitEpochEnd(**base, epoch=batch // 4, epochs=3, **means, **unknown)
        yield RunEnd(**base, kind="train", outcome="stopped" if number == 1 else "completed", duration=1.0)

    events = [*attempt(1, range(10)), *attempt(2, range(6, 9))]
    story = Story("r", events)
    assert story.curves["loss"].x == [1, 2, 3, 4, 5, 6, 7, 8, 9]
    assert story.curves["loss"].y == [1.0] * 6 + [2.0] * 3
    assert (story.curves["epochs.loss"].x, story.curves["epochs.loss"].y) == ([1, 2], [1.0, 2.0])
    assert story.state == "completed"
    assert Story("r", events[:-1]).state == "running"


@pytest.mark.slow
def test_drawing_touches_no_state_of_pyplot() -> None:
    code = """
    import io, sys
    from lineside.bus.notebook.curves import Story
    from lineside.bus.notebook.plot import draw
    draw([Story("plain", [])]).savefig(io.BytesIO(), format="png")
    print("matplotlib.pyplot" in sys.modules)
    """
    assert run_code(code) == "False\n"


def test_without_matplotlib_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, "lineside.bus.notebook.plot")
    with Bus() as bus, pytest.raises(MatplotlibMissing, match=r"pip install 'lineside\[notebook\]'"):
        TrackedRun(bus, "plain").plot()


def test_the_loss_of_a_first_epoch_is_drawn_once() -> None:
    size: dict[str, Any] = {"run": "young", "epoch": 0, "batches": 4, "batch_size": 2, "lr": {}}
    batches = [TrainBatchEnd(**size, batch=n, step=n + 1, loss=1.0, losses={"loss": 1.0}) for n in range(3)]
    story = Story("young", batches)
    assert titles(draw([story])) == ["loss by batch"]
    assert titles(draw([story], ["losses"])) == ["loss by batch"]
