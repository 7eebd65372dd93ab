"""The display of the demo with photographs: each as a picture with what it may show. It knows events, not torch."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import islice

from pydantic import Field
from rich.console import Console

from lineside.bus.subscribers import Progress, text
from lineside.bus.subscribers.drawing import heading, labelled
from lineside.bus.subscribers.live import LiveDisplay
from lineside.bus.subscribers.plain import PlainDisplay
from lineside.bus.subscribers.progress import Display
from lineside.bus.subscribers.views import VIEWS, Lines, PredictView
from lineside.demo.photos.drawing import Cards
from lineside.demo.photos.results import LabelledPhoto
from lineside.schemas import Event, PredictBatchEnd, PredictEnd
from lineside.schemas.fields import Count, Milliseconds, Seconds

NAMED = 3
"""Classes of a photograph in a plain line."""


class PhotosSummary(Event):
    """What the demo with photographs came to."""

    photos: Count = Field(description="Photographs that were predicted.")
    speed: Milliseconds = Field(description="Mean milliseconds a photograph, by part.")
    events: Count = Field(description="Events published until now.")
    missed: Count = Field(description="Events that a subscription missed.")
    bus_seconds: Seconds = Field(description="CPU time of the bus's own thread for each photograph, once all is built.")
    dashboard: str = Field(description="The command that shows all of it in a browser.")


class PhotosProgress(Progress):
    """Shows the demo with photographs."""

    def plain_display(self) -> Display:
        """Return the lines of the demo."""
        return PhotosLines(sys.stdout)

    def live_display(self) -> Display:
        """Return the drawing of the demo."""
        return PhotosDrawing()


class PhotosLines(PlainDisplay):
    """The demo as plain lines, one a photograph."""

    def lines(self, event: Event) -> Iterator[str]:
        """Give the lines of `event`."""
        match event:
            case PredictBatchEnd():
                for photo in labelled_photos(event):
                    named = ", ".join(f"{name} {score:.0%}" for name, score in islice(photo.classes.pairs(), NAMED))
                    yield f"{'photo':<8} {photo.name}: {named}"
            case PhotosSummary():
                yield from (f"{'summary':<8} {line}" for line in summary(event))
            case _:
                yield from super().lines(event)


class PhotosDrawing(LiveDisplay):
    """The demo drawn."""

    def __init__(self, console: Console | None = None) -> None:
        super().__init__({**VIEWS, "predict": PhotosView}, console)

    def lines(self, event: Event) -> Lines:
        """Give the lines of `event`."""
        if isinstance(event, PhotosSummary):
            yield heading("summary")
            yield from (labelled("", line) for line in summary(event))
        else:
            yield from super().lines(event)


class PhotosView(PredictView):
    """The photographs as they come, above a bar."""

    def results(self, event: PredictBatchEnd) -> Lines:
        """Give the photographs of a batch."""
        yield Cards(labelled_photos(event))

    def update(self, event: Event) -> Lines:
        """Take in `event`."""
        if isinstance(event, PredictEnd):
            yield ""
        yield from super().update(event)


def labelled_photos(event: PredictBatchEnd) -> list[LabelledPhoto]:
    """Return the results of a batch."""
    return [LabelledPhoto.model_validate(result) for result in event.results]


def summary(event: PhotosSummary) -> tuple[str, ...]:
    """Return the demo in a few lines."""
    each = sum(event.speed.values())
    parts = ", ".join(f"{milliseconds:.1f} ms {part}" for part, milliseconds in event.speed.items())
    cost = f"{event.bus_seconds * 1e6:.0f} µs a photograph ({event.bus_seconds * 1e3 / each:.1%} of that)"
    lost = "none missed" if not event.missed else f"{event.missed:,} missed"
    return (
        f"{text.plural(event.photos, 'photograph')}, each of which took {each:.0f} ms",
        f"of that {parts}",
        f"the bus's own thread took {cost}",
        f"{event.events:,} events published and shown here, {lost}",
        f"{event.dashboard}   shows the gallery in a browser",
    )
