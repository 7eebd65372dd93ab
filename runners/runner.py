"""`Runner`: what trainer, validator, predictor and exporter have in common."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import threading
import traceback
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, ClassVar, Generic, Self, TypeVar, cast, overload

from ..bus import Bus, Mark, Source
from ..bus.cells import settle
from ..schemas import ErrorInfo, Event, Outcome, RunEnd, RunEvent, RunStart
from ..schemas.run import Kind
from .awaited import Awaited
from .calling import Caller
from .config import RunnerConfig
from .control import Control, Steered, stop_on_signals
from .errors import InvalidArgument, RunnerBusy, WouldDeadlock
from .hold import Holds
from .hooks import Hook, Hooks
from .identity import Identity, new_run_id, newest_attempt, versions
from .jobs import Able
from .loops import running_loop
from .relay import Relay, complete
from .results import RunResult
from .run import Run
from .scalars import Snapshot

C = TypeVar("C", bound=RunnerConfig)
R = TypeVar("R", bound=RunResult)
E1 = TypeVar("E1", bound=Event)
E2 = TypeVar("E2", bound=Event)


Begin = Callable[[asyncio.AbstractEventLoop | None], None]
"""Begins a run whose async hooks run on that loop, or on the bus's where it is None."""

logger = logging.getLogger("lineside.runners")

_DRAIN_SECONDS = 5.0
_KEPT, _KEPT_BYTES = 1 << 16, 128 << 20
"""Of a bus of its own, where a handle can look back at the run. Unread events take about a third of these bytes."""
_SETTLE_SECONDS = 10.0
"""Longest wait for the end of the run that a notebook's cell began when it was run before."""


@dataclass(frozen=True)
class Ending:
    """How a run ends, as far as it is known."""

    outcome: Outcome
    reason: str | None = None
    error: ErrorInfo | None = None


