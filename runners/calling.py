"""Calling a hook: in the run's thread, on an event loop, or in a thread that can be left behind."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import inspect
import threading
from collections.abc import Awaitable, Callable
from typing import Any

from ..schemas import Event
from .awaited import Awaited, Stay
from .control import Control
from .errors import HookInterrupted, HookTimeout
from .hooks import Hook
from .stand import Stand


class Caller:
    """Calls the hooks of one run, from its thread, and waits for them.

    Args:
        awaited: Whom the run waits for.
        control: What is asked of it meanwhile.
        loop: Gives the event loop of async hooks.
    """

    def __init__(self, awaited: Awaited, control: Control, loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
        self._awaited = awaited
        self._control = control
        self._loop = loop

    def call(self, hook: Hook[Any, Any], event: Event, runner: object) -> None:
        """Call `hook` and wait until it is done.

        Raises:
            HookTimeout: it took longer than its `timeout`; it is cancelled, or its thread left behind.
            HookInterrupted: its event loop is closed, was closed meanwhile, or cancelled it.
        """
        with self._awaited.hook(hook.name, event.type) as stay:
            if hook.timeout is None:
                answer = hook(event, runner)
                if inspect.isawaitable(answer):
                    stand = Stand(self._control, stay)
                    self._wait(self._on_loop(answer, hook, event), hook, event, stand, self._loop())
            else:
                self._call_limited(hook, event, runner, stay)

    def _call_limited(self, hook: Hook[Any, Any], event: Event, runner: object, stay: Stay) -> None:
        stand = Stand(self._control, stay, hook.timeout)
        answer: object
        if hook.awaits:
            answer = hook(event, runner)
        else:
            answer = self._wait(_in_thread(hook, event, runner), hook, event, stand, None)
        if inspect.isawaitable(answer):
            self._wait(self._on_loop(answer, hook, event), hook, event, stand, self._loop())

    def _on_loop(
        self, awaitable: Awaitable[object], hook: Hook[Any, Any], event: Event
    ) -> concurrent.futures.Future[object]:
        coroutine = _await(awaitable)
        try:
            return asyncio.run_coroutine_threadsafe(coroutine, self._loop())
        except RuntimeError:  # the loop is closed
            coroutine.close()
            if inspect.iscoroutine(awaitable):
                awaitable.close()
            raise HookInterrupted(hook.name, event.type) from None

    def _wait(
        self,
        future: concurrent.futures.Future[object],
        hook: Hook[Any, Any],
        event: Event,
        stand: Stand,
        loop: asyncio.AbstractEventLoop | None,
    ) -> object:
        future.add_done_callback(lambda _: self._control.wake())
        try:
            # A loop that is shut down in order cancels the hook, which ends the wait; one closed abruptly forgets it.
            if stand.until(future.done, loop):
                return _answered(future.result())
        except concurrent.futures.CancelledError:
            pass
        finally:
            future.cancel()
        if stand.late and hook.timeout is not None:
            raise HookTimeout(hook.name, event.type, event.run, hook.timeout)
        raise HookInterrupted(hook.name, event.type)


async def _await(awaitable: Awaitable[object]) -> object:
    try:
        return await awaitable
    except TimeoutError as error:
        return _TimedOut(error)


class _TimedOut:
    """The TimeoutError of a hook on its way out of its loop: asyncio hands on a new one, which has no traceback."""

    def __init__(self, error: TimeoutError) -> None:
        self.error = error


def _answered(answer: object) -> object:
    if isinstance(answer, _TimedOut):
        raise answer.error
    return answer


def _in_thread(hook: Hook[Any, Any], event: Event, runner: object) -> concurrent.futures.Future[object]:
    """Call `hook` in a thread of its own, which nobody waits for where it takes too long: none can be stopped.

    Not in a pool, for the reason that `lineside.bus.calls.Limited` has.
    """
    future: concurrent.futures.Future[object] = concurrent.futures.Future()
    future.set_running_or_notify_cancel()  # from now on nobody can cancel it
    context = contextvars.copy_context()

    def work() -> None:
        try:
            future.set_result(context.run(hook, event, runner))
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=work, name=f"lineside-hook-{hook.name}", daemon=True).start()
    return future
