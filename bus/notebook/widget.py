"""The widget: what a frontend shows of a run, and what it asks of it. Imported when a run is displayed."""
# pyright: reportUnknownMemberType=false
# The types of ipywidgets are unfinished.

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any, cast

import anywidget
import traitlets

from .watch import Message, Watch

if TYPE_CHECKING:
    from ..bus import Bus
    from ..policy import Mark

VIEW = "application/vnd.jupyter.widget-view+json"
CATCH_UP_SECONDS = 0.5
MOST_FRONTENDS = 32
"""Frontends whose views are counted: a page that is reloaded is a new one, and the old one does not say goodbye."""


@cache
def _static(name: str) -> str:
    # Not a path: anywidget would watch the file, with a thread.
    return resources.files(__name__.rpartition(".")[0]).joinpath("static", name).read_text(encoding="utf-8")


def _snapshot(_: object, widget: RunWidget) -> Message:
    return widget.snapshot()


class RunWidget(anywidget.AnyWidget):
    """Shows one run in any number of views. Reads it until it is over, or until the widget is closed."""

    state = traitlets.Dict().tag(sync=True, to_json=_snapshot)
    """What a view begins with. What changes later is sent piece by piece; the frontend puts it together."""

    key = traitlets.Unicode().tag(sync=True)
    """By which the frontend knows that two views show the same."""

    def __init__(self, bus: Bus, run: str, begin: Mark, held: Callable[[], bool] = lambda: False) -> None:
        self._frontends: dict[str, bool] = {}
        self._counting = threading.Lock()
        self._esm = _static("widget.js")
        self._css = _static("widget.css")
        self._watch = Watch(bus, run, begin, self._tell, held)
        self._watch.catch_up(CATCH_UP_SECONDS)
        super().__init__(key=uuid.uuid4().hex)
        _let_frontend_choose(self.comm)
        self.on_msg(self._hear)
        self._watch.listen(True)  # not before: what is told while the frontend hears nothing yet would be lost

    def bundle(self, name: str) -> dict[str, Any]:
        """Return what a notebook shows it by, and the text that stays when there is no kernel any more."""
        text = self._watch.describe(name)
        return {"text/plain": text, VIEW: {"version_major": 2, "version_minor": 0, "model_id": self.model_id}}

    def snapshot(self) -> Message:
        """Return everything that is shown."""
        return self._watch.snapshot()

    def wait(self, seconds: float) -> bool:
        """Wait until there is nothing more to read, `seconds` at most; return whether there is not."""
        return self._watch.wait(seconds)

    def close(self) -> None:
        """Read no more, and take it away wherever it is shown."""
        self._watch.close()
        super().close()

    def _tell(self, message: Message) -> None:
        self.send(message)

    def _hear(self, _: object, content: object, buffers: object) -> None:
        """Answer what a frontend asks. Not every thread that asks is the kernel's main one."""
        if not isinstance(content, dict):
            return
        asked = cast("dict[str, object]", content)
        match asked.get("ask"):
            case "stop" | "pause" | "resume" as what:
                self._watch.refresh(answer=asked.get("id"), refused=self._watch.steer(str(what)))
            case "views":
                self._count(str(asked.get("frontend")), bool(asked.get("open")))
            case "all":
                self._watch.repeat()
            case _:
                self._watch.refresh(answer=asked.get("id"), refused="")

    def _count(self, frontend: str, has_views: bool) -> None:
        with self._counting:  # each frontend may have a thread of its own to ask in
            self._frontends.pop(frontend, None)
            self._frontends[frontend] = has_views
            for oldest in [*self._frontends][:-MOST_FRONTENDS]:
                del self._frontends[oldest]
            self._watch.listen(any(self._frontends.values()))


def _let_frontend_choose(comm: Any) -> None:
    """Have what a frontend sends heard in the thread that it names: JupyterLab names one that runs no cells.

    ipykernel from 7.4 on hears it where the widget was last told something, for cells that wait for an answer. Nobody
    waits for ours, and a click would wait for the end of the cell.
    """
    if hasattr(comm, "_reply_subshell_for"):
        comm._reply_subshell_for = _named_by_frontend


def _named_by_frontend(_: object, named: str | None) -> str | None:
    return named
