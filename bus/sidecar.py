"""The other end of the process lane: ``python -m lineside.bus.sidecar IN OUT``, started by `process.Sidecar`."""

from __future__ import annotations

import asyncio
import logging
import pickle
import sys
import time
import traceback
from collections.abc import Callable
from importlib import import_module
from multiprocessing.connection import Connection
from typing import Any

from ..schemas import Event, UnknownEvent, decode
from .calls import async_call, sync_call
from .entry import WallClock, sign
from .lanes import close_callback
from .policy import is_async
from .process import Job, Parcel

REPORT_SECONDS = 0.05
"""Longest time between two reports: each wakes a thread beside the training loop."""


def main(fd_in: int, fd_out: int) -> None:
    """Serve one subscription until the pipe closes."""
    inn, out = Connection(fd_in, writable=False), Connection(fd_out, readable=False)
    job: Job = pickle.loads(inn.recv_bytes())
    sys.path[:] = job.path
    logging.basicConfig(level=logging.WARNING, format=f"%(levelname)s {job.name}: %(message)s")
    try:
        callback = pickle.loads(job.callback)
        call = _runnable(callback, job)
    except BaseException as error:
        _send(out, ("refused", "".join(traceback.format_exception_only(error)).strip()))
        return
    _send(out, ("ready", None))
    try:
        while batch := pickle.loads(inn.recv_bytes()):
            careful, parcels = batch
            _serve(call, parcels, out, 0.0 if careful else REPORT_SECONDS)
    except (EOFError, BrokenPipeError):
        pass  # the bus closed, or its process died: everything handed over is done
    finally:
        close_callback(callback)


def _serve(call: Callable[[Event], object], parcels: list[Parcel | bytes], out: Connection, pause: float) -> None:
    """Call back with each event, and report how far it got every `pause` seconds."""
    clock = WallClock()
    done, reported = 0, time.monotonic()
    for parcel in parcels:
        try:
            call(unpack(parcel, clock))
            done += 1
            failure = None
        except BaseException as error:
            failure = _describe(error)
        if done and (failure or time.monotonic() - reported >= pause):
            _send(out, ("done", done))
            done, reported = 0, time.monotonic()
        if failure:
            _send(out, ("failed", failure))
    if done:
        _send(out, ("done", done))


def unpack(parcel: Parcel | bytes, clock: WallClock) -> Event:
    """Return the event in `parcel`."""
    if isinstance(parcel, bytes):
        return decode(parcel)
    event = _class_of(parcel).model_validate(parcel.fields)
    if parcel.signature is not None:
        sign(event, parcel.signature, parcel.seq, parcel.when, clock)
    return event


def _class_of(parcel: Parcel) -> type[Event]:
    try:
        found: Any = sys.modules.get(parcel.module) or import_module(parcel.module)
        for part in parcel.qualname.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError):
        parcel.fields.setdefault("type", parcel.type)
        return UnknownEvent
    return found  # type: ignore[no-any-return]


def _runnable(callback: Callable[[Event], Any], job: Job) -> Callable[[Event], object]:
    if not is_async(callback):
        return sync_call(callback, job.policy)
    call = async_call(callback, job.policy, job.name)
    runner = asyncio.Runner()
    return lambda event: runner.run(call(event))  # type: ignore[arg-type]


def _describe(error: BaseException) -> dict[str, str]:
    return {
        "type": type(error).__qualname__,
        "message": str(error),
        "traceback": "".join(traceback.format_exception(error)),
    }


def _send(out: Connection, message: object) -> None:
    out.send_bytes(pickle.dumps(message))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
