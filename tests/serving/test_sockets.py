"""WebSockets: a stream of inputs in and of results out, in order, and no more at once than is allowed."""

from __future__ import annotations

import asyncio
import io
import json
from typing import Any

import pytest
import websockets
from PIL import Image
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from lineside.runners.serving import PredictionLimits
from lineside.schemas import RequestEnd, RequestStart

from .support import BAD, entered, hearing, served, until


async def told(socket: Any, count: int) -> list[dict[str, Any]]:
    return [json.loads(await socket.recv()) for _ in range(count)]


async def test_results_come_in_the_order_of_the_inputs_and_the_end_after_the_last() -> None:
    with hearing() as (bus, heard):
        with served(bus) as service:
            async with connect(service.socket, additional_headers={"x-request-id": "mine"}) as socket:
                assert socket.response is not None
                assert socket.response.headers["x-request-id"] == "mine"
                await socket.send('{"input": 1}')
                assert await told(socket, 1) == [{"request": "mine", "index": 0, "input": "mine/0", "result": 2.0}]
                await socket.send(json.dumps({"inputs": list(range(300))}))
                await socket.send(json.dumps({"input": BAD}))
                await socket.send('{"end": true}')
                got = await told(socket, 302)
                assert [one.get("index", "end") for one in got] == [*range(1, 302), "end"]
                assert [one["result"] for one in got[:300]] == [2.0 * n for n in range(300)]
                assert got[300]["error"] == "ValueError: the model does not like this input"
                assert got[301] == {"request": "mine", "end": "completed", "count": 302}
                await socket.wait_closed()
                assert socket.close_code == 1000
        bus.drain()
    (start,), (end,) = heard.of(RequestStart), heard.of(RequestEnd)
    assert (start.transport, start.inputs) == ("ws", 0)
    assert (end.outcome, end.inputs, end.results, end.errors) == ("completed", 302, 301, 1)


async def test_a_message_that_holds_no_input_gets_its_error_in_its_turn() -> None:
    with served() as service:
        service.model.hold()
        async with connect(service.socket) as socket:
            for message in ('{"input": 1}', "{", b"no picture", "[1]", '{"inputs": []}', '{"input": 2}'):
                await socket.send(message)
            await socket.send('{"end": true}')
            await entered(service.model)
            service.model.let_go()
            got = await told(socket, 7)
            assert [one.get("index", "end") for one in got] == [0, 1, 2, 3, 4, 5, "end"]
            assert [one.get("result") for one in got[:6]] == [2.0, None, None, None, None, 4.0]
            problems = [one["error"] for one in got[1:5]]
            for problem, expected in zip(
                problems, ("not JSON", "picture cannot be read", "no object", "no input"), strict=True
            ):
                assert expected in problem


async def test_a_socket_is_not_read_from_while_as_many_are_in_flight_as_may_be() -> None:
    with served(limits=PredictionLimits(in_flight=8, grace=1.0), batch_size=4) as service:
        service.model.hold()
        async with connect(service.socket, write_limit=1024) as socket:
            text = json.dumps({"input": 7}) + " " * 4000

            async def send_all() -> None:
                for _ in range(5000):  # 20 MB: more than all the buffers in between hold
                    await socket.send(text)

            sending = asyncio.create_task(send_all())
            await entered(service.model)
            await until(lambda: service.queue.unsent == 8)
            done, _ = await asyncio.wait([sending], timeout=0.5)
            assert not done  # the client is made to wait
            assert service.queue.unsent == 8
            (request,) = service.queue.open
            assert request.inputs == 8
            service.model.let_go()
            got = [one for _ in range(50) for one in await told(socket, 100)]
            await sending
            assert [one["index"] for one in got] == list(range(5000))
            assert {one["result"] for one in got} == {14.0}


async def test_a_client_that_goes_away_gives_back_its_slots() -> None:
    with hearing() as (bus, heard):
        with served(bus, limits=PredictionLimits(in_flight=8, grace=1.0)) as service:
            service.model.hold()
            async with connect(service.socket) as socket:
                await socket.send(json.dumps({"inputs": list(range(30))}))
                await until(lambda: service.queue.unsent == 8)  # the others of the message wait for room
            await until(lambda: not service.queue.open)
            assert (service.queue.unsent, service.queue.memory) == (0, 0)
            service.model.let_go()
        bus.drain()
    (end,) = heard.of(RequestEnd)
    assert (end.outcome, end.results) == ("cancelled", 0)


async def test_a_message_over_the_limit_ends_the_socket() -> None:
    with served(limits=PredictionLimits(message=1000, grace=1.0)) as service:
        async with connect(service.socket) as socket:
            await socket.send(json.dumps({"input": [0.0] * 1000}))
            with pytest.raises(websockets.ConnectionClosed):
                await socket.recv()
            assert socket.close_code == 1009


async def test_pictures_come_as_binary_messages() -> None:
    picture = io.BytesIO()
    Image.new("RGB", (4, 3), (10, 20, 30)).save(picture, "PNG")
    with served() as service:
        predictor: Any = service.app.service.predictor
        shapes: list[Any] = []
        before = predictor._prepare_all

        def prepare(values: list[Any]) -> object:
            shapes.extend((value.shape, value[0, 0].tolist()) for value in values)
            return before([value[0, 0, 0] for value in values])

        predictor._prepare_all = prepare
        async with connect(service.socket) as socket:
            await socket.send(picture.getvalue())
            assert (await told(socket, 1))[0]["result"] == 20.0
        assert shapes == [((3, 4, 3), [10, 20, 30])]


async def test_where_nothing_is_computed_a_socket_is_refused_with_the_reason() -> None:
    with served() as service:
        service.app.service.close()
        with pytest.raises(InvalidStatus) as refused:
            await connect(service.socket)
        assert refused.value.response.status_code == 503
        assert b"shuts down" in (refused.value.response.body or b"")
