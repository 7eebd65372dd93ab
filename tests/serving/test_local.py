"""Requests from within the program: the service's batches without HTTP."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, TensorDataset

from lineside.bus import Bus
from lineside.runners import (
    InputFailed,
    NotServing,
    PictureUnreadable,
    Predictor,
    ServiceOverloaded,
    SourceUnusable,
)
from lineside.runners.serving import PredictionLimits, PredictionService
from lineside.schemas import RequestEnd, RequestStart

from .support import BAD, PATIENCE, Counting, column, counter, doubled, entered, hearing, served, until


def service_of(
    bus: Bus | None = None, limits: PredictionLimits | None = None, **config: Any
) -> PredictionService[float]:
    return PredictionService(counter(bus, **config), limits=limits or PredictionLimits(grace=1.0))


def model_of(service: PredictionService[float]) -> Counting:
    model = service.predictor.served.model
    assert isinstance(model, Counting)
    return model


async def test_requests_of_many_tasks_share_batches_and_each_gets_its_own() -> None:
    with hearing() as (bus, heard):
        async with service_of(bus, batch_size=8, max_wait=PATIENCE) as service:
            found = await asyncio.gather(*(service.predict(float(n), request=f"r{n}") for n in range(16)))
            assert found == [2.0 * n for n in range(16)]
            assert model_of(service).batches == [8, 8]
        bus.drain()
    assert {start.transport for start in heard.of(RequestStart)} == {"local"}
    assert {start.request for start in heard.of(RequestStart)} == {f"r{n}" for n in range(16)}
    assert [(end.outcome, end.inputs, end.results) for end in heard.of(RequestEnd)] == [("completed", 1, 1)] * 16


@pytest.mark.parametrize("kind", ["iterator", "async iterator"])
async def test_a_stream_gives_the_results_in_the_order_of_its_inputs(kind: str) -> None:
    async def later() -> AsyncIterator[float]:
        for n in range(500):
            if n % 7 == 0:
                await asyncio.sleep(0)
            yield float(n)

    async with service_of() as service:
        inputs = later() if kind == "async iterator" else (float(n) for n in range(500))
        assert [result async for result in service.stream(inputs)] == [2.0 * n for n in range(500)]


@pytest.mark.parametrize(
    "source",
    [
        DataLoader(TensorDataset(torch.arange(5.0), torch.zeros(5)), batch_size=2),
        TensorDataset(torch.arange(5.0), torch.zeros(5)),
        torch.arange(5.0),
    ],
    ids=lambda source: type(source).__name__,
)
async def test_a_stream_takes_what_its_predictor_takes(source: Any) -> None:
    expected = counter().run(source).results
    assert len(expected) == 5
    async with service_of() as service:
        assert tuple([result async for result in service.stream(source)]) == expected


async def test_the_pictures_of_a_folder_are_inputs_under_their_names(tmp_path: Path) -> None:
    for name, value in ("2.png", 20), ("10.png", 100):
        Image.new("L", (1, 1), value).save(tmp_path / name)

    def brightness(inputs: list[Any]) -> torch.Tensor:
        return column([value.max() for value in inputs])

    predictor = Predictor(Counting(), preprocess=brightness, postprocess=doubled, batch_size=2, device="cpu")
    async with PredictionService(predictor) as service:
        assert [result async for result in service.stream(tmp_path)] == [40.0, 200.0]
        (tmp_path / "3.png").write_bytes(b"no picture")
        with pytest.raises(PictureUnreadable, match=r"3\.png cannot be read"):
            assert [result async for result in service.stream(tmp_path)]


@pytest.mark.parametrize("source", [5, None, {"a": 1}, "no such folder"])
async def test_what_is_no_source_is_refused_at_once(source: Any) -> None:
    with hearing() as (bus, heard):
        async with service_of(bus) as service:
            with pytest.raises(SourceUnusable, match="expected .*iterable"):
                service.stream(source)
        bus.drain()
    assert not heard.of(RequestStart)


async def test_they_share_batches_with_clients_over_http() -> None:
    with served(batch_size=2, max_wait=PATIENCE) as one:
        service = one.app.service
        assert service.loop is not None
        own = asyncio.wrap_future(asyncio.run_coroutine_threadsafe(service.predict(3.0), service.loop))
        async with one.aclient() as client:
            theirs = await client.post("/predict", json={"inputs": [4.0]}, headers={"accept": "application/json"})
        assert (await own, theirs.json()["results"][0]["result"]) == (6.0, 8.0)
        assert one.model.batches == [2]


async def test_no_more_is_taken_ahead_of_a_reader_than_of_a_websocket() -> None:
    taken: list[int] = []

    def inputs() -> Iterator[float]:
        for n in range(100):
            taken.append(n)
            yield float(n)

    async with (
        service_of(limits=PredictionLimits(in_flight=8, grace=1.0)) as service,
        aclosing(service.stream(inputs())) as results,
    ):
        assert await anext(results) == 0.0
        await until(lambda: len(taken) == 10)  # one more waits for room
        assert len(model_of(service).seen) <= 9
        assert [result async for result in results] == [2.0 * n for n in range(1, 100)]


async def test_an_input_that_fails_is_raised_in_its_turn_and_leaves_others_alone() -> None:
    with hearing() as (bus, heard):
        async with service_of(bus, batch_size=3, max_wait=PATIENCE) as service:
            results = service.stream([1.0, BAD, 3.0], request="mine")
            assert await anext(results) == 2.0
            with pytest.raises(InputFailed, match=r"input mine/1 could not be computed: .* does not like this input"):
                await anext(results)
            found = await asyncio.gather(*map(service.predict, (1.0, BAD, 3.0)), return_exceptions=True)
            assert [found[0], found[2]] == [2.0, 6.0]
            assert isinstance(found[1], InputFailed)
            assert (service.queue.open, service.queue.unsent, service.queue.memory) == (set(), 0, 0)
        bus.drain()
    end = next(end for end in heard.of(RequestEnd) if end.request == "mine")
    assert (end.outcome, end.results, end.errors) == ("failed", 1, 1)


async def test_what_the_inputs_raise_comes_after_the_results_of_those_before() -> None:
    def inputs() -> Iterator[float]:
        yield from (1.0, 2.0)
        raise ZeroDivisionError("no more")

    async with service_of() as service:
        results = service.stream(inputs())
        assert [await anext(results), await anext(results)] == [2.0, 4.0]
        with pytest.raises(ZeroDivisionError, match="no more"):
            await anext(results)
        assert not service.queue.open


async def test_a_stream_that_is_left_frees_its_room_and_closes_its_source() -> None:
    closed = asyncio.Event()

    async def inputs() -> AsyncIterator[float]:
        try:
            for n in range(1000):
                yield float(n)
        finally:
            closed.set()

    with hearing() as (bus, heard):
        async with service_of(bus) as service:
            async with aclosing(service.stream(inputs())) as results:
                assert [await anext(results), await anext(results)] == [0.0, 2.0]
            assert (service.queue.open, service.queue.unsent, service.queue.memory) == (set(), 0, 0)
            await asyncio.wait_for(closed.wait(), PATIENCE)
            cancelled = asyncio.create_task(service.predict(7.0))
            model_of(service).hold()
            await until(lambda: bool(service.queue.open))
            cancelled.cancel()
            with pytest.raises(asyncio.CancelledError):
                await cancelled
            await until(lambda: not service.queue.open)
            model_of(service).let_go()
            assert await service.predict(8.0) == 16.0
        bus.drain()
    assert [end.outcome for end in heard.of(RequestEnd)] == ["cancelled", "cancelled", "completed"]


async def test_a_stream_that_waits_for_inputs_ends_when_the_service_does() -> None:
    never = asyncio.Event()

    async def inputs() -> AsyncIterator[float]:
        yield 1.0
        await never.wait()

    async with service_of() as service:
        results = service.stream(inputs())
        assert await anext(results) == 2.0
        rest = asyncio.ensure_future(anext(results))
        await asyncio.sleep(0)
    with pytest.raises(NotServing, match="shuts down"):
        await rest


async def test_whoever_does_not_read_does_not_hold_the_service_up() -> None:
    async with service_of(limits=PredictionLimits(grace=0.1)) as service:
        results = service.stream(float(n) for n in range(100))
        assert await anext(results) == 0.0
    assert not service.queue.open
    with pytest.raises(NotServing):
        _ = [result async for result in results]


async def test_where_nothing_serves_it_is_refused() -> None:
    with hearing() as (bus, heard):
        with pytest.raises(NotServing, match="was not started"):
            await service_of(bus).predict(1.0)
        async with service_of(bus, limits=PredictionLimits(requests=1, grace=1.0)) as service:
            model_of(service).hold()
            first = asyncio.create_task(service.predict(1.0))
            await entered(model_of(service))
            with pytest.raises(ServiceOverloaded, match="1 requests are open"):
                await service.predict(2.0)
            refused: list[BaseException] = []

            def elsewhere() -> None:
                try:
                    asyncio.run(service.predict(1.0))
                except NotServing as error:
                    refused.append(error)

            thread = threading.Thread(target=elsewhere)
            thread.start()
            await asyncio.to_thread(thread.join, PATIENCE)
            assert "another event loop" in str(refused[0])
            model_of(service).let_go()
            assert await first == 2.0
        bus.drain()
    assert [end.outcome for end in heard.of(RequestEnd)] == ["refused", "completed"]
