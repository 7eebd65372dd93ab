from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from pydantic import BaseModel
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from lineside.bus import Bus
from lineside.bus.subscribers import JsonLines
from lineside.runners.errors import WouldDeadlock
from lineside.runners.predict.errors import NoBatch, SourceUnusable
from lineside.runners.predictor import PredictBatch, PredictConfig, Predictor
from lineside.schemas import (
    PredictBatchEnd,
    PredictBatchStart,
    PredictEnd,
    PredictPostprocessEnd,
    PredictStart,
    RunEnd,
    RunStart,
)
from tests.turns import turn

from .predictions import Double, doubler, numbers, sequence
from .support import events_of_run, types

# ---- results and events


def test_a_stream_gives_one_result_for_each_input_in_order() -> None:
    assert list(doubler(batch_size=3).stream(range(10))) == [2 * i for i in range(10)]


async def test_a_stream_can_be_read_asynchronously() -> None:
    assert [result async for result in doubler(batch_size=3).stream(range(10))] == [2 * i for i in range(10)]


def test_the_events_of_a_run_come_in_the_promised_order(bus: Bus) -> None:
    result = doubler(bus, batch_size=4, name="seven").run(range(7))
    events = events_of_run(bus)
    assert types(events) == sequence(2)
    assert {event.run for event in events} == {"seven"}
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert result.results == (0, 2, 4, 6, 8, 10, 12)
    assert (result.inputs, result.batches, result.outcome, result.reason) == (7, 2, "completed", None)
    assert result.speed.keys() == {"preprocess", "inference", "postprocess"}


def test_the_events_say_what_was_predicted(bus: Bus) -> None:
    doubler(bus, batch_size=4).run([1, 2, 3, 4, 5])
    start, begin, first, *_ = events_of_run(bus)
    assert isinstance(start, RunStart)
    assert (start.kind, start.model, start.device) == ("predict", "Double", "cpu")
    assert start.config["batch_size"] == 4
    assert isinstance(begin, PredictStart)
    assert (begin.source, begin.batch_size, begin.batches) == ("list", 4, 2)
    assert isinstance(first, PredictBatchStart)
    assert (first.batch, first.batches, first.batch_size, first.inputs) == (0, 2, 4, ("0", "1", "2", "3"))
    *_, second_start, second_post, second_end, end, _ = events_of_run(bus)
    assert isinstance(second_start, PredictBatchStart)
    assert isinstance(second_post, PredictPostprocessEnd)
    assert isinstance(second_end, PredictBatchEnd)
    assert (second_post.batch, second_post.batch_size, second_post.results) == (1, 1, 1)
    assert (second_end.inputs, second_end.results) == (("4",), (10,))
    assert isinstance(end, PredictEnd)
    assert (end.inputs, end.batches) == (5, 2)


def test_the_duration_is_that_from_the_first_event_of_prediction_to_its_last(bus: Bus) -> None:
    doubler(bus).run(range(4))
    _, begin, *_, end, _ = events_of_run(bus)
    assert isinstance(end, PredictEnd)
    assert 0 < end.duration <= end.elapsed - begin.elapsed


def test_an_empty_source_is_no_error(bus: Bus) -> None:
    result = doubler(bus).run([])
    events = events_of_run(bus)
    assert types(events) == sequence(0)
    assert (result.results, result.inputs, result.batches, result.speed) == ((), 0, 0, {})
    assert list(doubler().stream(iter(()))) == []


def test_nothing_happens_before_the_first_result_is_asked_for(bus: Bus) -> None:
    opened: list[bool] = []

    def source() -> Iterator[int]:
        opened.append(True)
        yield 1

    stream = doubler(bus).stream(source())
    assert stream.run is None
    stream.close()
    assert list(stream) == []
    assert not opened
    assert bus.stats().published == 0


