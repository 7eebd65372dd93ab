"""Several consumers of one prediction: each at its own pace, each complete."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from lineside.bus import Bus
from lineside.runners import classes
from lineside.runners.predictor import Predictor
from lineside.schemas import Classes, PredictBatchEnd, RunEnd

from .predictions import Double, doubler
from .support import PATIENCE

BATCHES = 300
PACE = 0.002
"""Seconds that the consumer which throttles takes for a batch: several times what the predictor does."""
EXPECTED = [2 * i for i in range(BATCHES)]


def results_of(events: object) -> list[int]:
    return [result for event in events for result in event.results]  # type: ignore[attr-defined]


@pytest.mark.parametrize("overlap", [True, False])
def test_three_consumers_get_every_result_each_at_its_own_pace(overlap: bool) -> None:
    """One as fast as it can, one that begins when all is over, from disk, one that the predictor waits for."""
    took: list[int] = []
    ahead: list[int] = []
    with Bus(window=64) as bus, ThreadPoolExecutor(2) as threads:
        predictor = doubler(bus, batch_size=1, overlap=overlap)

        @predictor.hook(PredictBatchEnd)
        def watch(event: PredictBatchEnd, predictor: Predictor[int]) -> None:
            ahead.append(event.batch - len(took))

        throttle = bus.stream(PredictBatchEnd, overflow="wait", backlog=4)
        run = predictor.start(range(BATCHES))
        fast, slow = run.stream(PredictBatchEnd), run.stream(PredictBatchEnd)

        def take_with_care() -> None:
            with throttle:
                for event in throttle:
                    time.sleep(PACE)
                    took.extend(event.results)
                    if len(took) == BATCHES:
                        return

        careful = threads.submit(take_with_care)
        quick = threads.submit(results_of, fast)
        assert quick.result(PATIENCE) == EXPECTED
        careful.result(PATIENCE)
        assert took == EXPECTED
        assert run.result(PATIENCE).results == tuple(EXPECTED)
        assert results_of(slow) == EXPECTED  # nothing of it was read before; the window holds a tenth
    assert max(ahead) < BATCHES / 2  # the predictor stood, each time that the backlog was full


def test_who_does_not_ask_for_it_holds_nobody_up(bus: Bus) -> None:
    gate = threading.Event()
    held: list[int] = []

    def hold(event: PredictBatchEnd) -> None:
        assert gate.wait(PATIENCE)
        held.append(event.batch)

    with bus.subscribe(hold, PredictBatchEnd, lane="thread"):
        assert list(doubler(bus, batch_size=1).stream(range(50))) == [2 * i for i in range(50)]
        assert held == []
        gate.set()
        bus.drain()
    assert held == list(range(50))


def test_a_consumer_gets_typed_results_from_the_data(bus: Bus) -> None:
    predictor = Predictor(Double(), postprocess=classes(["cat", "dog"]), bus=bus, device="cpu", batch_size=2)
    run = predictor.start([[0.0, 1.0], [2.0, 0.0], [0.0, 3.0]])
    read = [Classes.model_validate(data) for event in run.stream(PredictBatchEnd) for data in event.results]
    assert [result.name for result in read] == ["dog", "cat", "dog"]
    assert tuple(read) == run.result(PATIENCE).results


def test_a_consumer_that_comes_late_gets_what_was_before_it(bus: Bus) -> None:
    run = doubler(bus, batch_size=2).start(range(10))
    run.result(PATIENCE)
    assert results_of(run.stream(PredictBatchEnd)) == [2 * i for i in range(10)]
    with bus.stream(PredictBatchEnd, RunEnd, since="start") as events:
        assert sum(isinstance(next(events), PredictBatchEnd) for _ in range(6)) == 5
