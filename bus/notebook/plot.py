"""Plots: runs as a figure of matplotlib, without the state of pyplot."""
# pyright: reportUnknownMemberType=false
# The types of matplotlib are unfinished.

from __future__ import annotations

import importlib
import io
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

from .curves import Curve, Story
from .errors import MatplotlibMissing, NothingToPlot

try:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.font_manager import FontProperties
    from matplotlib.layout_engine import ConstrainedLayoutEngine
    from matplotlib.lines import Line2D
    from matplotlib.textpath import TextToPath
    from matplotlib.ticker import MaxNLocator
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] not in ("matplotlib", "numpy"):
        raise
    raise MatplotlibMissing from None

COLORS = ("#2563eb", "#ea580c", "#059669", "#7c3aed", "#db2777", "#0891b2", "#a16207", "#475569")
INK, PALE = "#1e293b", "#64748b"
WIDTH, HEIGHT = 4.4, 3.0
"""Of one panel, in inches."""
MARGIN = 0.7
"""What the labels of the y axis and the space beside it take of that width."""
TITLE, LEGEND, RUNS = 10, 8, 9
"""Sizes of the type of a panel's title, of its legend, and of the legend of the runs."""
DOTTED = 40
"""Epochs up to which each is marked."""
SMOOTHED = 30
"""Points from which on a curve of batches is drawn smoothed as well; the window is that part of it."""
DECADES = 1.5
"""Powers of ten that a loss spans where its axis becomes logarithmic."""


class RunFigure(Figure):
    """A figure that a notebook shows by itself."""

    def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
        file = io.BytesIO()
        self.savefig(file, format="png", dpi=2 * self.dpi)  # sharp on screens of twice the density
        width, height = self.get_size_inches() * self.dpi
        return file.getvalue(), {"width": round(width), "height": round(height)}

    def _ipython_display_(self) -> None:
        """Show it. Once pyplot is in use, IPython would draw it by itself: half as sharp, and never without axes."""
        show = cast("Callable[..., object]", importlib.import_module("IPython.display").display)
        picture, size = self._repr_png_()
        show({"text/plain": repr(self), "image/png": picture}, metadata={"image/png": size}, raw=True)


@dataclass(frozen=True)
class Panel:
    """One pair of axes: the curves of some names, of all runs."""

    title: str
    x: str
    names: tuple[str, ...]


def draw(stories: Sequence[Story], curves: Sequence[str] = ()) -> RunFigure:
    """Return a figure of the runs `stories`, with the panels that `curves` ask for, or all.

    Raises:
        NothingToPlot: no run has a curve of that name.
    """
    panels = _panels(stories, curves)
    columns = min(len(panels), 2 if len(panels) == 4 else 3) or 1
    rows = math.ceil(len(panels) / columns) or 1
    figure = RunFigure(figsize=(max(WIDTH * columns, 6.4), HEIGHT * rows + 0.6), dpi=100)
    figure.set_layout_engine(ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.12))
    _entitle(figure, stories)
    if not panels:
        nothing = "nothing to draw yet" if any(story.state == "running" for story in stories) else "nothing to draw"
        figure.text(0.5, 0.45, nothing, ha="center", va="center", color=PALE, fontsize=12)
    for place, panel in enumerate(panels, 1):
        axes = figure.add_subplot(rows, columns, place)
        _dress(axes, panel)
        _fill(axes, panel, stories)
    return figure


# ---- what is drawn


def _panels(stories: Sequence[Story], curves: Sequence[str]) -> list[Panel]:
    names = list(dict.fromkeys(name for story in stories for name in story.curves))
    means = {name for story in stories for name, curve in story.curves.items() if len(curve.x) > 1}
    panels = list(_all_panels(names, means if "loss" in names else set()))
    if not curves:
        # Before an epoch is over, the loss by its name is drawn by batches, too.
        drawn = {"fitness", "losses.loss"} if "loss" in names else {"fitness"}
        return [panel for panel in panels if panel.title not in drawn]
    return [panel for curve in curves for panel in _asked(panels, curve, names)]