def test_when_a_stream_has_ended_its_run_is_over_and_its_model_as_before(bus: Bus) -> None:
    model = Double()
    predictor = Predictor(model, bus=bus, device="cpu")
    stream = predictor.stream(torch.ones(3))
    list(stream)
    assert stream.run is not None
    assert stream.run.result().outcome == "completed"
    assert stream.run.result().inputs == 3
    assert types(events_of_run(bus)) == sequence(1)
    assert model.modes == {(False, True)}
    assert model.training
    assert next(stream, None) is None


def test_every_submodule_gets_its_own_mode_back() -> None:
    model = nn.Sequential(Double(), nn.Dropout().eval())
    Predictor(model, device="cpu").run(torch.ones(3))
    assert (model.training, model[0].training, model[1].training) == (True, True, False)


def test_by_default_results_are_ordinary_tensors_on_the_cpu() -> None:
    first, second = Predictor(Double(), device="cpu").stream(np.array([[1.0, 2.0], [3.0, 4.0]]))
    assert torch.equal(second, torch.tensor([6.0, 8.0]))
    assert not first.is_inference()
    assert not first.requires_grad
    first += 1  # which an inference tensor refuses


def test_a_started_prediction_returns_all_results_by_its_handle(bus: Bus) -> None:
    run = doubler(bus, batch_size=2).start(range(5))
    assert run.result(timeout=30).results == (0, 2, 4, 6, 8)
    assert types(events_of_run(bus, run.id)) == sequence(3)


def test_results_that_are_not_collected_are_in_the_events_only(bus: Bus) -> None:
    result = doubler(bus, batch_size=2).run(range(4), collect=False)
    assert (result.results, result.inputs) == ((), 4)
    ends = [event for event in events_of_run(bus) if isinstance(event, PredictBatchEnd)]
    assert [event.results for event in ends] == [(0, 2), (4, 6)]


def test_lower_precision_is_for_the_forward_pass_only() -> None:
    result = Predictor(nn.Linear(3, 2), device="cpu", amp="bf16").run(torch.ones(4, 3))
    assert {value.dtype for value in result.results} == {torch.bfloat16}


def test_a_model_may_take_several_arguments_or_keywords() -> None:
    class Weighted(nn.Module):
        def forward(self, value: Tensor, *, weight: Tensor) -> Tensor:
            return value * weight

    def keywords(inputs: list[Any]) -> dict[str, Tensor]:
        return {"value": torch.tensor(inputs), "weight": torch.tensor(3)}

    assert list(map(int, Predictor(Weighted(), preprocess=keywords, device="cpu").stream([1, 2]))) == [3, 6]

    def arguments(inputs: list[Any]) -> tuple[Tensor, Tensor]:
        return torch.tensor(inputs), torch.eye(2)

    rows = Predictor(nn.Bilinear(2, 2, 1), preprocess=arguments, device="cpu").run([[1.0, 2.0], [3.0, 4.0]])
    assert [value.shape for value in rows.results] == [(1,), (1,)]


# ---- sources


