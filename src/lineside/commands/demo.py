"""``lineside demo``: digits, from training to predictions, everything shown drawn from bus events."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Annotated

import typer

from lineside.commands.runs import RUNS, JournalFolder, Plain, leave
from lineside.extras import needed_for


def demo(
    epochs: Annotated[int, typer.Option(min=1, help="Epochs to train.")] = 8,
    plain: Plain = False,
    journal: JournalFolder = RUNS,
    serve: Annotated[bool, typer.Option("--serve", help="Show it live in a browser too, until Ctrl-C.")] = False,
) -> None:
    """Train on digits, validate, export and predict."""
    with needed_for("the demo"):
        from lineside.demo.show import show
    with _served(journal) if serve else nullcontext():
        show(epochs, plain, journal, check=leave)


@contextmanager
def _served(folder: Path) -> Generator[None]:
    """Have `lineside serve` show `folder` in a process of its own, from before the block until Ctrl-C after it."""
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "lineside", "serve", str(folder), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as service:
        try:
            assert service.stdout is not None
            said = service.stdout.readline()  # where it is; it has said why itself if it could not begin
            if not said:
                raise typer.Exit(service.wait())
            typer.echo(said, nl=False)
            yield
            typer.echo("The dashboard stays until Ctrl-C.")
            with suppress(KeyboardInterrupt):
                service.wait()
        finally:
            service.terminate()
