"""The other end of the process lane: ``python -m lineside.bus.sidecar IN OUT``, started by `process.Sidecar`."""

from __future__ import annotations

import asyncio
import logging
import os
import pickle
import sys
import threading
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from ..schemas import Event
from .calls import async_call, sync_call
from .lanes import close_callback
from .parcel import Parcel, Unpacker
from .policy import is_async
from .process import Job

REPORT_SECONDS = 0.05
"""Longest time between two reports: each wakes a thread beside the training loop."""


NICENESS = 10
"""Where processors are scarce, the training loop comes first."""
ORPHAN_SECONDS = 60.0
"""How long the callback may work on what was handed over after the publisher's process has died."""


def main(fd_in: int, fd_out: int) -> None:
    """Serve one subscription until the pipe closes."""
    inn, out = Connection(fd_in, writable=False), Connection(fd_out, readable=False)
    job: Job = pickle.loads(inn.recv_bytes())
    os.nice(NICENESS)
    _watch_parent()
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
            careful, parcel = batch
            _serve(call, parcel, out, 0.0 if careful else REPORT_SECONDS)
    except (EOFError, BrokenPipeError):
        pass  # the bus closed, or its process died: everything handed over is done
    finally:
        close_callback(callback)


def _watch_parent() -> None:
    """End this process some time after its parent, even if the callback hangs."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        time.sleep(ORPHAN_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, name="lineside-watch", daemon=True).start()


def _serve(call: Callable[[Event], object], parcel: Parcel, out: Connection, pause: float) -> None:
    """Call back with each event, and report how far it got every `pause` seconds."""
    unpacker = Unpacker()
    done, reported = 0, time.monotonic()
    for row in parcel:
        try:
            call(unpacker.event(row))
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
