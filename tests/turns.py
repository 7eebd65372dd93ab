"""Turns of an event loop, for tests that must know that a task has begun to wait."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

T = TypeVar("T")


async def begin(awaitable: Awaitable[T]) -> asyncio.Task[T]:
    """Await `awaitable` in a task, and return once that task waits."""
    begun = asyncio.Event()

    async def wait() -> T:
        begun.set()  # heard only when this task suspends
        return await awaitable

    task = asyncio.create_task(wait())
    await begun.wait()
    return task


async def turn() -> None:
    """Give every other task that can run its turn; wait for nothing."""
    await asyncio.sleep(0)
