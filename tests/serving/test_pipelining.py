"""Requests that come one behind another on a connection: each has its time, in which others are not answered."""

from __future__ import annotations

import asyncio

import pytest

from lineside.runners.serving import PredictionLimits

from .support import PATIENCE, entered, served

LONG = b" " * 2_000_000
"""More than is read of a request that waits behind another."""


def post(body: bytes) -> bytes:
    head = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    return head % len(body) + body


async def nothing_comes(reader: asyncio.StreamReader, seconds: float) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(seconds):
            await reader.read(1)


async def answer(reader: asyncio.StreamReader) -> bytes:
    async with asyncio.timeout(PATIENCE):
        return await reader.readuntil(b"\r\n0\r\n\r\n")


async def test_a_request_is_not_late_because_the_one_before_it_takes_long() -> None:
    with served(limits=PredictionLimits(request=2.0, grace=1.0)) as service:
        service.model.hold()
        reader, writer = await asyncio.open_connection("127.0.0.1", service.server.config.port)
        writer.write(post(b'{"inputs": [1]}') + post(b'{"inputs": [2]' + LONG + b"}"))
        await entered(service.model)
        await nothing_comes(reader, 3.0)
        service.model.let_go()
        assert b'"result":2.0' in await answer(reader)
        assert b'"result":4.0' in await answer(reader)
        writer.close()


async def test_a_request_has_its_whole_time_once_the_one_before_it_is_answered_and_no_more() -> None:
    limit = 1.0
    with served(limits=PredictionLimits(request=limit, grace=1.0)) as service:
        service.model.hold()
        reader, writer = await asyncio.open_connection("127.0.0.1", service.server.config.port)
        writer.write(post(b'{"inputs": [1]}') + post(b'{"inputs": [2]}')[:-1])
        await entered(service.model)
        await nothing_comes(reader, 0.7 * limit)
        begun = asyncio.get_running_loop().time()
        service.model.let_go()
        assert b'"result":2.0' in await answer(reader)
        async with asyncio.timeout(PATIENCE):
            assert b" 408 " in await reader.readline()
        assert asyncio.get_running_loop().time() - begun > 0.5 * limit
        writer.close()