class Runner(Steered, ABC, Generic[C, R]):
    """One kind of work that reports every stage it reaches to a bus, and waits for its hooks there.

    A subclass says what its runs do (`_in_parts`), where they compute (`_facts`), what is checked before anything is
    touched (`_prepare`) and what is given back however a run ends (`_teardown`). It reaches its stages with
    `reach` and asks `_interrupted` between two batches. That ``RunStart`` comes first and ``RunEnd`` last, whatever
    happens, is promised here.

    Args:
        config: The settings.
        bus: Where to publish. Default: a bus of its own for each run, closed at the end of `run`, and after `start`
            once nobody holds the handle any more.
    """

    kind: ClassVar[Kind]
    stages: ClassVar[tuple[type[Event], ...]]
    """Families of the stages that it reaches."""

    def __init__(self, config: C, *, bus: Bus | None = None) -> None:
        if bus is not None and not isinstance(cast("object", bus), Bus):
            raise InvalidArgument(f"bus is {bus!r:.80} of type {type(bus).__qualname__}", "expected a lineside.Bus")
        self.config = config
        self._given_bus = bus
        self._own_bus: Bus | None = None
        self._bus_used = False
        self._hooks: Hooks[Self] = Hooks(type(self).__name__, (RunEvent, *self.stages))
        self._control = Control()
        self._awaited = Awaited()
        self._busy = threading.Lock()
        self._identity = Identity("")
        self._loop: asyncio.AbstractEventLoop | None = None
        self._caller: Caller
        self._source: Source
        self._mark: Mark

    # ---- what a subclass fills in

    @abstractmethod
    def _facts(self) -> Mapping[str, object]:
        """Return the fields of ``RunStart`` that only the subclass knows: `model`, `device` and others."""

    @abstractmethod
    def _in_parts(self) -> Generator[None, None, R]:
        """Do the work, between ``RunStart`` and the teardown; between two parts of it another thread may take over."""

    def _prepare(self) -> Identity:
        """Check what can be checked before anything is touched; an error here means the run never began."""
        name = self.config.name
        return Identity(new_run_id(self.kind)) if name is None else Identity(name, self._next_attempt(name))

    def _next_attempt(self, run: str) -> int:
        """Return the number of the attempt at `run` that comes now, as far as the bus that was given knows."""
        return 1 if self._given_bus is None else newest_attempt(self._given_bus, run) + 1

    def _teardown(self, ending: Ending) -> None:
        """Give back what the run held, however it ended."""

    # ---- for everybody

    @property
    def bus(self) -> Bus:
        """Where this runner publishes. A bus of its own is for one run, see `Runner`: for several runs, pass one."""
        if self._given_bus is not None:
            return self._given_bus
        if self._own_bus is None:
            self._own_bus = Bus()
        return self._own_bus

    @property
    def run_id(self) -> str:
        """Id of the run in progress or the last one; empty before the first."""
        return self._identity.run

    def _run(self, begin: Begin) -> R:
        """Run in the calling thread and return the result, or raise the error that ended the run."""
        self._refuse_loop_of_bus()
        with self._occupied():
            begin(None)
            with self._bus_closed_after(), stop_on_signals(self._control.stop):
                result = self._complete(self._execute())
        stopped_by = self._control.signal if result.outcome == "stopped" else None
        return result if stopped_by is None else result.model_copy(update={"signal": stopped_by})

    def _start(self, begin: Begin) -> Run[R]:
        """Run in a worker thread and return its handle at once."""
        settle(_SETTLE_SECONDS)
        self._occupy()
        try:
            begin(running_loop())
            holds = Holds(self.run_id, self._hooks, self._awaited, self._control)
            run: Run[R] = Run(self.run_id, self.bus, self._mark, self._control, holds, self._able())
            if self._own_bus is not None:  # its streams can be read for as long as the handle lives
                self._own_bus.remember(_KEPT, _KEPT_BYTES)
                weakref.finalize(run, self._own_bus.close)
            run.work(self._relay(self._execute_and_release()).finish)
        except BaseException:
            self._busy.release()
            raise
        return run

    def __setattr__(self, name: str, value: object) -> None:
        if name != "stop":
            super().__setattr__(name, value)
        elif value:  # ``trainer.stop = True`` is how callbacks of the original ask for it
            self.stop("stop was set")

    @overload
    def hook(
        self, t1: type[E1], /, *, timeout: float | None = None
    ) -> Callable[[Callable[[E1, Self], object]], Hook[E1, Self]]: ...
    @overload
    def hook(
        self, t1: type[E1], t2: type[E2], /, *, timeout: float | None = None
    ) -> Callable[[Callable[[E1 | E2, Self], object]], Hook[E1 | E2, Self]]: ...
    @overload
    def hook(
        self, *types: type[Event] | str, timeout: float | None = None
    ) -> Callable[[Callable[[Any, Self], object]], Hook[Any, Self]]: ...
    def hook(
        self, *types: type[Event] | str, timeout: float | None = None
    ) -> Callable[[Callable[[Any, Self], object]], Hook[Any, Self]]:
        """Register the decorated ``(event, runner)``, sync or async, for `types`; the runner waits for it.

        Hooks are called in the order of registration. One that raises ends the run, and so does one that takes longer
        than `timeout` seconds (`HookTimeout`): an async one is cancelled, a plain one is called in a thread of its own,
        which is left behind then. The result is a `Hook`: it can still be called, and ``remove()`` takes it off.

        Raises:
            UnknownEventName: no event has that name.
            UnreachableStage: this runner never reaches it.
            InvalidHook: not callable, or not with (event, runner); `timeout` is no time.
        """
        self._hooks.reachable(types)  # at once: without the brackets, the function is taken for one and never called

        def register(function: Callable[[Any, Self], object]) -> Hook[Any, Self]:
            return self._hooks.add(function, *types, timeout=timeout)

        return register

    def add_callback(
        self, name: str, function: Callable[[Self], object], *, timeout: float | None = None
    ) -> Hook[Any, Self]:
        """Register ``function(runner)``, sync or async, under a callback's name, e.g. ``on_fit_epoch_end``.

        For `timeout` see `hook`.

        Raises:
            UnknownEventName: there is no such callback; the message lists the closest.
            UnreachableStage: this runner never reaches it.
            InvalidHook: not callable, or not with (runner); `timeout` is no time.
        """
        return self._hooks.add_callback(name, function, timeout=timeout)

    # ---- for subclasses

    def reach(self, event: type[Event], /, **fields: object) -> None:
        """Say that a stage is reached: publish it, then call its hooks and wait for them."""
        self._source.publish(event, **fields)
        hooks = self._hooks.of(event)
        if hooks:
            self._call(hooks, self._source.stamp(event.model_validate(fields)))

    def reach_when(self, snapshot: Snapshot, event: type[Event], /, **fields: object) -> None:
        """Reach a stage some of whose fields are still on their way from the device; only hooks wait for them."""
        if snapshot.known or self._hooks.of(event):
            self.reach(event, **fields, **snapshot.wait())
        else:
            self._source.publish_when(snapshot, event, **fields)

    def _interrupted(self) -> bool:
        """Between two batches: stand still while paused, then say whether to stop."""
        return self._control.interrupted()

    def _call(self, hooks: tuple[Hook[Any, Any], ...], event: Event) -> None:
        for hook in hooks:
            try:
                self._caller.call(hook, event, self)
            except BaseException as error:
                error.add_note(f"raised by the hook {hook.name} at {event.type} of run {event.run}")
                raise

    def _hook_loop(self) -> asyncio.AbstractEventLoop:
        return self._loop or self.bus.loop

    def _able(self) -> Able | None:
        """Return what its runs can do when somebody asks; None: nothing."""
        return None

    # ---- the one way every run goes

    def _begin(self, loop: asyncio.AbstractEventLoop | None) -> None:
        self._control = Control()
        self._identity = self._prepare()
        if self._bus_used:
            self._own_bus = None
        self._bus_used = True
        self._mark = self.bus.mark()
        self._source = self.bus.source(self._identity.run, attempt=self._identity.attempt, rank=self._identity.rank)
        self._loop = loop
        self._awaited = Awaited(self.run_id, loop, self.bus.serves)

    def _relay(self, parts: Generator[None, None, R]) -> Relay[R]:
        """Return the way of a started run through its threads: one, unless a subclass lets others begin."""
        return Relay(parts, self._awaited.caller())

    def _complete(self, parts: Generator[None, None, R]) -> R:
        with self._awaited.caller():
            return complete(parts)

    def _execute(self) -> Generator[None, None, R]:
        # Here and not where it begins: a subclass may have put a control of its own in the place of the common one.
        self._caller = Caller(self._awaited, self._control, self._hook_loop)
        with self.bus.steering.within(self.run_id, self._control):
            errors = _Errors()
            result: R | None = None
            with errors:
                self._reach_start()
                result = yield from self._in_parts()
            self._control.end()
            with errors:
                self._teardown(errors.ending(result))
            with errors:
                self._reach_end(errors.ending(result))
            return errors.none_or_raise(result)

    def _reach_start(self) -> None:
        facts = {"config": self.config.model_dump(mode="json"), "versions": versions(), **self._facts()}
        self.reach(RunStart, kind=self.kind, host=socket.gethostname(), pid=os.getpid(), **facts)

    def _reach_end(self, ending: Ending) -> None:
        self._control.said_end = True  # before it is: whoever began to wait and finds this unset will see it
        self.reach(
            RunEnd,
            kind=self.kind,
            **vars(ending),
            duration=self._source.elapsed(),
        )

    def _execute_and_release(self) -> Generator[None, None, R]:
        try:
            return (yield from self._execute())
        finally:
            self._deliver()
            self._busy.release()

    def _deliver(self) -> None:
        """Have the subscribers of an own bus handle everything before the run counts as over."""
        try:
            if self._own_bus is not None:
                self._own_bus.drain(_DRAIN_SECONDS)
        except TimeoutError as error:
            logger.warning("run %s is over, but %s", self.run_id, error)

    def _occupy(self) -> None:
        if not self._busy.acquire(blocking=False):
            raise RunnerBusy(type(self).__name__, self.run_id, predicts=self.kind == "predict")

    @contextmanager
    def _occupied(self) -> Generator[None]:
        self._occupy()
        try:
            yield
        finally:
            self._busy.release()

    @contextmanager
    def _bus_closed_after(self) -> Generator[None]:
        try:
            yield
        finally:
            if self._own_bus is not None:
                self._own_bus.close()

    def _refuse_loop_of_bus(self) -> None:
        if self._given_bus is not None and self._given_bus.serves(running_loop()):
            raise WouldDeadlock(
                f"{type(self).__name__}.run()",
                "it would hold up the event loop that the bus's async callbacks run on",
                "use `result = await runner.start()`",
            )


