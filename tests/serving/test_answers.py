"""What clients get: each its own results, in its own order, in the form it asked for, and never in silence less."""

from __future__ import annotations

import asyncio
import json
import math
from typing import Any

import httpx2 as httpx
from pydantic import BaseModel, field_serializer
from torch import Tensor, nn

from lineside.runners import PredictBatch, Predictor
from lineside.runners.serving import prediction_service
from lineside.schemas import PredictBatchEnd, PredictBatchStart, RequestEnd, RequestStart, RunEnd

from .support import BAD, PATIENCE, column, hearing, inputs, lines, results, running, served, until


def test_results_come_as_lines_as_events_or_as_one_object() -> None:
    with served() as service, service.client(**{"x-request-id": "mine"}) as client:
        plain = client.post("/predict", json=inputs(1, 2))
        assert plain.headers["content-type"] == "application/x-ndjson"
        assert lines(plain) == [
            {"request": "mine", "index": 0, "input": "mine/0", "result": 2.0},
            {"request": "mine", "index": 1, "input": "mine/1", "result": 4.0},
            {"request": "mine", "end": "completed", "count": 2},
        ]
        events = client.post("/predict", json=inputs(1, 2), headers={"accept": "text/event-stream"})
        assert events.headers["content-type"].startswith("text/event-stream")
        blocks = [dict(line.split(": ", 1) for line in block.split("\n")) for block in events.text.split("\n\n")[:-1]]
        assert [block["event"] for block in blocks] == ["result", "result", "end"]
        assert [json.loads(block["data"]) for block in blocks] == lines(plain)
        whole = client.post("/predict", json=inputs(1, 2), headers={"accept": "text/html;q=0.5, application/json"})
        assert whole.headers["content-type"] == "application/json"
        assert whole.json() == {
            "request": "mine",
            "end": "completed",
            "count": 2,
            "results": lines(plain)[:2],
        }


def test_of_the_forms_that_a_client_would_take_it_gets_the_one_it_likes_most() -> None:
    with served() as service, service.client() as client:
        for accept, form in (
            ("*/*", "application/x-ndjson"),
            ("*/*, application/json", "application/json"),
            ("text/event-stream;q=0.1, */*;q=0.9", "application/x-ndjson"),
            ("application/json;q=0.2, text/*;q=0.5", "text/event-stream"),
            ("application/x-ndjson;q=0, application/json;q=0, */*", "text/event-stream"),
            ("text/html", "application/x-ndjson"),
        ):
            answer = client.post("/predict", json=inputs(1), headers={"accept": accept})
            assert answer.headers["content-type"].partition(";")[0] == form, accept


def test_what_several_accept_headers_say_is_taken_together() -> None:
    with served() as service, service.client() as client:
        headers = [("accept", "text/html"), ("accept", "application/json")]
        answer = client.post("/predict", json=inputs(1), headers=headers)
        assert answer.headers["content-type"] == "application/json"


async def test_results_come_as_they_are_there() -> None:
    with served(batch_size=1) as service:
        service.model.hold()
        service.model.allow()
        async with service.aclient() as client, client.stream("POST", "/predict", json=inputs(1, 2)) as answer:
            told = answer.aiter_lines()
            assert json.loads(await anext(told))["result"] == 2.0
            assert service.model.seen == [1.0]  # the second is being computed, and stands
            service.model.allow()
            assert [json.loads(line).get("result", "end") async for line in told] == [4.0, "end"]


async def test_64_clients_at_once_each_get_their_own_complete_and_in_order() -> None:
    with hearing() as (bus, heard):
        with served(bus, batch_size=16) as service:
            async with service.aclient() as client:

                async def ask(n: int) -> None:
                    for turn in range(3):
                        values = [1000 * n + 10 * turn + k for k in range(1 + n % 5)]
                        answer = await client.post("/predict", json=inputs(*values))
                        assert results(lines(answer)) == [2.0 * value for value in values]

                await asyncio.gather(*(ask(n) for n in range(64)))
            total = sum(3 * (1 + n % 5) for n in range(64))
            assert len(service.model.seen) == total
            assert len(service.model.batches) < 64 * 3  # fewer batches than requests: they were shared
        bus.drain()
    shared = [{name.partition("/")[0] for name in event.inputs} for event in heard.of(PredictBatchEnd)]
    assert max(map(len, shared)) > 1
    ends = heard.of(RequestEnd)
    assert [(end.outcome, end.inputs) for end in ends].count(("completed", 5)) == 3 * 12
    assert len(ends) == len(heard.of(RequestStart)) == 64 * 3


