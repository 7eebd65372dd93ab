"""WebSockets on which nothing moves: who is slow, who has left, and how much waits for room meanwhile."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from lineside.runners import PredictConfig, Predictor
from lineside.runners.serving import PredictionLimits, prediction_service

from .support import PATIENCE, Counting, Served, column, counter, entered, preparing, running, served, until

PING = 0.2
PONG = 0.8
OPENING = (
    b"GET /predict HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


def ping_often(service: Served) -> None:
    service.server.config.ws_ping_interval, service.server.config.ws_ping_timeout = PING, PONG


async def answered(service: Served, count: int) -> None:
    await until(lambda: sum(request.results for request in service.queue.open) == count)


async def test_a_client_that_waits_for_the_model_is_not_taken_for_dead() -> None:
    with served(limits=PredictionLimits(in_flight=8, grace=1.0)) as service:
        ping_often(service)
        service.model.hold()
        async with connect(service.socket, ping_interval=None) as client:
            text = json.dumps({"input": 7}) + " " * 4000

            async def send_all() -> None:
                for _ in range(400):  # its signs of life lie behind these
                    await client.send(text)

            sending = asyncio.create_task(send_all())
            await until(lambda: service.queue.unsent == 8)
            first = asyncio.create_task(client.recv())
            done, _ = await asyncio.wait([first], timeout=PING + 2 * PONG)
            assert not done
            service.model.let_go()
            assert json.loads(await first)["index"] == 0
            for n in range(1, 400):
                assert json.loads(await client.recv())["index"] == n
            await sending


async def test_a_client_that_never_reads_is_let_go_however_little_waits_for_it() -> None:
    predictor = Predictor(
        Counting(),
        preprocess=column,
        postprocess=lambda outputs, batch: ["x" * 30_000] * len(batch.images),
        config=PredictConfig(batch_size=4, max_wait=0.001, device="cpu"),
    )
    app = prediction_service(predictor, limits=PredictionLimits(grace=1.0, stalled=3600.0))
    with running(app) as server, socket.socket() as client:
        service = Served(app, server)
        ping_often(service)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", server.config.port))
        client.sendall(OPENING)
        await until(lambda: len(service.queue.open) == 1)
        (connection,) = server.server_state.connections
        transport: Any = connection.transport
        sent = 0
        while transport.get_write_buffer_size() == 0:
            sent += 1
            client.sendall(b"\x81\x8c\0\0\0\0" + b'{"input": 1}')
            await answered(service, sent)
        assert transport.get_write_buffer_size() < 64 << 10  # nobody waits until that is sent
        await until(lambda: not service.queue.open)
        await until(lambda: not server.server_state.connections)


@pytest.mark.skipif(sys.platform != "linux", reason="nothing else tells of it")
@pytest.mark.parametrize("how", ["close", "reset"])
async def test_a_client_that_leaves_while_it_is_not_read_from_gives_back_its_slots(how: str) -> None:
    with served(limits=PredictionLimits(in_flight=8, grace=1.0)) as service:
        service.server.config.ws_ping_interval = None  # which would tell, but late
        service.model.hold()
        client = await connect(service.socket, close_timeout=0.1)
        for n in range(12):  # of which there is room for all: a farewell behind more is not heard
            await client.send(json.dumps({"input": n}) + " " * 4000)
        await until(lambda: service.queue.unsent == 8)
        await entered(service.model)
        if how == "close":
            await client.close()
        else:
            client.transport.abort()
        await until(lambda: not service.queue.open)
        assert (service.queue.unsent, service.queue.memory) == (0, 0)
        service.model.let_go()
        await until(lambda: not service.server.server_state.connections)
        async with connect(service.socket) as other:
            await other.send('{"input": 100}')
            assert json.loads(await other.recv())["result"] == 200.0
        assert len(service.model.seen) <= 9  # of those that left, only what was in a batch already


async def test_few_inputs_are_decoded_for_which_there_is_no_room() -> None:
    decoded: list[int] = []

    def decode(data: bytes, _: str) -> object:
        decoded.append(data[0])
        return np.full(1 << 20, data[0], np.uint8)

    limits = PredictionLimits(memory=5 << 19, grace=1.0)  # room for two
    app = prediction_service(counter(batch_size=1), decode=decode, limits=limits)
    with running(app) as server:
        service = Served(app, server)
        preparing(service, lambda value: value[0])
        service.model.hold()
        clients = [await connect(service.socket) for _ in range(10)]
        for n, client in enumerate(clients):
            await client.send(bytes([n]))
        await until(lambda: service.queue.memory == 2 << 20 and len(decoded) >= 4)
        answers = [asyncio.create_task(client.recv()) for client in clients]
        done, _ = await asyncio.wait(answers, timeout=0.3)
        assert not done
        assert len(decoded) == 4
        service.model.let_go()
        assert [json.loads(await answer)["result"] for answer in answers] == [2.0 * n for n in range(10)]
        for client in clients:
            await client.close()
        await until(lambda: not service.queue.open)
        assert service.queue.memory == 0


async def test_all_inputs_of_a_message_count_as_memory_from_when_they_are_decoded() -> None:
    with served(limits=PredictionLimits(in_flight=1, grace=1.0), batch_size=1) as service:
        preparing(service, lambda value: value[0])
        service.model.hold()
        async with connect(service.socket) as client:
            await client.send(json.dumps({"inputs": [[1.0] * 100] * 5}))
            await until(lambda: service.queue.unsent == 1)
            assert service.queue.memory == 5 * 800
            service.model.let_go()
            assert [json.loads(await client.recv())["index"] for _ in range(5)] == [0, 1, 2, 3, 4]
            await until(lambda: service.queue.memory == 0)
            service.model.hold()
            await client.send(json.dumps({"inputs": [[1.0] * 100] * 5}))
            await until(lambda: service.queue.memory == 5 * 800)
        await until(lambda: not service.queue.open)
        assert service.queue.memory == 0
        service.model.let_go()


async def test_who_has_little_to_say_is_heard_while_others_wait_for_room() -> None:
    large = json.dumps({"input": [1.0] * 40_000})
    with served(limits=PredictionLimits(memory=700_000, grace=1.0), batch_size=1) as service:  # room for two
        preparing(service, lambda value: value[0])
        service.model.hold()
        clients = [await connect(service.socket) for _ in range(4)]
        for client in clients[:2]:
            await client.send(large)
        await until(lambda: service.queue.memory == 640_000)
        for client in clients[2:]:
            await client.send(large)
        await until(lambda: service.queue.unread >= 400_000)
        async with connect(service.socket) as other:
            await other.send('{"end": true}')
            assert json.loads(await other.recv())["end"] == "completed"
        service.model.let_go()
        for client in clients:
            assert json.loads(await client.recv())["result"] == 2.0
            await client.close()


async def unread(service: Served, size: int) -> None:
    await until(lambda: service.queue.unread >= size)


async def test_what_sockets_bring_that_is_not_decoded_is_bounded_for_all_of_them_together() -> None:
    limits = PredictionLimits(memory=1 << 20, message=1 << 20, grace=1.0)
    half = " " * 600_000
    go_on = asyncio.Event()

    async def parts() -> AsyncIterator[str]:
        yield half
        await go_on.wait()
        yield '{"input": 3}'

    with served(limits=limits) as service:
        async with connect(service.socket) as first, connect(service.socket) as second:
            sending = asyncio.create_task(first.send(parts()))
            await unread(service, len(half))
            with suppress(ConnectionClosed):
                await second.send(half)
            await second.wait_closed()
            assert second.close_code == 1013
            assert second.close_reason == "the service is overloaded: too much waits to be read"
            await until(lambda: service.queue.unread < 2 * len(half))
            go_on.set()
            await sending
            assert json.loads(await first.recv())["result"] == 6.0
            await until(lambda: service.queue.unread == 0)
            await first.send("[" + half + "1]")  # what comes alone
            assert "no object" in json.loads(await first.recv())["error"]
            await until(lambda: service.queue.unread == 0)
            unfinished = asyncio.create_task(first.send(parts()))
            go_on.clear()
            await unread(service, len(half))
            unfinished.cancel()
            first.transport.abort()
        await until(lambda: service.queue.unread == 0)


async def test_a_message_whose_rest_does_not_come_is_not_waited_for() -> None:
    with served(limits=PredictionLimits(request=1.5, grace=1.0)) as service, socket.socket() as client:
        client.connect(("127.0.0.1", service.server.config.port))
        client.sendall(OPENING)
        await until(lambda: len(service.queue.open) == 1)
        client.sendall(b"\x81\x8c\0\0\0\0" + b'{"input": 1}')
        await answered(service, 1)
        client.sendall(b"\x81\x8c\0\0\0\0" + b'{"inp')
        await until(lambda: not service.queue.open)
        client.settimeout(PATIENCE)
        heard = b"".join(iter(lambda: client.recv(4096), b""))
        assert b"\x88" in heard
        assert heard.endswith(b"\x03\xf0at most 1.5 s are waited for a message")


async def test_between_messages_a_client_may_be_silent() -> None:
    with served(limits=PredictionLimits(request=1.5, grace=1.0)) as service:
        async with connect(service.socket) as client:
            for n in range(2):
                await client.send('{"input": 1}')
                assert json.loads(await client.recv())["index"] == n
                closed = asyncio.create_task(client.wait_closed())
                done, _ = await asyncio.wait([closed], timeout=2.0)
                assert not done
                closed.cancel()
