"""Typed results: what the postprocessing makes of a model's outputs, and what readers of the events get."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any, cast

import numpy as np
import pytest
import torch
from pydantic import BaseModel, computed_field
from torch import Tensor, nn

from lineside.bus import Bus
from lineside.runners import InvalidArgument, OutputUnusable, PredictBatch, Predictor, boxes, classes, values
from lineside.schemas import Boxes, Classes, PredictBatchEnd, Values

from .support import events_of_run

LOGITS = torch.tensor([[0.0, 2.0, 1.0], [3.0, -1.0, 3.5]])


def published(bus: Bus) -> list[Any]:
    ends = [event for event in events_of_run(bus) if isinstance(event, PredictBatchEnd)]
    return [result for event in ends for result in event.results]


def test_classes_are_the_likeliest_best_first() -> None:
    predictor = Predictor(nn.Identity(), postprocess=classes(["cat", "dog", "owl"], top=2), device="cpu")
    first, second = predictor.run(LOGITS).results
    assert (first.names, first.indices) == (("dog", "owl"), (1, 2))
    assert first.scores == pytest.approx((0.6652, 0.2447), abs=1e-4)
    assert (second.name, second.index) == ("owl", 2)
    assert str(first) == "dog 0.67, owl 0.24"


@pytest.mark.parametrize(("scores", "best"), [("softmax", 0.665), ("sigmoid", 0.881), ("given", 2.0)])
def test_scores_are_what_was_asked_for(scores: Any, best: float) -> None:
    result = Predictor(nn.Identity(), postprocess=classes(scores=scores), device="cpu").run(LOGITS).results[0]
    assert result.score == pytest.approx(best, abs=1e-3)
    assert (result.name, len(result.names)) == ("1", 3)


def test_names_may_be_those_of_some_classes_only() -> None:
    result = Predictor(nn.Identity(), postprocess=classes({1: "dog"}), device="cpu").run(LOGITS).results[0]
    assert result.names == ("dog", "2", "0")


class Finds(nn.Module):
    """Two boxes in every picture, one of them unsure, in the form of torchvision's models."""

    def forward(self, pictures: Tensor) -> list[dict[str, Tensor]]:
        one = {
            "boxes": torch.tensor([[1.0, 2.0, 3.0, 4.0], [0.0, 0.0, 9.0, 9.0]]),
            "labels": torch.tensor([7, 3]),
            "scores": torch.tensor([0.75, 0.25]),
        }
        return [one] * len(pictures)


def test_boxes_are_those_of_detection_models(bus: Bus) -> None:
    predictor = Predictor(Finds(), postprocess=boxes({7: "cat"}), bus=bus, device="cpu")
    (result,) = predictor.run([np.zeros((20, 30, 3), np.uint8)]).results
    assert list(result.found()) == [("cat", 0.75, (1.0, 2.0, 3.0, 4.0))]
    assert (result.indices, result.width, result.height, len(result)) == ((7,), 30, 20, 1)
    assert Boxes.model_validate(published(bus)[0]) == result
    every = Predictor(Finds(), postprocess=boxes(least=0), device="cpu").run(torch.zeros(1, 3, 20, 30)).results[0]
    assert (every.names, every.width, every.height) == (("7", "3"), 30, 20)


@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (0,)])
def test_values_are_the_numbers_of_an_output(bus: Bus, shape: tuple[int, ...]) -> None:
    outputs = torch.rand(2, *shape)
    results = Predictor(nn.Identity(), postprocess=values(), bus=bus, device="cpu").run(outputs).results
    assert [result.shape for result in results] == [shape] * 2
    if shape:
        assert [result.nested() for result in results] == outputs.tolist()  # pyright: ignore[reportUnknownMemberType]
    else:
        assert [result.value for result in results] == outputs.tolist()  # pyright: ignore[reportUnknownMemberType]
    assert [Values.model_validate(result) for result in published(bus)] == list(results)


def test_results_reach_readers_of_the_events_without_loss(bus: Bus) -> None:
    outputs = torch.tensor([[0.1, float("inf")], [float("nan"), -0.0]])
    results = Predictor(nn.Identity(), postprocess=values(), bus=bus, device="cpu").run(outputs).results
    read = [Values.model_validate(result) for result in published(bus)]
    assert [result.model_dump_json() for result in read] == [result.model_dump_json() for result in results]


