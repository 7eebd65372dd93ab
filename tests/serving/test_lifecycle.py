"""How a service begins and ends: by itself, in an app of yours, with a run that fails."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, nullcontext
from typing import Any

import httpx2 as httpx
import jsonschema  # type: ignore[import-untyped]  # its stubs are a package of their own
import pytest
import uvicorn
from fastapi import FastAPI
from torch import nn

from lineside.runners import InvalidArgument, NotServing, Predictor
from lineside.runners.serving import PredictionApp, PredictionLimits, PredictionService, prediction_service
from lineside.schemas import PredictEnd, RequestEnd, RunEnd, RunStart

from .support import PATIENCE, counter, entered, hearing, inputs, lines, results, running, served, until

TOKEN = "a-token-that-only-tests-know"


async def test_what_is_in_flight_is_finished_at_the_end_and_who_comes_meanwhile_is_told_to_come_again() -> None:
    with hearing() as (bus, heard):
        with served(bus, limits=PredictionLimits(grace=PATIENCE)) as service:
            service.model.hold()
            async with service.aclient() as client:
                going = asyncio.create_task(client.post("/predict", json=inputs(*range(40))))
                await entered(service.model)
                service.server.should_exit = True
                await until(lambda: service.app.service.state == "closing")
                late = await client.post("/predict", json=inputs(1))
                assert (late.status_code, int(late.headers["retry-after"]) > 0) == (503, True)
                assert "shuts down" in late.json()["error"]
                assert (await client.get("/healthz")).status_code == 503
                service.model.let_go()
                assert results(lines(await going)) == [2.0 * n for n in range(40)]
        bus.drain()
    (end,) = heard.of(RunEnd)
    assert (end.outcome, end.reason) == ("stopped", "the service was shut down")
    assert heard.of(PredictEnd)[0].inputs == 40
    assert [event.outcome for event in heard.of(RequestEnd)] == ["refused", "completed"]


@pytest.mark.usefixtures("long_goodbye")
async def test_what_is_not_finished_in_time_ends_and_says_so() -> None:
    with hearing() as (bus, heard):
        with served(bus, limits=PredictionLimits(grace=0.2), batch_size=1) as service:
            service.model.hold()
            service.model.allow()
            async with service.aclient() as client, client.stream("POST", "/predict", json=inputs(1, 2)) as answer:
                told = answer.aiter_lines()
                assert json.loads(await anext(told))["result"] == 2.0
                service.server.should_exit = True
                last = json.loads(await anext(told))
                assert (last["end"], last["count"]) == ("failed", 1)
                assert "the service shuts down" in last["reason"]
            service.model.let_go()
        bus.drain()
    (end,) = heard.of(RequestEnd)
    assert (end.outcome, end.results) == ("failed", 1)


async def test_a_run_that_fails_ends_every_request_and_the_server() -> None:
    with hearing() as (bus, heard):
        with served(bus, batch_size=1) as service:
            service.model.hold()

            def break_(runner: Any) -> None:
                raise ZeroDivisionError("a bug in a callback")

            service.app.service.predictor.served.add_callback("on_predict_postprocess_end", break_)
            async with service.aclient() as client:
                asked = asyncio.create_task(client.post("/predict", json=inputs(1, 2)))
                await entered(service.model)
                service.model.let_go()
                answer = await asked
                assert answer.status_code == 503
                assert "has failed: ZeroDivisionError" in answer.json()["error"]
                await until(lambda: service.server.should_exit)
            assert service.app.service.state == "failed"
            assert isinstance(service.app.service.error, ZeroDivisionError)
        bus.drain()
    assert heard[-1].type == "RunEnd"
    assert heard.of(RunEnd)[0].outcome == "failed"


async def test_after_its_run_has_failed_a_mounted_service_answers_503_and_says_so_at_healthz() -> None:
    async with (
        PredictionService(counter(), limits=PredictionLimits(grace=1.0)) as service,
        asking(PredictionApp(service)) as client,
    ):
        assert (await client.get("/healthz")).json() == {"status": "ok"}
        service.predictor.stop("stopped by its owner")
        await until(lambda: service.state == "closed")
        assert (await client.get("/healthz")).status_code == 503
        answer = await client.post("/predict", json=inputs(1))
        assert (answer.status_code, "was stopped" in answer.json()["error"]) == (503, True)


async def test_what_a_run_cannot_begin_with_is_raised_where_the_service_is_entered() -> None:
    class Elsewhere(nn.Module):
        def to(self, *args: Any, **keywords: Any) -> Any:
            raise RuntimeError("out of memory")

        def _apply(self, *args: Any, **keywords: Any) -> Any:
            raise RuntimeError("out of memory")

    service = PredictionService(Predictor(Elsewhere(), device="cpu"))
    with pytest.raises(RuntimeError, match="out of memory"):
        async with service:
            pass
    assert service.state == "failed"
    with pytest.raises(RuntimeError, match="out of memory"), running(prediction_service(Predictor(Elsewhere()))):
        pass


@pytest.mark.parametrize("way", ["is hurried", "had its time"])
async def test_a_service_that_is_closed_is_not_held_up_by_a_model_that_does_not_come_to_its_device(
    monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    monkeypatch.setattr("lineside.runners.serving.service.CLOSE_SECONDS", 3600.0)
    coming, come = threading.Event(), threading.Event()

    class Slow(nn.Module):
        def train(self, mode: bool = True) -> Any:
            if not mode:
                coming.set()
                assert come.wait(PATIENCE)
            return super().train(mode)

    grace = 3600.0 if way == "is hurried" else 0.01
    service = PredictionService(Predictor(Slow(), device="cpu"), limits=PredictionLimits(grace=grace))
    entering = asyncio.create_task(service.__aenter__())
    try:
        assert await asyncio.to_thread(coming.wait, PATIENCE)
        service.close()
        if way == "is hurried":
            service.hurry()
        with pytest.raises(NotServing, match="before it had begun"):
            async with asyncio.timeout(PATIENCE / 2):
                await entering
    finally:
        come.set()


async def test_mounted_in_an_app_it_serves_while_its_service_is_entered() -> None:
    served = prediction_service(counter(), token=TOKEN, limits=PredictionLimits(grace=1.0))

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
        async with served.service:
            yield

    outer = FastAPI(lifespan=lifespan)
    outer.mount("/models/double", served)
    server = uvicorn.Server(uvicorn.Config(outer, log_level="error", port=0))
    task = asyncio.create_task(server.serve())
    await until(lambda: server.started)
    address = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/models/double"
    async with httpx.AsyncClient(base_url=address, trust_env=False, timeout=PATIENCE) as client:
        assert (await client.get("/healthz")).status_code == 200
        assert (await client.post("/predict", json=inputs(1))).status_code == 401
        answer = await client.post("/predict", json=inputs(1), headers={"authorization": f"Bearer {TOKEN}"})
        assert results(lines(answer)) == [2.0]
        other = {"authorization": f"Bearer {TOKEN}", "host": "evil.example"}
        assert (await client.post("/predict", json=inputs(1), headers=other)).status_code == 421
    server.should_exit = True
    await task
    assert served.service.state == "closed"


async def test_an_app_whose_service_nobody_entered_says_what_to_do() -> None:
    service = PredictionService(counter())
    async with asking(PredictionApp(service)) as client:
        answer = await client.post("/predict", json=inputs(1))
        assert (answer.status_code, "async with service" in answer.json()["error"]) == (503, True)
        assert (await client.get("/healthz")).json() == {"status": "new"}


async def test_a_service_serves_once_and_gives_its_predictor_back() -> None:
    predictor = counter()
    before = set(threading.enumerate())
    async with PredictionService(predictor) as service:
        pass
    with pytest.raises(NotServing, match="make another"):
        await service.__aenter__()
    await service.aclose()
    left = [thread for thread in threading.enumerate() if thread not in before and "predict" in thread.name]
    for thread in left:  # a run has ended a moment before its thread
        await asyncio.to_thread(thread.join, PATIENCE)
    assert not any(thread.is_alive() for thread in left)
    with hearing() as (bus, heard):
        again = counter(bus)
        async with PredictionService(again):
            pass
        result = await again.start([1, 2])
        assert result.results == (2.0, 4.0)
        bus.drain()
    assert [event.model for event in heard.of(RunStart)] == ["Counting", "Counting"]
    assert again.model.training  # the mode is given back


def test_what_is_served_is_told_with_its_limits_and_its_manual() -> None:
    with served() as service, service.client() as client:
        told = client.get("/").json()
        assert (told["model"], told["batch_size"], told["limits"]["queue"]) == ("Counting", 4, 20_000)
        described = client.get("/openapi.json").json()["paths"]["/predict"]["post"]
        assert {"400", "401", "413", "415", "503", "504"} <= {*described["responses"]}
        assert {*described["responses"]["200"]["content"]} == {
            "application/x-ndjson",
            "text/event-stream",
            "application/json",
        }
        assert client.head("/healthz").status_code == 200
        page = client.get("/docs").text
        assert "POST /predict" in page
        assert "asyncapi" not in page
        assert client.get("/nothing").status_code == 404
        assert client.get("/predict").status_code == 405


async def test_what_is_answered_is_what_is_described() -> None:
    service = PredictionService(counter())
    app = PredictionApp(service, token=TOKEN)
    described = app.openapi()

    def check(path: str, method: str, answer: httpx.Response) -> None:
        kind = answer.headers["content-type"].partition(";")[0]
        schema = described["paths"][path][method]["responses"][str(answer.status_code)]["content"][kind]["schema"]
        told = lines(answer) if kind == "application/x-ndjson" else [answer.json()]
        for one in told:
            jsonschema.validate(one, {**schema, "components": described["components"]})

    assert described["security"] == [{name: []} for name in described["components"]["securitySchemes"]]
    async with asking(app) as client:
        check("/predict", "post", await client.post("/predict", json=inputs(1)))
        check("/healthz", "get", await client.get("/healthz"))
        client.headers["authorization"] = f"Bearer {TOKEN}"
        check("/predict", "post", await client.post("/predict", json=inputs(1)))
        async with service:
            for accept in ("application/json", "application/x-ndjson"):
                answer = await client.post("/predict", json=inputs(1, "no number"), headers={"accept": accept})
                check("/predict", "post", answer)
            check("/healthz", "get", await client.get("/healthz"))
            schema = described["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"]["schema"]
            bodies: list[tuple[Any, int]] = [
                ({"input": 1}, 200),
                (inputs(1, 2), 200),
                (inputs(), 400),
                ({}, 400),
                ([1], 400),
            ]
            for body, status in bodies:
                assert (await client.post("/predict", json=body)).status_code == status
                with nullcontext() if status == 200 else pytest.raises(jsonschema.ValidationError):
                    jsonschema.validate(body, schema)
    kinds = described["paths"]["/predict"]["post"]["requestBody"]["content"]
    assert {*kinds} == {"application/json", "image/*", "application/octet-stream", "multipart/form-data"}


@asynccontextmanager
async def asking(app: Any) -> AsyncGenerator[httpx.AsyncClient]:
    """Give a client that speaks with `app` in this loop."""
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        yield client


def test_weights_for_a_predictor_are_refused_rather_than_left_out() -> None:
    source: Any = counter()
    with pytest.raises(InvalidArgument, match=r"weights='best\.pt' for a Predictor; "):
        prediction_service(source, "best.pt")
