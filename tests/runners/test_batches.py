"""Batches of any form: how they reach the device, and how many samples are in them."""

from __future__ import annotations

from collections import OrderedDict, UserDict
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_sequence
from torch.utils.data import Dataset

from lineside.runners import EmptyData, ExhaustedData, Predictor, Validator

from .support import make_data

# ---- to the device


class Keep(nn.Module):
    """Remembers what it was called with."""

    def __init__(self) -> None:
        super().__init__()
        self.called: list[Any] = []

    def forward(self, *values: Any) -> Tensor:
        self.called += values
        return torch.zeros(1)


def given_to_the_model(prepared: Any) -> Any:
    """What the model is called with where preprocessing returns `prepared`."""
    model = Keep()
    Predictor(model, preprocess=lambda _: prepared, device="cpu").run([0])
    (called,) = model.called
    return called


def test_a_packed_sequence_is_one_argument() -> None:
    called = given_to_the_model(pack_sequence([torch.ones(3), torch.ones(2)]))
    assert isinstance(called, PackedSequence)
    assert torch.equal(called.batch_sizes, torch.tensor([2, 2, 1]))


@dataclass
class Graph:
    """What moves itself, as the batches of many libraries do."""

    nodes: Tensor
    moves: list[tuple[str, bool]] = field(default_factory=list[tuple[str, bool]])

    def to(self, device: torch.device, non_blocking: bool = False) -> Graph:
        return Graph(self.nodes.to(device), [*self.moves, (str(device), non_blocking)])


class Plain(Graph):
    def to(self, device: torch.device) -> Graph:  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        return Graph(self.nodes.to(device), [*self.moves, (str(device), False)])


def test_what_can_move_itself_is_asked_to_without_waiting_where_it_can() -> None:
    assert given_to_the_model(Graph(torch.ones(2))).moves == [("cpu", True)]
    assert given_to_the_model(([Plain(torch.ones(2))],))[0].moves == [("cpu", False)]


class Encoding(UserDict[str, Tensor]):
    """A mapping with more than its items, as of tokenizers."""

    language = "en"


@pytest.mark.parametrize("kind", [Encoding, OrderedDict, dict])
def test_a_mapping_keeps_its_class(kind: type[Any]) -> None:
    given = kind({"ids": torch.ones(2)})
    if kind is Encoding:
        given.language = "de"
    called = given_to_the_model((given,))
    assert type(called) is kind
    assert getattr(called, "language", "de") == "de"
    assert called is not given


@dataclass(frozen=True)
class Item:
    graph: Any
    name: str
    rest: Any = field(init=False)


def test_a_dataclass_is_moved_field_by_field_and_keeps_its_class() -> None:
    given = Item({"graphs": [Graph(torch.ones(2))]}, "a")
    called = given_to_the_model((given,))
    assert (type(called), called.name) == (Item, "a")
    assert called.graph["graphs"][0].moves == [("cpu", True)]
    assert given.graph["graphs"][0].moves == []
    still = Item(torch.ones(2), "b")
    assert given_to_the_model((still,)) is still


class Unmovable:
    """A batch of one's own that nobody can move."""

    def __init__(self, device: str) -> None:
        self.nodes = torch.ones(2, device=device)
        self.name = "a"


def test_what_cannot_be_moved_to_the_device_is_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    for device in ("cpu", "meta", "meta"):
        given_to_the_model(([Unmovable(device), "a", None],))
        assert len(caplog.messages) == (device == "meta")
    (said,) = caplog.messages
    assert said.startswith("the tensors of a Unmovable stay on meta (nodes), while the model is on cpu")
    assert "expected a method `to(device)`" in said


# ---- samples


class Pair(NamedTuple):
    inputs: Any
    targets: Any


class Sized(list[Any]):
    """A batch that says its size."""

    batch_size = 5


def images(count: int) -> list[Tensor]:
    return [torch.zeros(3, 8, 8 + i) for i in range(count)]


@dataclass(frozen=True, slots=True)
class Labelled:
    inputs: Any
    label: Any


BOXES = {"boxes": torch.zeros(7, 4)}
COLUMN = torch.zeros(6)


