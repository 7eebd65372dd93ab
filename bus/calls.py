"""What is done around a call: time limit and retries."""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
from collections.abc import Awaitable, Callable
from queue import Empty, SimpleQueue
from typing import Any, TypeAlias

from ..schemas import Event
from .callables import is_async
from .errors import CallbackTimeout
from .policy import Policy

AsyncCall = Callable[[Event], Awaitable[object]]
SyncCall = Callable[[Event], object]

FIRST_PAUSE_SECONDS = 0.05
LONGEST_PAUSE_SECONDS = 2.0


def sync_call(callback: SyncCall, policy: Policy, name: str) -> SyncCall:
    """Return `callback` with the time limit and the retries of `policy`; close the result, if it can be closed."""
    if policy.timeout is not None:
        return Limited(callback, policy.timeout, policy.retries, name)
    if not policy.retries:
        return callback
    return lambda event: retry(callback, event, policy.retries)


def async_call(callback: Callable[[Event], Any], policy: Policy, name: str) -> AsyncCall:
    """Return `callback` as an async function with the time limit and the retries of `policy`."""
    call = callback if is_async(callback) else _on_loop(callback)
    if policy.timeout is not None:
        call = _limited(call, policy.timeout, name)
    if not policy.retries:
        return call
    return lambda event: _retry_async(call, event, policy.retries)


def retry(call: SyncCall, event: Event, retries: int, sleep: Callable[[float], None] = time.sleep) -> object:
    """Call `call` with `event`, and if it fails up to `retries` times again."""
    if not retries:
        return call(event)
    try:
        return call(event)
    except Exception:  # what succeeds at once pays nothing for the machinery
        sleep(FIRST_PAUSE_SECONDS)
    from tenacity import Retrying  # imported on demand: few subscriptions retry

    return Retrying(sleep=sleep, **_retrying(retries))(call, event)


async def _retry_async(call: AsyncCall, event: Event, retries: int) -> object:
    try:
        return await call(event)
    except Exception:
        await asyncio.sleep(FIRST_PAUSE_SECONDS)
    from tenacity import AsyncRetrying

    return await AsyncRetrying(sleep=asyncio.sleep, **_retrying(retries))(call, event)


def _retrying(retries: int) -> dict[str, Any]:
    from tenacity import stop_after_attempt, wait_exponential, wait_random

    return {
        "stop": stop_after_attempt(retries),
        "wait": wait_exponential(multiplier=2 * FIRST_PAUSE_SECONDS, max=LONGEST_PAUSE_SECONDS)
        + wait_random(0, FIRST_PAUSE_SECONDS),
        "reraise": True,
    }


def _on_loop(callback: SyncCall) -> AsyncCall:
    async def call(event: Event) -> object:
        return callback(event)

    return call


def _limited(call: AsyncCall, seconds: float, name: str) -> AsyncCall:
    async def limited(event: Event) -> object:
        limit = asyncio.timeout(seconds)
        try:
            async with limit:
                return await call(event)
        except TimeoutError:
            if limit.expired():
                raise CallbackTimeout(name, seconds) from None
            raise  # the callback's own

    return limited


Order: TypeAlias = tuple[contextvars.Context, Event]
Outcome: TypeAlias = tuple[object, BaseException | None]


class Limited:
    """Calls back in another thread, which is left behind and replaced when it takes too long: none can be stopped.

    Not in a pool of anyio, asyncio or `concurrent.futures`: their threads are joined at interpreter exit, and one that
    hangs keeps the interpreter from ending.
    """

    def __init__(self, callback: SyncCall, seconds: float, retries: int, name: str) -> None:
        self._callback = callback
        self._seconds = seconds
        self._retries = retries
        self._name = name
        self._queues: tuple[SimpleQueue[Order | None], SimpleQueue[Outcome]] | None = None

    def __call__(self, event: Event) -> object:
        """Return what the callback returns, and raise what it raises, or `CallbackTimeout`."""
        return retry(self._call, event, self._retries)

    def _call(self, event: Event) -> object:
        orders, outcomes = self._queues = self._queues or self._start()
        orders.put((contextvars.copy_context(), event))
        try:
            answer, error = outcomes.get(timeout=self._seconds)
        except Empty:
            self.close()
            raise CallbackTimeout(self._name, self._seconds) from None
        if error is not None:
            raise error
        return answer

    def _start(self) -> tuple[SimpleQueue[Order | None], SimpleQueue[Outcome]]:
        queues: tuple[SimpleQueue[Order | None], SimpleQueue[Outcome]] = SimpleQueue(), SimpleQueue()
        threading.Thread(target=_work, args=(self._callback, *queues), name="lineside-call", daemon=True).start()
        return queues

    def close(self) -> None:
        """End the thread, at once or when the callback returns."""
        if self._queues is not None:
            self._queues[0].put(None)
            self._queues = None


def _work(callback: SyncCall, orders: SimpleQueue[Order | None], outcomes: SimpleQueue[Outcome]) -> None:
    while order := orders.get():
        context, event = order
        try:
            outcomes.put((context.run(callback, event), None))
        except BaseException as error:
            outcomes.put((None, error))