def _all_panels(names: Sequence[str], means: Collection[str]) -> Iterator[Panel]:
    """Yield a panel for each value that there is, in the order of a figure that shows them all.

    Parts of a loss are drawn by epochs where those in `means` are curves. The mean of a single epoch is none, and where
    there is no loss, it is the parts that tell how the batches go.
    """
    if "loss" in names:
        yield Panel("loss", "batch", ("loss",))
    epochs = [name.partition(".")[2] for name in names if name.startswith("epochs.")]
    for name in epochs:
        batches = f"losses.{name}"
        if name != "loss" and batches in names and f"epochs.{name}" not in means:
            yield Panel(batches, "batch", (batches,))
        yield Panel(name if name == "loss" else f"losses.{name}", "epoch", (f"epochs.{name}", f"val.{name}"))
    for name in names:
        if name.startswith("losses.") and name.partition(".")[2] not in epochs:
            yield Panel(name, "batch", (name,))
    for name in names:
        if name.startswith("metrics.") or name == "fitness":
            yield Panel(name, "epoch", (name,))
    rates = tuple(name for name in names if name.startswith("lr."))
    if rates:
        yield Panel("lr", "batch", rates)


def _asked(panels: Sequence[Panel], curve: str, names: Sequence[str]) -> list[Panel]:
    found = [panel for panel in panels if panel.title == curve or panel.title.startswith(f"{curve}.")]
    if curve == "losses":
        found = [panel for panel in panels if panel.names[0].startswith(("epochs.", "losses."))]
    if not found and curve in names:
        found = [Panel(curve, "batch", (curve,))]
    if not found:
        raise NothingToPlot(curve, dict.fromkeys(panel.title for panel in panels))
    return found


# ---- how it looks


def _entitle(figure: RunFigure, stories: Sequence[Story]) -> None:
    if len(stories) == 1:
        (story,) = stories
        figure.suptitle(f"{story.run}   ·   {story.state}", x=0.015, ha="left", color=INK, fontsize=11, weight="bold")
        return
    handles = [Line2D([], [], color=_color(place), linewidth=2.5) for place in range(len(stories))]
    labels = [f"{story.run} · {story.state}" for story in stories]
    room = figure.get_size_inches()[0] // max(_width(label, RUNS) for label in labels)
    columns = int(min(max(room, 1), 3, len(stories)))
    figure.legend(handles, labels, loc="outside upper left", ncols=columns, frameon=False, fontsize=RUNS)


def _width(label: str, size: int, *, handle: bool = True) -> float:
    """Return the inches that `label` takes, in a legend with its line and the space around it."""
    width = TextToPath().get_text_width_height_descent(label, FontProperties(size=size), False)[0]
    return (width + (5.0 * size if handle else 0.0)) / 72


def _dress(axes: Axes, panel: Panel) -> None:
    axes.set_title(_title(panel), loc="left", fontsize=TITLE, color=INK, pad=8, parse_math=False)
    axes.set_xlabel(panel.x, fontsize=8.5, color=PALE, loc="right")
    axes.tick_params(which="both", labelsize=8, colors=PALE, length=0)
    axes.grid(visible=True, color="#e2e8f0", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color("#cbd5e1")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, min_n_ticks=1))


def _title(panel: Panel) -> str:
    title = panel.title.removeprefix("metrics.").removeprefix("losses.")
    by = f" by {panel.x}" if panel.names[0].startswith(("loss", "epochs.")) else ""
    return "learning rate" if title == "lr" else title + by


def _fill(axes: Axes, panel: Panel, stories: Sequence[Story]) -> None:
    drawn: list[Curve] = []
    labels: dict[str, Line2D] = {}
    names = [name for name in panel.names if any(name in story.curves for story in stories)]
    for place, story in enumerate(stories):
        there = [(name, story.curves[name]) for name in names if name in story.curves]
        for name, curve in there:
            drawn.append(curve)
            order = names.index(name)
            color = _color(place if len(stories) > 1 else order)
            style: Literal["--", "-"] = (
                "--" if len(stories) > 1 and len(names) > 1 and name.startswith("epochs.") else "-"
            )
            label = _label(name)
            draw = _draw_steps if panel.x == "batch" else _draw_epochs
            line = draw(axes, curve, color=color, linestyle=style, label=label)
            if len(stories) == 1:
                labels[label] = line
            elif panel.x == "epoch":  # the colours say which run it is
                labels[label] = Line2D([], [], color=PALE, linestyle=style)
        if panel.title.startswith("metrics.") and there:
            _mark_best(axes, there[0][1], story.best, _color(place), say=len(stories) == 1)
    if len(labels) > 1:
        _add_legend(axes, panel, labels)
    if not any(math.isfinite(value) for curve in drawn for value in curve.y):
        axes.text(0.5, 0.5, "no finite value", transform=axes.transAxes, ha="center", va="center", color=PALE)
        axes.set(xticks=[], yticks=[])
    elif panel.names[0].split(".")[0] in ("loss", "losses", "epochs") and _spans_decades(drawn):
        axes.set_yscale("log")


