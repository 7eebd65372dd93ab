"""What the routes answer."""

from __future__ import annotations

import asyncio
import json
import random
import socket
from collections.abc import Generator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psutil
import pytest
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from lineside.bus import Bus
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
    serving,
    until,
    url,
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
    assert (one["state"], one["metrics"]) == ("finished", {"accuracy": 0.9})
    missing = http.get("/runs/rum")
    assert (missing.status_code, "did you mean run" in missing.json()["error"]) == (404, True)


def test_mistakes_are_told_in_words(http: TestClient) -> None:
    for path, word in {
        "/runs/run/events?after=%21": "no position",
        "/runs/run/events?limit=0": "limit",
        "/runs/run/events?family=ValEvnt": "did you mean 'ValEvent'",
        "/runs/run/events?rank=-1": "rank",
        "/runs/a%20b": "path.run",
        "/runs/run/metrics?points=0": "points",
    }.items():
        answer = http.get(path)
        assert (answer.status_code, word in answer.json()["error"]) == (400, True), answer.text


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


def test_the_dashboard_is_at_the_root(http: TestClient) -> None:
    assert http.get("/").headers["content-type"].startswith("text/html")
    assert http.get("/healthz", headers={"authorization": ""}).json() == {"status": "ok"}


class Wheel:
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
            observing = http.get("/runs/run/observing").json()
            assert "journal" in {one["name"] for one in observing["subscriptions"]}
            assert observing["microseconds_per_step"] > 0
        assert wheel.asked == ["enough", "pause", "resume"]
        with TestClient(service(tmp_path), "http://localhost") as http:
            assert http.get("/runs/run/observing").status_code == 404


def test_a_folder_that_is_not_there_is_said_to_be_missing(tmp_path: Path) -> None:
    with TestClient(service(tmp_path / "none"), "http://localhost") as http:
        answer = http.get("/runs")
        assert (answer.status_code, "there is no such folder" in answer.json()["error"]) == (503, True)


words = st.text(max_size=20) | st.sampled_from(
    ["run", "now", "1", "0", "-1", "NaN", "TrainBatchEnd", "ValEvent", "loss"]
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_whatever_is_asked_it_is_answered_as_described(http: TestClient, data: st.DataObject) -> None:
    described = http.get("/openapi.json").json()["paths"]
    path = data.draw(st.sampled_from(sorted(set(described) - {"/events-of-runs"})))
    method = data.draw(st.sampled_from(sorted(described[path])))
    operation = described[path][method]
    known = [one["name"] for one in operation.get("parameters", []) if one["in"] == "query"]
    names = st.sampled_from(known) if known else st.nothing()
    query: list[tuple[str, Any]] = data.draw(st.lists(st.tuples(names | words, words), max_size=4))
    run = data.draw(st.just("run") | st.from_regex(r"[^/?#%\\.]{1,70}", fullmatch=True))
    body = data.draw(st.none() | st.binary(max_size=50) | st.just(b'{"reason": "x"}'))
    answer = http.request(method, path.replace("{run}", quote(run, safe="")), params=query, content=body)
    assert answer.status_code < 500, answer.text
    assert str(answer.status_code) in operation["responses"] or answer.status_code in (404, 413)
    if answer.status_code >= 400:
        assert answer.json()["error"]


MALFORMED = [
    b"",
    b"\r\n\r\n",
    b"GET\r\n\r\n",
    b"GET / HTTP/9.9\r\n\r\n",
    b"GET /runs/run/events HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n",
    b"GET /runs HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"GET /runs HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    b"GET /runs/run/ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    b"GET /runs/run/ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Key: x\r\nSec-WebSocket-Version: 13\r\n\r\n\xff\xff\xff",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc",
    b"GET /" + b"a" * 100_000,
    b"GET / HTTP/1.1\r\n" + b"x: " + b"y" * 100_000 + b"\r\n\r\n",
    b"POST /runs/run/stop HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{",
]


async def test_malformed_requests_leave_nothing_behind(folder: Path) -> None:
    app = service(folder, token=TOKEN, limits=QUICK)
    chance = random.Random(5)
    process = psutil.Process()
    with serving(app) as server:
        async with client(url(server)) as http:
            await http.get("/runs")
        before = process.num_fds()
        for n in range(400):
            data = bytearray(MALFORMED[n % len(MALFORMED)])
            for _ in range(chance.randint(0, 3) if data else 0):
                data[chance.randrange(len(data))] = chance.randrange(256)
            with socket.create_connection(("127.0.0.1", server.config.port), timeout=PATIENCE) as made:
                made.sendall(data)
        state = server.server_state
        await until(lambda: not state.tasks and not state.connections and process.num_fds() <= before)
        async with client(url(server)) as http, following(http, "/runs/run/events") as stream:
            await stream.until(1)


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
