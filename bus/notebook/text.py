"""A run as a line of text, for where there are no widgets, and for a notebook that is read without its kernel."""

from __future__ import annotations

from datetime import datetime

from ..subscribers import text
from .state import RunState

MOST_NUMBERS = 3


def line(name: str, state: RunState, doing: str, heard: datetime) -> str:
    """Return ``<Run train-… running, epoch 3/10, loss 0.4100, as of 14:03:22>``.

    Args:
        name: What is shown, e.g. ``Run``.
        state: What is known of it.
        doing: What it does, in a word.
        heard: When that was; left out where it is final.
    """
    parts = [f"{name} {state.run} {_DOING.get(doing, doing)}", *_why(state), *_place(state)]
    numbers = (state.outcome and state.metrics) or state.numbers
    shown = [pair for pair in numbers.items() if not pair[0].startswith("lr")][:MOST_NUMBERS]
    parts += [f"{label} {text.number(value)}" for label, value in shown]
    if state.outcome:
        parts += [text.duration(state.duration or 0.0)]
    else:
        parts += [f"as of {heard:%H:%M:%S}"]
    return f"<{', '.join(parts)}>"


_DOING = {"waiting": "not begun", "unheard": "not heard any more"}


def _why(state: RunState) -> list[str]:
    if state.error is not None:
        return [f"{state.error['type']}: {state.error['message']}"]
    return [state.reason] if state.reason else []


def _place(state: RunState) -> list[str]:
    progress = state.progress
    if progress.has_epochs:
        if state.outcome == "completed":
            return [text.plural(progress.epoch, "epoch")]
        current = progress.current if state.outcome else progress.epoch + 1
        return [f"epoch {min(current, progress.epochs or current)}/{progress.epochs or '?'}"] if current else []
    if state.phases:
        return [f"{state.phases[-1][0]} done"]
    if progress.batch:
        return [f"batch {progress.batch}/{progress.batches or '?'}"]
    return []