def _color(place: int) -> str:
    return COLORS[place % len(COLORS)]


def _label(name: str) -> str:
    group, _, rest = name.partition(".")
    return {"epochs": "train", "val": "validation"}.get(group, rest or name)


def _draw_steps(axes: Axes, curve: Curve, **style: Any) -> Line2D:
    points = len(curve.y)
    if points < 2 * SMOOTHED or len(set(curve.y)) <= points // 4:
        return _draw_line(axes, curve.x, curve.y, _alone(curve.y), linewidth=1.6, **style)
    _draw_line(axes, curve.x, curve.y, _alone(curve.y), linewidth=0.6, alpha=0.3, **{**style, "label": ""})
    smooth = _smoothed(curve.y)
    return _draw_line(axes, curve.x, smooth, _alone(smooth), linewidth=1.8, **style)


def _draw_epochs(axes: Axes, curve: Curve, **style: Any) -> Line2D:
    marked = range(len(curve.y)) if len(curve.y) <= DOTTED else _alone(curve.y)
    return _draw_line(axes, curve.x, curve.y, marked, linewidth=1.6, **style)


def _draw_line(axes: Axes, x: Sequence[float], y: Sequence[float], marked: Sequence[int], **style: Any) -> Line2D:
    """Draw a line with a dot at each of the points `marked`."""
    return axes.plot(x, y, marker="o" if marked else "", markevery=list(marked), markersize=3.2, **style)[0]


def _alone(values: Sequence[float]) -> list[int]:
    """Return the places of the numbers that have none beside them: a line of one point would not be seen."""
    known = np.pad(np.isfinite(np.asarray(values, dtype=float)), 1)
    return [int(place) for place in np.flatnonzero(known[1:-1] & ~known[:-2] & ~known[2:])]


def _mark_best(axes: Axes, curve: Curve, best: int | None, color: str, *, say: bool) -> None:
    """Ring the value of the epoch that has the best weights, and say it where no other run's could lie over it."""
    if best is None or best not in curve.x:
        return
    value = curve.y[curve.x.index(best)]
    if math.isfinite(value):
        axes.plot([best], [value], "o", color=color, markersize=8, markerfacecolor="none", markeredgewidth=1.4)
    if say and math.isfinite(value):
        axes.annotate(
            f"{value:.4g}",
            (best, value),
            xytext=(0, -13),
            textcoords="offset points",
            ha="center",
            va="top",
            fontsize=8,
            color=color,
        )


def _add_legend(axes: Axes, panel: Panel, labels: Mapping[str, Line2D]) -> None:
    """Name the lines above them, beside the title, where there is room; else where they leave the most."""
    beside = _width(_title(panel), TITLE, handle=False) + sum(_width(label, LEGEND) for label in labels)
    place: dict[str, Any] = {"loc": "best", "edgecolor": "none"}
    if beside < WIDTH - MARGIN:
        place = {"loc": "lower right", "bbox_to_anchor": (1.0, 1.0), "ncols": len(labels), "borderaxespad": 0.3}
        place["frameon"] = False
    legend = axes.legend([*labels.values()], [*labels], fontsize=LEGEND, labelcolor=INK, **place)
    for text in legend.get_texts():
        text.set_parse_math(False)  # a dollar sign in a name begins no formula


def _smoothed(values: Sequence[float]) -> list[float]:
    """Return the means of the values around each, over a thirtieth of them all; what is nan does not count."""
    numbers = np.asarray(values, dtype=float)
    known = np.isfinite(numbers)
    half = max(len(values) // SMOOTHED // 2, 1)
    sums = np.concatenate([[0.0], np.cumsum(np.where(known, numbers, 0.0))])
    counts = np.concatenate([[0], np.cumsum(known)])
    places = np.arange(len(values))
    first, last = np.maximum(places - half, 0), np.minimum(places + half + 1, len(values))
    found = counts[last] - counts[first]
    means = np.where(found > 0, (sums[last] - sums[first]) / np.maximum(found, 1), np.nan)
    return [float(mean) for mean in means]


def _spans_decades(curves: Sequence[Curve]) -> bool:
    values = [value for curve in curves for value in curve.y if math.isfinite(value)]
    return bool(values) and min(values) > 0 and math.log10(max(values) / min(values)) > DECADES
