"""Plots: runs as a figure of matplotlib, without the state of pyplot."""
# pyright: reportUnknownMemberType=false
# The types of matplotlib are unfinished.

from __future__ import annotations

import importlib
import io
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import cast

from .curves import Curve, Story
from .errors import MatplotlibMissing, NothingToPlot

try:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine
    from matplotlib.lines import Line2D
    from matplotlib.ticker import MaxNLocator
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] not in ("matplotlib", "numpy"):
        raise
    raise MatplotlibMissing from None

COLORS = ("#2563eb", "#ea580c", "#059669", "#7c3aed", "#db2777", "#0891b2", "#a16207", "#475569")
INK, PALE = "#1e293b", "#64748b"
WIDTH, HEIGHT = 4.4, 3.0
"""Of one panel, in inches."""
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
        figure.text(0.5, 0.45, "nothing to draw yet", ha="center", va="center", color=PALE, fontsize=12)
    for place, panel in enumerate(panels, 1):
        axes = figure.add_subplot(rows, columns, place)
        _dress(axes, panel)
        _fill(axes, panel, stories)
    return figure


# ---- what is drawn


def _panels(stories: Sequence[Story], curves: Sequence[str]) -> list[Panel]:
    names = list(dict.fromkeys(name for story in stories for name in story.curves))
    panels = list(_all_panels(names))
    if not curves:
        return [panel for panel in panels if panel.title != "fitness"]
    return [panel for curve in curves for panel in _asked(panels, curve, names)]


def _all_panels(names: Sequence[str]) -> Iterator[Panel]:
    """Yield a panel for each value that there is, in the order of a figure that shows them all."""
    if "loss" in names:
        yield Panel("loss", "batch", ("loss",))
    epochs = [name.partition(".")[2] for name in names if name.startswith("epochs.")]
    for name in epochs:
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
    figure.legend(handles, labels, loc="outside upper left", ncols=min(len(stories), 3), frameon=False, fontsize=9)


def _dress(axes: Axes, panel: Panel) -> None:
    title = panel.title.removeprefix("metrics.").removeprefix("losses.")
    by = f" by {panel.x}" if panel.names[0].startswith(("loss", "epochs.")) else ""
    axes.set_title("learning rate" if title == "lr" else title + by, loc="left", fontsize=10, color=INK, pad=8)
    axes.set_xlabel(panel.x, fontsize=8.5, color=PALE, loc="right")
    axes.tick_params(which="both", labelsize=8, colors=PALE, length=0)
    axes.grid(visible=True, color="#e2e8f0", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color("#cbd5e1")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))


def _fill(axes: Axes, panel: Panel, stories: Sequence[Story]) -> None:
    drawn: list[Curve] = []
    for place, story in enumerate(stories):
        there = [(name, story.curves[name]) for name in panel.names if name in story.curves]
        for order, (name, curve) in enumerate(there):
            drawn.append(curve)
            color = _color(place if len(stories) > 1 else order)
            if panel.x == "batch":
                _draw_steps(axes, curve, color, "" if len(stories) > 1 else name.partition(".")[2] or name)
            else:
                _draw_epochs(axes, curve, color, _part(name), dashed=len(stories) > 1 and name.startswith("epochs."))
        if panel.title.startswith("metrics.") and there:
            _mark_best(axes, there[0][1], story.best, _color(place), say=len(stories) == 1)
    _legend(axes, panel, stories)
    if panel.names[0].split(".")[0] in ("loss", "losses", "epochs") and _spans_decades(drawn):
        axes.set_yscale("log")


def _color(place: int) -> str:
    return COLORS[place % len(COLORS)]


def _part(name: str) -> str:
    return {"epochs": "train", "val": "validation"}.get(name.partition(".")[0], name)


def _draw_steps(axes: Axes, curve: Curve, color: str, label: str) -> None:
    points = len(curve.y)
    smooth = _smoothed(curve.y) if points >= 2 * SMOOTHED and len(set(curve.y)) > points // 4 else None
    if smooth is None:
        axes.plot(curve.x, curve.y, color=color, linewidth=1.6, label=label, marker="o" if points == 1 else "")
        return
    axes.plot(curve.x, curve.y, color=color, linewidth=0.6, alpha=0.3)
    axes.plot(curve.x, smooth, color=color, linewidth=1.8, label=label)


def _draw_epochs(axes: Axes, curve: Curve, color: str, label: str, *, dashed: bool) -> None:
    marker = "o" if len(curve.y) <= 40 else ""
    style = "--" if dashed else "-"
    axes.plot(curve.x, curve.y, style, color=color, linewidth=1.6, marker=marker, markersize=3.2, label=label)


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


def _legend(axes: Axes, panel: Panel, stories: Sequence[Story]) -> None:
    handles, labels = axes.get_legend_handles_labels()
    if panel.names[0].startswith("epochs.") and len(stories) > 1:
        handles = [Line2D([], [], color=PALE, linestyle=style) for style in ("--", "-")]
        labels = ["train", "validation"]
    if len(set(labels)) > 1:
        axes.legend(handles, labels, frameon=False, fontsize=8, labelcolor=INK)


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