async def test_the_events_of_a_request_tell_its_id_and_which_requests_shared_a_batch() -> None:
    with hearing() as (bus, heard):
        with served(bus, batch_size=4, max_wait=PATIENCE) as service:
            async with service.aclient() as client:
                await asyncio.gather(
                    client.post("/predict", json=inputs(1, 2), headers={"x-request-id": "a"}),
                    client.post("/predict", json=inputs(3, 4), headers={"x-request-id": "b"}),
                )
        bus.drain()
    start, end = heard.of(PredictBatchStart), heard.of(PredictBatchEnd)
    assert sorted(start[0].inputs) == sorted(end[0].inputs) == ["a/0", "a/1", "b/0", "b/1"]
    assert sorted(end[0].results) == [2.0, 4.0, 6.0, 8.0]
    order = [(event.type, getattr(event, "request", None)) for event in heard]
    for name in "ab":
        assert order.index(("RequestStart", name)) < order.index(("PredictBatchEnd", None))
        assert order.index(("PredictBatchEnd", None)) < order.index(("RequestEnd", name))
    assert order[0][0] == "RunStart"
    assert order[-1][0] == "RunEnd"
    done = {event.request: event for event in heard.of(RequestEnd)}
    assert {(event.outcome, event.inputs, event.results, event.errors) for event in done.values()} == {
        ("completed", 2, 2, 0)
    }
    assert all(0 <= event.waited <= event.duration for event in done.values())
    assert heard.of(RunEnd)[0].outcome == "stopped"


async def test_an_input_that_fails_gets_its_error_and_the_others_of_its_batch_their_results() -> None:
    with hearing() as (bus, heard):
        with served(bus, batch_size=4, max_wait=PATIENCE) as service:
            async with service.aclient() as client:
                good, bad = await asyncio.gather(
                    client.post("/predict", json=inputs(1, 2)), client.post("/predict", json=inputs(3, BAD))
                )
                assert results(lines(good)) == [2.0, 4.0]
                assert results(lines(bad)) == [6.0, "error"]
                assert lines(bad)[1]["error"] == "ValueError: the model does not like this input"
                whole = await client.post("/predict", json=inputs(5, 6, 7, 8))  # the service goes on
                assert results(lines(whole)) == [10.0, 12.0, 14.0, 16.0]
        bus.drain()
    assert sorted((event.results, event.errors) for event in heard.of(RequestEnd)) == [(1, 1), (2, 0), (4, 0)]
    assert {"error": "ValueError: the model does not like this input"} in heard.of(PredictBatchEnd)[0].results


async def test_what_fails_in_pre_or_postprocessing_fails_for_its_own_client_alone() -> None:
    with served(batch_size=4, max_wait=0.2) as service:
        predictor: Any = service.app.service.predictor
        after = predictor._results_of_all

        def unlucky(outputs: Any, batch: Any) -> list[float]:
            if 13.0 in [float(value) for value in batch.images]:
                raise KeyError("thirteen")
            found: list[float] = after(outputs, batch)
            return found

        predictor._results_of_all = unlucky
        async with service.aclient() as client:
            answers = await asyncio.gather(
                *(client.post("/predict", json={"inputs": [value]}) for value in (1, "no number", 13, 4))
            )
        assert [results(lines(answer)) for answer in answers] == [[2.0], ["error"], ["error"], [8.0]]
        assert lines(answers[1])[0]["error"].startswith("ValueError: could not convert")
        assert lines(answers[2])[0]["error"] == "KeyError: 'thirteen'"


async def test_a_callback_that_changes_the_number_of_results_gives_nobody_those_of_another() -> None:
    with served(batch_size=4, max_wait=PATIENCE) as service:
        predictor = service.app.service.predictor.served

        def drop(runner: Any) -> None:
            runner.results = runner.results[1:]

        predictor.add_callback("on_predict_batch_end", drop)
        async with service.aclient() as client:
            one, two = await asyncio.gather(*(client.post("/predict", json=inputs(n, n)) for n in (1, 2)))
        assert results(lines(one)) == results(lines(two)) == ["error", "error"]
        assert "a callback left 3 results for a batch of 4 inputs" in lines(one)[0]["error"]


