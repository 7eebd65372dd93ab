"""What the tests of the service share: a real server on a real port, and clients that do as they are told."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncGenerator, Callable, Generator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx2 as httpx

from lineside.bus import Bus, Source
from lineside.bus.service import Limits, Server, service
from lineside.bus.service.app import Service
from lineside.schemas import Event, RunEnd, RunStart, TrainBatchEnd

TOKEN = "a-token-that-only-tests-know"
BEARER = {"authorization": f"Bearer {TOKEN}"}
SSE = {"accept": "text/event-stream"}
PATIENCE = 30.0
QUICK = Limits(poll=0.005, fan_out=0.0, summaries=0.02, heartbeat=0.05, stalled=2.0, grace=0.2)


class Note(Event, name="tests.service.Note", urgent=False):
    n: int
    text: str = ""


def batch(source: Source, n: int, loss: float | None = None) -> None:
    source.publish(
        TrainBatchEnd,
        epoch=0,
        batch=n,
        batches=None,
        batch_size=4,
        step=n,
        loss=1 / n if loss is None else loss,
        losses={"a": 1.0},
        lr={"all": 0.1},
    )


def begin(source: Source, kind: str = "train") -> None:
    source.publish(RunStart, kind=kind, model="Net", device="cpu")


def end(source: Source) -> None:
    source.publish(RunEnd, kind="train", outcome="completed", duration=1.0)


@contextmanager
def serving(app: Service, port: int = 0) -> Generator[Server]:
    """Serve `app` from a thread, as long as the block lasts."""
    server = Server(app, port=port)
    listening = server.bind()
    server.config.port = listening.getsockname()[1]
    thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
    started = threading.Event()
    server.config.callback_notify = None
    startup = server.startup

    async def tell(sockets: Any = None) -> None:
        await startup(sockets)
        started.set()

    server.startup = tell  # type: ignore[method-assign]
    thread.start()
    assert started.wait(PATIENCE)
    try:
        yield server
    finally:
        server.should_exit = True
        thread.join(PATIENCE)
        assert not thread.is_alive()


@contextmanager
def served(folder: Path | Bus, limits: Limits = QUICK, token: str | None = TOKEN) -> Generator[str]:
    """Serve a journal folder and give the address."""
    with serving(service(folder, token=token, limits=limits)) as server:
        yield url(server)


def url(server: Server) -> str:
    return f"http://127.0.0.1:{server.config.port}"


class Block(NamedTuple):
    """What came in one block of a stream."""

    id: str
    event: str
    data: Any


def blocks(text: str) -> Iterator[Block]:
    """Yield the blocks of an event stream, the comments among them."""
    for block in text.split("\n\n")[:-1]:
        fields = dict(line.split(": ", 1) for line in block.split("\n") if ": " in line)
        data = fields.get("data")
        yield Block(fields.get("id", ""), fields.get("event", ""), None if data is None else json.loads(data))


class Follower:
    """A client of a stream, by hand: it reads as far as it is told."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self.read: list[Block] = []
        self._text = response.aiter_text()
        self._rest = ""

    async def more(self) -> None:
        """Read on by one chunk; raises StopAsyncIteration at the end."""
        self._rest += await self._text.__anext__()
        whole, mark, self._rest = self._rest.rpartition("\n\n")
        self.read += blocks(whole + mark)

    async def until(self, count: int) -> list[Block]:
        """Read until there are `count` events, and return them."""
        async with asyncio.timeout(PATIENCE):
            while len(self.events) < count:
                await self.more()
        return self.events

    async def rest(self) -> list[Block]:
        """Read to the end of the stream and return its events."""
        async with asyncio.timeout(PATIENCE):
            while True:
                try:
                    await self.more()
                except StopAsyncIteration:
                    return self.events

    @property
    def events(self) -> list[Block]:
        return [block for block in self.read if block.event]

    @property
    def numbers(self) -> list[int]:
        return [block.data["n"] for block in self.events if block.event == "tests.service.Note"]


@asynccontextmanager
async def following(client: httpx.AsyncClient, path: str, **headers: str) -> AsyncGenerator[Follower]:
    async with client.stream("GET", path, headers=SSE | headers) as response:
        assert response.status_code == 200, await response.aread()
        yield Follower(response)


async def until(condition: Callable[[], bool]) -> None:
    """Wait for a state that tells nobody."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


def client(address: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=address, headers=BEARER, timeout=PATIENCE, trust_env=False)


def plain_client(address: str, **headers: str) -> httpx.Client:
    return httpx.Client(base_url=address, headers=BEARER | headers, timeout=PATIENCE, trust_env=False)


def folder_of(bus: Bus) -> Path:
    """Return the folder that a bus keeps its journal in."""
    assert bus.journal is not None
    return bus.journal.parent
