"""How it speaks: with clients of an old protocol, with some that have left, and over messages that are none."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import struct
import sys
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame, Opcode

from lineside.runners.serving.server import FRAMES

from .support import PATIENCE, Served, entered, served, until

LONG = b" " * 2_000_000
"""More than is read of a request that waits behind another."""


def post(body: bytes, version: str = "1.1") -> bytes:
    head = (
        f"POST /predict HTTP/{version}\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def send_frame(client: ClientConnection, opcode: Opcode, data: bytes, fin: bool) -> None:
    client.protocol.send_frame(Frame(opcode, data, fin))
    client.transport.write(b"".join(client.protocol.data_to_send()))


async def closed(client: ClientConnection) -> int | None:
    async with asyncio.timeout(PATIENCE):
        with pytest.raises(ConnectionClosed):
            await client.recv()
        await client.wait_closed()
    return client.close_code


@pytest.mark.parametrize("ask", [post(b'{"inputs": [1]}', "1.0"), b"GET /healthz HTTP/1.0\r\nHost: localhost\r\n\r\n"])
async def test_a_client_of_an_old_protocol_gets_no_chunks_and_the_end_with_the_connection(ask: bytes) -> None:
    with served() as service:
        reader, writer = await asyncio.open_connection("127.0.0.1", service.server.config.port)
        writer.write(ask)
        async with asyncio.timeout(PATIENCE):
            head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        writer.close()
    assert b"transfer-encoding" not in head
    assert b"connection: close" in head
    last: Any = json.loads(body.splitlines()[-1])
    assert last.get("end", last.get("status")) in ("completed", "ok")


@pytest.mark.skipif(sys.platform != "linux", reason="nothing else tells of it")
async def test_a_client_that_leaves_while_further_requests_of_it_wait_gives_back_its_slots() -> None:
    with served() as service:
        service.model.hold()
        _, writer = await asyncio.open_connection("127.0.0.1", service.server.config.port)
        writer.write(post(b'{"inputs": [1]}') + post(b'{"inputs": [2]' + LONG + b"}"))
        await entered(service.model)
        await until(lambda: paused(service))
        # Else it leaves once what it has sent was read, which is not read yet.
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
        await until(lambda: not service.queue.open and not service.server.server_state.connections)
        service.model.let_go()
    assert service.model.seen == [1.0]


def paused(service: Served) -> bool:
    (connection,) = service.server.server_state.connections
    transport: Any = connection.transport
    return not transport.is_reading()


async def test_a_message_in_frames_without_end_is_refused() -> None:
    with served() as service:
        async with connect(service.socket) as client:
            send_frame(client, Opcode.TEXT, b'{"input":', fin=False)
            for _ in range(FRAMES - 2):
                send_frame(client, Opcode.CONT, b"", fin=False)
            send_frame(client, Opcode.CONT, b" 1}", fin=True)
            assert json.loads(await client.recv())["result"] == 2.0
            send_frame(client, Opcode.TEXT, b"", fin=False)
            for _ in range(FRAMES):
                send_frame(client, Opcode.CONT, b"", fin=False)
            assert await closed(client) == 1009
        await until(lambda: not service.queue.open)
        assert service.queue.unread == 0


async def test_a_message_that_is_no_text_ends_the_socket_and_nothing_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    loggers = [logging.getLogger(name) for name in ("uvicorn", "uvicorn.error", "asyncio")]
    with served() as service:
        for logger in loggers:
            logger.addHandler(caplog.handler)
        try:
            async with connect(service.socket) as client:
                send_frame(client, Opcode.TEXT, b"\xff", fin=False)
                send_frame(client, Opcode.CONT, b"\xfe", fin=True)
                assert await closed(client) == 1007
                assert client.close_reason == "the message is no valid text; send UTF-8, or a binary message"
            async with connect(service.socket) as client:
                send_frame(client, Opcode.TEXT, '"€'.encode()[:-1], fin=False)
                send_frame(client, Opcode.CONT, '€"'.encode()[2:], fin=True)
                assert "no object" in json.loads(await client.recv())["error"]
        finally:
            for logger in loggers:
                logger.removeHandler(caplog.handler)
    assert caplog.records == []
