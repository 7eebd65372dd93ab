"""What is refused: too much, what is no input, and what nobody has room for; each with a status and a reason."""

from __future__ import annotations

import asyncio
import io
import json
import operator
import threading
from typing import Any

import httpx2 as httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from lineside import Bus
from lineside.runners import InvalidArgument, Recipe
from lineside.runners.serving import PredictionApp, PredictionLimits, prediction_service
from lineside.schemas import RequestEnd, RequestStart

from .support import (
    PATIENCE,
    Counting,
    Served,
    column,
    doubled,
    entered,
    hearing,
    inputs,
    lines,
    preparing,
    results,
    running,
    served,
    until,
)

JSON = {"content-type": "application/json"}
NAN = float("nan")
FORM = {"content-type": "multipart/form-data; boundary=b"}
PART = b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\n%d\r\n'


def picture(width: int, height: int, kind: str = "PNG") -> bytes:
    made = io.BytesIO()
    Image.new("RGB", (width, height), (200, 100, 50)).save(made, kind)
    return made.getvalue()


def corner(value: Any) -> Any:
    return value.flatten()[0]


def height(value: Any) -> Any:
    return value.shape[0]


def refusal(answer: httpx.Response, status: int) -> str:
    assert answer.status_code == status, answer.text
    told = answer.json()
    assert set(told) == {"error"}
    reason: str = told["error"]
    return reason


