"""Callbacks that never return, for `exit.py`: in a module of their own, so that another process can import them."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from lineside.schemas import Event

FOR_EVER = 3600.0


class Nudge(Event):
    """Starts a callback that hangs; the file says that it has begun."""

    begun: Path


async def awaits(event: Nudge) -> None:
    event.begun.touch()
    await asyncio.sleep(FOR_EVER)


async def blocks(event: Nudge) -> None:
    event.begun.touch()
    time.sleep(FOR_EVER)  # noqa: ASYNC251 (a mistake, made on purpose: the loop stands still)


async def refuses(event: Nudge) -> None:
    event.begun.touch()
    while True:
        try:
            await asyncio.sleep(FOR_EVER)
        except asyncio.CancelledError:
            continue


def sleeps(event: Nudge) -> None:
    event.begun.touch()
    time.sleep(FOR_EVER)


def returns(event: Nudge) -> None:
    event.begun.touch()
