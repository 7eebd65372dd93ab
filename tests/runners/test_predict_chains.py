"""Predictions on what comes from another: a stream is a source, with an event loop and without."""

from __future__ import annotations

import gc
from typing import Any

import pytest
from torch import Tensor

from lineside.bus import Bus
from lineside.runners.predictor import PredictBatch, Predictor
from lineside.schemas import Event, RunEnd

from .predictions import doubler, numbers
from .support import PATIENCE, events_of_run

WAYS: list[dict[str, Any]] = [{"overlap": False}, {"overlap": True}, {"max_wait": 0.01}]


@pytest.fixture(params=WAYS, ids=repr)
def pair(request: pytest.FixtureRequest, bus: Bus) -> tuple[Predictor[int], Predictor[int]]:
    """Two predictors that double what they get."""
    return doubler(batch_size=2, **request.param), doubler(bus, batch_size=3, **request.param)


def test_a_prediction_can_be_predicted_on(pair: tuple[Predictor[int], Predictor[int]]) -> None:
    first, second = pair
    expected = [4 * i for i in range(20)]
    assert list(second.stream(first.stream(range(20)))) == expected
    assert list(second.run(first.stream(range(20))).results) == expected


async def test_a_prediction_can_be_predicted_on_from_an_event_loop(
    pair: tuple[Predictor[int], Predictor[int]],
) -> None:
    first, second = pair
    expected = [4 * i for i in range(20)]
    assert [value async for value in second.stream(first.stream(range(20)))] == expected
    assert list(second.stream(first.stream(range(20)))) == expected
    assert list((await second.start(first.stream(range(20)))).results) == expected


def test_who_leaves_a_chain_releases_all_of_it(pair: tuple[Predictor[int], Predictor[int]], bus: Bus) -> None:
    first, second = pair
    inner = first.stream(range(10**9))
    for _ in second.stream(inner):
        break
    assert [end.outcome for end in events_of_run(bus) if isinstance(end, RunEnd)] == ["stopped"]
    run = inner.run
    assert run is not None
    del inner
    gc.collect()
    assert run.result(PATIENCE).outcome == "stopped"


def test_an_error_comes_through_a_chain_after_the_results_before_it() -> None:
    def fails(outputs: Tensor, batch: PredictBatch) -> list[int]:
        if batch.images == [4, 5]:
            raise ValueError("no such thing")
        return numbers(outputs, batch)

    first = doubler(batch_size=2)
    failing: Predictor[int] = Predictor(first.model, postprocess=fails, device="cpu", batch_size=2)
    read: list[int] = []
    with pytest.raises(ValueError, match="no such thing"):
        read.extend(first.stream(failing.stream(range(20))))
    assert read == [0, 4, 8, 12]


class Reading(Event):
    """What a sensor told."""

    value: int


def test_what_a_bus_streams_can_be_predicted_on(bus: Bus) -> None:
    def values(readings: list[Reading]) -> Tensor:
        return Tensor([reading.value for reading in readings])

    predictor: Predictor[int] = Predictor(
        doubler().model, preprocess=values, postprocess=numbers, device="cpu", batch_size=2
    )
    with bus.stream(Reading) as readings, predictor.stream(readings) as results:
        for i in range(4):
            bus.publish(Reading(value=i))
        assert [next(results) for _ in range(4)] == [0, 2, 4, 6]
