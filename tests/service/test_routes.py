"""What the routes answer."""

from __future__ import annotations

import asyncio
import json
import random
import socket
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from lineside.bus import Bus, Source
from lineside.bus.service import history as histories
from lineside.bus.service import service
from lineside.schemas import (
    FitEpochEnd,
    ModelSave,
    RunStart,
    TrainBatchEnd,
    TrainEpochEnd,
    TrainEpochStart,
    ValEnd,
    ValStart,
)

from . import stories
from .support import (
    BEARER,
    PATIENCE,
    QUICK,
    SSE,
    TOKEN,
    Note,
    batch,
    begin,
    client,
    end,
    following,
)


def trained(bus: Bus, epochs: int = 2, run: str = "run", attempt: int = 1, first: int = 0) -> None:
    source = bus.source(run, attempt=attempt)
    begin(source)
    for epoch in range(first, first + epochs):
        source.publish(TrainEpochStart, epoch=epoch, epochs=2, batches=10, lr={"all": 0.1})
        for n in range(10):
            batch(source, epoch * 10 + n + 1, loss=float("nan") if n == 5 else 1.0 / attempt)
        numbers: dict[str, Any] = {"epoch": epoch, "duration": 1.0, "samples": 40, "speed": 40.0}
        source.publish(TrainEpochEnd, epochs=2, batches=10, step=epoch * 10 + 10, losses={"a": 0.5}, lr={}, **numbers)
        source.publish(ValStart, epoch=epoch, batches=1)
        source.publish(
            ValEnd,
            epoch=epoch,
            batches=1,
            samples=4,
            metrics={"accuracy": 0.9},
            losses={"a": 0.4},
            fitness=0.9,
            duration=0.1,
            speed={},
        )
        source.publish(ModelSave, epoch=epoch, step=10, path="last.pt", best=None, fitness=None, bytes=1, duration=0.5)
    end(source)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    with Bus(tmp_path) as bus:
        trained(bus)
    return tmp_path


@pytest.fixture
def http(folder: Path) -> Generator[TestClient]:
    with TestClient(service(folder, token=TOKEN), "http://localhost", headers=BEARER) as http:
        yield http


def test_runs_and_a_run(http: TestClient) -> None:
    (one,) = http.get("/runs").json()["runs"]
    assert one == http.get("/runs/run").json()
    assert (one["state"], one["metrics"]) == ("finished", {"accuracy": 0.9, "a": 0.4})
    missing = http.get("/runs/rum")
    assert (missing.status_code, "did you mean run" in missing.json()["error"]) == (404, True)


def test_mistakes_are_told_in_words(http: TestClient) -> None:
    for path, word in {
        "/runs/run/events?after=%21": "no position",
        "/runs/run/events?limit=0": "limit",
        "/runs/run/events?family=ValEvnt": "did you mean 'ValEvent'",
        "/runs/run/events?rank=-1": "rank",
        "/runs/run/events?tail=0": "tail",
        "/runs/run/events?tail=5001": "less than or equal to 5000",
        "/runs/run/events?tail=x": "tail",
        "/runs/run/events?tail=5&after=now": "leave out after=",
        "/runs/run/events?tail=5&limit=5": "leave out limit=",
        "/runs/a%20b": "path.run",
        "/runs/run/metrics?points=0": "points",
    }.items():
        answer = http.get(path)
        assert (answer.status_code, word in answer.json()["error"]) == (400, True), answer.text


