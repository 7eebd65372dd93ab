"""The service: events a second to one client, and how late events reach many clients.

One client: a history of events over one connection, against an endpoint written by hand that sends the same bytes from
memory in chunks, and FastAPI's own way, an event at a time. Many clients: a bus in a process of its own publishes 50
events a second, the service follows its journal in another, and every client reads all of them.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import socket
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

import uvicorn
from fastapi import FastAPI
from fastapi.sse import EventSourceResponse, ServerSentEvent
from harness import Report, Spread, Table, arguments, interleave, percentile
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from lineside.bus import Bus
from lineside.bus.journal import Tail
from lineside.bus.service import Limits, Server, service
from lineside.schemas import TrainBatchEnd, decode

CHUNK = 100
"""Events that the endpoint written by hand sends at once."""
RATE = 50
"""Events a second, with many clients."""
LAST_SECONDS = 5.0
"""How long the last event is waited for."""
RUN = "bench"
MARK = b"\ndata:"
"""Comes once with each event."""


def publish(bus: Bus, count: int, pause: float = 0.0) -> None:
    source = bus.source(RUN)
    begin = time.perf_counter()
    for n in range(count):
        source.publish(
            TrainBatchEnd,
            epoch=n // 1000,
            batch=n % 1000,
            batches=1000,
            batch_size=64,
            step=n,
            loss=1 / (n + 1),
            losses={"box": 0.5, "cls": 0.25},
            lr={"all": 0.001},
            seconds=0.02,
        )
        if pause:
            time.sleep(max(begin + (n + 1) * pause - time.perf_counter(), 0))


# ------------------------------------------------------------------------------------------------------- the contenders


def by_hand(folder: Path) -> Starlette:
    frames = [
        b"id: %b\nevent: %b\ndata: %b\n\n" % (told.position.encode(), told.name.encode(), told.body)
        for told in Tail(folder, run=RUN).read(1 << 30)
    ]
    chunks = [b"".join(frames[n : n + CHUNK]) for n in range(0, len(frames), CHUNK)]

    async def send() -> AsyncIterator[bytes]:
        for chunk in chunks:
            yield chunk

    async def answer(request: Request) -> Response:
        return StreamingResponse(send(), media_type="text/event-stream")

    return Starlette(routes=[Route(f"/runs/{RUN}/events", answer)])


def by_fastapi(folder: Path) -> FastAPI:
    told = [(one.position, decode(one.body)) for one in Tail(folder, run=RUN).read(1 << 30)]
    app = FastAPI()

    @app.get(f"/runs/{RUN}/events", response_class=EventSourceResponse)
    async def answer() -> AsyncIterator[ServerSentEvent]:
        for position, event in told:
            yield ServerSentEvent(id=position, event=event.type, data=event)

    return app


# -------------------------------------------------------------------------------------------------------- the processes


def serve(kind: str, folder: Path, ready: Connection) -> None:
    listening = socket.create_server(("127.0.0.1", 0), backlog=4096)
    if kind == "lineside":
        server: uvicorn.Server = Server(service(folder, limits=Limits()))
    else:
        app = {"by hand": by_hand, "FastAPI's own": by_fastapi}[kind](folder)
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", access_log=False))
    ready.send(listening.getsockname()[1])
    server.run([listening])


def train(folder: Path, count: int, ready: Connection) -> None:
    with Bus(folder) as bus:
        publish(bus, 1)
        bus.flush()
        ready.send(None)
        ready.recv()
        publish(bus, count, 1 / RATE)


@contextmanager
def process(target: Callable[..., None], *args: object) -> Generator[tuple[Connection, BaseProcess]]:
    """Start a process and give the other end of what it talks through."""
    here, there = multiprocessing.get_context("spawn").Pipe()
    made = multiprocessing.get_context("spawn").Process(target=target, args=(*args, there), daemon=True)
    made.start()
    try:
        yield here, made
    finally:
        made.terminate()
        made.join()


# ---------------------------------------------------------------------------------------------------------- the clients


def request(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n".encode()


def read_one(port: int, count: int) -> float:
    """Return the seconds that `count` events take to one client, which only counts them."""
    with socket.create_connection(("127.0.0.1", port)) as made:
        begin = time.perf_counter()
        made.sendall(request(f"/runs/{RUN}/events"))
        made.settimeout(60)
        seen, rest = 0, b""
        while seen < count:
            data = rest + made.recv(1 << 20)
            seen += data.count(MARK)
            rest = data[1 - len(MARK) :]  # a mark may be cut in two
        return time.perf_counter() - begin


class Reader(asyncio.Protocol):
    """One of many clients. Some look at the times of what comes, the others only count."""

    def __init__(self, path: str, count: int, lags: list[float] | None) -> None:
        self.count = 0
        self._wanted = count
        self.over = asyncio.get_running_loop().create_future()
        """Done with the last event."""
        self.opened = asyncio.get_running_loop().create_future()
        """Done with the first position: what is published from now on comes."""
        self._path = path
        self._lags = lags
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.write(request(self._path))

    def data_received(self, data: bytes) -> None:
        data = self._rest + data
        if not self.opened.done() and b"\nid:" in data:
            self.opened.set_result(None)
        self.count += data.count(MARK)
        self._rest = data[1 - len(MARK) :]
        if self.count >= self._wanted and not self.over.done():
            self.over.set_result(None)
        if self._lags is not None:
            now = time.time()
            self._lags.extend(now - when for when in times(data))


def times(data: bytes) -> Iterator[float]:
    for part in data.split(b'"time":"')[1:]:
        text, mark, _ = part.partition(b'"')
        if mark:
            yield datetime.fromisoformat(text.decode()).timestamp()


async def read_many(port: int, clients: int, seconds: float, trainer: Connection) -> tuple[list[float], float]:
    """Return the lags, and the share of events that came, `LAST_SECONDS` after the last was published at most."""
    loop = asyncio.get_running_loop()
    lags: list[float] = []
    readers: list[Reader] = []
    for n in range(clients):
        reader = Reader(f"/runs/{RUN}/events?after=now", int(seconds * RATE), lags if n % 10 == 0 else None)
        await loop.create_connection(lambda made=reader: made, "127.0.0.1", port)
        readers.append(reader)
    await asyncio.gather(*(reader.opened for reader in readers))
    trainer.send(None)
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds + LAST_SECONDS):
            await asyncio.gather(*(reader.over for reader in readers))
    return lags, statistics.fmean(reader.count for reader in readers) / int(seconds * RATE)


# ------------------------------------------------------------------------------------------------------------- the rows


def one_client(report: Report, count: int, rounds: int) -> None:
    table = Table(
        f"{count} events to one client over Server-Sent Events",
        {"contender": "{}", "events/s": "{:,.0f}", "of by hand": "{:.2f}"},
    )
    with tempfile.TemporaryDirectory() as folder:
        with Bus(folder) as bus:
            publish(bus, count)
        kinds = ("by hand", "lineside", "FastAPI's own")
        with (
            process(serve, "by hand", Path(folder)) as (hand, _),
            process(serve, "lineside", Path(folder)) as (ours, _),
            process(serve, "FastAPI's own", Path(folder)) as (own, _),
        ):
            ports = dict(zip(kinds, (hand.recv(), ours.recv(), own.recv()), strict=True))
            for port in ports.values():
                read_one(port, count)
            found = interleave({kind: lambda kind=kind: read_one(ports[kind], count) for kind in kinds}, rounds)
    for kind in kinds:
        ratio = Spread.of([hand / mine for mine, hand in zip(found[kind], found["by hand"], strict=True)])
        table.add(kind, Spread.of([count / seconds for seconds in found[kind]]), ratio)
    report.show(table)


def many_clients(report: Report, clients: int, seconds: float) -> None:
    table = Table(
        f"{RATE} events a second to many clients for {seconds:g} s, from one process to another",
        {
            "clients": "{}",
            "lag p50 ms": "{:.0f}",
            "p99 ms": "{:.0f}",
            "max ms": "{:.0f}",
            "came": "{:.3f}",
            "CPU of the service": "{:.0%}",
        },
    )
    with (
        tempfile.TemporaryDirectory() as folder,
        process(train, Path(folder), int(seconds * RATE)) as (trainer, _),
    ):
        trainer.recv()
        with process(serve, "lineside", Path(folder)) as (server, made):
            port = server.recv()
            assert made.pid is not None
            before = cpu(made.pid)
            lags, share = asyncio.run(read_many(port, clients, seconds, trainer))
            busy = (cpu(made.pid) - before) / seconds
    table.add(clients, *(1000 * percentile(lags, p) for p in (50, 99, 100)), share, busy)
    report.show(table)


def cpu(pid: int) -> float:
    """Return the CPU seconds of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    options = arguments(
        __doc__ or "",
        events={"type": int, "default": 100_000, "help": "to one client"},
        clients={"type": int, "default": 200},
        seconds={"type": float, "default": 10.0, "help": "that many clients listen"},
    )
    report = Report("service", options)
    quick = options.quick
    one_client(report, 2000 if quick else options.events, options.rounds or (1 if quick else 5))
    many_clients(report, 10 if quick else options.clients, 1.0 if quick else options.seconds)
    report.finish()


if __name__ == "__main__":
    main()
