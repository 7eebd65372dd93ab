"""How it speaks: requests that offer another protocol, and WebSockets on which much is said that nobody listens to."""

from __future__ import annotations

import asyncio
import struct
import threading
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lineside.bus import Bus
from lineside.bus.service import Limits, Server, service
from lineside.bus.service.server import Talk

from .support import PATIENCE, QUICK, TOKEN, begin, serving, until

SHORT_HEADS = replace(QUICK, head=1000, request=PATIENCE)
HEADERS = f"Host: localhost\r\nAuthorization: Bearer {TOKEN}\r\n"
H2C = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"
OPENING = (
    f"GET /runs/run/ws?after=now HTTP/1.1\r\n{HEADERS}Connection: Upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
).encode()
CONT, TEXT, CLOSE, PING, LAST = 0x0, 0x1, 0x8, 0x9, 0x80


@pytest.fixture
def bus(tmp_path: Path) -> Generator[Bus]:
    with Bus(tmp_path / "runs") as bus:
        begin(bus.source("run"))
        bus.flush()
        yield bus


class Client:
    """A connection to a server."""

    def __init__(self, server: Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.server = server
        self.reader = reader
        self.writer = writer

    async def status(self) -> int:
        """Read an answer, and return its status."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        lines = head.lower().split(b"\r\n")
        length = next((int(line.partition(b":")[2]) for line in lines if line.startswith(b"content-length:")), 0)
        await self.reader.readexactly(length)
        return int(lines[0].split()[1])

    async def frame(self) -> tuple[int, bytes]:
        """Read a frame of a WebSocket: how it begins, and what is in it."""
        first, length = await self.reader.readexactly(2)
        if length == 126:
            (length,) = struct.unpack("!H", await self.reader.readexactly(2))
        return first, await self.reader.readexactly(length)

    async def open_socket(self) -> Any:
        """Open a WebSocket, and return the server's side of it."""
        self.writer.write(OPENING)
        assert await self.status() == 101
        await self.frame()  # which says that the stream is open
        (connection,) = self.server.server_state.connections
        return connection


@asynccontextmanager
async def connected(bus: Bus, limits: Limits = QUICK) -> AsyncGenerator[Client]:
    with serving(service(bus, token=TOKEN, limits=limits)) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.config.port)
        try:
            async with asyncio.timeout(PATIENCE):
                yield Client(server, reader, writer)
        finally:
            writer.transport.abort()


def post(*headers: str, body: bytes = b"") -> bytes:
    head = f"POST /runs/run/stop HTTP/1.1\r\n{HEADERS}Content-Type: application/json\r\n{''.join(headers)}\r\n"
    return head.encode() + body


def get(path: str, headers: str = "") -> bytes:
    return f"GET {path} HTTP/1.1\r\n{HEADERS}{headers}\r\n".encode()


def said(first: int, payload: bytes = b"") -> bytes:
    """Return a frame as a client sends it."""
    return bytes([first, 0x80 | len(payload)]) + bytes(4) + payload


@pytest.mark.parametrize("size", [1, 7, 1 << 20])
async def test_an_offer_of_another_protocol_is_ignored_and_the_request_answered(bus: Bus, size: int) -> None:
    reason = b'{"reason": "enough"}'
    asked = [
        post(H2C, f"Content-Length: {len(reason)}\r\n", body=reason),
        get("/runs", H2C.replace("h2c", "TLS/1.0, h2c")),
        post(H2C, "Transfer-Encoding: chunked\r\n", body=b"9\r\nno reason\r\n0\r\n\r\n"),
        get("/none"),
        post("Connection: close\r\n" + H2C, "Content-Length: 9\r\n", body=b"no reason"),
    ]
    data = b"".join(asked)
    pieces = [data[start : start + size] for start in range(0, len(data), size)]
    pieces[-1] += get("/runs")  # which is too late
    async with connected(bus) as client:
        for piece in pieces:
            client.writer.write(piece)
            await client.writer.drain()
            await asyncio.sleep(0)
        assert [await client.status() for _ in asked] == [409, 200, 400, 404, 400]  # nothing steers this run
        assert await client.reader.read() == b""


async def test_who_comes_before_it_serves_is_not_refused(bus: Bus) -> None:
    server = Server(service(bus, token=TOKEN, limits=QUICK), port=0)
    listening = server.bind()
    reader, writer = await asyncio.open_connection(*listening.getsockname())
    thread = threading.Thread(target=server.run, args=([listening],))
    thread.start()
    try:
        writer.write(get("/none"))
        assert await Client(server, reader, writer).status() == 404
    finally:
        writer.transport.abort()
        server.should_exit = True
        thread.join(PATIENCE)


