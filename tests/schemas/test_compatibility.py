"""Fields are only ever added.

At a release: ``make snapshot``.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from lineside.schemas.compatibility import breaking_changes
from lineside.schemas.documents import union_schema

from .strategies import shipped

SNAPSHOT = Path(__file__).parent / "snapshots" / "events.json"
Schema = dict[str, Any]


@cache
def _today() -> Schema:
    return union_schema(shipped())


def today() -> Schema:
    return deepcopy(_today())


def properties(schema: Schema, name: str) -> Schema:
    fields = schema["$defs"][name]["properties"]
    assert isinstance(fields, dict)
    return fields  # pyright: ignore[reportUnknownVariableType]


def drop_a_type(schema: Schema) -> None:
    del schema["discriminator"]["mapping"]["ValEnd"]
    del schema["$defs"]["ValEnd"]


def rename_a_type_on_the_wire(schema: Schema) -> None:
    mapping = schema["discriminator"]["mapping"]
    mapping["ValidationEnd"] = mapping.pop("ValEnd")


def drop_a_field(schema: Schema) -> None:
    del properties(schema, "ValEnd")["fitness"]


def drop_a_field_of_a_part(schema: Schema) -> None:
    del properties(schema, "ErrorInfo")["traceback"]


def drop_a_field_of_the_envelope(schema: Schema) -> None:
    del properties(schema, "ValEnd")["seq"]


def retype_a_field(schema: Schema) -> None:
    properties(schema, "ValEnd")["batches"]["type"] = "string"


def retype_the_values_of_a_field(schema: Schema) -> None:
    properties(schema, "ValEnd")["metrics"]["additionalProperties"] = {"type": "integer"}


def refuse_null(schema: Schema) -> None:
    properties(schema, "ValEnd")["fitness"]["anyOf"].pop()


def allow_null(schema: Schema) -> None:
    field = properties(schema, "ValEnd")["batches"]
    field["anyOf"] = [{"type": field.pop("type")}, {"type": "null"}]


def narrow_a_range(schema: Schema) -> None:
    properties(schema, "ValEnd")["batches"]["minimum"] = 1


def take_away_a_choice(schema: Schema) -> None:
    properties(schema, "RunEnd")["outcome"]["enum"].remove("stopped")


def change_a_unit(schema: Schema) -> None:
    properties(schema, "ValEnd")["duration"]["unit"] = "ms"


def require_a_field(schema: Schema) -> None:
    schema["$defs"]["RunStart"]["required"].append("host")


def add_a_required_field(schema: Schema) -> None:
    properties(schema, "ValEnd")["weather"] = {"type": "string"}
    schema["$defs"]["ValEnd"]["required"].append("weather")


def change_the_meaning_of_absence(schema: Schema) -> None:
    properties(schema, "RunStart")["world_size"]["default"] = 8


def add_a_type(schema: Schema) -> None:
    schema["$defs"]["Drifting"] = deepcopy(schema["$defs"]["ValEnd"])
    schema["discriminator"]["mapping"]["Drifting"] = "#/$defs/Drifting"
    schema["oneOf"].append({"$ref": "#/$defs/Drifting"})


def add_a_field_with_a_default(schema: Schema) -> None:
    properties(schema, "ValEnd")["weather"] = {"type": "string", "default": "fine"}


def let_a_field_be_absent(schema: Schema) -> None:
    schema["$defs"]["ValEnd"]["required"].remove("samples")
    properties(schema, "ValEnd")["samples"]["default"] = 0


def describe_better(schema: Schema) -> None:
    schema["$defs"]["ValEnd"] |= {"description": "Better.", "title": "Other"}
    properties(schema, "ValEnd")["fitness"] |= {"description": "Better.", "title": "Other", "examples": [1.0]}


def test_todays_events_keep_the_promises_of_the_snapshot() -> None:
    assert breaking_changes(json.loads(SNAPSHOT.read_text()), today()) == []


def test_the_snapshot_holds_every_event_of_the_first_version() -> None:
    assert len(json.loads(SNAPSHOT.read_text())["discriminator"]["mapping"]) >= 32


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (drop_a_type, "ValEnd: the event is gone"),
        (rename_a_type_on_the_wire, "ValEnd: the event is gone"),
        (drop_a_field, "ValEnd.fitness: the field is gone"),
        (drop_a_field_of_a_part, "ErrorInfo.traceback: the field is gone"),
        (drop_a_field_of_the_envelope, "ValEnd.seq: the field is gone"),
        (retype_a_field, "ValEnd.batches: was"),
        (retype_the_values_of_a_field, "ValEnd.metrics: was"),
        (refuse_null, "ValEnd.fitness: was"),
        (allow_null, "ValEnd.batches: was"),
        (narrow_a_range, "ValEnd.batches: was"),
        (take_away_a_choice, "RunEnd.outcome: was"),
        (change_a_unit, "ValEnd.duration: was"),
        (require_a_field, "RunStart.host: the field is required"),
        (add_a_required_field, "ValEnd.weather: the field is required"),
        (change_the_meaning_of_absence, "RunStart.world_size: its absence meant 1, means 8"),
    ],
)
def test_a_change_that_breaks_readers_is_found(change: Callable[[Schema], None], complaint: str) -> None:
    changed = today()
    change(changed)
    (found,) = breaking_changes(today(), changed)
    assert found.startswith(complaint)


@pytest.mark.parametrize("change", [add_a_type, add_a_field_with_a_default, let_a_field_be_absent, describe_better])
def test_an_addition_is_no_break(change: Callable[[Schema], None]) -> None:
    changed = today()
    change(changed)
    assert changed != today()
    assert breaking_changes(today(), changed) == []


def test_a_field_is_missed_in_an_event_whose_class_was_renamed() -> None:
    before, after = today(), today()
    after["$defs"]["ValidationEnd"] = after["$defs"].pop("ValEnd")
    after["discriminator"]["mapping"]["ValEnd"] = "#/$defs/ValidationEnd"
    assert breaking_changes(before, after) == []
    del properties(after, "ValidationEnd")["fitness"]
    assert breaking_changes(before, after) == ["ValEnd.fitness: the field is gone; old readers ask for it"]


def test_changes_are_listed_by_event() -> None:
    changed = today()
    for name in ("ValEnd", "RunStart", "BeforeZeroGrad", "TrainEnd"):
        changed["$defs"][name]["required"] += ["weather", "cargo"]
    found = breaking_changes(today(), changed)
    assert len(found) == 8
    assert found == sorted(found)
