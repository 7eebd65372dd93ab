"""`TrackedRun`: a training loop of the user's own, told like one of ours."""

from __future__ import annotations

import asyncio
import operator
import os
import socket
import time
import weakref
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Literal, Self, TypeAlias, TypeVar, cast

import torch
from pydantic_core import to_jsonable_python
from torch import Tensor
from typing_extensions import override

from ..bus import Bus, Source, Tracked
from ..bus.cells import AGAIN, did
from ..bus.interrupts import REASON, Watch
from ..bus.source import check_run_id
from ..schemas import (
    Event,
    FitEpochEnd,
    RunEnd,
    RunStart,
    TrainBatchEnd,
    TrainBatchStart,
    TrainEnd,
    TrainEpochEnd,
    TrainEpochStart,
    TrainStart,
)
from .control import Control, Steered
from .errors import TrackingRefused
from .feed import batch_size, iterable, iterate, length
from .identity import new_run_id, newest_attempt, versions
from .runner import Ending, error_info
from .scalars import Scalar, Scalars, described, scalar_of, scalars_of

T = TypeVar("T")
Numbers: TypeAlias = dict[str, Scalar]
"""Numbers by name; a tensor is one that a device may still be computing."""


class TrackedRun(Steered, Tracked):
    """What `Bus.run` makes, with the arguments and errors said there."""

    def __init__(
        self,
        bus: Bus,
        name: str = "train",
        *,
        id: str | None = None,  # noqa: A002
        rank: int = 0,
        attempt: int | None = None,
        config: Mapping[str, object] | None = None,
    ) -> None:
        for argument, text in (("name", name), ("id", id or "")):
            if not isinstance(cast("object", text), str):
                raise TrackingRefused(f"{argument}={text!r:.40}", "expected text")
        self.id = check_run_id(id or new_run_id(name))
        self._name = name
        self._rank = _whole("rank", rank, 0)
        self._attempt = (None if id else 1) if attempt is None else _whole("attempt", attempt, 1)
        """None: the one after those that are known when it begins."""
        self._config = _copied(config or {})
        self._bus = bus
        self._begin = bus.mark()
        self._source: Source
        self._control = Control()
        self._steered = bus.steering.within(self.id, self._control)
        self._watch = Watch(self._control.stop)
        self._state: Literal["new", "open", "over"] = "new"
        self._ways: dict[torch.device, Scalars] = {}
        self._began: float | None = None
        """When the first epoch did."""
        self._epochs: int | None = None
        self._epoch: _Epoch | None = None
        """The epoch in work, or the last one until the next begins."""
        self._done = 0
        """Epochs that are over."""
        self._step = 0
        self._lr: Numbers = {}
        self._metrics: Numbers = {}
        """What was logged since the batches of the epoch were over."""
        self._newest_metrics: Numbers = {}
        """Of each name the number that was told last."""
        self._passes: weakref.WeakSet[Generator[Any]] = weakref.WeakSet()
        """What `track` gave and somebody still holds."""

    @property
    @override
    def stopping(self) -> bool:
        return self._control.stopping

    @override
    def track(
        self, batches: Iterable[T], *, epochs: int | None = None, epoch: int | None = None, step: int | None = None
    ) -> Generator[T]:
        passing = self._pass(batches, epochs, epoch, step)
        self._passes.add(passing)
        return passing

    def _pass(self, batches: Iterable[T], epochs: int | None, number: int | None, step: int | None) -> Generator[T]:
        self._require_open("track")
        if self._epoch is not None and not self._epoch.over:
            raise TrackingRefused(
                "track() was called within the loop over another one",
                "end that loop first; to evaluate within an epoch, iterate over the data as it is",
            )
        if not iterable(batches):
            raise TrackingRefused(
                f"track() was called with {batches!r:.80}", "expected a loader, or anything that can be iterated over"
            )
        done = self._done if number is None else _whole("epoch", number, 0)
        steps = self._step if step is None else _whole("step", step, 0)
        for name, asked, told in (("epoch", done, self._done), ("step", steps, self._step)):
            if asked < told:
                raise TrackingRefused(f"track({name}={asked!r}) lies behind what was told", f"expected {told} or more")
        planned = self._epochs if epochs is None else _whole("epochs", epochs, 1)
        self._close_epoch()
        if self.stopping:
            return
        self._done, self._step, self._epochs = done, steps, planned
        self._epoch = epoch = self._open_epoch(length(batches))
        size = 0
        try:
            for data in epoch.timed(batches):
                if self._control.interrupted():
                    break
                size = batch_size(data)
                self._tell(TrainBatchStart, **epoch.batch(size), data_seconds=epoch.waited)
                epoch.logged = {}
                yield data
                self._end_batch(epoch, size)
        except GeneratorExit:  # of a `break`: what was logged before it counts
            if epoch.logged:
                self._end_batch(epoch, size)
            raise
        finally:
            epoch.over, epoch.logged = True, None
            if self._state == "open":
                self._end_batches(epoch)

    @override
    def log(self, values: Mapping[str, object] | None = None, /, *, lr: object = None, **named: object) -> None:
        self._require_open("log")
        if values is not None and not isinstance(cast("object", values), Mapping):
            raise TrackingRefused(
                f"log() was called with {values!r:.80}", "expected numbers by name: log(loss=...), log({'loss': ...})"
            )
        given = {**(values or {}), **named}
        rates = given.pop("lr", None)
        found, rates = _numbers(given), rates if lr is None else lr
        if rates is not None:
            self._lr = _numbers(_by_group(rates), "lr")
        if self._epoch is None:
            if found and not self.stopping:  # else `track` began no epoch, and the loop goes on to this line
                raise TrackingRefused(
                    "log() was called before any batch", "call it within the loop over track(), or after"
                )
        elif self._epoch.logged is not None:
            self._epoch.logged.update(found)
        else:
            self._metrics.update(found)

    def _open_epoch(self, batches: int | None) -> _Epoch:
        if self._began is None:
            self._began = time.perf_counter()
            self._tell(TrainStart, epoch=self._done, epochs=self._epochs, batches=batches, step=self._step)
        epoch = _Epoch(self._done, batches)
        self._tell(TrainEpochStart, {"lr": self._lr}, epoch=epoch.number, epochs=self._epochs, batches=batches)
        return epoch

    def _end_batch(self, epoch: _Epoch, size: int) -> None:
        logged, epoch.logged = epoch.logged or {}, None
        self._step += 1
        loss = logged.get("loss", float("nan"))
        self._tell(
            TrainBatchEnd,
            {"loss": loss, "losses": logged, "lr": self._lr},
            **epoch.batch(size),
            step=self._step,
            seconds=epoch.seconds,
        )
        epoch.count(logged, size)

    def _end_batches(self, epoch: _Epoch) -> None:
        self._done += 1
        self._tell(
            TrainEpochEnd,
            {"losses": epoch.means(), "lr": self._lr},
            epoch=epoch.number,
            epochs=self._epochs,
            batches=epoch.done,
            step=self._step,
            duration=epoch.duration,
            samples=epoch.samples,
            speed=epoch.samples / epoch.duration,
        )

    def _close_epoch(self) -> None:
        """Say that an epoch is over, with the metrics that were logged after it."""
        epoch, self._epoch = self._epoch, None
        if epoch is not None:
            metrics, self._metrics = self._metrics, {}  # another dict: the event's is looked at later
            self._newest_metrics.update(metrics)
            unknown = dict.fromkeys(("fitness", "best_fitness", "best_epoch", "best", "last"))
            self._tell(
                FitEpochEnd,
                {"losses": epoch.means(), "metrics": metrics},
                epoch=epoch.number,
                epochs=self._epochs,
                duration=epoch.duration,
                **unknown,
            )

    def _tell(self, event: type[Event], values: Mapping[str, Scalar | Numbers] | None = None, **facts: object) -> None:
        """Publish `event`; `values` are its fields that may still be on their way from a device."""
        if self._state != "open":  # a pass in another thread goes on after the block
            return
        values = values or {}
        tensors = [value for one in values.values() for value in _each(one) if isinstance(value, Tensor)]
        if not tensors:
            self._source.publish(event, **facts, **values)
            return
        # Those of a device are not to be waited for: others travel with them.
        device = next((tensor.device for tensor in tensors if tensor.device.type != "cpu"), tensors[0].device)
        if device not in self._ways:
            self._ways[device] = scalars_of(device)
        snapshot = self._ways[device].take(tensors, lambda numbers: _filled(values, numbers))
        if snapshot.known:
            self._source.publish(event, **facts, **snapshot.result())
        else:
            self._source.publish_when(snapshot, event, **facts)

    # ---- the run

    @override
    def __enter__(self) -> Self:
        if self._state != "new":
            raise TrackingRefused("the run was begun before", "make another one")
        self._source = self._begin_attempt()
        self._steered.__enter__()
        self._watch.begin()
        did(self, lambda run: run.stop(AGAIN))
        self._state = "open"
        self._tell(
            RunStart,
            kind="train",
            model=self._name,
            device="",
            config=self._config,
            host=socket.gethostname(),
            pid=os.getpid(),
            versions=versions(),
        )
        return self

    def _begin_attempt(self) -> Source:
        """Return the publisher of the attempt that begins now: others may have begun since this run was made."""
        self._begin = self._bus.mark()
        attempt = self._attempt or 1 + newest_attempt(self._bus, self.id, self._rank)
        return self._bus.source(self.id, attempt=attempt, rank=self._rank)

    @override
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._watch.end()
        self._end_passes(ValueError if error is None else Exception)
        if error is None:
            self._end()
        self._state = "over"
        self._source.publish(RunEnd, kind="train", **vars(self._ending(error)), duration=self._source.elapsed())
        self._steered.__exit__(None, None, None)

    def _end_passes(self, suppressed: type[Exception]) -> None:
        """End what `track` gave and somebody still holds: a progress bar, after a `break`.

        A ValueError says that another thread is in it; any error is one too many if the block ends by another.
        """
        for held in list(self._passes):
            with suppress(suppressed):
                held.close()

    def _end(self) -> None:
        self._close_epoch()
        if self._began is not None:
            unknown = dict.fromkeys(("best_fitness", "best_epoch", "best", "last"))
            duration = time.perf_counter() - self._began
            self._tell(
                TrainEnd,
                {"metrics": self._newest_metrics},
                epochs=self._done,
                step=self._step,
                duration=duration,
                **unknown,
            )

    def _ending(self, error: BaseException | None) -> Ending:
        if isinstance(error, KeyboardInterrupt):
            return Ending("stopped", REASON)
        # Of its task, or of the generator that it is written in; or a kernel's interrupt, within an async cell.
        if isinstance(error, (asyncio.CancelledError, GeneratorExit)):
            return Ending("stopped", self._control.reason or "cancelled")
        if isinstance(error, SystemExit) and not error.code:
            return Ending("stopped", self._control.reason or "exit")
        if error is not None:
            return Ending("failed", str(error) or type(error).__name__, error_info(error))
        return Ending("stopped", self._control.reason) if self.stopping else Ending("completed")

    def _require_open(self, what: str) -> None:
        if self._state != "open":
            raise TrackingRefused(
                f"{what}() was called outside of the run", f"call it within `with bus.run(...) as run:` ({self.id})"
            )

    def __repr__(self) -> str:
        return f"<TrackedRun {self.id} {self._state}>"


