"""How every command ends: with a message of one paragraph and a code, never with a traceback of ours."""

from __future__ import annotations

import signal
from typing import Any

import typer
from typer.core import TyperGroup

from lineside.schemas import LinesideError

FAILED = 1
KILLED = 128
"""Added to the number of the signal that ended a command, as shells do."""


class Group(TyperGroup):
    """A group of commands that turns our errors into a message on standard error and exit code 1.

    Wrong usage ends with 2, Ctrl-C with 130. Errors that are not ours keep their traceback: they are bugs.
    """

    def resolve_command(self, ctx: typer.Context, args: list[str]) -> Any:  # type: ignore[override]  # as below
        """Find the command; ``predict serve RECIPE.py`` is one of its own beside ``predict RECIPE.py``."""
        two = " ".join(args[:2])
        if two in self.commands and len(args) > 1:
            args = [two, *args[2:]]
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: typer.Context) -> Any:  # type: ignore[override]  # click's Context has moved between versions
        """Run the command."""
        try:
            return super().invoke(ctx)
        except LinesideError as error:
            typer.echo(f"error: {error}", err=True)
            raise typer.Exit(FAILED) from None
        except KeyboardInterrupt:
            typer.echo("interrupted", err=True)
            raise typer.Exit(KILLED + signal.SIGINT) from None