def test_the_last_events_come_oldest_first_and_say_where_to_go_on(tmp_path: Path) -> None:
    with Bus(tmp_path) as bus, TestClient(service(bus), "http://localhost") as http:
        trained(bus)
        bus.flush()
        every = http.get("/runs/run/events").json()["events"]
        last = http.get("/runs/run/events?tail=7").json()
        assert (last["events"], last["more"]) == (every[-7:], False)
        batches = [event for event in every if event["type"] == "TrainBatchEnd"]
        assert http.get("/runs/run/events?tail=3&type=TrainBatchEnd").json()["events"] == batches[-3:]
        assert http.get("/runs/run/events?tail=5000").json()["events"] == every
        cloud = http.get("/runs/run/events?tail=1&format=cloudevents").json()["events"]
        assert [event["data"] for event in cloud] == every[-1:]
        trained(bus, epochs=1)
        bus.flush()
        since = http.get("/runs/run/events", params={"after": last["position"]}).json()["events"]
        assert [*every, *since] == http.get("/runs/run/events").json()["events"]
        assert http.get("/runs/run/events?tail=1&rank=7").json()["events"] == []
        assert http.get("/runs/rum/events?tail=1").status_code == 404


def test_the_last_events_of_several_processes_are_those_that_pages_end_with(tmp_path: Path) -> None:
    chance = random.Random(7)
    with Bus(tmp_path) as one, Bus(tmp_path) as other:
        sources = [one.source("run"), other.source("run", rank=1)]
        trained(one, run="another")
        for n in range(1, 40):
            rank = chance.random() < 0.8  # which says much more, and little that is asked for
            for number in range(chance.randint(1, 200)):
                (batch if rank == 0 and number % 3 == 0 else _note)(sources[rank], n)
            (other if rank else one).flush()
    with TestClient(service(tmp_path), "http://localhost") as http:
        for query in ("", "type=TrainBatchEnd", "type=tests.service.Note", "rank=0", "type=TrainBatchEnd&rank=1"):
            every = http.get(f"/runs/run/events?limit=5000&{query}").json()["events"]
            for count in (1, 10, 100, 1000):
                assert http.get(f"/runs/run/events?tail={count}&{query}").json()["events"] == every[-count:], query


def _note(source: Source, n: int) -> None:
    source.publish(Note, n=n)


def test_the_last_events_are_a_page_and_no_stream(http: TestClient) -> None:
    answer = http.get("/runs/run/events?tail=5", headers=SSE)
    assert (answer.status_code, "a stream begins with after=" in answer.json()["error"]) == (400, True)


def test_the_series(http: TestClient) -> None:
    names = http.get("/runs/run/metrics").json()["names"]
    assert names == [
        "fitness",
        "loss",
        "loss/a",
        "lr/all",
        "step_seconds",
        "train/a",
        "val/accuracy",
        "val_loss/a",
    ]
    answer = http.get("/runs/run/metrics?series=loss&series=val/accuracy&series=no").json()
    assert answer["sampled"] is False
    loss, accuracy = answer["series"]["loss"], answer["series"]["val/accuracy"]
    assert loss["step"] == list(range(1, 21))
    assert loss["value"][4:7] == [1.0, None, 1.0]
    assert (accuracy["step"], accuracy["value"]) == ([10, 20], [0.9, 0.9])
    thin = http.get("/runs/run/metrics?series=loss&points=4&from=3&to=14").json()["series"]["loss"]
    assert thin["step"] == [3, 6, 9, 12]
    assert thin["min"] == thin["max"] == [1.0] * 4


def test_what_a_loop_of_ones_own_found_after_an_epoch_is_a_series(tmp_path: Path) -> None:
    with Bus(tmp_path) as bus, bus.run(id="own") as run:
        for accuracy in (0.25, 0.5):
            for batch in run.track(range(4)):
                run.log(loss=batch)
            run.log(accuracy=accuracy)
    with TestClient(service(tmp_path), "http://localhost") as http:
        accuracy = http.get("/runs/own/metrics?series=val/accuracy").json()["series"]["val/accuracy"]
        assert (accuracy["step"], accuracy["value"]) == ([4, 8], [0.25, 0.5])


