"""What type checkers know of predictors and their results. Nothing here is run; `make types` checks it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, assert_type

from pydantic import BaseModel
from torch import Tensor, nn
from torch.utils.data import Dataset

from lineside.runners import PredictBatch, Predictor, PredictResult, PredictStream, Recipe, Run, boxes, classes, values
from lineside.runners.serving import PredictionApp, PredictionService, prediction_service
from lineside.schemas import Boxes, Classes, Values


class Mine(BaseModel):
    label: str


def mine(outputs: Tensor, batch: PredictBatch) -> list[Mine]:
    return [Mine(label=name) for name in batch.names]


async def results_are_of_the_type_that_the_postprocessing_returns(model: nn.Module, inputs: list[Any]) -> None:
    assert_type(Predictor(model), Predictor[Tensor])
    assert_type(Predictor(model, postprocess=classes(["cat", "dog"], top=5)), Predictor[Classes])
    assert_type(Predictor(model, postprocess=boxes()), Predictor[Boxes])
    assert_type(Predictor(model, postprocess=values()), Predictor[Values])
    predictor = Predictor(model, postprocess=mine, overlap=False, max_wait=0.01)
    assert_type(predictor, Predictor[Mine])
    assert_type(predictor.stream(inputs), PredictStream[Mine])
    assert_type(predictor.run(inputs), PredictResult[Mine])
    assert_type(predictor.start(inputs), Run[PredictResult[Mine]])
    assert_type((await predictor.start(inputs)).results, tuple[Mine, ...])
    async for result in predictor.stream(inputs):
        assert_type(result, Mine)


async def a_service_has_the_results_of_its_predictor(model: nn.Module, inputs: list[Any]) -> None:
    async with PredictionService(Predictor(model, postprocess=mine)) as service:
        assert_type(await service.predict(inputs[0]), Mine)
        async for result in service.stream(inputs):
            assert_type(result, Mine)


async def an_app_has_the_results_of_its_predictor(model: nn.Module, recipe: Recipe) -> None:
    app = prediction_service(Predictor(model, postprocess=mine))
    assert_type(app, PredictionApp[Mine])
    assert_type(await app.service.predict(1.0), Mine)
    assert_type(prediction_service(recipe, "runs/digits"), PredictionApp[Any])


async def a_service_takes_what_its_predictor_takes(
    service: PredictionService[Mine], folder: Path, dataset: Dataset[tuple[Tensor, int]]
) -> None:
    async for result in service.stream(folder):
        assert_type(result, Mine)
    async for result in service.stream(dataset):
        assert_type(result, Mine)


def paths_are_sources(predictor: Predictor[Classes], folder: Path) -> Iterator[str]:
    for result in predictor.stream(folder):
        assert_type(result, Classes)
        assert_type(result.index, int | None)
        yield result.name
    predictor.run("pictures")
    predictor.start(folder)


def datasets_are_sources(predictor: Predictor[Classes], dataset: Dataset[tuple[Tensor, int]]) -> None:
    assert_type(predictor.stream(dataset), PredictStream[Classes])
    predictor.run(dataset)
    predictor.start(dataset)
