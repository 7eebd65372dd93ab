"""``lineside schema``: the events described for other languages and tools."""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Describe the events for other languages and tools.", no_args_is_help=True)

_Modules = Annotated[
    list[str] | None,
    typer.Option(
        "--import",
        metavar="MODULE",
        help="Module that defines events of your own, to be described too; may be repeated. "
        "The current directory is searched first.",
    ),
]


@app.command("json")
def write_json(
    target: Annotated[
        str, typer.Argument(metavar="DIR|-", help="Directory to write to; - prints one schema of all events.")
    ],
    modules: _Modules = None,
) -> None:
    """Write a JSON Schema for each event, and events.json for any of them."""
    from lineside.schemas import documents

    _import_all(modules or [])
    if target == "-":
        sys.stdout.write(documents.as_text(documents.union_schema()))
        return
    with _plain_errors(target):
        written = documents.write_json_schemas(target)
    typer.echo(f"{len(written)} schemas in {target}")


@app.command("asyncapi")
def write_asyncapi(
    target: Annotated[str, typer.Argument(metavar="[FILE|-]", help="File to write to; - prints it.")] = "-",
    modules: _Modules = None,
) -> None:
    """Write an AsyncAPI 3.0 document of all events."""
    from lineside.schemas import documents

    _import_all(modules or [])
    text = documents.as_text(documents.asyncapi())
    if target == "-":
        sys.stdout.write(text)
        return
    with _plain_errors(target):
        documents.replace_file(Path(target), text)
    typer.echo(f"AsyncAPI 3.0 document in {target}")


def _import_all(modules: list[str]) -> None:
    """Import the user's modules, so that their events are registered."""
    if modules:
        sys.path.insert(0, str(Path.cwd()))
    for module in modules:
        try:
            import_module(module)
        except ImportError as error:
            raise typer.BadParameter(f"cannot import {module!r}: {error}", param_hint="--import") from error


@contextmanager
def _plain_errors(target: str) -> Generator[None]:
    """End the command with the message instead of a traceback when a file cannot be written."""
    try:
        yield
    except OSError as error:
        typer.echo(f"error: cannot write {target}: {error.strerror or error}", err=True)
        raise typer.Exit(1) from error
