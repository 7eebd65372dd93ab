"""What becomes of those whom the end of a service meets in the middle of something."""

from __future__ import annotations

import asyncio
import json
import threading
from traceback import walk_tb
from typing import Any

import pytest
from starlette.testclient import TestClient, WebSocketDenialResponse
from websockets.asyncio.client import connect

from lineside.runners import Recipe
from lineside.runners.serving import PredictionLimits, prediction_service
from lineside.schemas import RequestEnd

from .support import PATIENCE, Counting, Served, counter, entered, hearing, inputs, running, served, until

LONG = PredictionLimits(grace=PATIENCE)
"""Nobody who is waited for would be done before the test is given up."""


async def test_whoever_is_still_sending_a_body_is_told_to_come_again(capfd: pytest.CaptureFixture[str]) -> None:
    with hearing() as (bus, heard):
        with served(bus, limits=LONG) as service:
            reader, writer = await asyncio.open_connection("127.0.0.1", service.server.config.port)
            writer.write(b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n")
            writer.write(b"Content-Length: 1000\r\n\r\n" + b'{"inputs": [')
            await until(lambda: service.queue.memory > 0)
            service.server.should_exit = True
            async with asyncio.timeout(PATIENCE):
                answer = (await reader.read()).decode()
            head, _, body = answer.partition("\r\n\r\n")
            assert head.startswith("HTTP/1.1 503 ")
            assert "retry-after: 5" in head
            assert "shuts down" in json.loads(body)["error"]
            assert service.queue.memory == 0
            writer.close()
        bus.drain()
    assert [event.outcome for event in heard.of(RequestEnd)] == ["refused"]
    assert "Traceback" not in capfd.readouterr().err


async def test_whoever_waits_for_a_body_to_be_decoded_is_told_to_come_again(capfd: pytest.CaptureFixture[str]) -> None:
    begun, go = threading.Semaphore(0), threading.Semaphore(0)

    def decode(data: bytes, media_type: str) -> object:
        begun.release()
        assert go.acquire(timeout=PATIENCE)
        return 1.0

    try:
        app = prediction_service(Recipe(model=Counting, decode=decode), limits=LONG)
        with running(app) as server:
            async with Served(app, server).aclient() as client:
                asked = asyncio.create_task(client.post("/predict", json=inputs(1)))
                assert await asyncio.to_thread(begun.acquire, timeout=PATIENCE)
                server.should_exit = True
                answer = await asked
                assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
                assert "shuts down" in answer.json()["error"]
    finally:
        go.release()
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.usefixtures("long_goodbye")
async def test_a_websocket_whose_message_hangs_in_decode_ends_with_the_service() -> None:
    begun, go = threading.Semaphore(0), threading.Semaphore(0)

    def decode(data: bytes, media_type: str) -> object:
        begun.release()
        assert go.acquire(timeout=PATIENCE)
        return 1.0

    app = prediction_service(Recipe(model=Counting, decode=decode), limits=PredictionLimits(grace=0.1))
    try:
        with running(app) as server:
            async with connect(Served(app, server).socket) as socket:
                await socket.send('{"input": 1}')
                assert await asyncio.to_thread(begun.acquire, timeout=PATIENCE)
                server.should_exit = True
                await ended(socket, count=0)
    finally:
        go.release()


async def test_a_websocket_that_waits_for_nothing_ends_at_once_and_another_with_its_last_result() -> None:
    limits = PredictionLimits(grace=PATIENCE, in_flight=1)
    with served(limits=limits) as service:
        async with connect(service.socket) as idle, connect(service.socket) as busy:
            await idle.send('{"input": 1}')
            assert json.loads(await idle.recv())["result"] == 2.0
            await entered(service.model)  # with that one
            service.model.hold()
            await busy.send('{"inputs": [2, 3]}')
            await busy.send('{"input": 4}')
            await entered(service.model)
            service.server.should_exit = True
            await ended(idle, count=1)
            service.model.let_go()
            assert [json.loads(await busy.recv())["result"] for _ in range(3)] == [4.0, 6.0, 8.0]
            await ended(busy, count=3)


async def ended(socket: Any, count: int) -> None:
    """Wait for the goodbye of a service that shuts down."""
    async with asyncio.timeout(PATIENCE):
        last = json.loads(await socket.recv())
        await socket.wait_closed()
    assert (last["end"], last["count"], socket.close_code) == ("failed", count, 1001)
    assert "shuts down" in last["reason"]


def test_those_who_are_refused_are_not_kept_by_the_reason() -> None:
    app = prediction_service(counter())  # which nobody has entered
    client = TestClient(app, headers={"host": "localhost"})
    frames: set[int] = set()
    for _ in range(5):
        with pytest.raises(WebSocketDenialResponse) as refused, client.websocket_connect("/predict"):
            pass
        assert refused.value.status_code == 503
        assert app.service.queue.refusing is not None
        frames.add(len(list(walk_tb(app.service.queue.refusing.__traceback__))))
    assert len(frames) == 1
