"""``lineside runs|events|replay|journal``: what a journal folder holds, while it is written or long after."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, cast

import typer

from lineside.commands.group import FAILED
from lineside.commands.runs import Plain, displayed

if TYPE_CHECKING:
    from lineside.bus import Source
    from lineside.bus.journal import Journal, RunSummary, Told
    from lineside.schemas import Event

T = TypeVar("T", int, timedelta)

FOLLOW_SECONDS = 0.1
"""Time between two looks at a run that is followed."""
LONGEST_VALUE = 60
"""Characters of a value in a line that is no JSON."""
ENVELOPE = frozenset({"type", "run", "attempt", "rank", "seq", "time", "elapsed"})

Folder = Annotated[Path, typer.Argument(metavar="[FOLDER]", help="Folder of the journal.", show_default=True)]
InFolder = Annotated[Path, typer.Option("--folder", metavar="FOLDER", help="Folder of the journal.")]
RunId = Annotated[str, typer.Argument(metavar="RUN", show_default=False, help="Id of the run; see `lineside runs`.")]
AsJson = Annotated[bool, typer.Option("--json", help="Write lines of JSON.")]

app = typer.Typer(help="Look after a journal: check, export, prune.", no_args_is_help=True)


# -- runs --------------------------------------------------------------------------------------------


def list_runs(folder: Folder = Path("runs"), as_json: AsJson = False) -> None:
    """List the runs in a journal, the newest first."""
    from lineside.bus.journal import Journal

    summaries = Journal(folder).runs()
    if as_json:
        for summary in summaries:
            typer.echo(summary.model_dump_json())
        return
    head = ("run", "kind", "state", "epoch", "fitness", "events", "seconds", "updated")
    rows = [_row(summary) for summary in summaries]
    if sys.stdout.isatty():
        _print_table(head, rows)
        return
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    for row in (head, *rows):
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _row(summary: RunSummary) -> tuple[str, ...]:
    of = f"/{summary.epochs}" if summary.epochs else ""
    return (
        summary.run,
        summary.kind or "-",
        summary.outcome if summary.outcome == "stopped" else summary.state,
        "-" if summary.epoch is None else f"{summary.epoch + 1}{of}",
        "-" if summary.fitness is None else f"{summary.fitness:.4g}",
        f"{summary.events:,}",
        "-" if summary.duration is None else f"{summary.duration:,.1f}",
        f"{summary.updated.astimezone():%Y-%m-%d %H:%M:%S}",
    )


_COLORS = {"running": "cyan", "stalled": "yellow", "failed": "red", "finished": "green"}


def _print_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*head, box=SIMPLE_HEAD)
    for row in rows:
        table.add_row(*(Text(cell, style=_COLORS.get(cell, "")) for cell in row))
    Console().print(table)


# -- events ------------------------------------------------------------------------------------------


def events(
    run: RunId,
    folder: InFolder = Path("runs"),
    types: Annotated[
        list[str] | None,
        typer.Option("--type", metavar="TYPE", help="Only events of this type or family; may be repeated."),
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", help="Go on with what comes, until the run is over.")] = False,
    as_json: AsJson = False,
) -> None:
    """Print the events of a run."""
    from lineside.bus.journal import Journal

    journal = Journal(folder)
    journal.run(run)
    for told in _told(journal, run, _names(journal, types), follow):
        if as_json:
            sys.stdout.buffer.write(told.body + b"\n")
        else:
            typer.echo(_line(told))
        if follow:
            sys.stdout.flush()


def _told(journal: Journal, run: str, names: set[str] | None, follow: bool) -> Iterator[Told]:
    from lineside.bus.journal import Tail

    over = not follow
    with Tail(journal.path, run=run, names=names) as tail:
        while True:
            found = tail.read()
            yield from found
            if found:
                continue
            for gap in tail.gaps():
                typer.echo(f"{gap.file}: nothing can be told of {gap.first} to {gap.last}", err=True)
            if over:
                return
            over = journal.run(run).state in ("finished", "failed")  # then what came meanwhile is the last
            if not over:
                time.sleep(FOLLOW_SECONDS)


def _names(journal: Journal, types: Sequence[str] | None) -> set[str] | None:
    """Return the names on the wire that `types` mean; a type of which only the journal knows has its own.

    Raises:
        UnknownEventName: nobody knows one of them.
    """
    from lineside.schemas import UnknownEventName, find_event, wire_name
    from lineside.schemas import events as members

    if not types:
        return None
    names: set[str] = set()
    there = journal.types()
    for name in types:
        try:
            names.update(map(wire_name, members(find_event(name))))
        except UnknownEventName:
            if name not in there:
                raise
            names.add(name)
    return names


def _line(told: Told) -> str:
    from pydantic_core import from_json

    fields = cast("dict[str, Any]", from_json(told.body))
    when = datetime.fromisoformat(fields["time"]).astimezone()
    rank = f" rank {told.origin.rank}" if told.origin.rank else ""
    values = " ".join(f"{name}={_shown(value)}" for name, value in fields.items() if name not in ENVELOPE)
    return f"{when:%H:%M:%S}.{when.microsecond // 1000:03} {told.seq:>6}{rank} {told.name} {values}".rstrip()


def _shown(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, dict):
        items = cast("dict[str, object]", value).items()
        return _cut("{" + ", ".join(f"{key}: {_shown(item)}" for key, item in items) + "}")
    return _cut(str(value))


def _cut(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= LONGEST_VALUE else line[: LONGEST_VALUE - 1] + "…"


# -- replay ------------------------------------------------------------------------------------------


def replay(
    run: RunId,
    speed: Annotated[float, typer.Option(help="How many times as fast as it was.")] = 1.0,
    folder: InFolder = Path("runs"),
    plain: Plain = False,
) -> None:
    """Show a run again as if it were live."""
    from lineside.bus.journal import Journal
    from lineside.bus.journal import replay as feed

    with displayed(plain, None, None, wait=True) as bus:
        sources: dict[tuple[str, int, int], Source] = {}

        def publish(event: Event) -> None:
            signer = event.run, event.attempt, event.rank
            if signer not in sources:
                sources[signer] = bus.source(event.run, attempt=event.attempt, rank=event.rank)
            sources[signer].publish(event)

        feed(Journal(folder), run, publish, speed)


# -- journal -----------------------------------------------------------------------------------------


@app.command()
def check(folder: Folder = Path("runs")) -> None:
    """Read everything and say what is damaged. Ends with 1 if something is."""
    from lineside.bus.journal import Journal

    damaged = False
    for found in Journal(folder).check():
        if found.problem:
            said = found.problem
        else:
            said = ", ".join(
                [
                    f"{found.events:,} events",
                    *(f"{_places(found.gaps)} never written" for _ in found.gaps[:1]),
                    *(f"{_places(found.holes)} lost to damage" for _ in found.holes[:1]),
                ]
            )
        damaged = damaged or bool(found.problem or found.holes)
        typer.echo(f"{found.path.name}: {said}")
    if damaged:
        raise typer.Exit(FAILED)


def _places(spans: Sequence[tuple[int, int]]) -> str:
    shown = [str(first) if first == last else f"{first} to {last}" for first, last in spans]
    more = f" and {len(shown) - 5} more" if len(shown) > 5 else ""
    return ", ".join(shown[:5]) + more


@app.command()
def export(
    folder: Folder = Path("runs"),
    run: Annotated[str | None, typer.Option("--run", metavar="RUN", help="Only the events of this run.")] = None,
    target: Annotated[str, typer.Option("--output", "-o", metavar="FILE|-", help="File to write; - prints.")] = "-",
) -> None:
    """Write events as lines of JSON."""
    from lineside.bus.journal import Journal

    journal = Journal(folder)
    if run is not None:
        journal.run(run)
    if target == "-":
        _, gaps = journal.export(sys.stdout.buffer, run=run)
    else:
        try:
            with Path(target).open("wb") as file:
                count, gaps = journal.export(file, run=run)
        except OSError as error:
            typer.echo(f"error: cannot write {target}: {error.strerror or error}", err=True)
            raise typer.Exit(FAILED) from None
        typer.echo(f"{count:,} events in {target}")
    for gap in gaps:
        typer.echo(f"{gap.file}: nothing can be told of {gap.first} to {gap.last}", err=True)


@app.command()
def prune(
    folder: Folder = Path("runs"),
    max_age: Annotated[
        str | None, typer.Option("--max-age", metavar="AGE", help="Remove what is older, e.g. 90m, 12h, 30d.")
    ] = None,
    max_size: Annotated[
        str | None, typer.Option("--max-size", metavar="SIZE", help="Keep so much together, e.g. 500MB, 10GB.")
    ] = None,
    max_runs: Annotated[int | None, typer.Option("--max-runs", help="Keep so many runs.")] = None,
    max_unread: Annotated[
        str,
        typer.Option("--max-unread", metavar="AGE", help="Keep up to this age what a durable subscription has left."),
    ] = "7d",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False,
) -> None:
    """Remove the oldest runs, and never one that is being written."""
    from lineside.bus.journal import Journal

    if max_age is None and max_size is None and max_runs is None:
        raise typer.BadParameter("expected a limit: --max-age, --max-size or --max-runs")
    age = None if max_age is None else _quantity("--max-age", max_age, _AGES)
    size = None if max_size is None else _quantity("--max-size", max_size, _SIZES)
    unread = _quantity("--max-unread", max_unread, _AGES)
    chosen = Journal(folder).prune(age, size, max_runs, max_unread=unread, dry_run=dry_run)
    for path in chosen:
        typer.echo(path)
    typer.echo(f"{len(chosen)} files {'would be' if dry_run else 'were'} removed", err=True)


_AGES = {
    "s": timedelta(seconds=1),
    "m": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
    "w": timedelta(weeks=1),
}
_SIZES = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


def _quantity(option: str, text: str, units: dict[str, T]) -> T:
    match = re.fullmatch(r"(\d+)\s*([A-Za-z]+)", text.strip())
    if match is None or match[2] not in units:
        raise typer.BadParameter(
            f"expected a whole number and one of {', '.join(units)}, got {text!r}", param_hint=option
        )
    return int(match[1]) * units[match[2]]
