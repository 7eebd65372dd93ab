"""Sources that end in their own way, and inputs of any kind that numbers come in."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, NamedTuple, cast

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    Subset,
    TensorDataset,
    default_collate,  # pyright: ignore[reportUnknownVariableType]
)

from lineside.bus import Bus
from lineside.runners import SourceUnusable
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


class Samples(Dataset[Any]):
    """A dataset of given samples."""

    def __init__(self, samples: list[Any]) -> None:
        self._samples = samples

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> Any:
        return self._samples[index]


class Pair(NamedTuple):
    left: int
    right: int


def inputs_of(loader: DataLoader[Any]) -> list[Any]:
    """Return the inputs that a predictor finds in `loader`, with its tensors as numbers or lists."""
    found: list[Any] = []

    def keep(inputs: list[Any]) -> torch.Tensor:
        found.extend(inputs)
        return torch.ones(len(inputs))

    Predictor(nn.Identity(), preprocess=keep, batch_size=2, device="cpu").run(loader)
    return cast("list[Any]", plain(found))


def plain(value: Any) -> Any:
    kind = cast("Any", type(value))
    if kind in (torch.Tensor, np.ndarray):
        return value.tolist()
    if kind is dict:
        return {key: plain(value[key]) for key in value}
    if kind is Pair:
        return Pair(*map(plain, value))
    if kind is list or kind is tuple:
        return cast("Any", kind(map(plain, value)))
    return value


Sample = Callable[[int], Any]
KINDS: list[tuple[Sample, Sample]] = [
    (lambda i: (i, 0), lambda i: i),
    (lambda i: ((i, i + 10), 0), lambda i: (i, i + 10)),
    (lambda i: (Pair(i, i + 10), 0), lambda i: Pair(i, i + 10)),
    (lambda i: {"pair": (i, i + 10), "name": f"{i}"}, lambda i: {"pair": (i, i + 10), "name": f"{i}"}),
    (lambda i: ((f"{i}", i), 0), lambda i: (f"{i}", i)),
    (lambda i: (f"{i}", 0), lambda i: f"{i}"),
    (lambda i: ({"deep": {"value": i}}, 0), lambda i: {"deep": {"value": i}}),
]
"""A sample at a position, and the input that it has."""


@pytest.mark.usefixtures("importable")
@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(("sample", "found"), KINDS)
def test_the_inputs_of_a_loader_are_what_its_dataset_gave(sample: Sample, found: Sample, workers: int) -> None:
    loader = DataLoader(Samples([sample(i) for i in range(5)]), batch_size=2, num_workers=workers)
    assert inputs_of(loader) == [found(i) for i in range(5)]


IMAGES = [torch.full((2, 3 + i), float(i)) for i in range(5)]
TOLD = plain(IMAGES)
WITH_TARGETS = list(zip(IMAGES, range(5), strict=True))


def transposed(samples: list[Any]) -> Any:
    return tuple(zip(*samples, strict=True))


def lists(samples: list[Any]) -> Any:
    return [list(column) for column in zip(*samples, strict=True)]


def stacked(samples: list[Any]) -> Any:
    return default_collate([(index, float(index)) for _, index in samples])


@pytest.mark.parametrize(
    ("samples", "collate", "found"),
    [
        (IMAGES, list, TOLD),
        (WITH_TARGETS, list, TOLD),
        (WITH_TARGETS, transposed, TOLD),
        (WITH_TARGETS, lists, TOLD),
        ([{"image": i} for i in range(5)], list, [{"image": i} for i in range(5)]),
        (WITH_TARGETS, stacked, list(range(5))),
    ],
    ids=["images as they are", "samples as they are", "transposed", "lists", "mappings as they are", "stacked"],
)
def test_a_collate_function_may_leave_the_samples_as_they_are(
    samples: list[Any], collate: Callable[[list[Any]], Any], found: list[Any]
) -> None:
    assert inputs_of(DataLoader(Samples(samples), batch_size=3, collate_fn=collate)) == found


def test_a_batch_that_a_collate_function_left_nothing_of_has_no_inputs() -> None:
    def without_zeros(samples: list[Any]) -> Any:
        kept = [sample for sample in samples if sample[0] > 1]
        return default_collate(kept) if kept else []

    loader = DataLoader(Samples([(i, float(i)) for i in range(5)]), batch_size=2, collate_fn=without_zeros)
    assert inputs_of(loader) == [2, 3, 4]


@pytest.mark.parametrize("size", [2, None])
def test_a_list_that_may_be_of_samples_or_of_columns_is_refused(size: int | None) -> None:
    samples = Samples([(i, i) for i in range(4)])
    sampler = None if size else BatchSampler(range(4), batch_size=2, drop_last=False)
    loader = DataLoader(samples, batch_size=size or 1, batch_sampler=sampler, collate_fn=lists)
    with pytest.raises(
        SourceUnusable, match=r"DataLoader: its collate_fn returns a list, .* expected a tuple \(inputs"
    ):
        inputs_of(loader)


def test_samples_of_several_classes_may_be_left_as_they_are() -> None:
    pictures = [read_picture(kind) for kind in ("JPEG", "PNG", "JPEG")]
    assert inputs_of(DataLoader(Samples(pictures), batch_size=3, collate_fn=list)) == pictures


def test_a_list_of_arrays_of_several_types_that_may_be_samples_is_refused() -> None:
    arrays = [np.zeros((5, 4), np.uint8), np.zeros((6, 4), np.uint16)]
    with pytest.raises(SourceUnusable, match="which may hold a batch's samples, or inputs and what belongs to them"):
        inputs_of(DataLoader(Samples(arrays), batch_size=2, collate_fn=list))


@pytest.mark.parametrize("around", ["nothing", "a subset", "a loader without batches", "a loader"])
def test_a_dataset_has_the_same_inputs_in_and_out_of_a_loader(around: str) -> None:
    points = torch.arange(6.0).reshape(3, 2)
    for dataset in (TensorDataset(points), TensorDataset(points, torch.arange(3))):
        sources: dict[str, Any] = {
            "nothing": dataset,
            "a subset": Subset(dataset, range(3)),
            "a loader without batches": DataLoader(dataset, batch_size=None),
            "a loader": DataLoader(dataset, batch_size=2),
        }
        results = Predictor(nn.Identity(), device="cpu").run(sources[around]).results
        assert [plain(one) for one in results] == plain(points)


def read_picture(kind: str) -> Image.Image:
    """Return a picture of the class that Pillow has for files of that kind."""
    file = io.BytesIO()
    Image.new("RGB", (4, 4)).save(file, kind)
    return Image.open(file)


def test_tuples_of_other_sources_are_inputs_as_they_are() -> None:
    found: list[Any] = []

    def keep(inputs: list[Any]) -> torch.Tensor:
        found.extend(inputs)
        return torch.ones(len(inputs))

    Predictor(nn.Identity(), preprocess=keep, device="cpu").run([(1, 2), (3, 4)])
    assert found == [(1, 2), (3, 4)]
