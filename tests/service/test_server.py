"""What comes on a connection: how much of it frames a body, and how much may."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from lineside.bus import Bus
from lineside.bus.service import service

from .support import PATIENCE, QUICK, TOKEN, begin, serving

HEAD = (
    f"POST /runs/run/stop HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n"
    "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
).encode()
SHORT_HEADS = replace(QUICK, head=1000, request=PATIENCE)
BODY = b'{"reason": "enough"' + b" " * 60_000 + b"}"


@pytest.fixture
def bus(tmp_path: Path) -> Generator[Bus]:
    with Bus(tmp_path / "runs") as bus:
        begin(bus.source("run"))
        bus.flush()
        yield bus


@asynccontextmanager
async def connected(bus: Bus) -> AsyncGenerator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    with serving(service(bus, token=TOKEN, limits=SHORT_HEADS)) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.config.port)
        try:
            async with asyncio.timeout(PATIENCE):
                yield reader, writer
        finally:
            writer.transport.abort()


async def test_a_body_may_come_in_the_smallest_of_chunks(bus: Bus) -> None:
    answers: list[bytes] = []
    for size in (len(BODY), 1):
        async with connected(bus) as (reader, writer):
            writer.write(HEAD)
            for start in range(0, len(BODY), size):
                writer.write(b"%x\r\n%b\r\n" % (len(BODY[start : start + size]), BODY[start : start + size]))
            writer.write(b"0\r\n\r\n")
            answers.append(await reader.readline())
    assert answers == [b"HTTP/1.1 409 Conflict\r\n"] * 2  # nothing steers this run


@pytest.mark.parametrize(
    ("begun", "more"),
    [
        (b"1;", b"a" * 1000),  # an extension of a chunk
        (b"", b"1;" + b"a" * 1000 + b"\r\n \r\n"),  # one of each
        (b"1\r\n \r\n0\r\n", b"A: " + b"a" * 1000 + b"\r\n"),  # what follows the last
    ],
    ids=["an extension", "extensions", "trailers"],
)
async def test_what_frames_a_body_is_refused_where_it_is_out_of_proportion(bus: Bus, begun: bytes, more: bytes) -> None:
    async with connected(bus) as (reader, writer):
        writer.write(HEAD + begun)
        answer = asyncio.create_task(reader.readline())
        with suppress(ConnectionError):
            for _ in range(1000):
                writer.write(more)
                await writer.drain()
                await asyncio.sleep(0)  # for the reader, that it may hear of the end
                if answer.done():
                    break
        with suppress(ConnectionError):  # a client that goes on sending may miss it
            assert b" 431 " in await answer
