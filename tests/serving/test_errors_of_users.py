"""What the errors of hooks, models and a recipe's decode may be: anything, and they are told nevertheless."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import pytest
from websockets.sync.client import connect

from lineside.runners import Predictor, Recipe, RequestUnusable
from lineside.runners.serving import PredictionApp, PredictionLimits, PredictionService, prediction_service
from lineside.schemas import RequestEnd

from .support import Counting, Served, column, doubled, hearing, inputs, lines, results, running

LIMITS = PredictionLimits(grace=1.0, answer=10.0)


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("there is nothing to say")


ODD = [
    (ValueError("cannot open '\udcff.png'"), r"ValueError: cannot open '\udcff.png'"),
    (Mute(), "Mute: what it says is unknown, for its __str__ raises RuntimeError"),
]


@pytest.mark.parametrize(("error", "told"), ODD, ids=["no text in UTF-8", "no text at all"])
def test_an_error_that_has_no_text_to_send_leaves_the_other_inputs_their_results(
    error: Exception, told: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, "lineside.serving")  # what is captured has to be text, too

    def fail_at_2(outputs: Any, batch: Any) -> list[float]:
        if 2 in batch.images:
            raise error
        return doubled(outputs, batch)

    with hearing() as (bus, _):
        predictor = Predictor(Counting(), preprocess=column, postprocess=fail_at_2, bus=bus, device="cpu", batch_size=4)
        app = prediction_service(predictor, limits=LIMITS)
        with running(app) as server, Served(app, server).client() as client:
            answered = lines(client.post("/predict", json=inputs(1, 2, 3)))
            assert results(answered) == [2.0, "error", 6.0]
            assert answered[1]["error"] == told
            assert results(lines(client.post("/predict", json=inputs(4)))) == [8.0]


@pytest.mark.parametrize(("error", "told"), ODD, ids=["no text in UTF-8", "no text at all"])
def test_what_a_decode_raises_is_told_whatever_its_text(error: Exception, told: str) -> None:
    def decode(data: bytes, media_type: str) -> object:
        raise error

    app = prediction_service(Recipe(model=Counting, decode=decode), limits=LIMITS)
    with running(app) as server, Served(app, server).client() as client:
        answer = client.post("/predict", content=b"x", headers={"content-type": "text/csv"})
        assert answer.status_code == 400
        assert told in answer.json()["error"]


def test_an_error_of_the_service_that_a_decode_raises_is_told_whatever_its_text() -> None:
    def decode(data: bytes, media_type: str) -> object:
        raise RequestUnusable("cannot open '\udcff.csv'", "another file")

    told = r"cannot open '\udcff.csv'; expected another file"
    with hearing() as (bus, heard):
        service = PredictionService(Predictor(Counting(), bus=bus, device="cpu"), decode=decode, limits=LIMITS)
        app = PredictionApp(service)
        with running(app) as server, Served(app, server).client() as client:
            answer = client.post("/predict", content=b"x", headers={"content-type": "text/csv"})
            assert (answer.status_code, answer.json()) == (400, {"error": told})
            with connect(Served(app, server).socket) as socket:
                socket.send(b"x")
                assert json.loads(socket.recv())["error"] == told
        bus.drain()
    assert heard.of(RequestEnd)[0].reason == told


def test_a_run_that_ends_by_what_is_no_exception_ends_every_request() -> None:
    def cancel(outputs: Any, batch: Any) -> list[float]:
        raise asyncio.CancelledError

    predictor = Predictor(Counting(), preprocess=column, postprocess=cancel, device="cpu")
    app = prediction_service(predictor, limits=LIMITS)
    with running(app) as server, Served(app, server).client() as client:
        answer = client.post("/predict", json=inputs(1))
        assert answer.status_code == 503
        assert "the run of this service has failed: CancelledError" in answer.json()["error"]
        assert app.service.state == "failed"
