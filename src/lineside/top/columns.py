"""The columns of the table: what each says of a run, and which give way where the terminal is narrow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from math import isfinite
from typing import NamedTuple

from rich.text import Text

from lineside.bus.subscribers import text
from lineside.bus.subscribers.drawing import DIM

from .curves import sparkline
from .watching import Watched

ACCENT = "cyan"
MARKS = {
    "running": ("●", "cyan"),
    "stalled": ("◌", "yellow"),
    "finished": ("✓", "green"),
    "stopped": ("■", "green"),
    "failed": ("✗", "red"),
}
"""Sign and colour of each state."""
TIMES = "\N{MULTIPLICATION SIGN}"
BAR = 6
"""Width of a bar in the table, at least."""
HOUR, DAY = 3600, 86400
"""Seconds."""


class Column(NamedTuple):
    """A column."""

    title: str
    width: int
    """Width that it needs."""
    keep: int
    """The smaller, the longer it stays where there is no room."""
    cell: Callable[[Watched, datetime, int], Text]
    """Returns what it says of a run now in so many characters."""
    right: bool = False
    """Whether it is aligned to the right."""
    most: int = 0
    """Width that it takes where there is room."""
    drawn: bool = False
    """Whether it is a drawing, which plain text has none of."""
    words: Callable[[Watched], str] | None = None
    """Returns what plain text has of it, where that is something else."""


def state_of(run: Watched) -> str:
    """Return the state of a run in a word."""
    summary = run.summary
    return "stopped" if summary.outcome == "stopped" else summary.state


def state(run: Watched) -> Text:
    """Return the state of a run with its sign, in its colour."""
    word = state_of(run)
    mark, style = MARKS[word]
    return Text(f"{mark} {word}", style)


def bar(done: float, total: float, width: int, style: str) -> Text:
    """Return a bar of `width` characters."""
    halves = round(2 * width * min(max(done / total, 0.0), 1.0)) if total else 0
    whole, half = divmod(halves, 2)
    return Text.assemble(("━" * whole + "╸" * half, style), ("─" * (width - whole - half), DIM))


def kind(run: Watched) -> str:
    """Return the kind of a run, and how many processes it has."""
    return f"{run.summary.kind or ''}{f' {TIMES}{run.processes}' if run.processes > 1 else ''}".strip()


def epoch(run: Watched) -> str:
    """Return the epoch that a run is in, from 1, and how many it shall have."""
    summary = run.summary
    if summary.epoch is None:
        return ""
    return f"{summary.epoch + 1}/{summary.epochs}" if summary.epochs else f"{summary.epoch + 1}"


def batch(run: Watched) -> str:
    """Return the batch that a run is at, from 1, and how many there are; of an export the phase."""
    follower = run.follower
    if follower.phases:
        return follower.phases[-1]
    if follower.batch is None:
        return ""
    of = f"/{follower.batch.batches}" if follower.batch.batches else ""
    return f"{'val ' if run.validating else ''}{follower.batch.batch + 1}{of}"


def rate(run: Watched) -> str:
    """Return the samples a second that a run takes; where nobody knows, the steps."""
    if run.summary.state != "running":
        return ""
    samples, steps = run.follower.samples_a_second, run.follower.steps_a_second
    if samples is not None:
        return f"{_count(samples * run.processes)}/s"  # they keep pace
    return f"{_count(steps)} st/s" if steps is not None else ""


def steps(run: Watched) -> str:
    """Return the optimizer steps a second of a run."""
    a_second = run.follower.steps_a_second if run.summary.state == "running" else None
    return "" if a_second is None else _count(a_second)


def _count(value: float) -> str:
    if value < 10:
        return f"{value:.2g}"
    for unit, size in (("M", 1e6), ("k", 1e3)):
        if value >= 10 * size:
            return f"{value / size:,.0f}{unit}"
    return f"{value:,.0f}"


def left(run: Watched) -> str:
    """Return the time that a run will still take."""
    return "" if run.seconds_left is None else _span(run.seconds_left)


def loss(run: Watched) -> str:
    """Return the newest loss."""
    return "" if run.loss is None else text.number(run.loss)


def best(run: Watched) -> str:
    """Return the best metric with its name."""
    return "" if run.best is None else f"{run.best[0]} {text.number(run.best[1])}"


def elapsed(run: Watched, now: datetime) -> str:
    """Return the time that a run took, or has been taking."""
    seconds = run.elapsed(now)
    if seconds is None:
        return ""
    return text.duration(seconds) if seconds < HOUR and not run.live else _span(seconds)


def _span(seconds: float) -> str:
    """Return a time in at most six characters: ``0:07``, ``59:59``, ``3h05m``, ``4d07h``."""
    if seconds < HOUR - 1:
        return text.clock(seconds)
    if seconds < 100 * HOUR:
        return f"{seconds // HOUR:.0f}h{seconds % HOUR // 60:02.0f}m"
    return f"{seconds // DAY:.0f}d{seconds % DAY // HOUR:02.0f}h"


def heard(run: Watched, now: datetime) -> str:
    """Return how long ago something was heard of a run."""
    seconds = run.silence(now)
    if seconds < 2:
        return "now"
    for unit, size in (("d", DAY), ("h", HOUR), ("min", 60)):
        if seconds >= size:
            return f"{seconds // size:.0f} {unit}"
    return f"{seconds:.0f} s"


def _run(run: Watched, _now: datetime, width: int) -> Text:
    name = run.summary.run
    return Text(name if len(name) <= width else f"{name[: width - 5]}…{name[-4:]}", "bold" if run.live else "")


def _progress(run: Watched, _now: datetime, width: int) -> Text:
    done, count = run.done, _epoch_or_percent(run)
    room = width - 1 - max(len(count), BAR)
    if done is None or room < BAR // 2:
        return Text(count.rjust(width))
    style = MARKS[state_of(run)][1]
    return Text.assemble(bar(*done, room, style), f" {count:>{width - room - 1}}")


def _epoch_or_percent(run: Watched) -> str:
    done = run.done
    if run.summary.kind == "train":
        return epoch(run)
    return "" if done is None or not done[1] else f"{100 * done[0] / done[1]:.0f}%"


def _loss(run: Watched, _now: datetime, _width: int) -> Text:
    lost = run.loss is not None and not isfinite(run.loss)
    return Text(loss(run), "bold red" if lost else "")


def _best(run: Watched, _now: datetime, _width: int) -> Text:
    name, _, value = best(run).rpartition(" ")
    return Text.assemble((f"{name} ", DIM), value) if name else Text()


def _curve(run: Watched, _now: datetime, width: int) -> Text:
    return Text(sparkline(run.follower.curve.values, width), ACCENT if run.live else DIM)


def _state(run: Watched, _now: datetime, _width: int) -> Text:
    return state(run)


def _elapsed(run: Watched, now: datetime, _width: int) -> Text:
    return Text(elapsed(run, now), DIM)


def _joined(said: Callable[[Watched], str], by: str) -> Callable[[Watched], str]:
    return lambda run: said(run).replace(" ", by)


def _heard(run: Watched, now: datetime, _width: int) -> Text:
    return Text(heard(run, now), MARKS["stalled"][1] if run.summary.state == "stalled" else DIM)


def _dim(said: Callable[[Watched], str]) -> Callable[[Watched, datetime, int], Text]:
    return lambda run, _now, _width: Text(said(run), DIM)


def _plain(said: Callable[[Watched], str]) -> Callable[[Watched, datetime, int], Text]:
    return lambda run, _now, _width: Text(said(run))


COLUMNS: Sequence[Column] = (
    Column("run", 11, 0, _run, most=26),
    Column("state", 10, 0, _state, words=state_of),
    Column("kind", 9, 10, _plain(kind)),
    Column("model", 12, 11, _dim(lambda run: run.summary.model or ""), most=18),
    Column("epoch", BAR + 7, 1, _progress, most=23, words=_epoch_or_percent),
    Column("batch", 9, 5, _dim(batch), right=True, most=12, words=_joined(batch, ":")),
    Column("speed", 9, 7, _plain(rate), right=True),
    Column("steps/s", 7, 12, _dim(steps), right=True),
    Column("left", 6, 2, _plain(left), right=True),
    Column("loss", 8, 1, _loss, right=True),
    Column("trend", 8, 4, _curve, most=24, drawn=True),
    Column("best", 16, 6, _best, right=True, most=20, words=_joined(best, "=")),
    Column("elapsed", 8, 8, _elapsed, right=True),
    Column("heard", 6, 9, _heard, right=True),
)
"""All of them, from the left."""
