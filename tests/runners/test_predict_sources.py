"""Sources that end in their own way, and inputs of any kind that numbers come in."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from lineside.bus import Bus
from lineside.runners.predictor import Predictor

from .predictions import doubler

WAYS: list[dict[str, Any]] = [{"overlap": True}, {"overlap": False}, {"max_wait": 60.0}]


class Rewinding:
    """An iterator that begins anew once it has come to its end."""

    def __init__(self) -> None:
        self.given = 0

    def __iter__(self) -> Iterator[int]:
        return self

    def __next__(self) -> int:
        if self.given == 5:
            self.given = 0
            raise StopIteration
        self.given += 1
        return self.given


@pytest.mark.parametrize("settings", WAYS, ids=repr)
def test_the_first_end_of_a_source_is_its_end(settings: dict[str, Any]) -> None:
    stream = doubler(batch_size=4, **settings).stream(Rewinding())
    assert [next(stream, None) for _ in range(7)] == [2, 4, 6, 8, 10, None, None]


@pytest.mark.parametrize("settings", WAYS, ids=repr)
def test_what_a_source_raises_to_end_the_program_ends_the_run(settings: dict[str, Any]) -> None:
    def source() -> Iterator[int]:
        yield from range(5)
        raise SystemExit(3)

    with pytest.raises(SystemExit, match="3"):
        doubler(batch_size=2, **settings).run(source())


async def test_a_source_that_awaited_what_somebody_cancelled_ends_with_that_error_and_loses_nothing(bus: Bus) -> None:
    async def source() -> AsyncIterator[int]:
        for i in range(3):
            yield i
        other = asyncio.ensure_future(asyncio.Event().wait())
        other.cancel()
        await other

    stream = doubler(bus, batch_size=2).stream(source())
    assert [await anext(stream) for _ in range(3)] == [0, 2, 4]
    with pytest.raises(asyncio.CancelledError):
        await anext(stream)


def test_what_is_too_large_for_32_bits_becomes_infinite_and_nobody_is_warned() -> None:
    assert Predictor(nn.Identity(), device="cpu").run([np.array([1e300])]).results[0].item() == float("inf")


@pytest.mark.parametrize(
    "picture",
    [
        np.arange(12, dtype=np.uint8).reshape(2, 2, 3)[..., ::-1],
        np.arange(3, dtype=">f4"),
        np.arange(3, dtype=np.longdouble),
        np.arange(3, dtype=np.uint64),
    ],
    ids=["flipped", "big-endian", "long", "unsigned"],
)
def test_arrays_of_any_order_and_width_are_stacked(picture: np.ndarray[Any, Any]) -> None:
    results = Predictor(nn.Identity(), device="cpu").run([picture, picture]).results
    assert [result.dtype for result in results] == [torch.float32] * 2
    assert torch.equal(results[0], torch.tensor(picture.astype(np.float32).tolist()))


def test_every_callback_sees_the_results_that_another_put_there(bus: Bus) -> None:
    predictor = doubler(bus, batch_size=2)
    seen: list[list[int]] = []
    predictor.add_callback("on_predict_batch_end", lambda p: setattr(p, "results", (2 * each for each in p.results)))
    predictor.add_callback("on_predict_batch_end", lambda p: seen.append(list(p.results)))
    assert predictor.run([1, 2, 3]).results == (4, 8, 12)
    assert seen == [[4, 8], [12]]
