"""`Tracked`: a loop of the user's own as a run. Here is what it looks like; the runners, where installed, make it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable, Mapping
from functools import cache
from importlib.metadata import entry_points
from types import TracebackType
from typing import Self, TypeVar, cast

from .errors import RunsUnavailable
from .notebook import Recorded, Shown

T = TypeVar("T")

ENTRY_POINTS = "lineside.runs"
"""Group of the entry points that make runs: that of the name ``tracked`` makes those of `Bus.run`."""


class Tracked(Shown, Recorded, ABC):
    """A loop of your own as a run: its events are those of a `Trainer`, for every subscriber, journal and dashboard.

    ::

        with bus.run("digits") as run:
            for _ in range(10):
                for images, labels in run.track(loader):
                    ...
                    run.log(loss=loss, lr=0.01)
                run.log(accuracy=accuracy)

    Made by `Bus.run`. Each pass over `track` is an epoch, and each of its batches counts as a step. What is logged
    within a batch is told with it; what is logged after an epoch are its metrics. Values on a device are never waited
    for.
    """

    id: str
    """Id of the run."""

    @property
    @abstractmethod
    def stopping(self) -> bool:
        """Whether a stop was asked for: `track` gives no more batches."""

    @abstractmethod
    def track(
        self, batches: Iterable[T], *, epochs: int | None = None, epoch: int | None = None, step: int | None = None
    ) -> Generator[T]:
        """Yield `batches`, as an epoch. Ends before the next batch where a stop was asked for.

        Args:
            batches: A loader, or anything that can be iterated over.
            epochs: Epochs that are planned in all, for displays.
            epoch: Number of this epoch, from 0 on, for a loop that goes on from a checkpoint; None: the next.
            step: Steps that were done before it; None: those that were counted.

        Raises:
            TrackingRefused: outside of the run's ``with`` block, or within the loop over another `track`; `batches`
                cannot be iterated over; a number is none, or `epoch` or `step` lies behind what was told already.
        """

    @abstractmethod
    def log(self, values: Mapping[str, object] | None = None, /, *, lr: object = None, **named: object) -> None:
        """Say what the batch in work brought; after an epoch, what its metrics are.

        Args:
            values: The same by name, ``lr`` too, for names that are no identifiers.
            lr: The learning rate, or several: by parameter group, or the list that a scheduler gives.
            named: Numbers by name, also tensors on any device. All are in the event's ``losses``; ``loss`` is its
                ``loss``, too.

        Raises:
            TrackingRefused: a value is no number, or a name no text; there is nothing yet that it could belong to, or
                outside of the run's ``with`` block.
        """

    @abstractmethod
    def stop(self, reason: str = "stop() was called") -> None:
        """Ask it to stop at the next batch. The first reason counts."""

    @abstractmethod
    def pause(self) -> None:
        """Ask it to stand still at the next batch until `resume` or `stop`."""

    @abstractmethod
    def resume(self) -> None:
        """Let it go on."""

    @abstractmethod
    def __enter__(self) -> Self: ...

    @abstractmethod
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


@cache
def tracked_runs() -> Callable[..., Tracked]:
    """Return what makes runs of loops of the user's own: ``(bus, name, *, id, rank, attempt, config)``.

    Raises:
        RunsUnavailable: nothing that is installed does, or not without packages that are missing.
    """
    missing: ImportError | None = None
    for point in entry_points(group=ENTRY_POINTS, name="tracked"):
        try:
            return cast("Callable[..., Tracked]", point.load())
        except ImportError as error:
            missing = error
    raise RunsUnavailable(missing) from missing
