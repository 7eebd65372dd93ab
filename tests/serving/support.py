"""What the tests of the prediction service share: a model that counts, a real server, and clients."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any

import httpx2 as httpx
import torch
from torch import Tensor, nn

from lineside.bus import Bus
from lineside.runners import PredictBatch, PredictConfig, Predictor
from lineside.runners.serving import PredictionApp, PredictionLimits, PredictionServer, prediction_service
from lineside.schemas import Event

PATIENCE = 30.0
BAD = -1.0
"""An input that the model raises at."""


class Counting(nn.Module):
    """Twice its input. It counts what it computes, raises at `BAD`, and stands where it is held."""

    def __init__(self) -> None:
        super().__init__()
        self._held = False
        self._permits = threading.Semaphore(0)
        self.seen: list[float] = []
        self.batches: list[int] = []
        self.entered = threading.Semaphore(0)
        """Released whenever a batch begins."""

    def hold(self) -> None:
        """Let no batch be computed until it is allowed."""
        self._permits = threading.Semaphore(0)
        self._held = True

    def allow(self) -> None:
        """Let one batch be computed."""
        self._permits.release()

    def let_go(self) -> None:
        """Let all batches be computed."""
        self._held = False
        self._permits.release(1000)

    def forward(self, values: Tensor) -> Tensor:
        self.entered.release()
        if self._held:
            assert self._permits.acquire(timeout=PATIENCE)
        self.seen += [float(row[0]) for row in values.flatten(1)]
        self.batches.append(len(values))
        if (values == BAD).any():
            raise ValueError("the model does not like this input")
        return values * 2


def doubled(outputs: Tensor, batch: PredictBatch) -> list[float]:
    return [float(row.flatten()[0]) for row in outputs]


def column(inputs: list[Any]) -> Tensor:
    return torch.tensor([float(value) for value in inputs]).reshape(-1, 1)


def counter(bus: Bus | None = None, **config: Any) -> Predictor[float]:
    settings: dict[str, Any] = {"batch_size": 4, "max_wait": 0.01, "device": "cpu", **config}
    return Predictor(Counting(), preprocess=column, postprocess=doubled, bus=bus, config=PredictConfig(**settings))


def model_of(app: PredictionApp) -> Counting:
    model = app.service.predictor.served.model
    assert isinstance(model, Counting)
    return model


@contextmanager
def serving(app: PredictionApp) -> Generator[str]:
    """Serve `app` from a thread as long as the block lasts, and give its address."""
    with running(app) as server:
        yield f"http://127.0.0.1:{server.config.port}"


@contextmanager
def running(app: PredictionApp) -> Generator[PredictionServer]:
    server = PredictionServer(app, port=0)
    listening = server.bind()
    server.config.port = listening.getsockname()[1]
    begun = threading.Event()
    failed: list[BaseException] = []
    server.on_begin = begun.set

    def serve() -> None:
        try:
            server.run([listening])
        except BaseException as error:
            failed.append(error)
            begun.set()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    assert begun.wait(PATIENCE)
    if failed:
        thread.join(PATIENCE)
        listening.close()
        raise failed[0]
    try:
        yield server
    finally:
        server.should_exit = True
        thread.join(PATIENCE)
        assert not thread.is_alive()


@contextmanager
def served(bus: Bus | None = None, limits: PredictionLimits | None = None, **config: Any) -> Generator[Served]:
    """Serve a counting model."""
    app = prediction_service(counter(bus, **config), limits=limits or PredictionLimits(grace=1.0, stalled=5.0))
    with running(app) as server:
        yield Served(app, server)


class Served:
    """A service that is served, and its address."""

    def __init__(self, app: PredictionApp, server: PredictionServer) -> None:
        self.app = app
        self.server = server
        self.address = f"http://127.0.0.1:{server.config.port}"

    @property
    def model(self) -> Counting:
        return model_of(self.app)

    @property
    def queue(self) -> Any:
        return self.app.service.queue

    def client(self, **headers: str) -> httpx.Client:
        return httpx.Client(base_url=self.address, headers=headers, timeout=PATIENCE, trust_env=False)

    def aclient(self, **headers: str) -> httpx.AsyncClient:
        limits = httpx.Limits(max_connections=None)
        return httpx.AsyncClient(
            base_url=self.address, headers=headers, timeout=PATIENCE, trust_env=False, limits=limits
        )

    @property
    def socket(self) -> str:
        return f"{self.address.replace('http', 'ws', 1)}/predict"


def preparing(service: Served, value_of: Callable[[Any], Any]) -> None:
    """Have the predictor of `service` prepare `value_of` each input in place of it."""
    predictor: Any = service.app.service.predictor
    before = predictor._prepare_all

    def prepare(values: list[Any]) -> object:
        return before([value_of(value) for value in values])

    predictor._prepare_all = prepare


def inputs(*values: object) -> dict[str, list[object]]:
    return {"inputs": list(values)}


def lines(response: httpx.Response) -> list[dict[str, Any]]:
    """The lines of an answer, whose status is checked."""
    assert response.status_code == 200, response.text
    return [json.loads(line) for line in response.text.splitlines()]


def results(told: Sequence[dict[str, Any]]) -> list[Any]:
    """The results, after a check that they are complete and in order."""
    *parts, end = told
    assert [part["index"] for part in parts] == list(range(len(parts)))
    assert (end["end"], end["count"]) == ("completed", len(parts)), end
    return [part.get("result", "error") for part in parts]


async def until(condition: Callable[[], bool]) -> None:
    """Wait for a state that tells nobody."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


async def entered(model: Counting) -> None:
    """Wait until a batch has begun."""
    assert await asyncio.to_thread(model.entered.acquire, timeout=PATIENCE)


class Heard(list[Event]):
    """The events of a bus, as they were published."""

    def of(self, *types: type[Event]) -> list[Any]:
        return [event for event in self if isinstance(event, types)]


@contextmanager
def hearing() -> Generator[tuple[Bus, Heard]]:
    """A bus, and the events that were published on it; all of them after the block."""
    heard = Heard()
    with Bus() as bus:
        bus.subscribe(heard.append, overflow="spill")
        yield bus, heard
