"""The other end of the process lane, started by `process.Sidecar`."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import pickle
import sys
import threading
import time
import traceback
from collections.abc import Callable, Coroutine, Generator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any

from ..schemas import Event
from .calls import SyncCall, retry
from .lanes import close_callback
from .parcel import Misfit, Parcel, Unpacker
from .policy import refuse_generator
from .process import Job

REPORT_SECONDS = 0.05
"""Longest time between two reports: each wakes a thread beside the training loop."""


NICENESS = 10
"""Where processors are scarce, the training loop comes first."""
ORPHAN_SECONDS = 60.0
"""How long the callback may work on what was handed over after the publisher's process has died."""


def main(fd_in: int, fd_out: int, path: list[str]) -> None:
    """Serve one subscription until the pipe closes, with the imports that `path` gives."""
    inn, out = Connection(fd_in, writable=False), Connection(fd_out, readable=False)
    job: Job = pickle.loads(inn.recv_bytes())
    os.nice(NICENESS)
    _watch_parent()
    sys.path[:] = path
    logging.basicConfig(level=logging.WARNING, format=f"%(levelname)s {job.name}: %(message)s")
    try:
        callback = pickle.loads(job.callback)
    except BaseException as error:
        _send(out, ("refused", "".join(traceback.format_exception_only(error)).strip()))
        return
    _send(out, ("ready", None))
    call, clock = _awaited(callback), Clock(out, job.limited)
    try:
        while batch := pickle.loads(inn.recv_bytes()):
            careful, tries, parcel = batch
            _serve(call, clock, job.retries, tries, parcel, out, 0.0 if careful else REPORT_SECONDS)
    except EOFError:
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


def _serve(
    call: SyncCall, clock: Clock, retries: int, tries: int, parcel: Parcel, out: Connection, pause: float
) -> None:
    """Call back with each event, and report how far it got every `pause` seconds.

    With the first event, `tries` have failed in another process.
    """
    unpacker = Unpacker(clock.stopped)
    done, reported = 0, time.monotonic()
    for row in parcel:
        report: object = None
        try:
            retry(call, unpacker.event(row), retries - tries, clock.sleep)
            done += 1
        except Misfit as misfit:
            report = ("invalid", _describe(misfit))
        except BaseException as error:
            report = ("failed", _describe(error))
        tries = 0
        if done and (report or time.monotonic() - reported >= pause):
            _send(out, ("done", done))
            done, reported = 0, time.monotonic()
        if report:
            _send(out, report)
    if done:
        _send(out, ("done", done))


def _awaited(callback: Callable[[Event], Any]) -> SyncCall:
    """Return `callback` as a plain function; what it returns to be awaited runs on a loop that lasts."""
    runner = asyncio.Runner()

    def call(event: Event) -> None:
        answer = callback(event)
        if isinstance(answer, Coroutine):
            runner.run(answer)  # pyright: ignore[reportUnknownArgumentType]
        else:
            refuse_generator(callback, answer)

    return call


class Clock:
    """Says when the time limit of the callback does not run."""

    def __init__(self, out: Connection, limited: bool) -> None:
        self._out = out
        self._limited = limited

    @contextmanager
    def stopped(self, failed: int = 0) -> Generator[None]:
        """Stop it for a while, because a class is imported or, if `failed` is 1, before the next try."""
        if self._limited:
            _send(self._out, ("stopped", failed))
        yield  # what raises here is reported, which starts it again
        if self._limited:
            _send(self._out, ("running", 0))

    def sleep(self, seconds: float) -> None:
        """Wait for the next try."""
        with self.stopped(failed=1):
            time.sleep(seconds)


def _describe(error: BaseException) -> dict[str, str]:
    told = traceback.TracebackException.from_exception(error)  # prints even what cannot be printed
    return {"type": type(error).__qualname__, "message": str(told), "traceback": "".join(told.format())}


def _send(out: Connection, message: object) -> None:
    with contextlib.suppress(BrokenPipeError):  # nobody listens; what was handed over is done all the same
        out.send_bytes(pickle.dumps(message))