@pytest.mark.parametrize(
    ("postprocess", "outputs"),
    [
        (classes(), torch.zeros(2)),
        (classes(), torch.zeros(2, 3, 4)),
        (boxes(), torch.zeros(2, 3)),
        (values(most=5), torch.zeros(2, 6)),
        (values(), torch.zeros(2, dtype=torch.complex64)),
    ],
)
def test_outputs_of_another_form_are_refused_with_what_was_expected(postprocess: Any, outputs: Tensor) -> None:
    predictor = Predictor(nn.Identity(), preprocess=lambda inputs: outputs, postprocess=postprocess, device="cpu")
    with pytest.raises(OutputUnusable, match=r"the model returned Tensor of shape \(2.*\), not .*; pass postprocess="):
        predictor.run([1, 2])


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (
            lambda: classes(scores=cast("Any", "softmx")),
            "scores='softmx'; expected one of 'softmax', 'sigmoid', 'given'",
        ),
        (lambda: classes(top=0), "top=0; expected at least 1"),
        (lambda: classes(top=-1), "top=-1; expected at least 1"),
        (lambda: values(most=0), "most=0; expected at least 1"),
    ],
)
def test_settings_of_results_that_make_none_are_refused_at_once(make: Callable[[], object], problem: str) -> None:
    with pytest.raises(InvalidArgument, match=problem):
        make()


def test_a_model_of_the_users_own_is_a_result_like_any_other(bus: Bus) -> None:
    class Mine(BaseModel):
        label: str
        sure: bool

    def mine(outputs: Tensor, batch: PredictBatch) -> list[Mine]:
        return [Mine(label=str(int(row.argmax())), sure=bool(row.max() > 3)) for row in outputs]

    predictor = Predictor(nn.Identity(), postprocess=mine, bus=bus, device="cpu")
    assert [result.label for result in predictor.stream(LOGITS)] == ["1", "2"]
    assert published(bus) == [{"label": "1", "sure": False}, {"label": "2", "sure": True}]


def test_what_is_derived_from_a_result_is_copied_for_the_event(bus: Bus) -> None:
    class Tagged(Classes):
        tags: list[str]

    def tagged(outputs: Tensor, batch: PredictBatch) -> list[Tagged]:
        return [Tagged(names=(), scores=(), indices=(), tags=["first"]) for _ in outputs]

    for result in Predictor(nn.Identity(), postprocess=tagged, bus=bus, device="cpu").run(LOGITS).results:
        result.tags.append("later")
    assert [result["tags"] for result in published(bus)] == [("first",)] * 2


COUNT = 1000
HEAVY: dict[str, Callable[[], object]] = {
    "values": lambda: Values(shape=(COUNT,), values=(0.5,) * COUNT),
    "values in a mapping": lambda: {"scores": Values(shape=(COUNT,), values=(0.5,) * COUNT)},
    "arrays in a list": lambda: [np.zeros(COUNT)],
    "boxes": lambda: Boxes(
        boxes=((0, 0, 1, 1),) * COUNT, names=("",) * COUNT, scores=(0,) * COUNT, indices=(0,) * COUNT
    ),
    "a text": lambda: "x" * 30 * COUNT,
}


@pytest.mark.parametrize("kind", HEAVY)
def test_results_count_for_what_they_hold_where_the_window_is_measured_in_bytes(kind: str) -> None:
    def finish(outputs: Tensor, batch: PredictBatch) -> list[object]:
        return [HEAVY[kind]() for _ in batch.names]

    with Bus(window_bytes=1 << 20) as bus:
        predictor = Predictor(nn.Identity(), postprocess=finish, bus=bus, device="cpu", batch_size=1)
        predictor.run(torch.zeros(300, 1))
        kept = [event for event in events_of_run(bus) if isinstance(event, PredictBatchEnd)]
    assert 0 < len(kept) < 50  # of results that weigh nothing, more than 200 would be


class Unspeakable:
    def __repr__(self) -> str:
        raise RuntimeError("closed")


class Incomputable(BaseModel):
    @computed_field
    def share(self) -> float:
        return 1 / 0


class Unlistable:
    shape = (2,)
    dtype = "any"

    def tolist(self) -> object:
        raise RuntimeError("gone")


@pytest.mark.parametrize("odd", [Unspeakable(), Incomputable(), Unlistable(), Fraction(10**400), np.ndarray], ids=type)
def test_a_result_that_cannot_be_written_out_is_named_and_harms_no_other(bus: Bus, odd: object) -> None:
    def finish(outputs: Tensor, batch: PredictBatch) -> list[object]:
        return ["before", odd, {"within": odd}, "after"]

    result = Predictor(nn.Identity(), postprocess=finish, bus=bus, device="cpu").run(torch.zeros(4, 1))
    assert result.outcome == "completed"
    assert result.results[1] is odd
    before, told, within, after = published(bus)
    assert (before, after) == ("before", "after")
    assert (type(odd).__name__ if odd is not np.ndarray else "ndarray") in told
    assert isinstance(within, (str, dict))
