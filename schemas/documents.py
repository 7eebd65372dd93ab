"""The events described for other languages and tools: JSON Schema 2020-12 and AsyncAPI 3.

The schemas describe the wire: what `encode` writes and `decode` reads. They are open, further fields are no error,
because fields are only ever added and a reader with an earlier schema must accept the events of a later version.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from inspect import cleandoc
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote

from pydantic.errors import PydanticUndefinedAnnotation, PydanticUserError
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue, models_json_schema
from pydantic_core import core_schema, from_json, to_json

from .errors import EventError
from .event import Event, events, wire_name
from .part import Part

DIALECT = "https://json-schema.org/draft/2020-12/schema"
NON_FINITE = ("NaN", "Infinity", "-Infinity")
UNION = "events.json"

_URN = "urn:lineside:event"
_FORMAT = "application/schema+json;version=draft-2020-12"
"""What the AsyncAPI document says of its schemas: its own dialect knows no `prefixItems` and no mapping of a union."""


class ForeignFile(EventError, FileExistsError):
    """A schema would have replaced a file that is no schema of an event."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            f"{path} exists and is not a schema written by lineside; move it away or choose another directory"
        )


class _WireSchema(GenerateJsonSchema):
    """What pydantic says of a model, corrected to what stands on the wire."""

    def float_schema(self, schema: core_schema.FloatSchema) -> JsonSchemaValue:
        return {"anyOf": [super().float_schema(schema), {"type": "string", "enum": list(NON_FINITE)}]}

    def encode_default(self, dft: Any) -> Any:
        return from_json(to_json(super().encode_default(dft), inf_nan_mode="strings"))

    def model_schema(self, schema: core_schema.ModelSchema) -> JsonSchemaValue:
        described = super().model_schema(schema)
        cls = cast("type[object]", schema["cls"])
        if issubclass(cls, Part):
            described.pop("additionalProperties", None)
        if issubclass(cls, Event):
            described["title"] = wire_name(cls)
            envelope_first = (*Event.model_fields, *described.get("required", ()))
            described["required"] = list(dict.fromkeys(envelope_first))
        return described


def families_of(cls: type[Event]) -> tuple[type[Event], ...]:
    """Return the families `cls` belongs to, the nearest first; `Event`, the family of all, is left out."""
    return tuple(base for base in cls.__mro__[1:] if issubclass(base, Event) and base.family and base is not Event)


def json_schemas(types: Iterable[type[Event]] | None = None) -> dict[str, JsonSchemaValue]:
    """Return one self-contained JSON Schema for each of `types` (every known event), by its name on the wire.

    Durations and sizes carry an annotation ``unit``: ``s``, ``ms``, ``B``, ``1/s``. A float is a number or one of
    `NON_FINITE`. Required are the envelope and the fields that every version has written.
    """
    return {wire_name(cls): _resource(wire_name(cls), _schema(cls)) for cls in _known(types)}


def union_schema(types: Iterable[type[Event]] | None = None) -> JsonSchemaValue:
    """Return one schema for any of `types` (every known event): a union that ``type`` discriminates."""
    refs, definitions = _definitions(types, "#/$defs/{model}")
    mapping = {wire_name(cls): ref for cls, ref in refs.items()}
    union: JsonSchemaValue = {
        "title": "Event",
        "description": "Any event. Events of other types exist: a reader passes over them.",
        "type": "object",
        "required": ["type"],
        "discriminator": {"propertyName": "type", "mapping": mapping},
        "oneOf": [{"$ref": ref} for ref in mapping.values()] or [{"not": {}}],  # it must not be empty
        "$defs": definitions,
    }
    return {"$schema": DIALECT, "$id": f"{_URN}s", **union}


def write_json_schemas(directory: str | Path, types: Iterable[type[Event]] | None = None) -> list[Path]:
    """Write `json_schemas`, one file each, and `union_schema` as ``events.json``; return the paths.

    A file is called like its event, percent-encoded where that is no name for it or the union has it. Files of an
    earlier call are replaced, each atomically.

    Raises:
        ForeignFile: another file has one of the names; nothing was written.
        OSError: the directory cannot be made or written.
    """
    chosen = _known(types)
    named = {_file_name(name): schema for name, schema in json_schemas(chosen).items()}
    documents = {Path(directory, name): schema for name, schema in (named | {UNION: union_schema(chosen)}).items()}
    for path in documents:
        if path.exists() and not _is_ours(path):
            raise ForeignFile(path)
    Path(directory).mkdir(parents=True, exist_ok=True)
    for path, document in documents.items():
        replace_file(path, as_text(document))
    return list(documents)