@pytest.mark.parametrize(
    ("body", "headers", "status", "reason"),
    [
        (b"{", JSON, 400, "not JSON"),
        (b"", JSON, 400, "not JSON"),
        (b"\xff\xfe", JSON, 400, "not JSON"),
        (b"[1]", JSON, 400, "no object but a list"),
        (b"{}", JSON, 400, "expected"),
        (b'{"inputs": 3}', JSON, 400, "expected"),
        (b'{"inputs": []}', JSON, 400, "no input"),
        (b'{"inputs": [1], "more": 2}', JSON, 400, "'more'"),
        (b'{"inputs": [[[1], [2, 3]]]}', JSON, 400, "different lengths"),
        (b"[" * 5000, JSON, 400, "not JSON"),
        (b"a,b", {"content-type": "text/csv"}, 415, "text/csv"),
        (b"a", {}, 415, "no content-type"),
        (b"GIF89a", {"content-type": "image/png"}, 400, "picture cannot be read"),
        (picture(30, 30)[:60], {"content-type": "image/png"}, 400, "picture cannot be read"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", {"content-type": "image/eps"}, 400, "picture cannot be read"),
        (b"", {"content-type": "image/png"}, 400, "empty"),
        (b"x", {"content-type": "multipart/form-data"}, 400, "multipart"),
        (b"--b\r\nno header\r\n", FORM, 400, "multipart"),
        (PART % 1 + PART % 2, FORM, 400, "its end is missing"),
        (PART % 1 + PART % 2 + b"--b", FORM, 400, "its end is missing"),
        (b"x", {**JSON, "content-encoding": "GZIP"}, 415, "'Content-Encoding: gzip' here; expected the body as it is"),
    ],
)
def test_a_body_that_holds_no_inputs_is_refused_with_what_was_expected(
    body: bytes, headers: dict[str, str], status: int, reason: str
) -> None:
    with served() as service, service.client() as client:
        assert reason in refusal(client.post("/predict", content=body, headers=headers), status)
        assert (service.queue.unsent, service.queue.memory) == (0, 0)


def test_each_limit_refuses_what_is_over_it_and_takes_what_is_not() -> None:
    limits = PredictionLimits(body=5000, inputs=10, pixels=100, grace=1.0)
    with hearing() as (bus, heard):
        with served(bus, limits=limits) as service, service.client() as client:
            preparing(service, corner)
            assert results(lines(client.post("/predict", json=inputs(*range(10)))))[-1] == 18.0
            assert "11 inputs; at most 10" in refusal(client.post("/predict", json=inputs(*range(11))), 413)
            assert "at most 5000 bytes" in refusal(client.post("/predict", content=b" " * 5001, headers=JSON), 413)
            pieces = iter([b" " * 3000] * 2)
            assert "at most 5000 bytes" in refusal(client.post("/predict", content=pieces, headers=JSON), 413)
            for side, status in ((10, 200), (11, 413)):
                answer = client.post("/predict", content=picture(side, side), headers={"content-type": "image/png"})
                assert answer.status_code == status, answer.text
            assert "11 x 11 pixels; at most 100 pixels" in answer.json()["error"]
            files = [("file", (f"{n}.png", picture(4, 4), "image/png")) for n in range(11)]
            assert "inputs" in refusal(client.post("/predict", files=files), 413)
            assert (service.queue.unsent, service.queue.memory) == (0, 0)
        bus.drain()
    refused = [event for event in heard.of(RequestEnd) if event.outcome == "refused"]
    assert len(refused) == 4  # what is too long by its own account, the guard refuses
    assert all(event.reason for event in refused)
    assert len(heard.of(RequestStart)) == 2


def test_a_picture_whose_header_claims_what_would_fill_the_memory_is_not_decoded() -> None:
    bomb = bytearray(picture(1, 1, "BMP"))
    bomb[18:26] = (60_000).to_bytes(4, "little") * 2  # its width and height
    with served() as service, service.client() as client:
        answer = client.post("/predict", content=bytes(bomb), headers={"content-type": "image/bmp"})
        assert "pixels" in refusal(answer, 413)


def test_several_pictures_come_as_one_form_and_keep_their_names() -> None:
    with served() as service, service.client() as client:
        preparing(service, height)
        files = [
            ("a", (f"pic{n}.{kind}", picture(3, n, kind), f"image/{kind}")) for n, kind in ((1, "png"), (2, "jpeg"))
        ]
        told = lines(client.post("/predict", files=files))
        assert results(told) == [2.0, 4.0]
        assert [one["input"] for one in told[:2]] == ["pic1.png", "pic2.jpeg"]


def test_the_recipe_says_how_a_body_becomes_an_input() -> None:
    def decode(data: bytes, media_type: str) -> object:
        return len(data) if media_type == "text/csv" else json.loads(data)["value"]

    recipe = Recipe(model=Counting, preprocess=column, postprocess=doubled, decode=decode)
    with running(prediction_service(recipe, limits=PredictionLimits(grace=1.0))) as server:
        client = Served(PredictionApp(server.service), server).client()
        with client:
            assert results(lines(client.post("/predict", content=b"abc", headers={"content-type": "text/csv"}))) == [
                6.0
            ]
            assert results(lines(client.post("/predict", json=inputs({"value": 4}, {"value": 5})))) == [8.0, 10.0]
            answer = client.post("/predict", json=inputs({"other": 4}))
            assert "cannot be decoded: KeyError: 'value'" in refusal(answer, 400)


async def test_a_full_queue_answers_503_and_when_to_come_again_and_grows_no_further() -> None:
    with hearing() as (bus, heard):
        with served(bus, limits=PredictionLimits(queue=10, grace=1.0)) as service:
            service.model.hold()
            async with service.aclient() as client:
                first = asyncio.create_task(client.post("/predict", json=inputs(*range(8))))
                await entered(service.model)
                answer = await client.post("/predict", json=inputs(1, 2, 3))
                assert "no room for more: 8 inputs wait" in refusal(answer, 503)
                assert 1 <= int(answer.headers["retry-after"]) <= 60
                assert service.queue.unsent == 8
                second = asyncio.create_task(client.post("/predict", json=inputs(1, 2)))
                await until(lambda: service.queue.unsent == 10)
                assert (await client.post("/predict", json=inputs(1))).status_code == 503
                service.model.let_go()
                assert results(lines(await first))[-1] == 14.0
                assert results(lines(await second)) == [2.0, 4.0]
                assert results(lines(await client.post("/predict", json=inputs(*range(10)))))[-1] == 18.0
        bus.drain()
    assert [event.outcome for event in heard.of(RequestEnd)].count("refused") == 2


async def test_memory_and_the_number_of_requests_are_bounded_too() -> None:
    limits = PredictionLimits(memory=10_000, requests=2, grace=1.0)
    with served(limits=limits, batch_size=1) as service:
        preparing(service, operator.itemgetter(0))
        service.model.hold()
        async with service.aclient() as client:
            first = asyncio.create_task(client.post("/predict", json=inputs([1.0] * 800)))  # 6400 bytes as an array
            await entered(service.model)
            answer = await client.post("/predict", json=inputs([1.0] * 800))
            assert "no room for more" in refusal(answer, 503)
            second = asyncio.create_task(client.post("/predict", json=inputs([2.0])))
            await until(lambda: len(service.queue.open) == 2)
            assert "2 requests are open" in refusal(await client.post("/predict", json=inputs([3.0])), 503)
            service.model.let_go()
            assert results(lines(await first)) == [2.0]
            assert results(lines(await second)) == [4.0]
        assert service.queue.memory == 0


async def test_a_request_has_its_time_before_its_first_result() -> None:
    with hearing() as (bus, heard):
        with served(bus, limits=PredictionLimits(answer=0.3, grace=1.0), batch_size=1) as service:
            service.model.hold()
            async with service.aclient() as client:
                late = await client.post("/predict", json=inputs(1))
            assert "not all results were there within 0.3 s" in refusal(late, 504)
            service.model.let_go()
        bus.drain()
    assert [event.outcome for event in heard.of(RequestEnd)] == ["failed"]


async def halfway(bus: Bus | None = None, **headers: str) -> tuple[httpx.Response, float]:
    """The answer to a request whose second result does not come in time, and that time in seconds.

    How soon a busy machine has the first one is not what is tested: longer times are tried until it is in time.
    """
    for answer in (0.3, 2.0, PATIENCE):
        with served(bus, limits=PredictionLimits(answer=answer, grace=0.1), batch_size=1) as service:
            service.model.hold()
            service.model.allow()
            async with service.aclient(**headers) as client:
                response = await client.post("/predict", json=inputs(1, 2))
            service.model.let_go()
        if '"result"' in response.text:
            break
    return response, answer


async def test_a_request_has_its_time_after_its_first_result_too() -> None:
    with hearing() as (bus, heard):
        response, time = await halfway(bus)
        bus.drain()
    result, end = lines(response)
    assert (result["result"], end["end"], end["count"]) == (2.0, "failed", 1)
    assert f"within {time:g} s" in end["reason"]
    assert heard.of(RequestEnd)[-1].outcome == "failed"


async def test_what_hangs_in_decode_is_answered_in_time_and_takes_a_thread_until_it_returns(
    caplog: pytest.LogCaptureFixture,
) -> None:
    begun, go = threading.Semaphore(0), threading.Semaphore(0)

    def decode(data: bytes, media_type: str) -> object:
        if data == b"hang":
            begun.release()
            assert go.acquire(timeout=PATIENCE)
        return 1.0

    recipe = Recipe(model=Counting, preprocess=column, postprocess=doubled, decode=decode)
    app = prediction_service(recipe, limits=PredictionLimits(answer=2.0, grace=1.0))
    try:
        with running(app) as server:
            async with Served(app, server).aclient() as client:
                hung = [asyncio.create_task(client.post("/predict", content=b"hang")) for _ in range(2)]
                for _ in hung:
                    assert await asyncio.to_thread(begun.acquire, timeout=PATIENCE)
                later = client.post("/predict", content=b"fine")
                for answer in await asyncio.gather(*hung, later):
                    assert "it was not decoded within 2 s" in refusal(answer, 504)
                said = "an input was not decoded within 2 s: what the 2 threads that decode do"
                assert caplog.text.count(said) == 1
                go.release()
                assert results(lines(await client.post("/predict", content=b"fine"))) == [2.0]
                assert app.service.queue.memory == 0
    finally:
        go.release()


@pytest.mark.usefixtures("long_goodbye")
async def test_the_status_of_one_object_says_whether_all_results_are_in_it() -> None:
    late, time = await halfway(accept="application/json")
    told = late.json()
    assert (late.status_code, told["end"], told["count"]) == (504, "failed", 1)
    assert [one["result"] for one in told["results"]] == [2.0]
    assert told["error"] == told["reason"]
    assert f"within {time:g} s" in told["error"]
    with served(limits=PredictionLimits(grace=0.1), batch_size=1) as service:
        async with service.aclient(accept="application/json") as client:
            service.model.hold()
            service.model.allow()
            going = asyncio.create_task(client.post("/predict", json=inputs(1, 2)))
            await until(lambda: (service.queue.unsent, service.model.seen) == (1, [1.0]))
            service.server.should_exit = True
            ended = await going
            assert (ended.status_code, ended.headers["retry-after"]) == (503, "5")
            assert [one["result"] for one in ended.json()["results"]] == [2.0]
            service.model.let_go()


async def test_a_body_that_does_not_come_is_not_waited_for() -> None:
    with served(limits=PredictionLimits(request=0.3, grace=1.0)) as service:
        reader, writer = await asyncio.open_connection("127.0.0.1", service.server.config.port)
        writer.write(b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n")
        writer.write(b"Content-Length: 1000\r\n\r\n" + b'{"inputs": [')
        assert b" 408 " in await reader.readline()
        writer.close()
        await until(lambda: service.queue.memory == 0)


def test_no_body_whatever_fails_the_service(shared: Served) -> None:
    bodies = st.binary(max_size=300) | st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(max_size=5) | st.integers(),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["inputs", "input", "x"]), inner),
        max_leaves=8,
    ).map(lambda value: json.dumps(value).encode())
    kinds = st.sampled_from(
        ["application/json", "image/png", "multipart/form-data; boundary=b", "text/plain", "", "multipart/form-data"]
    )

    @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(bodies, kinds)
    def check(body: bytes, kind: str) -> None:
        answer = client.post("/predict", content=body, headers={"content-type": kind})
        assert answer.status_code in (200, 400, 413, 415), (answer.status_code, answer.text)

    with shared.client() as client:
        check()
        assert results(lines(client.post("/predict", json=inputs(1)))) == [2.0]
        assert (shared.queue.unsent, shared.queue.memory) == (0, 0)


@pytest.fixture
def shared() -> Any:
    with served() as service:
        yield service


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("in_flight", 0, "a whole number, at least 1"),
        ("queue", -1, "a whole number, at least 1"),
        ("memory", 1e9, "a whole number, at least 1"),
        ("grace", -0.1, "seconds, at least 0"),
        ("answer", NAN, "seconds, at least 0"),
        ("stalled", "30", "seconds, at least 0"),
    ],
)
def test_limits_with_which_clients_would_wait_for_ever_are_refused(name: str, value: Any, expected: str) -> None:
    with pytest.raises(InvalidArgument, match=rf"{name}=.*; expected {expected}$"):
        PredictionLimits(**{name: value})
