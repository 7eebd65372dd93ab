"""``lineside predict serve RECIPE.py``: predictions for clients, over HTTP and WebSockets."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lineside.commands.group import FAILED, KILLED
from lineside.commands.overrides import override
from lineside.commands.runs import RUNS, JournalFolder, LogFile, NoJournal, RecipeFile, Settings, Weights
from lineside.extras import needed_for

if TYPE_CHECKING:
    from lineside.bus import Bus
    from lineside.runners.serving import PredictionServer

_EVERYWHERE = frozenset({"0.0.0.0", "::"})


def predict_serve(
    recipe: RecipeFile,
    settings: Settings = None,
    weights: Weights = None,
    log: LogFile = None,
    journal: JournalFolder = RUNS,
    no_journal: NoJournal = False,
    host: Annotated[
        str, typer.Option(help="Address to listen at; others than this machine's own are let in by it.")
    ] = ("127.0.0.1"),
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen at; 0: any that is free.")] = 8643,
    no_token: Annotated[bool, typer.Option("--no-token", help="Let in everybody who reaches it.")] = False,
    allow_host: Annotated[
        list[str] | None,
        typer.Option("--allow-host", metavar="NAME", help="Another name that it is reached by; may be repeated."),
    ] = None,
) -> None:
    """Compute what clients send to the recipe's model, over HTTP and WebSockets."""
    from lineside.commands.recipes import load_recipe

    with needed_for("lineside predict serve"):
        from lineside.bus.service import user_token
        from lineside.runners.serving import PredictionApp, PredictionServer, PredictionService
    made = load_recipe(recipe)
    config = override(made.predict, settings or ())
    token = None if no_token else user_token()
    names = {*(allow_host or ()), *({socket.gethostname(), socket.getfqdn()} if host in _EVERYWHERE else {host})}
    with _opened(log, None if no_journal else journal) as bus:
        service = PredictionService(made.predictor(weights, bus=bus, config=config), decode=made.decode)
        server = PredictionServer(PredictionApp(service, token=token, hosts=names), host, port)
        _serve(server, recipe, token)
    if service.error is not None:
        typer.echo(f"error: the run has failed: {type(service.error).__name__}: {service.error}", err=True)
        raise typer.Exit(FAILED)
    if server.signal is not None:
        raise typer.Exit(KILLED + server.signal)


def _serve(server: PredictionServer, recipe: Path, token: str | None) -> None:
    host, port = server.config.host, server.config.port
    try:
        listening = server.bind()
    except OSError as error:
        typer.echo(f"error: cannot listen at {host}:{port}: {error.strerror or error}; try --port 0", err=True)
        raise typer.Exit(FAILED) from None
    shown = "127.0.0.1" if host in _EVERYWHERE else f"[{host}]" if ":" in host else host
    address = f"http://{shown}:{listening.getsockname()[1]}"
    server.on_begin = lambda: typer.echo(
        f"{recipe} computes what is sent to {address}/predict; {address}/docs says how.\n"
        + ("" if token is None else f"Send it with the header 'Authorization: Bearer {token}'.\n")
        + "Ctrl-C ends it."
    )
    server.run([listening])


def _opened(log: Path | None, journal: Path | None) -> Bus:
    """Return a bus whose events are kept in `journal` and written to `log`."""
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
