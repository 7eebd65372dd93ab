"""A run as a figure."""
# pyright: reportUnknownMemberType=false
# The types of matplotlib are unfinished.

from __future__ import annotations

import io
import math
import sys
from pathlib import Path

import numpy as np
import pytest

from lineside import Bus, FitEpochEnd, TrainBatchEnd
from lineside.bus.journal import Journal
from lineside.bus.notebook import MatplotlibMissing, NothingToPlot
from lineside.bus.notebook.plot import RunFigure
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
