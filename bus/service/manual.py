"""The manual: what the routes take and give, as a page without scripts, so that the strictest policy shows it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any


def manual(openapi: Mapping[str, Any]) -> str:
    """Return the page for the description of an app."""
    info = openapi["info"]
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">',
            f"<title>{escape(info['title'])}: the routes</title></head><body>",
            f"<h1>{escape(info['title'])}</h1><p>{escape(info.get('summary', ''))}</p>",
            '<p>The same for programs: <a href="openapi.json">OpenAPI</a>, <a href="asyncapi.json">AsyncAPI</a>, '
            '<a href="schemas">the JSON Schemas of the events</a>.</p>',
            *(
                line
                for path, methods in openapi["paths"].items()
                for method, operation in methods.items()
                for line in _operation(path, method, operation)
            ),
            "</body></html>",
        ]
    )


def _operation(path: str, method: str, operation: Mapping[str, Any]) -> Iterator[str]:
    yield f"<h2><code>{method.upper()} {escape(path)}</code></h2>"
    yield f"<p>{escape(operation.get('description', operation.get('summary', '')))}</p>"
    parameters = operation.get("parameters", [])
    if parameters:
        yield "<dl>"
        for one in parameters:
            needed = ", required" if one.get("required") else ""
            yield f"<dt><code>{escape(one['name'])}</code> ({one['in']}{needed})</dt>"
            yield f"<dd>{escape(one.get('description', ''))}</dd>"
        yield "</dl>"
