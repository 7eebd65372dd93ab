from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from lineside.bus import Bus
from lineside.runners import ValConfig
from lineside.runners.errors import DeviceUnavailable, InvalidArgument, InvalidConfig, InvalidModel
from lineside.runners.predict.errors import InputUnusable, OutputUnusable, ResultMismatch
from lineside.runners.predictor import PredictBatch, Predictor, PredictStream
from lineside.schemas import PredictPostprocessEnd, RunEnd

from .predictions import BATCH, Double, doubler, numbers, sequence
from .support import events_of_run, types


class Positive(Double):
    """Raises at the first batch that holds a negative number."""

    def forward(self, value: Tensor) -> Tensor:
        if bool((value < 0).any()):
            raise ArithmeticError("a negative number")
        return super().forward(value)


def broken_source() -> Iterator[int]:
    yield from (1, 2, 3)
    raise ConnectionError("the camera is gone")


async def broken_async_source() -> AsyncIterator[int]:
    for i in (1, 2, 3):
        yield i
    raise ConnectionError("the camera is gone")


class Unreadable:
    def __iter__(self) -> Iterator[int]:
        raise PermissionError("not yours")


def refuses_three(inputs: list[int]) -> Tensor:
    if 3 in inputs:
        raise ValueError("three")
    return torch.tensor(inputs)


def cannot_read_six(outputs: Tensor, batch: PredictBatch) -> list[int]:
    return [{2: 2, 4: 4}[int(value)] for value in outputs]


def loses_six(outputs: Tensor, batch: PredictBatch) -> list[int]:
    return [int(value) for value in outputs if value != 6]


FAILURES: list[Any] = [
    pytest.param({}, broken_source, ConnectionError, 3, id="source"),
    pytest.param({}, Unreadable, PermissionError, 0, id="opening the source"),
    pytest.param({"preprocess": refuses_three}, lambda: [1, 2, 3], ValueError, 2, id="preprocess"),
    pytest.param({"model": Positive()}, lambda: [1, 2, -3], ArithmeticError, 2, id="model"),
    pytest.param({"postprocess": cannot_read_six}, lambda: [1, 2, 3], KeyError, 2, id="postprocess"),
    pytest.param({"postprocess": loses_six}, lambda: [1, 2, 3], ResultMismatch, 2, id="number of results"),
]


@pytest.mark.parametrize(("parts", "source", "error", "results"), FAILURES)
@pytest.mark.parametrize("batch_size", [1, 2])
def test_an_error_is_raised_after_the_results_before_it(
    bus: Bus, parts: dict[str, Any], source: Callable[[], Any], error: type[Exception], results: int, batch_size: int
) -> None:
    model, preprocess, postprocess = (parts.get(name) for name in ("model", "preprocess", "postprocess"))
    predictor = Predictor(
        model or Double(),
        preprocess=preprocess,
        postprocess=postprocess or numbers,
        bus=bus,
        device="cpu",
        batch_size=batch_size,
    )
    read: list[int] = []
    with pytest.raises(error):
        read.extend(predictor.stream(source()))
    assert read == [2, 4, 6][:results]
    *_, end = events = events_of_run(bus)
    assert "PredictEnd" not in types(events)
    assert isinstance(end, RunEnd)
    assert end.outcome == "failed"
    assert end.error is not None
    assert end.error.type.endswith(error.__name__)
    assert predictor.model.training
    assert predictor.run([]).inputs == 0


async def read_all(stream: PredictStream[int], read: list[int]) -> None:
    async for result in stream:
        read += [result]


async def test_an_async_reader_gets_the_error_after_the_results_before_it(bus: Bus) -> None:
    read: list[int] = []
    stream = doubler(bus, batch_size=2).stream(broken_async_source())
    with pytest.raises(ConnectionError, match="the camera is gone"):
        await read_all(stream, read)
    assert read == [2, 4, 6]
    assert [result async for result in stream] == []
    assert types(events_of_run(bus))[-1] == "RunEnd"


async def test_a_started_prediction_raises_the_error_that_ended_it() -> None:
    with pytest.raises(ConnectionError):
        await doubler().start(broken_async_source())
    with pytest.raises(ConnectionError):
        doubler().run(broken_source())


