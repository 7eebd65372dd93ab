"""`Hold`: the loop stands still at a stage for the length of a ``with`` block."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, Generic, TypeVar

from ..bus.interrupts import Watch
from ..schemas import Event
from .awaited import Awaited, Stay
from .control import Control
from .errors import JobRefused, RunEnded, StageNotReached
from .hooks import Hook, Hooks, check_wait
from .loops import raisable
from .stand import Stand

E = TypeVar("E", bound=Event)


def in_words(types: Iterable[type[Event] | str]) -> str:
    """Return what is waited for, for messages."""
    return " or ".join(cls if isinstance(cls, str) else cls.__name__ for cls in types) or "any event"


class Holds:
    """The holds of one run."""

    def __init__(self, run: str, hooks: Hooks[Any], awaited: Awaited, control: Control) -> None:
        self.run = run
        self.hooks = hooks
        self.awaited = awaited
        self.control = control
        self._waiting: set[Hold[Any]] = set()
        self.over = False
        """Whether the run is over."""

    def add(self, hold: Hold[Any]) -> None:
        """Tell `hold` when the run is over; at once if it is over already."""
        self._waiting.add(hold)
        if self.over:  # after the addition: `end` in another thread sees the hold, or the hold sees the end
            self._tell(hold)

    def discard(self, hold: Hold[Any]) -> None:
        """`hold` waits no longer."""
        self._waiting.discard(hold)

    def end(self) -> None:
        """The run is over: tell everybody who waits."""
        self.over = True
        for hold in list(self._waiting):
            self._tell(hold)

    def _tell(self, hold: Hold[Any]) -> None:
        """Tell `hold` of the end, in whichever of two threads takes it first."""
        try:
            self._waiting.remove(hold)
        except KeyError:  # it was told, or waits no longer
            return
        hold.end()


class Hold(Generic[E]):
    """Waits for the run to reach a stage, and keeps it there while the block lasts.

    A context manager, async and sync, that gives the event. Made by `Run.hold`; entered once, else `JobRefused`.
    """

    def __init__(
        self,
        holds: Holds,
        types: tuple[type[Event] | str, ...],
        where: Callable[[E], bool] | None,
        timeout: float | None,
        watch: Watch,
    ) -> None:
        self._holds = holds
        self._watch = watch
        self._where = where
        self._timeout = timeout
        self._wanted = in_words(types)
        check_wait(f"hold({self._wanted})", timeout, where)
        self._types = types
        self._entry = threading.Lock()
        """Held from the first entry on."""
        self._offer: concurrent.futures.Future[E] = concurrent.futures.Future()
        self._released = False
        self._stay = Stay(holds.awaited, f"a hold on {self._wanted}", held=True)
        self._hook: Hook[Any, Any] | None = None
        self._member: object = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def __enter__(self) -> E:
        if not self._holds.over:
            self._holds.awaited.refuse_blocking(f"hold({self._wanted})", "use `async with run.hold(...)`")
        self._refuse_second_entry()
        self._wait_at_stage()
        try:
            self._watch.begin(blocking=True)
            with self._holds.awaited.waiting(f"hold({self._wanted})"):
                event = self._offer.result(self._timeout)
            return self._take(event)
        except BaseException as error:
            self._release()
            if isinstance(error, TimeoutError):
                raise self._overdue() from None
            raise

    async def __aenter__(self) -> E:
        if not self._holds.over:
            self._holds.awaited.refuse(f"hold({self._wanted})")
        self._refuse_second_entry()
        self._loop = asyncio.get_running_loop()
        self._wait_at_stage()
        try:
            self._watch.begin()
            with self._holds.awaited.waiting(f"hold({self._wanted})"):
                async with asyncio.timeout(self._timeout):
                    event = await asyncio.wrap_future(self._offer)
            return self._take(event)
        except BaseException as error:  # cancelled while the run may be standing already: it must go on
            self._release()
            if isinstance(error, TimeoutError):
                raise self._overdue() from None
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._release()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._release()

    def end(self) -> None:
        """The run is over. Who still waits for the stage is told so."""
        self._fail(RunEnded(self._holds.run, self._wanted))

    def _refuse_second_entry(self) -> None:
        if not self._entry.acquire(blocking=False):
            raise JobRefused(
                self._holds.run,
                f"hold({self._wanted}) a second time",
                "this hold was entered before, and holds once; make another: `with run.hold(...)`",
            )

    def _wait_at_stage(self) -> None:
        self._hook = self._holds.hooks.add(self._at_stage, *self._types)
        self._holds.add(self)

    def _at_stage(self, event: E, _: object) -> None:
        """The hook, in the run's thread: offer the event, then stand until the holder lets go."""
        if self._offer.done():
            return
        try:
            wanted = self._where is None or self._where(event)
        except BaseException as error:
            self._fail(raisable(error, f"where= of hold({self._wanted})"))
            return
        if wanted and self._offer.set_running_or_notify_cancel():
            with self._holds.awaited.holder(self._stay):
                self._offer.set_result(event)
                # A holder that leaves, fails or is cancelled lets go. Only one whose loop was closed abruptly cannot.
                Stand(self._holds.control, self._stay).until(lambda: self._released, self._loop)

    def _fail(self, error: BaseException) -> None:
        if not self._offer.done() and self._offer.set_running_or_notify_cancel():
            self._offer.set_exception(error)

    def _take(self, event: E) -> E:
        self._watch.blocking = False
        self._member = self._holds.awaited.enter(self._stay)
        return event

    def _release(self) -> None:
        self._watch.end()
        self._offer.cancel()
        self._holds.awaited.leave(self._stay, self._member)
        self._released = True
        self._holds.control.wake()
        self._holds.discard(self)
        if self._hook is not None:
            self._hook.remove()

    def _overdue(self) -> BaseException:
        """Return what the holder is told of a wait that timed out."""
        failed = None if self._offer.cancelled() else self._offer.exception()
        # Where it failed, that is the predicate's own, or the run ended at the moment when the time was up.
        return failed or StageNotReached(self._holds.run, self._wanted, self._timeout)