class Squares(Dataset[int]):
    """A map-style dataset: no __iter__."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> int:
        if index >= len(self):
            raise IndexError(index)
        return index * index


class Endless(Dataset[int]):
    """A dataset that does not know its length."""

    def __iter__(self) -> Iterator[int]:
        return iter(range(4))


PAIRS = TensorDataset(torch.arange(5.0), torch.zeros(5))


@pytest.mark.parametrize(
    ("source", "results", "batches"),
    [
        ([1, 2, 3], [2, 4, 6], 2),
        ((value for value in (1, 2, 3)), [2, 4, 6], None),
        (torch.tensor([1, 2, 3]), [2, 4, 6], 2),
        (np.array([1, 2, 3]), [2, 4, 6], 2),
        (Squares(), [0, 2, 8, 18], 2),
        (Endless(), [0, 2, 4, 6], None),
        (DataLoader(PAIRS, batch_size=3), [0, 2, 4, 6, 8], 3),
        (DataLoader(PAIRS, batch_size=3, drop_last=True), [0, 2, 4], 2),
        (DataLoader(PAIRS.tensors[0], batch_size=4), [0, 2, 4, 6, 8], 3),  # type: ignore[arg-type]
        (DataLoader(range(3), batch_size=None), [0, 2, 4], None),  # type: ignore[arg-type]
    ],
    ids=lambda value: type(value).__name__,
)
def test_inputs_come_from_any_iterable(bus: Bus, source: Iterable[Any], results: list[int], batches: int) -> None:
    assert list(doubler(bus, batch_size=2).stream(source)) == results
    begin = events_of_run(bus)[1]
    assert isinstance(begin, PredictStart)
    assert begin.batches == batches


class Rolling(Dataset[int]):
    """A map-style dataset that never raises IndexError: how long it is, only its length says."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> int:
        assert index < 4, "read beyond its length"
        return index


def test_a_dataset_is_read_as_far_as_its_length_goes() -> None:
    assert list(doubler(batch_size=3).stream(cast("Iterable[int]", Rolling()))) == [0, 2, 4, 6]


class Documents(Dataset[dict[str, Any]]):
    """A dataset of mappings, as of tokenizers."""

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"name": f"document {index}", "value": torch.tensor(index), "more": {"mask": torch.tensor([1, index])}}


def test_the_rows_of_a_loader_of_names_are_the_names(bus: Bus) -> None:
    loader = DataLoader(cast("Any", ["a.png", "b.png", "c.png"]), batch_size=2)
    Predictor(Double(), preprocess=lambda names: torch.ones(len(names)), bus=bus, device="cpu").run(loader)
    event = events_of_run(bus)[2]
    assert isinstance(event, PredictBatchStart)
    assert event.inputs == ("a.png", "b.png", "c.png")


def test_the_rows_of_a_loader_of_mappings_are_mappings(bus: Bus) -> None:
    taken: list[Any] = []

    def values(inputs: list[Any]) -> Tensor:
        taken.extend(inputs)
        return torch.stack([value["value"] for value in inputs])

    loader = DataLoader(Documents(), batch_size=4)
    predictor = Predictor(Double(), preprocess=values, postprocess=numbers, bus=bus, device="cpu", batch_size=3)
    assert predictor.run(loader).results == (0, 2, 4, 6, 8, 10)
    assert [value["name"] for value in taken] == [f"document {i}" for i in range(6)]
    assert taken[5]["more"]["mask"].tolist() == [1, 5]
    begin = events_of_run(bus)[1]
    assert isinstance(begin, PredictStart)
    assert begin.batches == 2


@pytest.mark.parametrize(
    "batch",
    [{"value": torch.ones(2), "split": "val"}, {"value": torch.ones(2), "scale": 3}, torch.tensor(1.0), "text", {}, 3],
)
def test_a_loader_whose_batches_have_no_rows_is_refused(batch: Any) -> None:
    def one(samples: list[int]) -> Any:
        return batch

    loader: Any = DataLoader(cast("Any", range(2)), batch_size=2, collate_fn=one)
    with pytest.raises(
        SourceUnusable, match=r"cannot predict on DataLoader: .* has no rows; expected .* batch_size=None"
    ):
        Predictor(Double(), preprocess=lambda inputs: torch.ones(len(inputs)), device="cpu").run(loader)


@pytest.mark.parametrize(
    "source", [3, None, "picture.png", b"bytes", {"a": 1}, torch.tensor(1), np.float32(1), Double()]
)
def test_what_cannot_be_iterated_is_refused_at_once(source: Any) -> None:
    predictor = doubler()
    with pytest.raises(SourceUnusable, match="cannot predict on"):
        predictor.stream(source)
    with pytest.raises(SourceUnusable):
        predictor.run(source)
    with pytest.raises(SourceUnusable):
        predictor.start(source)