def test_an_error_in_a_hook_fails_the_run(bus: Bus) -> None:
    predictor = doubler(bus, batch_size=1)

    @predictor.hook(PredictPostprocessEnd)
    def refuse(event: PredictPostprocessEnd, predictor: Predictor[int]) -> None:
        if event.batch == 1:
            raise RuntimeError("no")

    stream = predictor.stream(range(5))
    assert next(stream) == 0
    with pytest.raises(RuntimeError, match="no"):
        next(stream)
    assert types(events_of_run(bus)) == [*sequence(1)[:5], *BATCH[:2], "RunEnd"]


def test_a_wrong_number_of_results_is_named() -> None:
    def single(outputs: Tensor, batch: PredictBatch) -> list[int]:
        return [1]

    with pytest.raises(ResultMismatch, match="postprocess returned 1 results for a batch of 3 inputs"):
        Predictor(Double(), postprocess=single, device="cpu").run([1, 2, 3])

    def nothing(outputs: Tensor, batch: PredictBatch) -> Any:
        return None

    with pytest.raises(ResultMismatch, match="postprocess returned a NoneType for a batch of 3 inputs"):
        Predictor(Double(), postprocess=nothing, device="cpu").run([1, 2, 3])


def test_what_the_defaults_cannot_handle_is_told_what_to_pass() -> None:
    with pytest.raises(InputUnusable, match="pass preprocess="):
        doubler().run([[1, 2], [3]])
    with pytest.raises(InputUnusable, match="pass preprocess="):
        doubler().run(["a.png", "b.png"])

    class Two(nn.Module):
        def forward(self, value: Tensor) -> tuple[Tensor, Tensor]:
            return value, value

    with pytest.raises(OutputUnusable, match=r"the model returned tuple.*pass postprocess="):
        Predictor(Two(), device="cpu").run([1])


def test_a_device_that_is_not_there_is_named() -> None:
    with pytest.raises(DeviceUnavailable, match="device='cuda:99' cannot be used"):
        Predictor(Double(), device="cuda:99")


def test_bad_parts_and_settings_are_refused_at_once() -> None:
    with pytest.raises(InvalidModel):
        Predictor(cast("nn.Module", Double), device="cpu")
    with pytest.raises(InvalidConfig, match="batch_size"):
        doubler(batch_size=0)
    with pytest.raises(InvalidConfig, match="no such setting"):
        doubler(batchsize=1)
    with pytest.raises(InvalidArgument, match="of type ValConfig; expected a PredictConfig; settings can also"):
        Predictor(Double(), config=cast("Any", ValConfig()))
    with pytest.raises(InvalidArgument, match=r"postprocess=<.*len>: it takes .*; expected a .* \(outputs, batch\)"):
        Predictor(Double(), postprocess=cast("Any", len), device="cpu")
    with pytest.raises(InvalidArgument, match=r"preprocess=3: int is not callable; expected a function of \(inputs\)"):
        Predictor(Double(), preprocess=cast("Any", 3), device="cpu")
    with pytest.raises(InvalidArgument, match=r"postprocess=<.*later.*>: it is async, .*; expected a function of"):
        Predictor(Double(), postprocess=cast("Any", later), device="cpu")


class Together(nn.Module):
    """Makes one row of the whole batch."""

    def forward(self, values: Tensor) -> Tensor:
        return values[None]


async def later(outputs: Tensor, batch: PredictBatch) -> list[float]:
    return [0.0 for _ in batch.names]


def test_outputs_that_are_not_one_for_each_input_are_told_as_the_models() -> None:
    expected = r"the model returned Tensor of shape \(1, 2\), not a tensor of shape \(2, ...\), a row for each input"
    with pytest.raises(OutputUnusable, match=expected):
        Predictor(Together(), device="cpu").run([1.0, 2.0])


def test_inputs_that_make_no_tensor_are_named_by_their_types() -> None:
    with pytest.raises(InputUnusable, match=r"the inputs, of type str, dict, cannot be stacked .* pass preprocess="):
        doubler().run(["text", {"a": 1}])
