"""``lineside demo``: digits, from training to predictions, or photographs; all that is shown is drawn from events."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from lineside.commands.runs import RUNS, JournalFolder, Plain, leave
from lineside.extras import needed_for


def demo(
    folder: Annotated[
        Path | None, typer.Argument(show_default=False, help="With --photos: a folder of your own photographs.")
    ] = None,
    photos: Annotated[bool, typer.Option("--photos", help="Name what is on photographs, as they stream by.")] = False,
    epochs: Annotated[int, typer.Option(min=1, help="Epochs to train.")] = 8,
    plain: Plain = False,
    journal: JournalFolder = RUNS,
    serve: Annotated[bool, typer.Option("--serve", help="Show it live in a browser too, until Ctrl-C.")] = False,
) -> None:
    """Train on digits, validate, export and predict; or predict photographs."""
    if folder is not None and not photos:
        raise typer.BadParameter(f"{folder} is nothing to train on; --photos names what is on the photographs in it")
    show = _photos(folder, plain, journal) if photos else _digits(epochs, plain, journal)
    with _served(journal) if serve else nullcontext():
        show()


def _digits(epochs: int, plain: bool, journal: Path) -> Callable[[], None]:
    with needed_for("the demo"):
        from lineside.demo.show import show
    return partial(show, epochs, plain, journal, check=leave)


def _photos(folder: Path | None, plain: bool, journal: Path) -> Callable[[], None]:
    with needed_for("the demo with photographs"):
        from lineside.demo.photos.show import show_photos
    return partial(show_photos, folder, plain, journal)


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
