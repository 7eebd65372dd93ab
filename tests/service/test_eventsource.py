"""What a page gets that knows nothing but `new EventSource(url)`, over a connection that does not hold."""

from __future__ import annotations

import asyncio
import queue
import random
import threading
from collections.abc import Generator, Iterable
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import pytest
from anyio.from_thread import start_blocking_portal

from lineside.bus import Bus
from lineside.bus.service import service

from .browser import browser as running_browser
from .support import PATIENCE, QUICK, TOKEN, Note, serving

CUTS = 20
RESTARTED = 4
"""Every fourth time the service is restarted; the other times the connection is cut."""

FOLLOW = """() => {
    window.told = [];
    window.source = new EventSource("/runs/run/events");
    const tell = (event) => told.push([event.type, event.lastEventId, JSON.parse(event.data).n]);
    for (const type of ["tests.service.Note", "gap"]) source.addEventListener(type, tell);
}"""


class Cut(NamedTuple):
    """Where a stream ends that had not come to its end."""

    place: int
    """Bytes of it that come through, behind the head of the answer: what a browser makes of half a head is its own."""
    restarts: bool
    """Whether the service is restarted there; else it is the connection that breaks."""


class Proxy:
    """A way to the service on which event streams are cut off, each at its place.

    Args:
        target: Port of the service.
        cuts: Where; behind the last, streams go on.
    """

    def __init__(self, target: int, cuts: Iterable[Cut]) -> None:
        self.port = 0
        self.streams = 0
        self.reached: queue.Queue[Cut] = queue.Queue()
        """Those that a stream has come to."""
        self._target = target
        self._cuts = iter(cuts)
        self._relays: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._relay, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        self._server.close()
        for relay in self._relays:
            relay.cancel()
        await asyncio.gather(*self._relays, return_exceptions=True)

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._relays.add(task)
        with ExitStack() as ends:
            ends.callback(self._relays.discard, task)
            ends.callback(writer.transport.abort)
            with suppress(OSError):
                there, back = await asyncio.open_connection("127.0.0.1", self._target)
                ends.callback(back.transport.abort)
                asking = asyncio.create_task(self._pass_on(reader, back))
                ends.callback(asking.cancel)
                await self._answer(there, writer)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(1 << 16):
                writer.write(data)
                await writer.drain()
        writer.transport.abort()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        cut: Cut | None = None
        passed = 0
        while data := await reader.read(1 << 12):
            if b"text/event-stream" in data:
                self.streams += 1
                cut, passed = next(self._cuts, None), -len(data.partition(b"\r\n\r\n")[0]) - 4
            passed += len(data)
            if cut is not None and passed > cut.place:
                self.reached.put(cut)
                if not cut.restarts:
                    writer.write(data[: cut.place - passed])
                    await writer.drain()
                    return
                cut = None
            writer.write(data)
            await writer.drain()


@contextmanager
def proxy(target: int, cuts: Iterable[Cut]) -> Generator[Proxy]:
    """Open a way to the port `target` for the length of the block."""
    made = Proxy(target, cuts)
    with start_blocking_portal() as portal:
        portal.call(made.open)
        yield made
        portal.call(made.close)


@contextmanager
def writing(bus: Bus) -> Generator[list[int]]:
    """Publish for the length of the block; give what was."""
    published: list[int] = []
    enough = threading.Event()

    def write() -> None:
        source = bus.source("run")
        while not enough.wait(0.002):
            published.append(len(published) + 1)
            source.publish(Note, n=published[-1], text="x" * (published[-1] % 100))

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield published
    finally:
        enough.set()
        thread.join(PATIENCE)
        bus.flush()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_browser_that_is_cut_off_twenty_times_loses_and_repeats_nothing(tmp_path: Path) -> None:
    chance = random.Random(7)
    # The first of these lie in the first block, which has no event, or close behind it.
    places = [*range(0, 100, 20), *(chance.randrange(40_000) for _ in range(CUTS - 5))]
    cuts = [Cut(place, restarts=number % RESTARTED == 0) for number, place in enumerate(places, 1)]
    with ExitStack() as running:
        bus = running.enter_context(Bus(tmp_path))
        bus.source("run").publish(Note, n=0)
        bus.flush()
        now = running.enter_context(ExitStack())

        def serve(port: int = 0) -> int:
            app = service(tmp_path, token=TOKEN, limits=QUICK)
            return now.enter_context(serving(app, port)).config.port

        port = serve()
        way = running.enter_context(proxy(port, cuts))
        page = running.enter_context(running_browser()).new_page()
        page.goto(f"http://127.0.0.1:{way.port}/runs?token={TOKEN}")
        with writing(bus) as published:
            page.evaluate(FOLLOW)
            for _ in cuts:
                if way.reached.get(timeout=PATIENCE).restarts:
                    now.close()
                    serve(port)
        last = published[-1]
        page.wait_for_function("last => told.some(([type, id, n]) => n === last)", arg=last, timeout=PATIENCE * 1000)
        told: list[tuple[str, str, int]] = page.evaluate("told")
        assert [n for _, _, n in told] == list(range(last + 1))
        assert {type_ for type_, _, _ in told} == {"tests.service.Note"}
        assert len({id_ for _, id_, _ in told}) == last + 1
        assert page.evaluate("source.readyState") == 1
        assert way.streams > CUTS
