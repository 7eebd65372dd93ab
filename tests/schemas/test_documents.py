"""The documents describe what is really written."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import (  # type: ignore[import-untyped]  # its stubs are a package of their own
    Draft7Validator,
    Draft202012Validator,
)
from pydantic import Field

from lineside.schemas import (
    Event,
    ModelSave,
    Part,
    RunEnd,
    Scalars,
    TrainBatchEnd,
    UnknownEvent,
    ValEnd,
    ValStart,
    encode,
    events,
)
from lineside.schemas.documents import (
    ForeignFile,
    as_text,
    asyncapi,
    families_of,
    json_schemas,
    union_schema,
    write_json_schemas,
)
from tests.snippets import run_code

from .strategies import any_event, event_of, shipped

EVERY_EVENT = pytest.mark.parametrize("cls", shipped(), ids=lambda cls: cls.__name__)


class Semaphore(Event, name="acme.Semaphore/arm"):
    """An arm has moved."""

    angle: float
    lamps: tuple[float, ...] = ()


class Day(Part):
    kind: Literal["day"]


class Night(Part):
    kind: Literal["night"]
    lamps: tuple[int, str]


class Observed(Event):
    """Signals were observed."""

    by: Annotated[Day | Night, Field(discriminator="kind")]
    mean: float = math.nan
    peaks: Scalars = Field(default={"up": math.inf, "down": -math.inf})


class Namesake(Event, name="events"):
    """An event that is called like the file of the union."""


@cache
def validator(name: str) -> Draft202012Validator:
    (schema,) = json_schemas([cls for cls in shipped() if cls.__name__ == name]).values()
    return Draft202012Validator(schema)


@cache
def union() -> Draft202012Validator:
    return Draft202012Validator(union_schema(shipped()))


@cache
def api() -> dict[str, Any]:
    return asyncapi(shipped())


@cache
def standard() -> Draft7Validator:
    return Draft7Validator(json.loads((Path(__file__).parent / "snapshots" / "asyncapi-3.0.0.json").read_text()))


def complaints(judge: Draft202012Validator | Draft7Validator, value: Any) -> list[str]:
    return [error.message for error in judge.iter_errors(value)]  # pyright: ignore[reportUnknownMemberType]


def references(node: object) -> Iterator[str]:
    if isinstance(node, dict):
        for key, value in cast("dict[str, object]", node).items():
            if key == "$ref":
                yield str(value)
            yield from references(value)
    elif isinstance(node, list):
        for value in cast("list[object]", node):
            yield from references(value)


def resolve(document: object, reference: str) -> Any:
    assert reference.startswith("#/")
    for step in reference[2:].split("/"):
        document = cast("dict[str, object]", document)[step]
    return document


@EVERY_EVENT
def test_every_event_has_a_valid_schema_of_its_own(cls: type[Event]) -> None:
    schema = json_schemas([cls])[cls.__name__]
    Draft202012Validator.check_schema(schema)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["$id"] == f"urn:lineside:event:{cls.__name__}"
    assert schema["title"] == cls.__name__
    assert schema["description"]
    assert all("description" in field for field in schema["properties"].values())
    assert all(resolve(schema, reference) for reference in references(schema))


def test_families_have_no_schema() -> None:
    assert list(json_schemas(shipped())) == [cls.__name__ for cls in shipped()]


def test_without_a_choice_every_known_event_is_described_those_of_the_user_too() -> None:
    code = """
    from lineside.schemas import Event, documents, events

    class Semaphore(Event, name="acme.Semaphore/arm"):
        angle: float

    names = [documents.wire_name(cls) for cls in events()]
    print(names[-1], names == [*documents.json_schemas()] == [*documents.union_schema()["discriminator"]["mapping"]])
    """
    assert run_code(code) == "acme.Semaphore/arm True\n"


def test_a_default_that_is_no_number_is_written_as_on_the_wire() -> None:
    text = as_text(json_schemas([Observed])["Observed"])
    properties = json.loads(text, parse_constant=pytest.fail)["properties"]
    assert properties["mean"]["default"] == "NaN"
    assert properties["peaks"]["default"] == {"up": "Infinity", "down": "-Infinity"}


def test_a_union_of_nothing_is_a_valid_schema_that_nothing_fits() -> None:
    schema = union_schema([])
    Draft202012Validator.check_schema(schema)
    assert complaints(Draft202012Validator(schema), {"type": "ValStart"})


@EVERY_EVENT
@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_what_is_written_fits_the_schema(cls: type[Event], data: st.DataObject) -> None:
    written = json.loads(encode(data.draw(event_of(cls))))
    assert complaints(validator(cls.__name__), written) == []


@settings(max_examples=30, deadline=None)
@given(event=any_event())
def test_what_is_written_fits_the_union_and_no_other_event(event: Event) -> None:
    written = json.loads(encode(event))
    assert complaints(union(), written) == []
    other = validator("RunEnd" if not isinstance(event, RunEnd) else "RunStart")
    assert complaints(other, written)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("type", "Other"),
        ("epoch", -1),
        ("epoch", 1.5),
        ("fitness", "high"),
        ("metrics", [1]),
        ("time", 3),
        ("duration", None),
    ],
)
def test_the_schema_refuses_what_does_not_fit(field: str, value: object) -> None:
    event = ValEnd(epoch=0, batches=1, samples=1, metrics={}, losses={}, fitness=None, duration=1, speed={})
    written = json.loads(encode(event))
    assert complaints(validator("ValEnd"), written) == []
    assert complaints(validator("ValEnd"), written | {field: value})
    without = {name: part for name, part in written.items() if name != field}
    assert complaints(validator("ValEnd"), without) == [f"{field!r} is a required property"]


def test_the_schema_accepts_fields_of_later_versions() -> None:
    written = json.loads(encode(ValStart(epoch=0, batches=None)))
    assert complaints(validator("ValStart"), written | {"weather": "fine"}) == []


def test_units_stand_in_the_schema() -> None:
    properties = json_schemas([ModelSave, ValEnd])
    assert properties["ModelSave"]["properties"]["duration"]["unit"] == "s"
    assert properties["ModelSave"]["properties"]["bytes"]["unit"] == "B"
    assert properties["ValEnd"]["properties"]["speed"]["unit"] == "ms"


def test_an_event_of_the_users_own_is_described_by_its_name_on_the_wire() -> None:
    schema = json_schemas([Semaphore])["acme.Semaphore/arm"]
    assert (schema["title"], schema["description"]) == ("acme.Semaphore/arm", "An arm has moved.")
    written = json.loads(encode(Semaphore(angle=float("nan"), lamps=(1.0, float("inf")))))
    assert complaints(Draft202012Validator(schema), written) == []
    assert "acme.Semaphore/arm" in union_schema([Semaphore])["discriminator"]["mapping"]


def test_writing_gives_a_file_for_each_event_and_one_for_all(tmp_path: Path) -> None:
    paths = write_json_schemas(tmp_path / "new" / "place", [ValStart, ValEnd])
    assert sorted(path.name for path in paths) == ["ValEnd.json", "ValStart.json", "events.json"]
    assert sorted((tmp_path / "new" / "place").iterdir()) == sorted(paths)
    assert json.loads(paths[0].read_text()) == json_schemas([ValStart])["ValStart"]
    assert json.loads(paths[-1].read_text()) == union_schema([ValStart, ValEnd])


def test_writing_again_replaces_what_was_written_before(tmp_path: Path) -> None:
    (old, union_path) = write_json_schemas(tmp_path, [ValStart])
    old.write_text(json.dumps(json.loads(old.read_text()) | {"title": "stale"}))
    write_json_schemas(tmp_path, [ValStart, ValEnd])
    assert json.loads(old.read_text())["title"] == "ValStart"
    assert len(json.loads(union_path.read_text())["oneOf"]) == 2


@pytest.mark.parametrize("content", ["", "not json", "[]", '{"$id": "https://example.org/mine"}', '{"$id": 3}'])
def test_a_file_of_somebody_else_is_not_replaced_and_nothing_is_written(tmp_path: Path, content: str) -> None:
    foreign = tmp_path / "ValEnd.json"
    foreign.write_text(content)
    with pytest.raises(
        ForeignFile, match=r"ValEnd\.json exists and is not a schema.*choose another directory"
    ) as caught:
        write_json_schemas(tmp_path, [ValStart, ValEnd])
    assert isinstance(caught.value, FileExistsError)
    assert foreign.read_text() == content
    assert list(tmp_path.iterdir()) == [foreign]


def test_a_directory_in_the_way_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "events.json").mkdir()
    with pytest.raises(ForeignFile):
        write_json_schemas(tmp_path, [ValStart])


def test_a_write_that_fails_leaves_the_earlier_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (path, _) = write_json_schemas(tmp_path, [ValStart])
    before = path.read_text()

    def full(self: Path, *_: object, **__: object) -> int:
        self.touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="No space"):
        write_json_schemas(tmp_path, [ValStart])
    assert path.read_text() == before
    assert sorted(found.name for found in tmp_path.iterdir()) == ["ValStart.json", "events.json"]


def test_a_name_that_is_no_file_name_stays_in_the_directory(tmp_path: Path) -> None:
    assert write_json_schemas(tmp_path, [Semaphore])[0] == tmp_path / "acme.Semaphore%2Farm.json"


def test_an_event_called_like_the_union_has_a_file_of_its_own(tmp_path: Path) -> None:
    event, union_path = write_json_schemas(tmp_path, [Namesake])
    assert json.loads(event.read_text()) == json_schemas([Namesake])["events"]
    assert json.loads(union_path.read_text()) == union_schema([Namesake])
    assert (event.name, union_path.name) == ("%65vents.json", "events.json")


@pytest.mark.parametrize("types", [shipped(), [Observed, Semaphore], []], ids=["shipped", "of the user", "none"])
def test_the_asyncapi_document_is_valid_by_the_schema_of_version_3(types: list[type[Event]]) -> None:
    document = asyncapi(types)
    assert complaints(standard(), document) == []
    assert all(resolve(document, reference) is not None for reference in references(document))
    assert json.loads(json.dumps(document)) == document


@pytest.mark.parametrize("place", ["info", "channels", "operations", "components"])
def test_the_schema_of_version_3_refuses_a_document_that_is_spoilt(place: str) -> None:
    assert complaints(standard(), api() | {place: "spoilt"})


def test_what_is_written_fits_the_payload_of_the_asyncapi_document() -> None:
    document = asyncapi([Observed])
    entry = document["components"]["schemas"]["Observed"]
    assert entry["schemaFormat"] == "application/schema+json;version=draft-2020-12"
    payload = Draft202012Validator(document | {"$ref": "#/components/schemas/Observed/schema"})
    written = json.loads(encode(Observed(by=Night(kind="night", lamps=(1, "red")))))
    assert complaints(payload, written) == []
    assert complaints(payload, written | {"by": {"kind": "night", "lamps": ["red", 1]}})


def test_the_asyncapi_document_has_one_channel_a_run_that_is_written_and_read() -> None:
    document = api()
    (channel,) = document["channels"].values()
    assert channel["address"] == "runs/{run}/events"
    assert list(channel["parameters"]) == ["run"]
    assert list(channel["messages"]) == [cls.__name__ for cls in shipped()]
    actions = {operation["action"]: operation["channel"]["$ref"] for operation in document["operations"].values()}
    assert actions == {"send": "#/channels/events", "receive": "#/channels/events"}


@EVERY_EVENT
def test_every_event_is_a_message_with_its_payload_tags_and_run(cls: type[Event]) -> None:
    document = api()
    message = document["components"]["messages"][cls.__name__]
    payload = resolve(document, message["payload"]["$ref"])["schema"]
    assert payload["properties"]["type"]["const"] == message["name"] == cls.__name__
    tags = [resolve(document, tag["$ref"])["name"] for tag in message["tags"]]
    assert tags == [family.__name__ for family in families_of(cls)]
    assert resolve(document, message["correlationId"]["$ref"])["location"] == "$message.payload#/run"
    assert (message["x-callback"], message["x-urgent"]) == (cls.callback, cls.urgent)


def test_the_payloads_of_the_asyncapi_document_are_those_of_the_schemas() -> None:
    payload = asyncapi([TrainBatchEnd])["components"]["schemas"]["TrainBatchEnd"]["schema"]
    assert payload["properties"] == json_schemas([TrainBatchEnd])["TrainBatchEnd"]["properties"]


def test_the_keys_of_the_asyncapi_document_are_allowed_whatever_the_event_is_called() -> None:
    messages = asyncapi([Semaphore])["components"]["messages"]
    assert [(key, message["name"]) for key, message in messages.items()] == [("Semaphore", "acme.Semaphore/arm")]


def test_an_unknown_event_is_no_event_to_describe() -> None:
    assert UnknownEvent not in events()


def test_a_class_that_cannot_be_built_costs_the_others_nothing() -> None:
    code = """
from lineside.schemas import Event
from lineside.schemas.documents import json_schemas


class Prophecy(Event):
    of: "NeverDefined"


print("TrainBatchEnd" in json_schemas(), "Prophecy" in json_schemas())
"""
    assert run_code(code) == "True False\n"