def test_the_final_evaluation_of_the_best_epoch_is_no_further_point_of_a_series(tmp_path: Path) -> None:
    with Bus(tmp_path) as bus:
        source = bus.source("run")
        stories.begin(source, epochs=3)
        for epoch in range(3):
            stories.epoch(source, epoch, epochs=3)
        stories.close_training(source, best=1)
    with TestClient(service(tmp_path), "http://localhost") as http:
        found = http.get("/runs/run/metrics?series=val/accuracy&series=val_loss/loss&series=fitness").json()["series"]
        assert found["val/accuracy"]["value"] == [0.5, 0.6, 0.7]
        assert [points["step"] for points in found.values()] == [[10, 20, 30]] * 3


def test_a_resumed_run_counts_what_it_did_again_once(tmp_path: Path) -> None:
    with Bus(tmp_path) as bus:
        trained(bus)
    with Bus(tmp_path) as bus:
        trained(bus, attempt=2, epochs=2, first=1)
    with TestClient(service(tmp_path), "http://localhost") as http:
        loss = http.get("/runs/run/metrics?series=loss").json()["series"]["loss"]
        assert loss["step"] == list(range(1, 31))
        assert {*loss["value"][10:]} == {0.5, None}


def test_a_long_run_is_sampled_and_read_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(histories, "WHOLE", 500)
    monkeypatch.setattr(histories, "LOOKS", 20)
    with Bus(tmp_path) as bus:
        source = bus.source("run")
        for n in range(1, 20_001):
            batch(source, n)
        bus.flush()
        with TestClient(service(bus), "http://localhost") as http:
            answer = http.get("/runs/run/metrics?series=loss").json()
            steps = answer["series"]["loss"]["step"]
            assert answer["sampled"]
            assert 20 <= len(steps) < 2000
            assert steps == sorted({*steps})
            assert steps[-1] > 18_000
            for n in range(20_001, 20_011):
                batch(source, n)
            bus.flush()
            steps = http.get("/runs/run/metrics?series=loss").json()["series"]["loss"]["step"]
            assert steps[-10:] == list(range(20_001, 20_011))


def test_of_a_part_of_a_sampled_run_everything_is_told_or_more_samples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(histories, "WHOLE", 50)
    monkeypatch.setattr(histories, "LOOKS", 20)
    monkeypatch.setattr(histories, "CLOSE", 900)
    for attempt, steps in enumerate([range(1, 10_001), range(8001, 12_001)], start=1):
        with Bus(tmp_path) as bus:
            source = bus.source("run", attempt=attempt)
            for n in steps:
                batch(source, n, loss=1 / attempt)
                _note(source, n)
    with TestClient(service(tmp_path), "http://localhost") as http:

        def part(begin: int, end: int) -> Any:
            return http.get(f"/runs/run/metrics?series=loss&points=10000&from={begin}&to={end}").json()

        close = part(7950, 8050)
        loss = close["series"]["loss"]
        assert (close["sampled"], loss["step"]) == (False, list(range(7950, 8051)))
        assert loss["value"] == [1.0] * 51 + [0.5] * 50  # what the second attempt did again counts
        assert part(1, 100)["series"]["loss"]["step"] == list(range(1, 101))
        assert part(11_990, 20_000)["series"]["loss"]["step"][-1] == 12_000
        assert part(20_000, 30_000)["series"]["loss"]["step"] == []
        whole, half = part(1, 12_000), part(2000, 6000)
        within = [step for step in whole["series"]["loss"]["step"] if 2000 <= step <= 6000]
        assert half["sampled"]
        assert len(half["series"]["loss"]["step"]) > 1.5 * len(within)


def test_the_timeline(http: TestClient) -> None:
    spans = http.get("/runs/run/timeline").json()["spans"]
    assert [(span["lane"], span["label"]) for span in spans] == [
        (lane, f"epoch {epoch}") for epoch in (1, 2) for lane in ("train", "val", "save")
    ]
    assert all(span["begin"] <= span["end"] for span in spans)
    saved = [span for span in spans if span["lane"] == "save"]
    assert [round(span["end"] - span["begin"]) for span in saved] == [500, 500]


