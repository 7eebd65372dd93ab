"""``lineside train|val|predict|export RECIPE.py``: the four runners, on what a recipe makes."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lineside.commands.group import KILLED
from lineside.commands.overrides import override

if TYPE_CHECKING:
    from lineside.bus import Bus
    from lineside.runners import RunResult

RecipeFile = Annotated[
    Path, typer.Argument(metavar="RECIPE.py", show_default=False, help="Python file that builds a lineside.Recipe.")
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Replace a setting, e.g. --set epochs=5; may be repeated."),
]
Weights = Annotated[
    Path | None,
    typer.Option("--weights", metavar="PATH", help="Checkpoint of a trainer, or its folder. Default: fresh weights."),
]
Plain = Annotated[bool, typer.Option("--plain", help="Write plain lines, as where there is no terminal.")]
JournalFolder = Annotated[
    Path,
    typer.Option(
        "--journal", metavar="FOLDER", help="Keep every event in this folder, to be read later or by `lineside serve`."
    ),
]
NoJournal = Annotated[bool, typer.Option("--no-journal", help="Keep no event.")]
RUNS = Path("runs")
LogFile = Annotated[
    Path | None, typer.Option("--log", metavar="FILE", help="Add every event to this file, as a line of JSON.")
]


def train(
    recipe: RecipeFile,
    settings: Settings = None,
    plain: Plain = False,
    log: LogFile = None,
    journal: JournalFolder = RUNS,
    no_journal: NoJournal = False,
) -> None:
    """Train the recipe's model."""
    from lineside.commands.recipes import load_recipe

    made = load_recipe(recipe)
    config = override(made.train, settings or ())
    with displayed(plain, log, None if no_journal else journal) as bus:
        result = made.trainer(bus=bus, config=config).run()
    leave(result)


def val(
    recipe: RecipeFile,
    settings: Settings = None,
    weights: Weights = None,
    plain: Plain = False,
    log: LogFile = None,
    journal: JournalFolder = RUNS,
    no_journal: NoJournal = False,
) -> None:
    """Validate the recipe's model."""
    from lineside.commands.recipes import load_recipe

    made = load_recipe(recipe)
    config = override(made.val, settings or ())
    with displayed(plain, log, None if no_journal else journal) as bus:
        result = made.validator(weights, bus=bus, config=config).run()
    leave(result)


def predict(
    recipe: RecipeFile,
    settings: Settings = None,
    weights: Weights = None,
    plain: Plain = False,
    log: LogFile = None,
    journal: JournalFolder = RUNS,
    no_journal: NoJournal = False,
) -> None:
    """Predict the recipe's data and show each result."""
    from lineside.commands.recipes import load_recipe

    made = load_recipe(recipe)
    config = override(made.predict, settings or ())
    # Here the results are what is wanted, so none is dropped: the predictor waits for who shows them.
    with displayed(plain, log, None if no_journal else journal, wait=True) as bus:
        predictor = made.predictor(weights, bus=bus, config=config)
        result = predictor.run(made.source(), collect=False)
    leave(result)


def export(
    recipe: RecipeFile,
    paths: Annotated[
        list[Path] | None,
        typer.Argument(metavar="FILE", help="Files to write, .pt2 or .onnx. Default: the recipe's."),
    ] = None,
    settings: Settings = None,
    weights: Weights = None,
    plain: Plain = False,
    log: LogFile = None,
    journal: JournalFolder = RUNS,
    no_journal: NoJournal = False,
) -> None:
    """Export the recipe's model and verify the files."""
    from lineside.commands.recipes import load_recipe

    made = load_recipe(recipe)
    targets: list[Path | None] = [*paths] if paths else [None]
    configs = [override(made.export_to(target), settings or ()) for target in targets]
    with displayed(plain, log, None if no_journal else journal) as bus:
        for config in configs:
            leave(made.exporter(weights, bus=bus, config=config).run())


@contextmanager
def displayed(plain: bool, log: Path | None, journal: Path | None, *, wait: bool = False) -> Generator[Bus]:
    """Give a bus whose events are shown, written to `log` and kept in `journal`, by others than the runner's thread.

    Where the display falls far behind it leaves events out, or with `wait` the runner waits. In the end all that was
    published is waited for, however slowly it is read: a command ends when what it shows is out, unless interrupted.
    """
    from lineside.bus import Overflow
    from lineside.bus.subscribers import Progress

    overflow = Overflow.WAIT if wait else Overflow.DROP
    with opened(log, journal) as bus:
        bus.subscribe(Progress(plain=plain), lane="process", name="progress", overflow=overflow)
        try:
            yield bus
        except Exception:
            bus.drain()
            raise
        bus.drain()


def opened(log: Path | None, journal: Path | None) -> Bus:
    """Return a bus whose events are written to `log` and kept in `journal`."""
    from lineside.bus import Bus
    from lineside.bus.journal import JournalRefused
    from lineside.bus.subscribers import JsonLines

    try:
        bus = Bus(journal)
    except JournalRefused as error:
        raise typer.BadParameter(f"{error}; --journal names another folder, --no-journal keeps none") from None
    if log is not None:
        bus.subscribe(JsonLines(log), lane="process", name="log")
    return bus


def leave(result: RunResult) -> None:
    """End the command with the code that a signal asks for, if one stopped the run."""
    if result.signal is not None:
        raise typer.Exit(KILLED + result.signal)
