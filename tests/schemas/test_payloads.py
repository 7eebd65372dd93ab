"""What holds for every event: it cannot be changed, and it says what its fields mean."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from lineside.schemas import (
    Event,
    FrozenDict,
    PredictBatchEnd,
    RunStart,
    TrainBatchEnd,
    ValEnd,
)
from tests.snippets import run_code

from .strategies import event_of, shipped

EVERY_EVENT = pytest.mark.parametrize("cls", shipped(), ids=lambda cls: cls.__name__)


def containers(value: object) -> Iterator[object]:
    """Everything in `value` that holds something else."""
    if isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from containers(getattr(value, name))
    elif isinstance(value, (dict, list, tuple)):
        yield value  # pyright: ignore[reportUnknownVariableType]
        for item in value.values() if isinstance(value, dict) else value:  # pyright: ignore[reportUnknownVariableType]
            yield from containers(item)  # pyright: ignore[reportUnknownArgumentType]


@EVERY_EVENT
@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_an_event_holds_nothing_that_can_be_changed(cls: type[Event], data: st.DataObject) -> None:
    event = data.draw(event_of(cls))
    for name in cls.model_fields:
        with pytest.raises(ValueError, match="frozen"):
            setattr(event, name, None)
    assert {type(part) for part in containers(event)} <= {tuple, FrozenDict}
    assert isinstance(hash(event), int)


def test_an_event_made_without_its_optional_fields_holds_nothing_that_can_be_changed() -> None:
    event = RunStart(kind="train", model="m", device="cpu")
    with pytest.raises(TypeError, match="immutable"):
        event.config["epochs"] = 3
    assert hash(event) == hash(pickle.loads(pickle.dumps(event)))


@pytest.mark.parametrize(
    ("change", "arguments"),
    [
        ("__setitem__", ("a", 1)),
        ("__delitem__", ("a",)),
        ("__ior__", ({"b": 1},)),
        ("update", ({"b": 1},)),
        ("setdefault", ("b", 1)),
        ("pop", ("a",)),
        ("popitem", ()),
        ("clear", ()),
    ],
)
def test_a_dict_in_an_event_refuses_every_change(change: str, arguments: tuple[Any, ...]) -> None:
    losses = {"a": 1.0}
    event = ValEnd(epoch=0, batches=1, samples=1, metrics={}, losses=losses, fitness=None, duration=1, speed={})
    with pytest.raises(TypeError, match=r"immutable.*dict\(value\)"):
        getattr(event.losses, change)(*arguments)
    assert event.losses == {"a": 1.0}


def test_an_event_does_not_see_later_changes_of_what_it_was_made_from() -> None:
    result: dict[str, Any] = {"boxes": [[1, 2], [3, 4]]}
    inputs, speed = ["a.png"], {"inference": 1.0}
    event = PredictBatchEnd.model_validate(
        {"epoch": 0, "batch": 0, "batches": 1, "batch_size": 1, "inputs": inputs, "results": [result], "speed": speed}
    )
    result["boxes"][0].append(9)
    inputs.append("b.png")
    speed["inference"] = 2.0
    assert event.results == ({"boxes": ((1, 2), (3, 4))},)
    assert (event.inputs, event.speed) == (("a.png",), {"inference": 1.0})


def test_a_frozen_dict_copies_into_a_plain_one() -> None:
    frozen = FrozenDict({"a": FrozenDict({"b": 1})})
    assert frozen | {"c": 1} == {"a": {"b": 1}, "c": 1}
    assert type(dict(frozen)) is dict
    assert type(copy.deepcopy(frozen)["a"]) is FrozenDict
    assert {frozen: 1}[FrozenDict({"a": FrozenDict({"b": 1})})] == 1


@pytest.mark.parametrize(
    ("config", "complaint"),
    [
        ({"model": object()}, "not a JSON value: <object"),
        ({1: "one"}, "keys of a JSON object are strings"),
        ({"a": {2: "two"}}, "keys of a JSON object are strings"),
        ([("a", 1)], "expected an object"),
    ],
)
def test_what_is_no_json_is_refused_with_the_value(config: Any, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        RunStart(kind="train", model="m", device="cpu", config=config)


def test_json_that_no_reader_could_read_is_refused() -> None:
    knot: list[object] = []
    knot.append(knot)
    with pytest.raises(ValueError, match="nested more than 100 levels deep, or containing itself"):
        RunStart(kind="train", model="m", device="cpu", config={"knot": knot})


@EVERY_EVENT
def test_every_field_is_described(cls: type[Event]) -> None:
    assert (cls.__doc__ or "").strip().endswith(".")
    bare = [name for name, field in cls.model_fields.items() if not (field.description or "").endswith(".")]
    assert not bare


@EVERY_EVENT
def test_every_duration_size_and_speed_has_a_unit(cls: type[Event]) -> None:
    units = {"seconds": "s", "duration": "s", "elapsed": "s", "bytes": "B"}
    for name, field in cls.model_fields.items():
        extra = cast("dict[str, object] | None", field.json_schema_extra)
        unit = extra.get("unit") if extra else None
        expected = units.get(name.rpartition("_")[2])
        if name == "speed":
            expected = "1/s" if field.annotation is float else "ms"
        assert unit == expected, name


@EVERY_EVENT
def test_an_event_of_a_batch_says_which_batch_of_which_epoch(cls: type[Event]) -> None:
    can_wait = not cls.urgent and "request" not in cls.model_fields
    if "Batch" in cls.__name__ or can_wait:
        assert {"epoch", "batch", "batches", "batch_size"} <= cls.model_fields.keys()


def test_a_field_that_does_not_fit_is_named() -> None:
    with pytest.raises(ValueError, match=r"(?s)batch\n.*greater than or equal to 0.*-1"):
        TrainBatchEnd(epoch=0, batch=-1, batches=1, batch_size=1, step=0, loss=0, losses={}, lr={})


def test_importing_the_schemas_imports_neither_torch_nor_the_bus_nor_a_runner() -> None:
    code = (
        "import sys, lineside.schemas, lineside.schemas.documents, lineside.schemas.compatibility; "
        "print(sorted({'torch', 'numpy', 'anyio', 'lineside.bus', 'lineside.runners'} & sys.modules.keys()))"
    )
    assert run_code(code) == "[]\n"
