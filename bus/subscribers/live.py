"""What happens as bars and tables on a terminal, drawn with rich."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping

from rich.console import Console, Group, RenderableType
from rich.live import Live

from ...schemas import BatchEvent, Event, EventsMissed, RunEnd, RunStart, SubscriberFailed
from . import drawing, wording
from .views import VIEWS, View


class LiveDisplay:
    """Draws each run with the view of its kind: a region that changes while the run lasts, and lines that stay.

    `views` maps the kind of a run (``"train"``, ``"val"``, ``"predict"``, ``"export"``) to what makes its view. Events
    of a batch draw no more often than every `refresh_seconds`.
    """

    def __init__(
        self,
        views: Mapping[str, Callable[[], View]] = VIEWS,
        console: Console | None = None,
        refresh_seconds: float = 0.08,
    ) -> None:
        self._make_view = views
        self._console = console or Console()
        self._refresh_seconds = refresh_seconds
        self._views: dict[str, View] = {}
        self._live: Live | None = None
        self._drawn = 0.0

    def show(self, event: Event) -> None:
        """Draw what `event` changes."""
        for line in self.lines(event):
            self._console.print(line)
        self._draw(at_once=not isinstance(event, BatchEvent))

    def close(self) -> None:
        """Stop drawing and show the cursor again."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def lines(self, event: Event) -> Iterator[RenderableType]:
        """Give the lines that `event` leaves behind, above what changes. For subclasses to extend."""
        match event:
            case RunStart():
                self._views[event.run] = begun = self._make_view[event.kind]()
                yield drawing.heading(event.kind, wording.beginning(event))
                yield from begun.update(event)
            case RunEnd():
                self._views.pop(event.run, None)
                yield drawing.ending(event)
            case SubscriberFailed():
                yield drawing.labelled("warning", wording.subscriber_failed(event), "bold yellow")
            case EventsMissed():
                yield drawing.labelled("warning", wording.events_missed(event), "bold yellow")
            case _:
                view = self._views.get(event.run)
                if view is not None:
                    yield from view.update(event)

    def _draw(self, at_once: bool) -> None:
        now = time.monotonic()
        if not self._views:
            self.close()
        elif at_once or now - self._drawn >= self._refresh_seconds:
            self._drawn = now
            self._region().update(Group(*(view.region() for view in self._views.values())), refresh=True)

    def _region(self) -> Live:
        if self._live is None:
            self._live = Live(console=self._console, auto_refresh=False, transient=True)
            self._live.start()
        return self._live
