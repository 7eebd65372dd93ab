"""Pages without scripts and styles, so that the strictest policy shows them.

The manual says what the routes take and give, the door what to do without the token.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

HEAD = (
    '<!doctype html><html lang="en"><head><meta charset="utf-8">'
    '<meta name="viewport" content="width=device-width"><meta name="color-scheme" content="light dark">'
)
DOOR = (
    HEAD + "<title>Lineside: the token is missing</title></head><body><h1>Lineside</h1>"
    "<p>This page is shown to those who bring its token.</p>"
    "<p>Open the link that <code>lineside serve</code> printed, or <code>lineside predict serve</code>: it ends in "
    "<code>?token=…</code>. If it is gone, end that command and start it again.</p>"
    "<p>If the service is part of another app, ask whoever runs that. "
    "Programs send the header <code>Authorization: Bearer …</code>.</p></body></html>"
)


def manual(openapi: Mapping[str, Any], also: Mapping[str, str]) -> str:
    """Return the page for the description of an app; `also` has the addresses of others, and what they are."""
    info = openapi["info"]
    programs = {"openapi.json": "OpenAPI", **also}
    links = ", ".join(f'<a href="{escape(address)}">{escape(what)}</a>' for address, what in programs.items())
    return "\n".join(
        [
            f"{HEAD}<title>{escape(info['title'])}: the routes</title></head><body>",
            f"<h1>{escape(info['title'])}</h1><p>{escape(info.get('summary', ''))}</p>",
            f"<p>The same for programs: {links}.</p>",
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