async def counting(taken: list[int], count: int = 10**9) -> AsyncIterator[int]:
    try:
        for i in range(count):
            taken.append(i)
            await turn()
            yield i
    finally:
        taken.append(-1)


async def test_an_async_source_is_read_on_the_loop_of_the_reader() -> None:
    loops: set[asyncio.AbstractEventLoop] = set()

    async def source() -> AsyncIterator[int]:
        for i in range(5):
            loops.add(asyncio.get_running_loop())
            yield i

    assert [result async for result in doubler(batch_size=2).stream(source())] == [0, 2, 4, 6, 8]
    result = await doubler(batch_size=2).start(source())
    assert result.results == (0, 2, 4, 6, 8)
    assert loops == {asyncio.get_running_loop()}


def test_without_a_loop_an_async_source_is_read_on_the_loop_of_the_bus(bus: Bus) -> None:
    taken: list[int] = []
    assert doubler(bus, batch_size=2).start(counting(taken, 3)).result(timeout=30).results == (0, 2, 4)


def test_an_async_source_is_refused_where_it_would_wait_for_its_own_loop() -> None:
    source = counting([], 3)
    with pytest.raises(SourceUnusable, match="start"):
        doubler().run(cast("Iterable[int]", source))
    with pytest.raises(SourceUnusable, match="async for"):
        next(doubler().stream(source))


async def test_an_async_source_that_gives_nothing_can_be_stopped(bus: Bus) -> None:
    left = asyncio.Event()

    async def silent() -> AsyncIterator[int]:
        try:
            yield 1
            await asyncio.Event().wait()
        finally:
            left.set()

    run = doubler(bus, batch_size=1).start(silent())
    await run.next(PredictBatchEnd)
    run.stop("enough")
    result = await run
    assert (result.outcome, result.reason, result.results) == ("stopped", "enough", (2,))
    await left.wait()


# ---- hooks and callbacks


def test_the_original_example_runs_as_written() -> None:
    def on_predict_batch_end(predictor: Predictor[Any]) -> None:
        _, frames, _, _ = predictor.batch
        predictor.results = zip(predictor.results, frames)  # noqa: B905  as users of the original write it

    frames = [np.full((2, 2), i, dtype=np.uint8) for i in range(5)]
    predictor = Predictor(Double(), device="cpu", batch_size=2)
    predictor.add_callback("on_predict_batch_end", on_predict_batch_end)
    pairs = list(predictor.stream(frames))
    assert [int(result[0, 0]) for result, _ in pairs] == [0, 2, 4, 6, 8]
    assert all(frame is given for (_, frame), given in zip(pairs, frames, strict=True))


def test_the_event_has_the_results_before_the_callbacks_and_the_reader_those_after(bus: Bus) -> None:
    predictor = doubler(bus, batch_size=2)

    def keep_the_large(predictor: Predictor[int]) -> None:
        predictor.results = [result for result in predictor.results if result > 2]

    predictor.add_callback("on_predict_batch_end", keep_the_large)
    assert list(predictor.stream(range(4))) == [4, 6]
    ends = [event for event in events_of_run(bus) if isinstance(event, PredictBatchEnd)]
    assert [event.results for event in ends] == [(0, 2), (4, 6)]


def test_callbacks_see_the_batch_at_hand() -> None:
    seen: list[PredictBatch] = []
    predictor = doubler(batch_size=2)
    predictor.add_callback("on_predict_batch_start", lambda predictor: seen.append(predictor.batch))
    source = [5, 6, 7]
    predictor.run(source)
    assert seen == [
        (["0", "1"], [5, 6], source, ["input 1 of 3", "input 2 of 3"]),
        (["2"], [7], source, ["input 3 of 3"]),
    ]
    with pytest.raises(NoBatch):
        print(predictor.batch)
    with pytest.raises(NoBatch):
        print(predictor.results)


