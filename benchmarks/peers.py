"""The peers, each set up as its own documentation would have it used from a worker thread.

Each is a context manager over the running loop that takes async callbacks and yields `publish(event)`, which may be
called from any thread. None but `bubus` wraps what it is given; the event is a pydantic payload that was built before.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from itertools import count
from typing import Any

import psygnal
from blinker import Signal
from bubus import BaseEvent, EventBus
from pyee.asyncio import AsyncIOEventEmitter

from lineside.schemas import Event

Callback = Callable[[Any], Awaitable[None]]
Publish = Callable[[Any], object]
Peer = Callable[[Sequence[Callback]], AbstractAsyncContextManager[Publish]]


@asynccontextmanager
async def plain_list(callbacks: Sequence[Callback]) -> AsyncIterator[Publish]:
    """Call a list of plain functions in the publisher's thread, as the original does. They do nothing, either."""
    functions = [_do_nothing for _ in callbacks]

    def publish(event: object) -> None:
        for function in functions:
            function(event)

    yield publish


def _do_nothing(_: object) -> None:
    pass


@asynccontextmanager
async def call_soon(callbacks: Sequence[Callback]) -> AsyncIterator[Publish]:
    """Post the event to the loop, where every callback becomes a task."""
    loop = asyncio.get_running_loop()
    tasks: set[asyncio.Task[None]] = set()

    def spread(event: object) -> None:
        for callback in callbacks:
            _keep(loop.create_task(callback(event)), tasks)  # type: ignore[arg-type]

    yield partial(loop.call_soon_threadsafe, spread)
    await _finished(tasks)


@asynccontextmanager
async def queues(callbacks: Sequence[Callback]) -> AsyncIterator[Publish]:
    """Post the event to the loop, where it is put on one `asyncio.Queue` per subscriber, each read by a task."""
    loop = asyncio.get_running_loop()
    inboxes: list[asyncio.Queue[object]] = [asyncio.Queue() for _ in callbacks]
    tasks = [loop.create_task(_serve(inbox, callback)) for inbox, callback in zip(inboxes, callbacks, strict=True)]

    def spread(event: object) -> None:
        for inbox in inboxes:
            inbox.put_nowait(event)

    yield partial(loop.call_soon_threadsafe, spread)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _serve(inbox: asyncio.Queue[object], callback: Callback) -> None:
    while True:
        await callback(await inbox.get())


@asynccontextmanager
async def pyee(callbacks: Sequence[Callback]) -> AsyncIterator[Publish]:
    """`AsyncIOEventEmitter`: `emit` belongs on the loop's thread, because it makes a task per callback."""
    loop = asyncio.get_running_loop()
    emitter = AsyncIOEventEmitter(loop=loop)
    for callback in callbacks:
        emitter.on("event", callback)
    yield partial(loop.call_soon_threadsafe, emitter.emit, "event")
    await emitter.wait_for_complete()


@asynccontextmanager
async def blinker(callbacks: Sequence[Callback]) -> AsyncIterator[Publish]:
    """`Signal.send_async`, as a task per event: it awaits the receivers one after the other.

    The event is passed as the sender, which saves blinker a wrapper around every callback.
    """
    loop = asyncio.get_running_loop()
    signal = Signal()
    for callback in callbacks:
        signal.connect(callback, weak=False)
    tasks: set[asyncio.Task[Any]] = set()

    def send(event: object) -> None:
        _keep(loop.create_task(signal.send_async(event)), tasks)

    yield partial(loop.call_soon_threadsafe, send)
    await _finished(tasks)


@asynccontextmanager
async def psygnal_signal(callbacks: Sequence[Callback]) -> AsyncIterator[Publish]:
    """`SignalInstance.emit` with the asyncio backend, whose one task awaits the callbacks one after the other."""
    loop = asyncio.get_running_loop()
    backend = psygnal.set_async_backend("asyncio")
    await backend.running.wait()
    signal = psygnal.SignalInstance((object,))
    for callback in callbacks:
        signal.connect(callback)
    try:
        yield partial(loop.call_soon_threadsafe, signal.emit)
    finally:
        psygnal._async.clear_async_backend()
        await asyncio.sleep(0)


class Carrier(BaseEvent[None]):
    """The envelope that bubus demands: its events are made anew for every dispatch."""

    payload: Event


@asynccontextmanager
async def bubus(callbacks: Sequence[Callback]) -> AsyncIterator[Publish]:
    """`EventBus.dispatch`, which needs the loop's thread; it refuses when more than 100 events are on their way."""
    logging.getLogger("bubus").setLevel(logging.CRITICAL)
    loop = asyncio.get_running_loop()
    bus = EventBus()
    for number, callback in zip(count(), callbacks, strict=False):
        bus.on(Carrier, _bubus_handler(callback, number))

    def dispatch(event: Event) -> None:
        try:
            bus.dispatch(Carrier(payload=event))
        except RuntimeError:
            dispatch.refused += 1  # type: ignore[attr-defined]

    dispatch.refused = 0  # type: ignore[attr-defined]
    yield partial(loop.call_soon_threadsafe, dispatch)
    await bus.stop(timeout=0, clear=True)


def _bubus_handler(callback: Callback, number: int) -> Callback:
    async def handler(event: Carrier) -> None:
        await callback(event.payload)

    handler.__name__ = f"handler_{number}"  # it warns of two handlers with one name
    return handler


def _keep(task: asyncio.Task[Any], tasks: set[asyncio.Task[Any]]) -> None:
    tasks.add(task)
    task.add_done_callback(tasks.discard)


async def _finished(tasks: set[asyncio.Task[Any]]) -> None:
    while tasks:
        await asyncio.wait(tasks)