def asyncapi(types: Iterable[type[Event]] | None = None) -> dict[str, Any]:
    """Return an AsyncAPI 3.0 document of `types` (every known event): a channel per run, a message per event."""
    refs, definitions = _definitions(types, "#/components/schemas/{model}/schema")
    keys = {cls: ref.split("/")[-2] for cls, ref in refs.items()}
    families = dict.fromkeys(family for cls in refs for family in families_of(cls))
    tags = {family.__name__: {"name": family.__name__, "description": _text(family)} for family in families}
    return {
        "asyncapi": "3.0.0",
        "info": _info() | {"tags": [{"$ref": f"#/components/tags/{name}"} for name in tags]},
        "defaultContentType": "application/json",
        "channels": {"events": _channel(keys.values())},
        "operations": {
            "sendEvents": _operation("send", "A runner publishes what happens in its run."),
            "receiveEvents": _operation("receive", "A subscriber reads a run, each event once and by order of `seq`."),
        },
        "components": {
            "messages": {key: _message(cls, key) for cls, key in keys.items()},
            "schemas": {key: {"schemaFormat": _FORMAT, "schema": schema} for key, schema in definitions.items()},
            "correlationIds": {"run": {"description": "The run.", "location": "$message.payload#/run"}},
            "tags": tags,
        },
    }


def as_text(document: Mapping[str, Any]) -> str:
    """Return `document` as JSON that is pleasant to read and to compare."""
    return json.dumps(document, indent=2) + "\n"


def replace_file(path: Path, text: str) -> None:
    """Write `text` to `path` whole or not at all."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _known(types: Iterable[type[Event]] | None) -> tuple[type[Event], ...]:
    return tuple(cls for cls in events() if _is_whole(cls)) if types is None else tuple(types)


def _is_whole(cls: type[Event]) -> bool:
    """Return whether `cls` can be described: one that names what was never defined must not cost the others."""
    try:
        _schema(cls)
    except (EventError, PydanticUserError, PydanticUndefinedAnnotation):
        return False
    return True


def _schema(cls: type[Event]) -> JsonSchemaValue:
    return cls.model_json_schema(schema_generator=_WireSchema, mode="serialization")


def _file_name(name: str) -> str:
    file = f"{quote(name, safe='')}.json"
    return file if file.lower() != UNION else f"%{ord(name[0]):02X}{file[1:]}"  # the name of the union is taken


def _resource(name: str, schema: JsonSchemaValue) -> JsonSchemaValue:
    return {"$schema": DIALECT, "$id": f"{_URN}:{quote(name, safe='')}", "title": name} | schema


def _definitions(
    types: Iterable[type[Event]] | None, ref_template: str
) -> tuple[dict[type[Event], str], dict[str, JsonSchemaValue]]:
    """Return a reference for each event, and the schemas they and their parts refer to, by key."""
    chosen = _known(types)
    refs, schema = models_json_schema(
        [(cls, "serialization") for cls in chosen], schema_generator=_WireSchema, ref_template=ref_template
    )
    return {cls: refs[cls, "serialization"]["$ref"] for cls in chosen}, schema.get("$defs", {})


def _is_ours(path: Path) -> bool:
    try:
        document = cast("object", json.loads(path.read_bytes()))
    except (ValueError, IsADirectoryError):
        return False
    identity = cast("dict[str, object]", document).get("$id") if isinstance(document, dict) else None
    return isinstance(identity, str) and identity.startswith(_URN)


def _info() -> dict[str, Any]:
    return {
        "title": "Lineside events",
        "version": version("lineside"),
        "description": "What training, validation, prediction and export runners say while they run.",
        "license": {"name": "Apache-2.0"},
    }


def _channel(messages: Iterable[str]) -> dict[str, Any]:
    return {
        "address": "runs/{run}/events",
        "title": "The events of a run",
        "description": "All events of a run, in the order of `seq` for each `attempt` and `rank`.",
        "parameters": {"run": {"description": "Id of the run.", "location": "$message.payload#/run"}},
        "messages": {key: {"$ref": f"#/components/messages/{key}"} for key in messages},
    }


def _operation(action: str, summary: str) -> dict[str, Any]:
    return {"action": action, "channel": {"$ref": "#/channels/events"}, "summary": summary}


def _message(cls: type[Event], key: str) -> dict[str, Any]:
    return {
        "name": wire_name(cls),
        "title": wire_name(cls),
        "summary": _text(cls),
        "contentType": "application/json",
        "correlationId": {"$ref": "#/components/correlationIds/run"},
        "tags": [{"$ref": f"#/components/tags/{family.__name__}"} for family in families_of(cls)],
        "payload": {"$ref": f"#/components/schemas/{key}"},
        "x-callback": cls.callback,
        "x-urgent": cls.urgent,
    }


def _text(cls: type[Event]) -> str:
    return cleandoc(cls.__doc__ or "")