async def test_callbacks_read_the_inputs_and_replace_the_results_as_on_any_predictor() -> None:
    with served(batch_size=2, max_wait=PATIENCE) as service:
        seen: list[Any] = []

        def replace(runner: Any) -> None:
            names, images, _, _ = runner.batch
            seen.append((names, [float(image) for image in images]))
            runner.results = [-result for result in runner.results]

        service.app.service.predictor.served.add_callback("on_predict_batch_end", replace)
        async with service.aclient() as client:
            answer = await client.post("/predict", json=inputs(1, 2), headers={"x-request-id": "r"})
        assert results(lines(answer)) == [-2.0, -4.0]
        assert seen == [(["r/0", "r/1"], [1.0, 2.0])]


async def test_one_client_with_thousands_of_inputs_does_not_keep_others_waiting() -> None:
    with served(batch_size=8) as service:
        service.model.hold()
        async with service.aclient() as client:
            many = asyncio.create_task(client.post("/predict", json=inputs(*range(5000))))
            await until(lambda: service.queue.unsent == 5000)
            few = asyncio.create_task(client.post("/predict", json=inputs(-2, -3, -4)))
            await until(lambda: service.queue.unsent == 5003)
            service.model.let_go()
            assert results(lines(await few)) == [-4.0, -6.0, -8.0]
            place = max(service.model.seen.index(value) for value in (-2.0, -3.0, -4.0))
            assert place < 100  # behind the few batches that were on their way, not behind the 5000
            assert results(lines(await many)) == [2.0 * n for n in range(5000)]


def test_a_result_is_written_as_json_whatever_it_is_made_of() -> None:
    import torch
    from pydantic import BaseModel

    class Box(BaseModel):
        corners: tuple[float, float]

    with served(batch_size=1) as service, service.client() as client:
        predictor: Any = service.app.service.predictor
        made = iter([torch.arange(2000.0), Box(corners=(1.0, 2.0)), float("nan"), object(), {"a": [torch.tensor(3)]}])

        def one(outputs: Any, batch: Any) -> list[object]:
            return [next(made)]

        predictor._results_of_all = one
        told = lines(client.post("/predict", json=inputs(1, 2, 3, 4, 5)))
        assert told[0]["result"] == [float(n) for n in range(2000)]
        assert told[1]["result"] == {"corners": [1.0, 2.0]}
        assert told[2]["result"] == "NaN"
        assert told[3]["error"].startswith("the result has no form in JSON")
        assert told[4]["result"] == {"a": [3]}


class Score(BaseModel):
    value: float


class Constant(Score, ser_json_inf_nan="constants"):
    inner: Score


class Unwilling(Score):
    @field_serializer("value")
    def refuse(self, value: float) -> float:
        raise KeyError("not this one")


def test_numbers_that_json_has_none_for_are_told_by_name_in_models_too() -> None:
    made = [
        Score(value=math.nan),
        [Score(value=math.inf)],
        Constant(value=-math.inf, inner=Score(value=math.nan)),
        Unwilling(value=1.0),
    ]

    def one(outputs: Tensor, batch: PredictBatch) -> list[object]:
        return [made[int(outputs)]]

    predictor = Predictor(nn.Identity(), preprocess=column, postprocess=one, batch_size=1, device="cpu")
    with running(prediction_service(predictor)) as server:
        address = f"http://127.0.0.1:{server.config.port}/predict"
        told = lines(httpx.post(address, json=inputs(0, 1, 2, 3), trust_env=False))
    assert [one["result"] for one in told[:3]] == [
        {"value": "NaN"},
        [{"value": "Infinity"}],
        {"value": "-Infinity", "inner": {"value": "NaN"}},
    ]
    assert told[3]["error"].startswith("the result has no form in JSON: ")
    assert "KeyError" in told[3]["error"]
    assert math.isnan(Score.model_validate(told[0]["result"]).value)


def test_an_id_that_is_none_is_replaced_and_every_answer_has_one() -> None:
    with served() as service, service.client() as client:
        for given, kept in (("job-7.b_1", True), ("a/b", False), ("x" * 65, False), ("ä", False), ("", False)):
            answer = client.post("/predict", json=inputs(1), headers={b"x-request-id": given.encode("latin-1")})
            told = answer.headers["x-request-id"]
            assert (told == given) is kept
            assert lines(answer)[0]["request"] == told
        refused = client.post(
            "/predict", content=b"{", headers={"x-request-id": "r", "content-type": "application/json"}
        )
        assert (refused.status_code, refused.headers["x-request-id"]) == (400, "r")
        for host, status in ("elsewhere", 421), ("localhost", 200):
            answer = client.post("/predict", json=inputs(1), headers={"x-request-id": "s", "host": host})
            assert (answer.status_code, answer.headers["x-request-id"]) == (status, "s")