class _Epoch:
    """One pass over the data."""

    def __init__(self, number: int, batches: int | None) -> None:
        self.number = number
        self.over = False
        """Whether the pass is."""
        self.logged: Numbers | None = None
        """What was logged within the batch in work; None between batches."""
        self.done = 0
        self.samples = 0
        self.waited = 0.0
        """Seconds that the newest batch was waited for."""
        self._batches = batches
        self._began = self._arrived = time.perf_counter()
        self._totals: Numbers = {}
        self._weights: dict[str, int] = {}

    def timed(self, batches: Iterable[T]) -> Iterator[T]:
        """Yield `batches`, noting how long each is waited for."""
        asked = time.perf_counter()
        for data in iterate(batches):
            self._arrived = time.perf_counter()
            self.waited = self._arrived - asked
            yield data
            asked = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Seconds since the newest batch arrived."""
        return time.perf_counter() - self._arrived

    @property
    def duration(self) -> float:
        """Seconds since the epoch began."""
        return time.perf_counter() - self._began

    def batch(self, size: int) -> dict[str, Any]:
        """Return what every event of the batch in work says."""
        return {"epoch": self.number, "batch": self.done, "batches": self._batches, "batch_size": size}

    def count(self, values: Numbers, size: int) -> None:
        """Count a batch of `size` samples."""
        self.done += 1
        self.samples += size
        for name, value in values.items():
            weighted = _exact(value) * size if isinstance(value, Tensor) else value * size
            self._totals[name] = self._totals.get(name, 0.0) + weighted
            self._weights[name] = self._weights.get(name, 0) + size

    def means(self) -> Numbers:
        """Return the means over the samples, where the values are."""
        return {name: total / max(self._weights[name], 1) for name, total in self._totals.items()}


def _exact(value: Tensor) -> Tensor:
    """Return `value`, a single one, with the digits that a sum over many batches needs, where the device has them."""
    return value.reshape(()).to(torch.float32 if value.device.type == "mps" else torch.float64)


def _whole(name: str, value: int, least: int) -> int:
    """Return `value`, also one of numpy's, as an int.

    Raises:
        TrackingRefused: it is no whole number, or below `least`.
    """
    with suppress(TypeError):
        number = operator.index(value)
        if number >= least:
            return number
    raise TrackingRefused(f"{name}={value!r:.40}", f"expected a whole number from {least} on")


def _copied(config: Mapping[str, object]) -> Mapping[str, object]:
    """Return `config` as it is now, as JSON data: its event may be looked at after it was changed."""
    try:
        return cast("dict[str, object]", to_jsonable_python(dict(config), fallback=repr))
    except Exception as error:  # of whatever the user put in
        raise TrackingRefused(
            f"config= expects a dict of settings, as JSON, got what cannot be written so ({error})",
            "put names and numbers in place of objects",
        ) from error


def _by_group(lr: object) -> Mapping[str, object]:
    """Return learning rates by name; those of a list, as schedulers give them, by number where there are several."""
    if isinstance(lr, Mapping):
        return cast("Mapping[str, object]", lr)
    rates = cast("Sequence[object]", lr) if isinstance(lr, (list, tuple)) else [lr]
    return {"all": rates[0]} if len(rates) == 1 else {str(group): rate for group, rate in enumerate(rates)}


def _numbers(values: Mapping[str, object], argument: str | None = None) -> Numbers:
    """Return the numbers among `values` as they are now; `argument` is what they were given as, if not by their names.

    Raises:
        TrackingRefused: one is no number.
    """
    found: Numbers = {}
    for name, value in values.items():
        if not isinstance(cast("object", name), str):
            raise TrackingRefused(f"log() got a number under {name!r}, a {type(name).__qualname__}", "name it by a str")
        scalar = scalar_of(value)
        if scalar is None:
            raise TrackingRefused(
                f"log({argument or name}=...) expects a number, or a dense tensor or array with one real element, "
                f"got {described(value)}",
                "log its mean, or another number that says what you want to see",
            )
        found[name] = scalar.detach().clone() if isinstance(scalar, Tensor) else scalar
    return found


def _each(value: Scalar | Numbers) -> Iterable[Scalar]:
    return value.values() if isinstance(value, dict) else (value,)


def _filled(values: Mapping[str, Scalar | Numbers], numbers: Sequence[float]) -> dict[str, object]:
    """Return `values` with `numbers` in place of the tensors, in their order."""
    arrived = iter(numbers)

    def number(value: Scalar) -> float:
        return next(arrived) if isinstance(value, Tensor) else value

    return {
        key: {name: number(part) for name, part in value.items()} if isinstance(value, dict) else number(value)
        for key, value in values.items()
    }
