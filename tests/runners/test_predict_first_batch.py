"""A first batch of few inputs, for readers who want their first result soon."""

from __future__ import annotations

from collections.abc import AsyncIterator
from operator import length_hint
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from lineside.bus import Bus
from lineside.runners import InvalidConfig, PredictConfig, Predictor
from lineside.runners.predictor import PredictBatch
from lineside.schemas import PredictBatchEnd, PredictStart

from .predictions import Double, doubler, numbers
from .support import events_of_run

WAYS: list[dict[str, Any]] = [{"overlap": True}, {"overlap": False}, {"max_wait": 60.0}]
BATCHES: list[tuple[int, int, list[int]]] = [
    (0, 3, []),
    (2, 3, [2]),
    (3, 3, [3]),
    (4, 3, [3, 1]),
    (9, 1, [1, 4, 4]),
    (10, 1, [1, 4, 4, 1]),
    (8, 4, [4, 4]),
]


def batches(bus: Bus) -> list[tuple[int, int | None]]:
    """Return the inputs of each batch, and how many batches it said that there are."""
    return [(event.batch_size, event.batches) for event in events_of_run(bus) if isinstance(event, PredictBatchEnd)]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("inputs", "first", "sizes"), BATCHES)
def test_the_first_batch_has_so_many_inputs_and_the_others_are_full(
    bus: Bus, way: dict[str, Any], inputs: int, first: int, sizes: list[int]
) -> None:
    with doubler(bus, batch_size=4, first_batch=first, **way).stream(list(range(inputs))) as stream:
        assert list(stream) == [2 * i for i in range(inputs)]
    assert batches(bus) == [(size, len(sizes)) for size in sizes]
    [start] = [event for event in events_of_run(bus) if isinstance(event, PredictStart)]
    assert (start.batch_size, start.batches) == (4, len(sizes))


async def test_of_an_async_source_too(bus: Bus) -> None:
    async def source() -> AsyncIterator[int]:
        for i in range(7):
            yield i

    async with doubler(bus, batch_size=4, first_batch=2).stream(source()) as stream:
        assert [result async for result in stream] == [2 * i for i in range(7)]
    assert batches(bus) == [(2, None), (4, None), (1, None)]


def test_of_a_loader_too_whatever_the_size_of_its_own_batches(bus: Bus) -> None:
    loader = DataLoader(TensorDataset(torch.arange(7)), batch_size=3)
    result = doubler(bus, batch_size=4, first_batch=2).run(loader)
    assert result.results == tuple(range(0, 14, 2))
    assert batches(bus) == [(2, 3), (4, 3), (1, 3)]


@pytest.mark.parametrize("overlap", [True, False])
def test_nothing_is_read_for_the_second_batch_before_the_first_is_computed(overlap: bool) -> None:
    source = iter(range(1, 10))
    left: list[int] = []

    def finish(outputs: torch.Tensor, batch: PredictBatch) -> list[int]:
        left.append(length_hint(source))
        return numbers(outputs, batch)

    settings: dict[str, Any] = {"batch_size": 4, "first_batch": 1, "overlap": overlap, "device": "cpu"}
    with Predictor(Double(), postprocess=finish, **settings).stream(source) as stream:
        assert list(stream) == list(range(2, 20, 2))
    assert left[0] == 8


def test_a_first_batch_that_would_be_the_largest_is_refused() -> None:
    with pytest.raises(InvalidConfig, match="first_batch=5 is more than batch_size=4"):
        PredictConfig(batch_size=4, first_batch=5)
    with pytest.raises(InvalidConfig, match="first_batch"):
        PredictConfig(first_batch=0)
