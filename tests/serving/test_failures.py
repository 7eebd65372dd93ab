"""Batches that fail: whoever runs the service learns of it, and what they took is free for their inputs."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lineside.runners import PredictConfig, Predictor
from lineside.runners.serving import PredictionLimits, prediction_service

from .support import BAD, PATIENCE, Served, column, doubled, inputs, lines, results, running, served, until

TOGETHER = PredictConfig(batch_size=4, max_wait=PATIENCE, device="cpu")
ALONE = PredictConfig(batch_size=1, device="cpu")


@contextmanager
def computing(
    model: nn.Module, postprocess: Callable[..., Any] = doubled, config: PredictConfig = TOGETHER
) -> Generator[Served]:
    predictor = Predictor(model, preprocess=column, postprocess=postprocess, config=config)
    app = prediction_service(predictor, limits=PredictionLimits(grace=1.0))
    with running(app) as server:
        yield Served(app, server)


def told(caplog: pytest.LogCaptureFixture, level: int = logging.WARNING) -> list[logging.LogRecord]:
    return [one for one in caplog.records if one.name == "lineside.serving" and one.levelno == level]


def test_a_batch_that_fails_only_together_is_logged_with_its_traceback_once_in_a_while(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, "lineside.serving")

    def one_alone(outputs: Tensor, batch: Any) -> list[float]:
        return [float(outputs)]

    with computing(nn.Identity(), one_alone) as service, service.client() as client:
        for _ in range(3):
            assert results(lines(client.post("/predict", json=inputs(1, 2, 3, 4)))) == [1.0, 2.0, 3.0, 4.0]
    (warning,) = told(caplog)
    assert warning.getMessage() == "a batch of 4 inputs failed: they are computed one by one, which takes longer"
    assert warning.exc_text is not None
    assert "in one_alone" in warning.exc_text
    assert len(told(caplog, logging.DEBUG)) == 2


def test_an_input_that_fails_is_logged_with_its_traceback_and_what_fails_elsewhere_is_logged_too(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with served(batch_size=1) as service, service.client() as client:
        for value in (BAD, BAD, "no number"):
            assert results(lines(client.post("/predict", json=inputs(value)))) == ["error"]
    first, second = told(caplog)
    assert first.getMessage() == second.getMessage() == "an input failed, and its client is told why"
    assert "the model does not like this input" in (first.exc_text or "")
    assert "could not convert" in (second.exc_text or "")


class Large(nn.Module):
    """Fails for several inputs at once, with an error behind the error, and says what its calls left alive."""

    def __init__(self) -> None:
        super().__init__()
        self._kept: list[weakref.ref[Tensor]] = []
        self.alive: list[int] = []

    def forward(self, values: Tensor) -> Tensor:
        self.alive.append(sum(one() is not None for one in self._kept))
        self._activate(values)
        return values * 2

    def _activate(self, values: Tensor) -> None:
        hidden = values * 3
        self._kept.append(weakref.ref(hidden))
        try:
            self._compute(hidden)
        except RuntimeError:
            raise MemoryError("there is none left") from None

    def _compute(self, values: Tensor) -> None:
        hidden = values * 5
        self._kept.append(weakref.ref(hidden))
        if len(values) > 1:
            raise RuntimeError("out of memory")


def test_of_a_batch_that_failed_nothing_is_held_while_its_inputs_are_computed_alone() -> None:
    model = Large()
    with computing(model) as service, service.client() as client:
        assert results(lines(client.post("/predict", json=inputs(1, 2, 3, 4)))) == [2.0, 4.0, 6.0, 8.0]
    assert model.alive == [0, 0, 0, 0, 0]


@pytest.mark.parametrize("said", ["a" * 100_000, "a\n" * 50_000], ids=["line", "lines"])
def test_of_what_a_client_sent_no_more_than_a_page_is_logged(said: str, caplog: pytest.LogCaptureFixture) -> None:
    class Quoting(nn.Module):
        def forward(self, values: Tensor) -> Tensor:
            raise ValueError(f"cannot compute {said}")

    with computing(Quoting(), config=ALONE) as service, service.client() as client:
        assert results(lines(client.post("/predict", json=inputs(1)))) == ["error"]
    (warning,) = told(caplog)
    text = warning.getMessage()
    assert text.startswith("an input failed, and its client is told why\nTraceback")
    assert "in forward" in text
    assert "ValueError: cannot compute a" in text
    assert len(text) < 10_000


class Lost(nn.Module):
    """What a CUDA device that is lost does: it is there, and fails at everything."""

    def forward(self, values: Tensor) -> Tensor:
        raise torch.AcceleratorError("CUDA error: device-side assert triggered")


async def test_a_device_that_fails_ends_the_run_since_nothing_can_be_computed_on_it_any_more() -> None:
    with computing(Lost(), config=ALONE) as service:
        async with service.aclient() as client:
            answer = await client.post("/predict", json=inputs(1))
            assert answer.status_code == 503
            assert "the run of this service has failed: AcceleratorError" in answer.json()["error"]
        await until(lambda: service.server.should_exit)
        assert isinstance(service.app.service.error, torch.AcceleratorError)
