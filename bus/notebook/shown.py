"""`Shown`: what displays itself in a notebook."""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..errors import BusForked

if TYPE_CHECKING:
    from ..bus import Bus
    from ..policy import Mark
    from .widget import RunWidget

NEEDED = ("anywidget", "ipywidgets", "traitlets")
CATCH_UP_SECONDS = 0.5
"""How long a display waits at most for what the bus remembers of the run; the rest follows."""
ADVICE = "pip install 'lineside[notebook]' shows it live"


class Shown:
    """A run that displays itself: a live widget in a notebook, a line of text elsewhere.

    A mixin. What is displayed it learns from the bus; of its owner it needs an id, the bus, and where it began there.
    """

    id: str
    """Id of the run."""
    _bus: Bus
    _begin: Mark
    _widget: RunWidget | None = None
    """The one that all displays of the run share."""

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, Any]:
        """Return what a notebook shows: IPython asks for it. Without widgets, or without a notebook, a line of text."""
        try:
            if not _in_notebook():
                return {"text/plain": self._as_text()}
            try:
                return self._as_widget()
            except ModuleNotFoundError as error:
                if error.name not in NEEDED:
                    raise
                return {"text/plain": f"{self._as_text()}\n{ADVICE}"}
        except BusForked:
            return {"text/plain": repr(self)}

    def _held(self) -> bool:
        """Return whether somebody holds the run where it is. For runs that can be held to override."""
        return False

    def _says_held(self) -> Callable[[], bool]:
        """Return what calls `_held`, and keeps nothing: a notebook keeps its displays for ever."""
        method = weakref.WeakMethod(self._held)
        return lambda: (held := method()) is not None and held()

    def _as_text(self) -> str:
        from .watch import Watch

        watch = Watch(self._bus, self.id, self._begin, held=self._says_held())
        try:
            watch.catch_up(CATCH_UP_SECONDS)
            return watch.describe(type(self).__name__)
        finally:
            watch.close()

    def _as_widget(self) -> dict[str, Any]:
        from .widget import RunWidget

        if self._widget is None or self._widget.comm is None:  # it may have been closed
            self._widget = RunWidget(self._bus, self.id, self._begin, self._says_held())
        return self._widget.bundle(type(self).__name__)


def _in_notebook() -> bool:
    """Return whether a kernel runs this: only what has a frontend can show a widget."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return getattr(shell, "kernel", None) is not None
