"""The command line, a file a command."""

from __future__ import annotations

from typing import Annotated

import typer

from lineside.commands import demo, journal, predict_serve, runs, schema, serve, top
from lineside.commands.group import Group

__all__ = ["app"]

app = typer.Typer(
    cls=Group,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Typed events from training, validation, prediction and export, read while the loop keeps going.",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from lineside import __version__

        typer.echo(f"lineside {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    """Take the options that belong to no command."""


app.command()(demo.demo)
app.command()(runs.train)
app.command()(runs.val)
app.command()(runs.predict)
app.command("predict serve")(predict_serve.predict_serve)
app.command()(runs.export)
app.command()(serve.serve)
app.command("runs")(journal.list_runs)
app.command()(top.top)
app.command()(journal.events)
app.command()(journal.replay)
app.add_typer(journal.app, name="journal")
app.add_typer(schema.app, name="schema")
