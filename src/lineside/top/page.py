"""The page of one run: how far it is, its curves, its stages, what it warned of, and what it said last."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from math import isfinite

from rich.text import Text

from lineside.bus.subscribers import text
from lineside.bus.subscribers.drawing import DIM

from .columns import ACCENT, MARKS, bar, batch, best, elapsed, epoch, heard, kind, left, loss, rate, state, state_of
from .curves import Curve, chart
from .details import Details
from .watching import Watched

NARROWEST = 36
"""Width that a chart needs."""
LOWEST, HIGHEST = 6, 14
"""Height of a chart."""
STAGES = 30
"""Width of the stages, where they stand beside the events."""
WARNINGS = 3
"""Warnings that are shown."""
STYLES = (ACCENT, "green", "magenta", "yellow", "blue", "red")


def page(run: Watched, details: Details, now: datetime, width: int, height: int) -> list[Text]:
    """Return the page as `height` lines of at most `width` characters."""
    lines = [*_about(run, now, width), Text()]
    warnings = list(_warnings(details, width))
    room = height - len(lines) - len(warnings)
    lines += _charts(run, details, width - 1, room * 3 // 5)
    lines += warnings
    lines += _lists(details, width, height - len(lines))
    return lines[:height]


def _about(run: Watched, now: datetime, width: int) -> Iterator[Text]:
    """Say what it is, and how far."""
    summary = run.summary
    device = run.start.device if run.start else ""
    where = f"{summary.host}, process {summary.pid}" if summary.host else ""
    attempt = f"attempt {summary.attempt}" if summary.attempt > 1 else ""
    what = [part for part in (kind(run), summary.model, device, where, attempt) if part]
    title = Text.assemble("  ", (summary.run, "bold"), "   ", state(run), "   ", ("  ".join(what), DIM))
    yield _cut(title, width)
    said = [
        Text.assemble((f"{label} ", DIM), value)
        for label, value in (
            ("batch", batch(run)),
            ("speed", rate(run)),
            ("left", left(run)),
            ("loss", loss(run)),
            ("best", best(run)),
            ("elapsed", elapsed(run, now)),
            ("heard", heard(run, now)),
        )
        if value
    ]
    line = Text("  ")
    if run.done is not None:
        line.append_text(bar(*run.done, 24, MARKS[state_of(run)][1]))
        line.append(f" {epoch(run)}   ")
    yield _cut(line.append_text(Text("   ").join(said)), width)
    if summary.error is not None or summary.reason:
        error = summary.error
        why = f"{error.type.rpartition('.')[2]}: {error.message}" if error else summary.reason or ""
        yield _cut(Text(f"  {' '.join(why.split())}", "red" if error else DIM), width)


def _charts(run: Watched, details: Details, width: int, room: int) -> Iterator[Text]:
    """Draw the loss and as many metrics, and other values of the batches, as there is room for."""
    follower = details.follower
    curves: list[tuple[str, str, Curve]] = []
    if follower.curve.values:  # else nan may be all that a loop without a loss can say
        curves.append(("loss", "batch" if run.summary.kind == "val" else "step", follower.curve))
    for name, curve in details.metrics.items():
        curves.append((f"val {name}" if name in follower.parts else name, "epoch", curve))
    curves += [(name, "step", curve) for name, curve in follower.parts.items()]
    curves = [one for one in curves if one[2].newest is not None]
    beside = max(1, min(len(curves), (width + 2) // (NARROWEST + 2)))
    if room < LOWEST or not curves:
        return
    rows = max(1, min(-(-len(curves) // beside), room // (LOWEST + 1)))
    height = min(HIGHEST, room // rows - 1)
    shown = curves[: rows * beside]
    each = (width - 2 * (beside - 1)) // beside
    for begin in range(0, len(shown), beside):
        part = shown[begin : begin + beside]
        drawn = [_chart(*one, each, height, begin + index) for index, one in enumerate(part)]
        for cells in zip(*drawn, strict=True):
            yield Text("  ").join(cells)
        yield Text()


def _chart(name: str, over: str, curve: Curve, width: int, height: int, number: int) -> list[Text]:
    newest = 0.0 if curve.newest is None else curve.newest
    said = (f" {text.number(newest)}", "" if isfinite(newest) else "bold red")
    title = Text.assemble("  ", (name, "bold"), said, (f"   by {over}", DIM))
    return chart(title, curve, width, height, STYLES[number % len(STYLES)])


def _warnings(details: Details, width: int) -> Iterator[Text]:
    """Tell of the newest warnings."""
    shown = list(details.warnings)[-WARNINGS:]
    for warning in shown:
        yield _cut(Text.assemble((f"  {warning.time:%H:%M:%S} warning ", "bold yellow"), warning.said), width)
    if shown:
        yield Text()


def _lists(details: Details, width: int, room: int) -> Iterator[Text]:
    """Tell of the stages on the left, where there is room, and of the newest events on the right."""
    if room < 2:
        return
    stages = _stages(details, room - 1)
    beside = stages and width >= 2 * STAGES + NARROWEST
    events = [_happened(event.time, event.name, event.rank, event.values) for event in details.newest]
    if not beside:
        yield Text("  NEWEST EVENTS", DIM)
        yield from (_cut(event, width) for event in events[-(room - 1) :])
        return
    most = max(STAGES, max(line.cell_len for line in stages) + 1)
    most = min(most, width // 2)
    left_lines = [Text("  STAGES", DIM), *stages]
    right_lines = [Text("  NEWEST EVENTS", DIM), *events[-(room - 1) :]]
    for index in range(max(len(left_lines), len(right_lines))):
        beginning = left_lines[index] if index < len(left_lines) else Text()
        beginning.truncate(most, overflow="ellipsis", pad=True)
        rest = right_lines[index] if index < len(right_lines) else Text()
        yield _cut(Text.assemble(beginning, " ", rest), width)


def _stages(details: Details, most: int) -> list[Text]:
    """Return a line for each whole: an epoch, an export."""
    wholes: dict[str, list[str]] = {}
    for stage in details.stages:
        wholes.setdefault(stage.whole, []).append(f"{stage.name} {text.duration(stage.seconds)}")
    lines = [Text.assemble(f"  {whole:<9}", ("  ".join(parts), DIM)) for whole, parts in wholes.items()]
    return lines[-most:]


def _happened(time: datetime, name: str, rank: int, values: str) -> Text:
    by = f" rank {rank}" if rank else ""
    clock = f"  {time:%H:%M:%S}.{time.microsecond // 1000:03} "
    return Text.assemble((clock, DIM), f"{name}{by}  ", (values, DIM))


def _cut(line: Text, width: int) -> Text:
    line.no_wrap = True
    line.truncate(width, overflow="ellipsis")
    return line


def empty(folder: str, runs: Sequence[Watched], width: int, height: int) -> list[Text]:
    """Return what is shown where there is no run to show."""
    said = "no run goes on; a shows all" if runs else f"waiting for runs in {folder.rstrip('/')}/"
    return [*(Text() for _ in range(max(height // 2 - 1, 0))), Text(said.center(width).rstrip(), DIM)]