async def test_no_request_hides_in_the_body_of_one_that_offers_another_protocol(bus: Bus) -> None:
    hidden = get("/runs")
    async with connected(bus) as client:
        client.writer.write(post(H2C, f"Content-Length: {len(hidden)}\r\n"))
        await client.writer.drain()
        client.writer.write(hidden + get("/none"))
        assert [await client.status(), await client.status()] == [400, 404]


@pytest.mark.parametrize(
    "asked",
    [
        get("/runs", H2C)[:-2] + b"A: " + b"a" * 1000,
        post(H2C, "Transfer-Encoding: chunked\r\n", body=b"1;" + b"a" * 1000),
    ],
    ids=["a head", "chunks"],
)
async def test_a_head_that_offers_another_protocol_may_be_no_longer_than_others(bus: Bus, asked: bytes) -> None:
    async with connected(bus, SHORT_HEADS) as client:
        client.writer.write(asked)
        assert await client.status() == 431


async def test_a_body_that_follows_an_offer_of_another_protocol_is_not_waited_for_longer(bus: Bus) -> None:
    async with connected(bus, replace(QUICK, request=0.2)) as client:
        client.writer.write(post(H2C, "Content-Length: 20\r\n", body=b"{"))
        assert await client.status() == 408


async def test_a_websocket_is_opened_only_once_what_was_asked_before_is_answered(bus: Bus) -> None:
    async with connected(bus) as client:
        client.writer.write(get("/healthz") + OPENING)
        assert [await client.status(), await client.status()] == [200, 404]
        await client.open_socket()


async def test_who_sends_pings_and_reads_nothing_takes_no_memory_and_is_answered_once_it_reads(bus: Bus) -> None:
    sent = 20_000
    async with connected(bus) as client:
        connection = await client.open_socket()
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        for n in range(0, sent, 500):
            client.writer.write(b"".join(said(LAST | PING, b"%125d" % i) for i in range(n, n + 500)))
            await client.writer.drain()
        client.writer.write(said(LAST | TEXT, b"the last"))
        await until(lambda: connection.conn.reader.buffer == b"" and not connection.writable.is_set())
        assert connection.transport.get_write_buffer_size() < 512 << 10
        client.writer.transport.resume_reading()  # type: ignore[attr-defined]
        client.writer.write(said(LAST | PING, b"the very last"))
        answered = 0
        payload = b""
        while payload != b"the very last":
            _, payload = await client.frame()
            answered += 1
        assert answered < sent


async def test_pings_of_a_client_that_reads_nothing_are_no_sign_of_life(bus: Bus) -> None:
    async with connected(bus) as client:
        client.server.config.ws_ping_interval, client.server.config.ws_ping_timeout = 0.2, 0.5
        await client.open_socket()
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        with suppress(ConnectionError):
            while client.server.server_state.connections:
                client.writer.write(said(LAST | PING, bytes(125)) * 100)
                await client.writer.drain()
                await asyncio.sleep(0)


@pytest.mark.parametrize("first", ["the client", "the service"])
async def test_a_socket_that_is_closed_ends_in_time_though_its_client_does_not_read_what_came_before(
    bus: Bus, first: str
) -> None:
    async with connected(bus) as client:
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        client.writer.write(OPENING)
        await until(lambda: any(isinstance(one, Talk) for one in client.server.server_state.connections))
        connection: Any = next(iter(client.server.server_state.connections))
        await until(lambda: connection.handshake_complete)
        connection.close_timeout = 0.1

        async def fill() -> None:
            while not connection.transport.get_write_buffer_size():
                await connection.send({"type": "websocket.send", "text": "x" * 16_000})
            if first == "the service":
                await connection.send({"type": "websocket.close", "code": 1001})

        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(fill(), connection.loop))
        if first == "the client":
            client.writer.write(said(LAST | CLOSE))
        await until(lambda: not client.server.server_state.connections)


async def test_nothing_is_kept_of_a_message_that_nobody_listens_to(bus: Bus) -> None:
    async with connected(bus) as client:
        connection = await client.open_socket()
        client.writer.write(said(TEXT, b"begun") + said(CONT) * 10_000 + said(LAST | PING, b"so far"))
        assert await client.frame() == (0x8A, b"so far")
        assert connection.frames == []