def test_inputs_are_named_by_their_path_where_they_have_one(bus: Bus) -> None:
    class Picture:
        filename = "b.png"

    def sizes(inputs: list[Any]) -> Tensor:
        return torch.ones(len(inputs))

    predictor = Predictor(Double(), preprocess=sizes, bus=bus, device="cpu")
    predictor.run(["a.png", Picture(), 3])
    event = events_of_run(bus)[2]
    assert isinstance(event, PredictBatchStart)
    assert event.inputs == ("a.png", "b.png", "2")


async def test_an_async_hook_runs_on_the_loop_of_an_async_reader(bus: Bus) -> None:
    predictor = doubler(bus, batch_size=2)
    loops: list[asyncio.AbstractEventLoop] = []

    @predictor.hook(PredictBatchEnd)
    async def note(event: PredictBatchEnd, predictor: Predictor[int]) -> None:
        loops.append(asyncio.get_running_loop())

    assert [result async for result in predictor.stream(range(4))] == [0, 2, 4, 6]
    assert loops == [asyncio.get_running_loop()] * 2
    # A reader who holds up this loop would never see them end here; the bus has another one.
    assert list(predictor.stream(range(2))) == [0, 2]
    assert loops[2] is bus.loop


async def note(event: PredictBatchEnd, predictor: Predictor[int]) -> None: ...


class Note:
    async def __call__(self, event: PredictBatchEnd, predictor: Predictor[int]) -> None: ...


@pytest.mark.parametrize("hook", [note, Note(), partial(note)], ids=["function", "object", "partial"])
async def test_a_reader_who_holds_up_the_loop_of_an_async_hook_is_refused(hook: Any) -> None:
    async with Bus() as bus:
        predictor = doubler(bus)
        predictor.hook(PredictBatchEnd)(hook)

        with pytest.raises(WouldDeadlock, match="async for"):
            next(predictor.stream(range(4)))
        assert bus.stats().published == 0


async def test_a_reader_who_holds_up_the_loop_of_an_async_source_is_refused() -> None:
    async with doubler(batch_size=1).stream(counting([])) as stream:
        assert await anext(stream) == 0
        with pytest.raises(WouldDeadlock, match="async for"):
            next(stream)
        assert await anext(stream) == 2


# ---- results as data


class Box(BaseModel):
    label: str
    corners: tuple[float, float]


def test_results_are_published_as_data(bus: Bus) -> None:
    given = [
        Box(label="cat", corners=(1.0, 2.0)),
        {"digit": np.int64(3), "probabilities": torch.tensor([0.5, 0.5])},
        "three",
        np.float64(0.25),
        float("nan"),
        [np.zeros((2, 1)), None, True],
        torch.zeros(40, 40),
        np.zeros(1001, dtype=np.float32),
        object,
    ]

    def results(outputs: Tensor, batch: PredictBatch) -> list[Any]:
        return given

    read = Predictor(Double(), postprocess=results, bus=bus, device="cpu").run(range(len(given))).results
    assert read[0] is given[0]
    event = events_of_run(bus)[4]
    assert isinstance(event, PredictBatchEnd)
    assert event.results == (
        {"label": "cat", "corners": (1.0, 2.0)},
        {"digit": 3, "probabilities": (0.5, 0.5)},
        "three",
        0.25,
        "NaN",
        (((0.0,), (0.0,)), None, True),
        "Tensor of torch.float32, shape (40, 40)",
        "ndarray of float32, shape (1001,)",
        "<class 'object'>",
    )


def test_a_result_that_changes_later_does_not_change_the_event(bus: Bus) -> None:
    def mutable(outputs: Tensor, batch: PredictBatch) -> list[list[int]]:
        return [[1]]

    for result in Predictor(Double(), postprocess=mutable, bus=bus, device="cpu").stream([1]):
        result.append(2)
    event = events_of_run(bus)[4]
    assert isinstance(event, PredictBatchEnd)
    assert event.results == ((1,),)


