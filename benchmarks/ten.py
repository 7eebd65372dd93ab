"""The ten subscribers of the promise "the loop keeps going", as members that any contender can serve.

| member     | events                      | what it does                                  | lane    |
|------------|-----------------------------|-----------------------------------------------|---------|
| file log   | TrainBatchEnd               | async: anyio writes lines of text, 50 a time  | loop    |
| webhook    | TrainBatchEnd               | async: JSON to a socket another process reads | loop    |
| heavy      | TrainBatchEnd               | burns 1 ms of CPU                             | process |
| journal    | all five                    | keeps them: our journal, else lines of JSON   | journal |
| progress   | TrainBatchStart and -End    | the shipped `Progress`, plain, to nowhere     | process |
| chart      | TrainBatchEnd               | a stream: keeps the last 1,000 losses         | stream  |
| steps      | OptimizerStep, ParamsUpdate | a stream: counts                              | stream  |
| mean       | TrainBatchEnd               | async: a running mean of the losses           | loop    |
| alarm      | TrainBatchEnd               | plain: looks for a loss above a limit         | thread  |
| memory     | TrainBatchEnd, every 20th   | plain: reads the memory of the process        | thread  |

Served by the original's way (`inline`) each is a plain function in the loop's own thread. The peers know no lanes:
their plain functions run on the event loop.
"""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import tempfile
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import anyio

from lineside.bus.subscribers import JsonLines, Progress
from lineside.bus.subscribers.plain import PlainDisplay
from lineside.bus.subscribers.progress import Display
from lineside.schemas import (
    BeforeZeroGrad,
    Event,
    OptimizerStep,
    ParamsUpdate,
    TrainBatchEnd,
    TrainBatchStart,
    encode,
)

STEP_EVENTS = (TrainBatchStart, OptimizerStep, ParamsUpdate, BeforeZeroGrad, TrainBatchEnd)
"""What the trainer publishes at every step."""

LINES_A_WRITE = 50
BURN_SECONDS = 0.001
STATM = Path("/proc/self/statm")

AsyncCallback = Callable[[Any], Awaitable[None]]
PlainCallback = Callable[[Any], None]


@dataclass(frozen=True)
class Member:
    """One of the ten: what it reads, and its callback; `inline` is the same work without an event loop."""

    name: str
    types: tuple[type[Event], ...]
    callback: AsyncCallback | PlainCallback
    inline: PlainCallback
    lane: str
    every: int = 1


class FileLog:
    """Writes a line of text for each batch, fifty at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: TextIO = path.open("a")
        self._lines: list[str] = []

    async def receive(self, event: TrainBatchEnd) -> None:
        if self._full(event):
            await anyio.to_thread.run_sync(self._file.write, self._taken())

    def handle(self, event: TrainBatchEnd) -> None:
        if self._full(event):
            self._file.write(self._taken())

    def _full(self, event: TrainBatchEnd) -> bool:
        self._lines.append(f"epoch {event.epoch} batch {event.batch} loss {event.loss:.5f}\n")
        return len(self._lines) >= LINES_A_WRITE

    def _taken(self) -> str:
        lines, self._lines = self._lines, []
        return "".join(lines)

    def close(self) -> None:
        self._file.write(self._taken())
        self._file.close()


class Webhook:
    """Sends each event as JSON to a socket, whose other end another process empties."""

    def __init__(self) -> None:
        self._socket, other = socket.socketpair()
        self._sink = subprocess.Popen(["cat"], stdin=other, stdout=subprocess.DEVNULL)
        other.close()
        self._writer: asyncio.StreamWriter | None = None

    async def open(self) -> None:
        _, self._writer = await asyncio.open_unix_connection(sock=self._socket.dup())

    async def receive(self, event: TrainBatchEnd) -> None:
        assert self._writer is not None
        self._writer.write(encode(event) + b"\n")
        await self._writer.drain()

    def handle(self, event: TrainBatchEnd) -> None:
        self._socket.sendall(encode(event) + b"\n")

    async def aclose(self) -> None:
        if self._writer is not None:
            self._writer.close()
            await self._writer.wait_closed()

    def close(self) -> None:
        self._socket.close()
        self._sink.wait()


def burn(_: Event) -> None:
    """Compute for a millisecond of processor time."""
    until = time.thread_time() + BURN_SECONDS
    while time.thread_time() < until:
        pass


class QuietProgress(Progress):
    """The shipped progress, drawn where nobody looks."""

    def plain_display(self) -> Display:
        return PlainDisplay(Path(os.devnull).open("w"))


class Chart:
    """Keeps the newest losses."""

    def __init__(self) -> None:
        self.points: deque[tuple[int, float]] = deque(maxlen=1000)

    def handle(self, event: TrainBatchEnd) -> None:
        self.points.append((event.step, event.loss))


class Steps:
    """Counts optimizer steps."""

    def __init__(self) -> None:
        self.seen = 0

    def handle(self, event: Event) -> None:
        self.seen += 1


class Mean:
    """A running mean of the losses."""

    def __init__(self) -> None:
        self.value = 0.0

    async def receive(self, event: TrainBatchEnd) -> None:
        self.handle(event)

    def handle(self, event: TrainBatchEnd) -> None:
        self.value += 0.01 * (event.loss - self.value)


class Alarm:
    """Notes losses above a limit."""

    def __init__(self) -> None:
        self.raised = 0

    def handle(self, event: TrainBatchEnd) -> None:
        if event.loss > 1e6:
            self.raised += 1


class Memory:
    """Reads the resident memory of this process, in bytes."""

    def __init__(self) -> None:
        self.resident = 0

    def handle(self, event: Event) -> None:
        with STATM.open() as statm:
            self.resident = int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Ten:
    """The ten with their files and sockets; `open` and `aclose` are awaited on the loop that serves them."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self.folder = folder = Path(self._folder.name)
        self._file_log = FileLog(folder / "log.txt")
        self._webhook = Webhook()
        self._lines = JsonLines(folder / "events.jsonl")
        self._progress = QuietProgress(plain=True)
        self.members = self._members()

    def _members(self) -> tuple[Member, ...]:
        end = (TrainBatchEnd,)
        file_log, webhook, mean = self._file_log, self._webhook, Mean()
        chart, steps, alarm, memory = Chart(), Steps(), Alarm(), Memory()
        return (
            Member("file log", end, file_log.receive, file_log.handle, "loop"),
            Member("webhook", end, webhook.receive, webhook.handle, "loop"),
            Member("heavy", end, burn, burn, "process"),
            Member("journal", STEP_EVENTS, self._lines, self._lines, "journal"),
            Member("progress", (TrainBatchStart, TrainBatchEnd), self._progress, self._progress, "process"),
            Member("chart", end, chart.handle, chart.handle, "stream"),
            Member("steps", (OptimizerStep, ParamsUpdate), steps.handle, steps.handle, "stream"),
            Member("mean", end, mean.receive, mean.handle, "loop"),
            Member("alarm", end, alarm.handle, alarm.handle, "thread"),
            Member("memory", end, memory.handle, memory.handle, "thread", every=20),
        )

    async def open(self) -> None:
        await self._webhook.open()

    async def aclose(self) -> None:
        await self._webhook.aclose()

    def close(self) -> None:
        self._file_log.close()
        self._webhook.close()
        self._lines.close()
        self._progress.close()
        self._folder.cleanup()
