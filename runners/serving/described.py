"""How what is asked and answered is described in OpenAPI."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel

from ...bus.service.guard import COOKIE
from .decoding import BYTES
from .forms import EVENTS, NDJSON, ONE

Schema = Mapping[str, Any]

_REQUEST: Schema = {"request": {"type": "string", "description": "Id of the request."}}
_RESULT: Schema = {
    "type": "object",
    "properties": {
        **_REQUEST,
        "index": {"type": "integer", "description": "Place of the input in its request, from 0."},
        "input": {"type": "string", "description": "Name of the input: that of its file, or <request>/<index>."},
        "result": {"description": "What the model made of it."},
        "error": {"type": "string", "description": "In place of a result: why there is none."},
    },
    "required": ["request", "index", "input"],
}
_END: Schema = {
    "type": "object",
    "properties": {
        **_REQUEST,
        "end": {"enum": ["completed", "failed"]},
        "count": {"type": "integer", "description": "The results and errors before it."},
        "reason": {"type": "string", "description": "Why it failed."},
    },
    "required": ["request", "end", "count"],
}
_LINE: Schema = {"oneOf": [_RESULT, _END], "description": "Of a line, or the data of an event; the last is the end."}
_ALL: Schema = {
    **_END,
    "properties": {**_END["properties"], "results": {"type": "array", "items": _RESULT}},
    "required": [*_END["required"], "results"],
}
ANSWERED: Schema = {NDJSON: {"schema": _LINE}, EVENTS: {"schema": _LINE}, ONE: {"schema": _ALL}}
"""The content of an answer."""

_BINARY: Schema = {"schema": {"type": "string", "format": "binary"}}
_JSON: Schema = {
    "oneOf": [
        {"properties": {"inputs": {"type": "array", "items": {}, "minItems": 1}}, "required": ["inputs"]},
        {"properties": {"input": {"description": "One input."}}, "required": ["input"]},
    ],
    "type": "object",
    "maxProperties": 1,
}

SECURITY: Schema = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "The token."},
    "cookie": {"type": "apiKey", "in": "cookie", "name": COOKIE, "description": "A browser has it from the link."},
}


class Health(BaseModel):
    """Whether anything is computed."""

    status: Literal["ok", "new", "closing", "closed", "failed"]


def request_body(*, anything: bool) -> dict[str, Any]:
    """Return the description of what can be asked; `anything`: the recipe decides what that is."""
    return {
        "required": True,
        "content": {
            ONE: {"schema": _JSON},
            "image/*": _BINARY,
            BYTES: _BINARY,
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "additionalProperties": {"type": "string", "format": "binary"},
                    "description": "Each part is an input: a file, or else JSON where its content-type does not say.",
                }
            },
            **({"*/*": _BINARY} if anything else {}),
        },
    }