def test_results_need_not_be_published(bus: Bus) -> None:
    predictor = doubler(bus, config=PredictConfig(publish_results=False, device="cpu"))
    assert predictor.run([1]).results == (2,)
    event = events_of_run(bus)[4]
    assert isinstance(event, PredictBatchEnd)
    assert (event.inputs, event.results) == (("0",), ())


class Watched(np.ndarray[Any, Any]):
    """An array that counts how often it is turned into lists."""

    asked = 0

    def tolist(self) -> Any:
        Watched.asked += 1
        return super().tolist()


def test_results_become_data_only_where_somebody_reads_the_event(bus: Bus) -> None:
    def watched(outputs: Tensor, batch: PredictBatch) -> list[Any]:
        return [{"scores": np.array([1.0, 2.0]).view(Watched)}, np.array([3]).view(Watched)]

    Watched.asked = 0
    predictor = Predictor(Double(), postprocess=watched, bus=bus, device="cpu")
    predictor.run([1, 2])
    with bus.stream(RunEnd) as ends:
        predictor.run([1, 2])
        next(ends)
    assert Watched.asked == 0
    event = events_of_run(bus)[4]
    assert isinstance(event, PredictBatchEnd)
    assert event.results == ({"scores": (1.0, 2.0)}, (3,))
    assert Watched.asked > 0


@pytest.mark.parametrize("read", ["by a hook", "in another process", "later"])
def test_arrays_that_change_later_do_not_change_the_event(bus: Bus, read: str, tmp_path: Path) -> None:
    tensor, array = torch.zeros(2), np.zeros(2)

    def reused(outputs: Tensor, batch: PredictBatch) -> list[Any]:
        for buffer in (tensor, array):
            buffer += 1
        return [tensor, {"scores": (array, tensor[0])}]

    predictor = Predictor(Double(), postprocess=reused, bus=bus, device="cpu", batch_size=2)
    seen: list[Any] = []
    if read == "by a hook":
        predictor.hook(PredictBatchEnd)(lambda event, _: seen.append(event.results))
    if read == "in another process":
        bus.subscribe(JsonLines(tmp_path / "log"), PredictBatchEnd, lane="process")
    predictor.run(range(4))
    if read == "in another process":
        bus.drain()
        seen += [json.loads(line)["results"] for line in (tmp_path / "log").read_bytes().splitlines()]
    if read == "later":
        seen += [event.results for event in events_of_run(bus) if isinstance(event, PredictBatchEnd)]
    expected = [[[1.0, 1.0], {"scores": [[1.0, 1.0], 1.0]}], [[2.0, 2.0], {"scores": [[2.0, 2.0], 2.0]}]]
    assert json.loads(json.dumps(seen)) == expected


def test_numbers_of_every_kind_are_published_or_described(bus: Bus) -> None:
    given: list[Any] = [
        torch.tensor([1 + 2j]),
        torch.ones(2, dtype=torch.bfloat16),
        torch.eye(2).to_sparse(),
        np.array([True]),
        np.array(["a", None], dtype=object),
        np.array([np.longdouble(1)]),
        np.longdouble(2),
        np.array(["2026-01-01"], dtype="datetime64[D]"),
    ]

    def results(outputs: Tensor, batch: PredictBatch) -> list[Any]:
        return given

    Predictor(Double(), postprocess=results, bus=bus, device="cpu").run(range(len(given)))
    event = events_of_run(bus)[4]
    assert isinstance(event, PredictBatchEnd)
    assert event.results == (
        ("(1+2j)",),
        (1.0, 1.0),
        "Tensor of torch.float32, shape (2, 2), torch.sparse_coo",
        (True,),
        ("a", None),
        (1.0,),
        2.0,
        ("datetime.date(2026, 1, 1)",),
    )
