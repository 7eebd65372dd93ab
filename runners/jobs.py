"""Jobs: what somebody asks of a run, and the run's own thread does when the loop stands."""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import Callable, Generator, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from ..bus.interrupts import Watch
from .awaited import Awaited
from .errors import JobRefused, RunEnded, StageNotReached
from .hooks import check_wait
from .loops import outcome_of, raisable

if TYPE_CHECKING:
    from torchmetrics import Metric, MetricCollection

    from .results import ValResult

T = TypeVar("T")


class Able(Protocol):
    """What a runner can do in a run's thread when somebody asks."""

    def cannot_save(self, path: Path | None) -> str | None:
        """Say why it cannot be done at this moment; None: it can, or will never be."""
        ...

    def cannot_evaluate(self) -> str | None:
        """Say why it cannot be done at this moment; None: it can."""
        ...

    def checkpoint(self, path: Path | None) -> Path:
        """Save where the run stands."""
        ...

    def evaluate(
        self,
        data: Iterable[Any],
        metrics: Metric | MetricCollection | Mapping[str, Metric] | None,
        unwanted: Callable[[], bool],
    ) -> ValResult:
        """Evaluate the model as it is on `data`; broken off when it is `unwanted`."""
        ...


class Job(Generic[T]):
    """Something to do in the run's thread, once.

    Args:
        run: Id of the run.
        what: What is asked, for messages.
        work: Does it. Gets a function that says whether nobody wants it any more.
        obstacle: Says why it cannot be done at this moment; None: it can.
        inside: Whether the run is waiting for whoever asks, so that it cannot be done at any later moment either.
    """

    def __init__(
        self,
        run: str,
        what: str,
        work: Callable[[Callable[[], bool]], T],
        obstacle: Callable[[], str | None],
        *,
        inside: bool,
    ) -> None:
        self.run = run
        self.what = what
        self.future: concurrent.futures.Future[T] = concurrent.futures.Future()
        self.inside = inside
        self.unwanted = False
        """Whether whoever asked has gone."""
        self._work = work
        self._obstacle = obstacle

    def attempt(self) -> bool:
        """Do it, unless it was cancelled; return false if it cannot be done now, but perhaps later."""
        obstacle = self._obstacle()
        if obstacle is not None and not self.inside:
            return self.future.cancelled()
        if not self.future.set_running_or_notify_cancel():
            return True
        future = self.future
        try:
            if obstacle is not None:
                raise JobRefused(self.run, self.what, obstacle)
            future.set_result(self._work(self._is_unwanted))
        except Exception as error:  # whoever asked gets it; the run goes on
            future.set_exception(raisable(error, self.what))
        except BaseException as error:
            future.set_exception(error)
            raise
        finally:
            del future, self  # the error's traceback has this frame: a cycle would keep all that the work had
        return True

    def _is_unwanted(self) -> bool:
        return self.unwanted

    def fail(self) -> None:
        """The run is over, and it was not done."""
        if self.future.set_running_or_notify_cancel():
            self.future.set_exception(RunEnded(self.run, self.what))


class Asked(Generic[T]):
    """What was asked of a run: awaitable, with ``await asked`` or ``asked.result()``.

    Whoever cancels an await withdraws what was asked; a checkpoint that is being written is finished.
    """

    def __init__(self, job: Job[T], awaited: Awaited, watch: Callable[[], Watch]) -> None:
        self._job = job
        self._awaited = awaited
        self._watch = watch

    def done(self) -> bool:
        """Return whether it was done, or has failed."""
        return self._job.future.done()

    def result(self, timeout: float | None = None) -> T:
        """Wait until the run has done it, `timeout` seconds at most, and return what came of it, or raise what failed.

        Raises:
            RunEnded: the run was over first.
            JobRefused: it cannot be done; the message says why.
            StageNotReached: the run had not come to do it within `timeout` seconds; it may yet.
            WouldDeadlock: the run needs the caller's event loop to come so far: use ``await``.
            InvalidArgument: `timeout` is no time.
        """
        check_wait(f"{self._job.what}.result()", timeout)
        job = self._job
        if not job.future.done() and not job.inside:
            self._awaited.refuse_needed_loop(job.what, "use `await` instead of `.result()`")
        watch = self._watch()
        watch.blocking = True
        with self._awaited.waiting(job.what), watch:
            done = bool(concurrent.futures.wait([job.future], timeout).done)
        if not done:
            raise StageNotReached(job.run, job.what, timeout)
        return job.future.result()

    def __await__(self) -> Generator[Any, None, T]:
        return self._wait().__await__()

    async def _wait(self) -> T:
        with self._awaited.waiting(self._job.what), self._watch():
            try:
                return await outcome_of(self._job.future)
            except asyncio.CancelledError:
                self._job.unwanted = True
                raise

    def __repr__(self) -> str:
        return f"<Asked {self._job.what} of run {self._job.run}, {'done' if self.done() else 'to be done'}>"