class ReadyRunner(Runner[C, R]):
    """A runner that was given all it needs when it was made, and whose runs are one part."""

    @abstractmethod
    def _body(self) -> R:
        """Do the work, see `Runner`."""

    def _in_parts(self) -> Generator[None, None, R]:
        yield from ()
        return self._body()

    def run(self) -> R:
        """Run in the calling thread and return the result, or raise the error that ended the run.

        In the main thread, SIGINT and SIGTERM stop the run at the next batch: what is to be saved is saved and a
        result with the outcome ``stopped`` is returned. A second SIGINT raises KeyboardInterrupt.

        Raises:
            RunnerBusy: a run of this runner is in progress.
            WouldDeadlock: this thread runs the loop that the bus's callbacks need.
        """
        return self._run(self._begin)

    def start(self) -> Run[R]:
        """Run in a worker thread and return its handle at once. Async hooks run on the loop of the caller, if any.

        Raises:
            RunnerBusy: a run of this runner is in progress.
        """
        return self._start(self._begin)


class _Errors:
    """Collects what goes wrong on a run's way to its end. The first error is the run's; later ones become its notes."""

    def __init__(self) -> None:
        self._first: BaseException | None = None

    def __enter__(self) -> None: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if self._first is None:
            self._first = error
        elif error is not None:
            self._first.add_note("and then: " + "".join(traceback.format_exception_only(error)).strip())
        return True

    def ending(self, result: RunResult | None) -> Ending:
        """Return how the run ends as things stand."""
        if self._first is not None:
            return Ending("failed", str(self._first) or type(self._first).__name__, error_info(self._first))
        return Ending("completed") if result is None else Ending(result.outcome, result.reason)

    def none_or_raise(self, result: R | None) -> R:
        """Return `result`, or raise the first error."""
        error, self._first = self._first, None
        try:
            if error is not None:
                raise error
        finally:
            del error  # its traceback has this frame: a cycle would keep all that the run had, until it is collected
        assert result is not None  # without an error the body has returned one
        return result


def error_info(error: BaseException) -> ErrorInfo:
    """Return `error` as data."""
    cls = type(error)
    name = cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"
    return ErrorInfo(type=name, message=str(error), traceback="".join(traceback.format_exception(error)))
