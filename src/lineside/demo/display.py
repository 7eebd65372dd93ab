"""The demo's display: the usual progress, with predictions as pictures and a summary. It knows events, not torch."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from functools import partial
from typing import NamedTuple

from pydantic import Field
from rich.console import Console, Group, RenderableType

from lineside.bus.subscribers import Progress, text
from lineside.bus.subscribers.drawing import heading, labelled
from lineside.bus.subscribers.live import LiveDisplay
from lineside.bus.subscribers.plain import PlainDisplay
from lineside.bus.subscribers.progress import Display
from lineside.bus.subscribers.views import VIEWS, Lines, PredictView
from lineside.demo.pictures import Gallery, Picture
from lineside.schemas import Event, PredictBatchEnd, PredictEnd
from lineside.schemas.fields import Count, Seconds

MISTAKES = 5
"""Mistakes that are told one by one."""


class DemoSummary(Event):
    """What the demo came to: an event of its own, as users define them."""

    val_accuracy: float = Field(description="Share of the validation digits that were read right.")
    held_back_accuracy: float = Field(description="Share of the digits held back that were read right.")
    events: Count = Field(description="Events published until now.")
    missed: Count = Field(description="Events that a subscription missed.")
    steps: Count = Field(description="Training steps.")
    step_seconds: Seconds = Field(description="Mean time of a training step.")
    bus_seconds: Seconds = Field(
        description="CPU time of the bus's own thread for each training step, once all is built."
    )
    files: tuple[str, ...] = Field(description="What was written.")
    dashboard: str = Field(description="The command that shows all of it in a browser.")


class Answer(NamedTuple):
    """A digit held back: what it looks like, and what it is."""

    pixels: bytes
    label: int


class DemoProgress(Progress):
    """Shows the demo. `answers` are the digits that will be predicted, in their order."""

    def __init__(self, answers: Sequence[Answer], *, plain: bool = False) -> None:
        super().__init__(plain=plain)
        self.answers = answers

    def plain_display(self) -> Display:
        """Return the lines of the demo."""
        return DemoLines(self.answers)

    def live_display(self) -> Display:
        """Return the drawing of the demo."""
        return DemoDrawing(self.answers)


class DemoLines(PlainDisplay):
    """The demo as plain lines: of the predictions those that went wrong."""

    def __init__(self, answers: Sequence[Answer]) -> None:
        super().__init__(sys.stdout)
        self._answers = answers

    def lines(self, event: Event) -> Iterator[str]:
        """Give the lines of `event`."""
        match event:
            case PredictBatchEnd():
                for one in judged(event, self._answers):
                    if not one.right:
                        yield f"{'mistaken':<8} {one.said}"
            case DemoSummary():
                yield from (f"{'summary':<8} {line}" for line in summary(event))
            case _:
                yield from super().lines(event)


class DemoDrawing(LiveDisplay):
    """The demo drawn: the predictions as pictures."""

    def __init__(self, answers: Sequence[Answer], console: Console | None = None) -> None:
        super().__init__({**VIEWS, "predict": partial(DigitsView, answers)}, console)

    def lines(self, event: Event) -> Lines:
        """Give the lines of `event`."""
        if isinstance(event, DemoSummary):
            yield heading("summary")
            yield from (labelled("", line) for line in summary(event))
        else:
            yield from super().lines(event)


class DigitsView(PredictView):
    """The digits of the batch at hand, drawn over by the next; in the end the last of them and those mistaken."""

    def __init__(self, answers: Sequence[Answer]) -> None:
        super().__init__()
        self._answers = answers
        self._batch: list[Judgement] = []
        self._mistaken: list[Judgement] = []

    def results(self, event: PredictBatchEnd) -> Lines:
        """Keep the batch for the region."""
        self._batch = list(judged(event, self._answers))
        self._mistaken += (one for one in self._batch if not one.right)
        yield from ()

    def update(self, event: Event) -> Lines:
        """Take in `event`."""
        if isinstance(event, PredictEnd):
            yield _gallery(self._batch)
            yield from self._mistakes()
        yield from super().update(event)

    def _mistakes(self) -> Lines:
        if self._mistaken:
            yield _gallery(self._mistaken)
        for one in self._mistaken[:MISTAKES]:
            yield labelled("mistaken", one.said, "red")
        if len(self._mistaken) > MISTAKES:
            yield labelled("", f"and {len(self._mistaken) - MISTAKES} more")

    def region(self) -> RenderableType:
        """Return the pictures over the bar."""
        return Group(_gallery(self._batch), super().region())


class Judgement(NamedTuple):
    """What the model read, beside what is there."""

    name: str
    digit: int
    confidence: float
    answer: Answer

    @property
    def right(self) -> bool:
        """Whether it was read right."""
        return self.digit == self.answer.label

    @property
    def said(self) -> str:
        """A mistake in words."""
        return f"number {self.name} shows {self.answer.label}, read as {self.digit} ({self.confidence:.0%} sure)"


def judged(event: PredictBatchEnd, answers: Sequence[Answer]) -> Iterator[Judgement]:
    """Give the results of a batch, each beside its answer."""
    for name, result in zip(event.inputs, event.results, strict=True):
        yield Judgement(name, result["digit"], result["confidence"], answers[int(name)])


def _gallery(found: Sequence[Judgement]) -> Gallery:
    return Gallery(
        [
            Picture(one.answer.pixels, f"{one.digit}  {one.confidence:.0%}", "green" if one.right else "red")
            for one in found
        ]
    )


def summary(event: DemoSummary) -> tuple[str, ...]:
    """Return the demo in a few lines."""
    share = event.bus_seconds / event.step_seconds
    cost = f"{event.bus_seconds * 1e6:.0f} µs a training step of {text.duration(event.step_seconds)} ({share:.1%})"
    lost = "none missed" if not event.missed else f"{event.missed:,} missed"
    return (
        f"accuracy {event.val_accuracy:.1%} in validation, {event.held_back_accuracy:.1%} on the digits held back",
        f"{event.events:,} events published and shown here, {lost}",
        f"the bus's own thread took {cost}",
        *event.files,
        f"{event.dashboard}   shows all of it in a browser",
    )