def test_what_a_dead_run_left_open_ends_with_it(tmp_path: Path) -> None:
    with Bus(tmp_path) as bus:
        source = bus.source("run")
        begin(source)
        source.publish(TrainEpochStart, epoch=0, epochs=2, batches=10, lr={})
        bus.flush()
        with TestClient(service(bus), "http://localhost") as http:
            assert [span["end"] for span in http.get("/runs/run/timeline").json()["spans"]] == [None]
    with TestClient(service(tmp_path), "http://localhost") as http:
        (span,) = http.get("/runs/run/timeline").json()["spans"]
        assert span["end"] is not None


def test_cloud_events_are_what_their_sdk_takes(http: TestClient) -> None:
    told = http.get("/runs/run/events?format=cloudevents").json()["events"]
    plain = http.get("/runs/run/events").json()["events"]
    read = [JSONFormat().read(CloudEvent, json.dumps(one)) for one in told]
    assert [event.get_data() for event in read] == plain
    assert {event.get_source() for event in read} == {"/runs/run"}
    assert len({event.get_id() for event in read}) == len(plain)
    assert [event.get_type() for event in read] == [f"lineside.{one['type']}" for one in plain]


def test_prometheus_reads_the_metrics(http: TestClient) -> None:
    families = {family.name: family for family in text_string_to_metric_families(http.get("/metrics").text)}
    samples = {(s.name, *s.labels.values()): s.value for family in families.values() for s in family.samples}
    assert samples["lineside_runs", "finished"] == 1
    assert samples["lineside_run_metric", "run", "accuracy"] == 0.9
    assert samples["lineside_run_events_total", "run"] == len(http.get("/runs/run/events").json()["events"])


def test_the_documents(http: TestClient) -> None:
    assert {event.__name__ for event in (RunStart, FitEpochEnd, TrainBatchEnd)} <= {*http.get("/schemas").json()}
    assert http.get("/asyncapi.json").json()["asyncapi"] == "3.0.0"
    described = http.get("/openapi.json").json()["paths"]
    assert "/runs/{run}/events" in described
    page = http.get("/docs").text
    assert all(path in page for path in described)
    assert "<script" not in page
    answers = {
        status for path in described.values() for operation in path.values() for status in operation["responses"]
    }
    assert "400" in answers
    assert "422" not in answers  # which is never sent


def test_the_dashboard_is_at_the_root(http: TestClient) -> None:
    assert http.get("/").headers["content-type"].startswith("text/html")
    assert http.get("/healthz", headers={"authorization": ""}).json() == {"status": "ok"}
    assert http.head("/healthz", headers={"authorization": ""}).status_code == 200


def test_who_comes_without_the_token_is_told_what_to_do_a_browser_on_a_page(http: TestClient) -> None:
    for path in ("/", "/docs", "/runs/run"):
        page = http.get(path, headers={"authorization": "", "accept": "text/html,application/xhtml+xml,*/*;q=0.8"})
        assert (page.status_code, page.headers["content-type"]) == (401, "text/html; charset=utf-8")
        assert "the link that <code>lineside serve</code> printed" in page.text
        assert "<script" not in page.text
        assert "style" not in page.text
        assert "default-src 'none'" in page.headers["content-security-policy"]
        program = http.get(path, headers={"authorization": ""})
        assert (program.status_code, "open the link" in program.json()["error"]) == (401, True)


class Wheel:
    paused = stopping = False

    def __init__(self) -> None:
        self.asked: list[str] = []

    def stop(self, reason: str) -> None:
        self.asked.append(reason)

    def pause(self) -> None:
        self.asked.append("pause")

    def resume(self) -> None:
        self.asked.append("resume")


