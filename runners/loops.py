"""Event loops, as the threads see them that wait for what they do."""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

T = TypeVar("T")

LOOK_SECONDS = 0.2
"""Time between two looks whether an event loop was closed: it tells nobody."""


def wait_while_open(loop: asyncio.AbstractEventLoop, wait: Callable[[float], bool]) -> bool:
    """Call ``wait(seconds)`` until it returns true for what `loop` is to bring about; False: the loop was closed."""
    while not wait(LOOK_SECONDS):
        if loop.is_closed():
            return False
    return True


async def outcome_of(future: concurrent.futures.Future[T]) -> T:
    """Wait for `future` on the running loop, and return its result or raise its error, as it is.

    asyncio hands on a TimeoutError as a new one, which has neither traceback nor notes.
    """
    try:
        with suppress(TimeoutError):
            return await asyncio.wrap_future(future)
        return future.result()
    finally:
        del future  # the error's traceback has this frame: it must not keep what the error is of


def raisable(error: BaseException, what: str) -> BaseException:
    """Return the error of `what` as a future can raise it: with StopIteration, who awaits it would wait for ever."""
    if not isinstance(error, StopIteration):
        return error
    instead = RuntimeError(f"{what} raised StopIteration, which no future can; catch it, or give next() a default")
    instead.__cause__ = error
    return instead


def running_loop() -> asyncio.AbstractEventLoop | None:
    """Return the event loop that runs in this thread, if any."""
    return asyncio._get_running_loop()  # the public one raises where there is none, which takes ten times as long
