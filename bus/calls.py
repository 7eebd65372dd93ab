"""What is done around a call: time limit, retries, and plain functions on a loop."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, InvalidStateError
from typing import Any

import anyio

from ..schemas import Event
from .errors import CallbackTimeout
from .policy import Lane, Policy, is_async

AsyncCall = Callable[[Event], Awaitable[object]]
SyncCall = Callable[[Event], object]

FIRST_PAUSE_SECONDS = 0.05
LONGEST_PAUSE_SECONDS = 2.0


def sync_call(callback: SyncCall, policy: Policy) -> SyncCall:
    """Return `callback` with the retries of `policy`."""
    if not policy.retries:
        return callback
    from tenacity import Retrying  # imported on demand: few subscriptions retry

    return Retrying(**_retrying(policy)).wraps(callback)


def async_call(callback: Callable[[Event], Any], policy: Policy, name: str) -> AsyncCall:
    """Return `callback` as an async function with the time limit and the retries of `policy`."""
    call = callback if is_async(callback) else _on_loop(callback, policy)
    if policy.timeout is not None:
        call = _limited(call, policy.timeout, name)
    if not policy.retries:
        return call
    from tenacity import AsyncRetrying

    return AsyncRetrying(sleep=asyncio.sleep, **_retrying(policy)).wraps(call)


def _on_loop(callback: SyncCall, policy: Policy) -> AsyncCall:
    """A plain function on a loop: called there if asked for, else in a thread that a time limit can abandon."""

    async def call_here(event: Event) -> object:
        return callback(event)

    async def call_in_thread(event: Event) -> object:
        error = await asyncio.wrap_future(_start(callback, event))
        if error is not None:
            raise error  # only now: a future refuses to hold a StopIteration
        return None

    return call_here if policy.lane is Lane.LOOP else call_in_thread


def _start(callback: SyncCall, event: Event) -> Future[BaseException | None]:
    """Call `callback` in a daemon thread of its own; the result is what it raised.

    Not in anyio's or the loop's pool: their threads are joined at interpreter exit, and one that hangs keeps the
    interpreter from ending.
    """
    future: Future[BaseException | None] = Future()

    def run() -> None:
        outcome: BaseException | None = None
        try:
            callback(event)
        except BaseException as error:
            outcome = error
        with contextlib.suppress(InvalidStateError):  # given up
            future.set_result(outcome)

    threading.Thread(target=contextvars.copy_context().run, args=(run,), name="lineside-call", daemon=True).start()
    return future


def _limited(call: AsyncCall, seconds: float, name: str) -> AsyncCall:
    async def limited(event: Event) -> object:
        with anyio.move_on_after(seconds) as scope:
            return await call(event)
        if scope.cancelled_caught:
            raise CallbackTimeout(name, seconds)
        return None

    return limited


def _retrying(policy: Policy) -> dict[str, Any]:
    from tenacity import stop_after_attempt, wait_exponential, wait_random

    return {
        "stop": stop_after_attempt(policy.retries + 1),
        "wait": wait_exponential(multiplier=FIRST_PAUSE_SECONDS, max=LONGEST_PAUSE_SECONDS)
        + wait_random(0, FIRST_PAUSE_SECONDS),
        "reraise": True,
    }