def test_a_run_of_this_process_is_steered_and_looked_into(tmp_path: Path) -> None:
    with Bus(tmp_path) as bus:
        trained(bus)
        bus.flush()
        wheel = Wheel()
        with TestClient(service(bus, token=TOKEN), "http://localhost", headers=BEARER) as http:
            assert http.post("/runs/run/stop").status_code == 409
            with bus.steering.within("run", wheel):
                assert http.post("/runs/run/stop", json={"reason": "enough"}).status_code == 202
                assert http.post("/runs/run/pause").status_code == 202
                assert http.post("/runs/run/resume", json={}).status_code == 202
                assert http.post("/runs/none/stop").status_code == 404
            assert http.post("/runs/run/pause").status_code == 409
        assert wheel.asked == ["enough", "pause", "resume"]


def test_what_observing_costs_is_told_where_the_bus_is_in_reach(tmp_path: Path) -> None:
    with Bus(tmp_path) as bus:
        trained(bus)
        bus.flush()
        with TestClient(service(bus, token=TOKEN), "http://localhost", headers=BEARER) as http:
            observing = http.get("/runs/run/observing").json()
            assert "journal" in {one["name"] for one in observing["subscriptions"]}
            assert (observing["microseconds_per_step"] > 0, observing["steering"]) == (True, None)
            with bus.steering.within("run", Wheel()):
                assert http.get("/runs/run/observing").json()["steering"] == "running"
    with TestClient(service(tmp_path), "http://localhost") as http:
        answer = http.get("/runs/run/observing")
        assert (answer.status_code, {*answer.json().values()}) == (200, {None})  # browsers log what is no success


def test_each_of_several_runs_on_a_bus_costs_its_share(tmp_path: Path) -> None:
    with Bus(tmp_path) as bus, TestClient(service(bus), "http://localhost") as http:
        light, heavy = bus.source("light"), bus.source("heavy")
        resumed = bus.source("resumed", attempt=2)
        for first in (1, 101):
            for n in range(first, first + 100):
                batch(light, n)
                batch(resumed, 1_000_000 + n)
                batch(heavy, n)
                for _ in range(8):
                    _note(heavy, n)
            bus.flush()
            runs = ("light", "heavy", "resumed")
            cost = {run: http.get(f"/runs/{run}/observing").json()["microseconds_per_step"] for run in runs}
            assert sum(cost.values()) * (first + 99) == pytest.approx(bus.stats().seconds * 1e6, rel=0.1)
            assert cost["heavy"] > 5 * cost["light"]
            assert cost["resumed"] == pytest.approx(cost["light"], rel=0.1)


def test_a_folder_that_is_not_there_is_said_to_be_missing(tmp_path: Path) -> None:
    with TestClient(service(tmp_path / "none"), "http://localhost") as http:
        answer = http.get("/runs")
        assert (answer.status_code, "there is no such folder" in answer.json()["error"]) == (503, True)


async def test_a_mounted_service_ends_its_streams_when_the_server_of_its_app_leaves(tmp_path: Path) -> None:
    """Where nobody tells the service: the server's signal handler knows."""
    import signal
    import threading

    import uvicorn
    from fastapi import FastAPI

    assert threading.current_thread() is threading.main_thread()
    with Bus(tmp_path) as bus:
        bus.source("run").publish(Note, n=1)
        await bus.aflush()
        outer = FastAPI()
        outer.mount("/lineside", service(bus, token=TOKEN, limits=QUICK))
        listening = socket.create_server(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(outer, log_level="error", access_log=False))
        before = signal.getsignal(signal.SIGTERM)
        task = asyncio.create_task(server.serve([listening]))
        async with asyncio.timeout(PATIENCE):
            async with (
                client(f"http://127.0.0.1:{listening.getsockname()[1]}") as http,
                following(http, "/lineside/runs/run/events", **SSE) as stream,
            ):
                await stream.until(1)
                server.should_exit = True
                assert (await stream.rest())[-1].event == "bye"
            await task
        assert signal.getsignal(signal.SIGTERM) == before
