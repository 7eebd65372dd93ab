"""Clients that go away: what they asked for is not computed, and nothing of them is left."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from typing import Any

import psutil
import pytest
from fastapi import FastAPI, Request, Response
from starlette.middleware.base import RequestResponseEndpoint
from starlette.types import Message

from lineside.runners.serving import PredictionLimits, prediction_service
from lineside.schemas import PredictBatchStart, RequestEnd

from .support import (
    PATIENCE,
    Served,
    counter,
    entered,
    hearing,
    inputs,
    lines,
    model_of,
    results,
    served,
    until,
)

VANISHING = 1000


async def test_what_a_client_that_left_is_waiting_for_is_never_computed() -> None:
    with hearing() as (bus, heard):
        with served(bus, batch_size=4) as service:
            service.model.hold()
            async with service.aclient() as client:
                stays = asyncio.create_task(client.post("/predict", json=inputs(*range(4))))
                await entered(service.model)
                leaves = asyncio.create_task(client.post("/predict", json=inputs(*range(100, 1100))))
                await until(lambda: service.queue.unsent == 1004)
                leaves.cancel()
                await until(lambda: service.queue.unsent == 4)
                assert len(service.queue.open) == 1
                service.model.let_go()
                assert results(lines(await stays)) == [0.0, 2.0, 4.0, 6.0]
                assert results(lines(await client.post("/predict", json=inputs(7)))) == [14.0]
            begun = [value for value in service.model.seen if value >= 100]
            assert len(begun) <= 12  # of the batches that were being prepared when it left, no others
            await until(lambda: not service.queue.open)  # the last answer is sent before its request is over
            assert (service.queue.unsent, service.queue.memory) == (0, 0)
        bus.drain()
    batched = sum(int(name.partition("/")[2]) >= 4 for event in heard.of(PredictBatchStart) for name in event.inputs)
    assert batched <= 8  # the others came into no batch at all
    assert sorted((event.outcome, event.inputs) for event in heard.of(RequestEnd)) == [
        ("cancelled", 1000),
        ("completed", 1),
        ("completed", 4),
    ]


async def test_an_input_that_is_in_a_batch_already_is_not_computed_either_while_the_batch_waits_for_more() -> None:
    with served(batch_size=2, max_wait=PATIENCE) as service:
        async with service.aclient() as client:
            leaves = asyncio.create_task(client.post("/predict", json=inputs(100)))
            await until(lambda: any(request.taken for request in service.queue.open))
            leaves.cancel()
            await until(lambda: not service.queue.open)
            assert results(lines(await client.post("/predict", json=inputs(1)))) == [2.0]
        assert service.model.seen == [1.0]


async def test_a_client_that_leaves_while_it_sends_its_body_leaves_nothing() -> None:
    with served() as service:
        reader, writer = await asyncio.open_connection("127.0.0.1", service.server.config.port)
        writer.write(b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n")
        writer.write(b"Content-Length: 1000\r\n\r\n" + b'{"inputs": [')
        await until(lambda: service.queue.memory > 0)
        writer.transport.abort()
        await until(lambda: service.queue.memory == 0)
        await until(lambda: not service.server.server_state.tasks)
        assert reader is not None


async def test_behind_a_middleware_that_waits_for_an_answer_a_client_that_leaves_fails_nothing() -> None:
    served = prediction_service(counter())
    outer = FastAPI()
    outer.mount("/model", served)

    @outer.middleware("http")
    async def pass_on(request: Request, call_next: RequestResponseEndpoint) -> Response:
        return await call_next(request)

    model = model_of(served)
    model.hold()
    body = iter([{"type": "http.request", "body": b'{"inputs": [1]}', "more_body": False}])
    told: list[Message] = []

    async def receive() -> Message:
        if (message := next(body, None)) is not None:
            return message
        await entered(model)
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        told.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/model/predict",
        "root_path": "",
        "query_string": b"",
        "headers": [(b"host", b"localhost"), (b"content-type", b"application/json")],
    }
    async with served.service:
        await outer(scope, receive, send)
        assert not served.service.queue.open
        model.let_go()
    assert told[0]["status"] == 499


@pytest.mark.slow
async def test_1000_clients_that_vanish_mid_stream_leave_no_task_thread_or_slot() -> None:
    limits = PredictionLimits(grace=1.0, stalled=5.0)
    with served(limits=limits, batch_size=64, max_wait=0.001) as service:
        assert await ask(service) == [2.0]
        tasks, threads, files = await quiet(service), threading.active_count(), open_files()
        service.model.hold()
        opened = [await vanisher(service, n) for n in range(VANISHING)]
        await until(lambda: len(service.queue.open) == VANISHING)
        for _ in range(VANISHING // 64 + 1):  # a first result for many, so that they are in the middle of their stream
            service.model.allow()
        await until(lambda: len(service.model.seen) >= VANISHING // 2)
        for n, one in enumerate(opened):
            if n % 2:  # half of them with a reset
                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            one.close()
        service.model.let_go()
        await until(lambda: not service.queue.open)
        assert (service.queue.unsent, service.queue.memory) == (0, 0)
        await until(lambda: not service.server.server_state.connections)
        await until(lambda: len(asyncio.all_tasks(loop_of(service))) <= tasks)
        assert await ask(service) == [2.0]
        assert await quiet(service) == tasks
        assert threading.active_count() <= threads
        await until(lambda: open_files() <= files)
    assert len(service.model.seen) < VANISHING * 20


async def vanisher(service: Served, n: int) -> socket.socket:
    body = b'{"inputs": [' + b",".join(b"%d" % (n + k) for k in range(20)) + b"]}"
    made = socket.create_connection(("127.0.0.1", service.server.config.port))
    head = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    made.sendall(head % len(body) + body)
    if n % 50 == 0:  # the backlog of the server is short, and it shares a process with us
        await asyncio.sleep(0)
        await until(lambda: len(service.queue.open) >= n)
    return made


async def ask(service: Served) -> list[Any]:
    async with service.aclient() as client:
        return results(lines(await client.post("/predict", json=inputs(1))))


def loop_of(service: Served) -> asyncio.AbstractEventLoop:
    loop: asyncio.AbstractEventLoop = service.server.servers[0].get_loop()
    return loop


async def quiet(service: Served) -> int:
    """Wait until no request is being answered, and return how many tasks there are."""
    await until(lambda: not service.server.server_state.tasks and not service.server.server_state.connections)
    return len(asyncio.all_tasks(loop_of(service)))


def open_files() -> int:
    return int(psutil.Process().num_fds())
