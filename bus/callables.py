"""What a function that somebody brings is: looked at before it is called, in words for the message of an error."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from types import AsyncGeneratorType, GeneratorType
from typing import Any


def why_not_callable(function: object, arguments: int) -> str | None:
    """Say why calling `function` with that many positional arguments would fail; None: it would not."""
    if not callable(function):
        return f"{type(function).__qualname__} is not callable"
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # some builtins have no signature; the call will tell
        return None
    try:
        signature.bind(*range(arguments))
    except TypeError as error:
        return f"it takes {signature} ({error})"
    return None


def why_no_predicate(where: object) -> str | None:
    """Say why `where` cannot tell which events are meant; None: it can."""
    problem = why_not_callable(where, 1)
    if problem is None and callable(where):
        if is_async(where):
            return "it is async, and the coroutine that a call returns is true of every event"
        if is_generator(where):
            return "it has a `yield`, and the generator that a call returns is true of every event"
    return problem


def is_async(function: Callable[..., Any]) -> bool:
    """Return whether calling `function` gives an awaitable."""
    return any(map(inspect.iscoroutinefunction, _definitions(function)))


def is_generator(function: Callable[..., Any]) -> bool:
    """Return whether calling `function` gives a generator, and so runs nothing of it."""
    definitions = _definitions(function)
    return any(map(inspect.isgeneratorfunction, definitions)) or any(map(inspect.isasyncgenfunction, definitions))


def gave_generator(answer: object) -> bool:
    """Return whether the `answer` of a call is a generator, of which nothing runs."""
    return isinstance(answer, (GeneratorType, AsyncGeneratorType))


def _definitions(function: Callable[..., Any]) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Return what a call of `function` may be defined by: itself, or its class's ``__call__``."""
    while isinstance(function, functools.partial):
        function = function.func
    return function, type(function).__call__
