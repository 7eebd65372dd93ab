"""Hooks: callbacks a runner waits for, and that may steer it."""

from __future__ import annotations

import functools
import inspect
import math
import threading
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from ..bus.callables import gave_generator, is_async, is_generator, why_no_predicate, why_not_callable
from ..bus.cells import did
from ..schemas import (
    BusEvent,
    Event,
    ExportEvent,
    PredictEvent,
    RunEvent,
    TrainEvent,
    ValEvent,
    find_events,
)
from .errors import InvalidArgument, InvalidHook, UnreachableStage

E = TypeVar("E", bound=Event)
T = TypeVar("T")

_FAMILIES = (RunEvent, TrainEvent, ValEvent, PredictEvent, ExportEvent, BusEvent)
"""Events of which each belongs to certain runners, or to the bus."""


class Hook(Generic[E, T]):
    """A registered hook. It can be called like the function it was made from.

    A context manager: leaving it removes the hook.
    """

    def __init__(
        self,
        function: Callable[[E, T], object],
        types: tuple[type[Event], ...],
        registry: Hooks[T],
        timeout: float | None = None,
    ) -> None:
        functools.update_wrapper(self, function)
        self._function = function
        self._registry = registry
        self.types = types
        """The events and families it is called for."""
        self.timeout = timeout
        """Seconds a call may take; None: any time."""

    @property
    def name(self) -> str:
        """The qualified name of the function, or what else was registered."""
        function = inspect.unwrap(self._function)
        return str(getattr(function, "__qualname__", repr(function)))

    @property
    def awaits(self) -> bool:
        """Whether calling it does nothing but give an awaitable."""
        return is_async(inspect.unwrap(self._function))

    def __call__(self, event: E, runner: T) -> object:
        """Call the function.

        Raises:
            InvalidHook: it returns a generator, of which nothing runs.
        """
        answer = self._function(event, runner)
        if gave_generator(answer):
            problem = "it returned a generator, of which nothing runs"
            raise InvalidHook(self._function, "a function that iterates over it", problem, "called")
        return answer

    def remove(self) -> None:
        """Take the hook off, from the next stage on. Removing it twice is fine."""
        self._registry.remove(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()

    def __repr__(self) -> str:
        return f"<Hook {self.name} at {', '.join(cls.__name__ for cls in self.types)}>"


class Hooks(Generic[T]):
    """The hooks of one runner, in the order they were registered.

    Args:
        runner: Kind of the runner, for messages.
        stages: Families of the stages it reaches; hooks for another runner's stages are refused.

    Safe from any thread. What a hook adds or removes counts from the next stage on: every change replaces the
    tuples that a dispatch may be walking through.
    """

    def __init__(self, runner: str, stages: tuple[type[Event], ...]) -> None:
        self._runner = runner
        self._stages = stages
        self._lock = threading.Lock()
        self._hooks: tuple[Hook[Any, T], ...] = ()
        self._by_event: dict[type[Event], tuple[Hook[Any, T], ...]] = {}

    def add(
        self, function: Callable[[E, T], object], *types: type[Event] | str, timeout: float | None = None
    ) -> Hook[E, T]:
        """Register ``function(event, runner)`` for `types` (classes, families or names; none: every event).

        A call that takes longer than `timeout` seconds ends the run.

        Raises:
            UnknownEventName: no event has that name.
            UnreachableStage: this runner never reaches it.
            InvalidHook: `function` is not callable, or not with ``(event, runner)``, or is a generator function, or
                `timeout` is no time.
        """
        classes = self.reachable(types)
        _check(function, 2, "a function of (event, runner), e.g. `def hook(event, trainer): ...`", timeout)
        return self._add(Hook(function, classes, self, timeout))

    def add_callback(self, name: str, function: Callable[[T], object], *, timeout: float | None = None) -> Hook[Any, T]:
        """Register ``function(runner)`` under a callback's name, e.g. ``on_fit_epoch_end``. For `timeout` see `add`.

        Raises:
            UnknownEventName: there is no such callback; the message lists the closest.
            UnreachableStage: this runner never reaches it.
            InvalidHook: `function` is not callable, or not with ``(runner)``, or is a generator function, or
                `timeout` is no time.
        """
        (event,) = self.reachable([name])
        _check(function, 1, f"a function of (runner), e.g. `def {name}(trainer): ...`", timeout)
        return self._add(Hook(_without_event(function), (event,), self, timeout))

    def reachable(self, types: Iterable[type[Event] | str]) -> tuple[type[Event], ...]:
        """Return the classes that `types` mean, each of which this runner may reach.

        Raises:
            UnknownEventName: no event has that name.
            UnreachableStage: this runner never reaches it.
        """
        classes = find_events(types)
        foreign = tuple(family for family in _FAMILIES if family not in self._stages)
        for cls in classes:
            if issubclass(cls, foreign):
                raise UnreachableStage(self._runner, cls.__name__, (family.__name__ for family in self._stages))
        return classes

    def remove(self, hook: Hook[Any, T]) -> None:
        """Take `hook` off; nothing happens if it is off already."""
        with self._lock:
            self._replace(tuple(other for other in self._hooks if other is not hook))

    def of(self, event: type[Event]) -> tuple[Hook[Any, T], ...]:
        """Return the hooks for `event` in order: a dictionary look-up while nothing changes."""
        by_event = self._by_event  # before the hooks: a change in between leaves its mark in the dict that replaced it
        found = by_event.get(event)
        if found is None:
            found = by_event[event] = tuple(hook for hook in self._hooks if issubclass(event, hook.types))
        return found

    def _add(self, hook: Hook[E, T]) -> Hook[E, T]:
        with self._lock:
            self._replace((*self._hooks, hook))
        did(hook, _remove)
        return hook

    def _replace(self, hooks: tuple[Hook[Any, T], ...]) -> None:
        self._hooks = hooks
        self._by_event = {}


def _remove(hook: Hook[Any, Any]) -> None:
    hook.remove()


def _without_event(function: Callable[[T], object]) -> Callable[[Event, T], object]:
    @functools.wraps(function)
    def call(_: Event, runner: T) -> object:
        return function(runner)

    return call


def _check(function: Callable[..., object], arguments: int, expected: str, timeout: float | None) -> None:
    if problem := why_not_callable(function, arguments):
        raise InvalidHook(function, expected, problem)
    if inspect.isclass(function):
        raise InvalidHook(function, f"{expected}, or an instance of it", "it is a class, of which calls make instances")
    if is_generator(function):
        problem = "it has a `yield`, so that a call would run nothing of it"
        raise InvalidHook(function, f"{expected}, without it", problem)
    if timeout is not None and not (_is_time(timeout) and timeout > 0):
        raise InvalidHook(function, "seconds above 0, or None for any time", f"timeout={timeout!r:.40}")


def check_wait(wait: str, timeout: object, where: object = None) -> None:
    """Refuse a `timeout` of `wait` that is no time, and a `where` that cannot say which events are meant.

    Raises:
        InvalidArgument: it is so.
    """
    if timeout is not None and not _is_time(timeout):
        raise InvalidArgument(f"{wait} was given timeout={timeout!r:.40}", "expected seconds, or None for any time")
    if where is not None and (problem := why_no_predicate(where)):
        raise InvalidArgument(
            f"{wait} cannot ask where={where!r:.80}: {problem}", "expected a plain function of one event: true or false"
        )


def _is_time(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
