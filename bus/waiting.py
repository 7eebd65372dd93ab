"""Procedures that wait, written once and driven from plain code or on an event loop."""

from __future__ import annotations

import asyncio
import concurrent.futures
import time
from collections.abc import Generator, Iterable
from concurrent.futures import Future
from typing import Any, TypeAlias, TypeVar, cast

T = TypeVar("T")

Waits: TypeAlias = Generator[tuple[Iterable[Future[Any]], float | None], None, T]
"""A procedure that yields what it waits for, and until when (monotonic seconds; None: for ever)."""


def drive(waits: Waits[T]) -> T:
    """Carry out `waits`, stopping the calling thread at each wait; return what it returns."""
    while True:
        try:
            futures, deadline = next(waits)
        except StopIteration as end:
            return cast("T", end.value)
        concurrent.futures.wait(list(futures), left(deadline))


async def adrive(waits: Waits[T]) -> T:
    """Like `drive`, letting the event loop go on at each wait."""
    while True:
        try:
            futures, deadline = next(waits)
        except StopIteration as end:
            return cast("T", end.value)
        wrapped = [asyncio.wrap_future(future) for future in futures if not future.done()]
        if wrapped:
            await asyncio.wait(wrapped, timeout=left(deadline))


def left(deadline: float | None) -> float | None:
    """Return the seconds until `deadline`, 0 if it has passed, None if there is none."""
    return None if deadline is None else max(deadline - time.monotonic(), 0.0)