@pytest.mark.parametrize(
    ("batch", "size"),
    [
        ((torch.zeros(6, 2), COLUMN), 6),
        ([torch.zeros(6, 2), torch.zeros(9, 5)], 6),
        ({"ids": torch.zeros(6, 2), "scale": torch.tensor(1)}, 6),
        ({"scale": torch.tensor(1), "ids": torch.zeros(6, 2)}, 6),
        ((images(2), [BOXES, BOXES]), 2),
        (Pair(tuple(images(4)), torch.zeros(4)), 4),
        ({"images": images(2), "targets": torch.zeros(9, 6)}, 2),
        (([{"image": image} for image in images(2)], [BOXES, BOXES]), 2),
        (([torch.zeros(6, 2), torch.zeros(6, 3)], COLUMN), 6),
        ((["a", "b"], torch.zeros(2)), 2),
        (pack_sequence([torch.ones(3), torch.ones(2)]), 2),
        ((pack_sequence([torch.ones(3), torch.ones(2)]), torch.zeros(2)), 2),
        (Sized([torch.zeros(3)]), 5),
        ((Sized([torch.zeros(3)]), torch.zeros(3)), 5),
        (torch.zeros(6, 2), 6),
        (Labelled(COLUMN, "six"), 6),
        (Labelled("none", {"ids": torch.zeros(6, 2)}), 6),
        (Labelled(images(2), torch.zeros(9, 6)), 2),
        ([Labelled(image, 0) for image in images(2)], 2),
        (([Labelled(image, 0) for image in images(3)], torch.zeros(3)), 3),
        ((tuple(Labelled(image, 0) for image in images(2)), torch.zeros(2)), 2),
        ((Labelled(COLUMN, 0), Labelled(COLUMN, 1)), 6),
        (({"a": Labelled(COLUMN, 0)}, torch.zeros(9)), 6),
        ((np.zeros((6, 2)), np.zeros(6)), 6),
        ({"scale": np.array(1.0), "ids": np.zeros((6, 2))}, 6),
        (([np.zeros(3), np.zeros(5)], np.zeros(2)), 2),
        (torch.tensor(1), 1),
        (["a"], 1),
        ([], 1),
    ],
)
def test_the_samples_of_a_batch_are_counted(batch: Any, size: int) -> None:
    def step(model: nn.Module, batch: Any) -> Tensor:
        return torch.tensor(0.5)

    assert Validator(nn.Linear(1, 1), [batch], step=step, device="cpu").run().samples == size


class Opaque:
    """A batch of which nothing is known."""

    def __init__(self) -> None:
        self.inputs = torch.zeros(6, 2)


def test_batches_that_cannot_be_counted_are_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    def step(model: nn.Module, batch: Any) -> Tensor:
        return torch.tensor(0.5)

    validator = Validator(nn.Linear(1, 1), [Opaque(), Opaque()], step=step, device="cpu")
    assert validator.run().samples == validator.run().samples == 2
    (said,) = caplog.messages
    assert said.startswith("the samples in a batch of the validation data cannot be counted (it is of type Opaque)")
    assert "integer `batch_size`" in said


def test_the_mean_of_batches_that_are_dataclasses_is_over_their_samples() -> None:
    def step(model: nn.Module, batch: Labelled) -> Tensor:
        loss: Tensor = batch.inputs.mean()
        return loss

    batches = [Labelled(torch.zeros(8), None), Labelled(torch.ones(2), None)]
    found = Validator(nn.Linear(1, 1), batches, step=step, device="cpu").run()
    assert found.samples == 10
    assert found.losses["loss"] == pytest.approx(0.2)


# ---- their end


class Rolling(Dataset[Any]):
    """Batches by position, without IndexError behind the last."""

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        assert index < 2, "read beyond its length"
        return make_data(4).tensors


def test_batches_by_position_end_with_the_length() -> None:
    data: Any = Rolling()
    assert Validator(nn.Linear(4, 2), data, loss=nn.CrossEntropyLoss(), device="cpu").run().batches == 2


def test_an_iterator_is_told_to_be_at_its_end_in_a_second_run() -> None:
    validator = Validator(nn.Linear(4, 2), iter([make_data(4).tensors]), loss=nn.CrossEntropyLoss(), device="cpu")
    assert validator.run().samples == 4
    with pytest.raises(ExhaustedData, match="it is an iterator .* can be read only once"):
        validator.run()
    with pytest.raises(EmptyData):
        Validator(nn.Linear(4, 2), [], loss=nn.CrossEntropyLoss(), device="cpu").run()
