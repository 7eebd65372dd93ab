"""``lineside predict serve RECIPE.py``: predictions for clients, over HTTP and WebSockets."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lineside.commands.group import FAILED, KILLED
from lineside.commands.listening import AllowHost, Host, NoToken, Port, listen, names
from lineside.commands.overrides import limited, override
from lineside.commands.runs import RUNS, JournalFolder, LogFile, NoJournal, RecipeFile, Settings, Weights, opened
from lineside.extras import needed_for
from lineside.schemas import LinesideError

if TYPE_CHECKING:
    from lineside.bus import Bus
    from lineside.runners import PredictConfig, Predictor, Recipe
    from lineside.runners.serving import PredictionServer

Limits = Annotated[
    list[str] | None,
    typer.Option(
        "--limit", metavar="KEY=VALUE", help="Replace a limit, e.g. --limit body=67108864; GET / tells them all."
    ),
]


def predict_serve(
    recipe: RecipeFile,
    settings: Settings = None,
    limits: Limits = None,
    weights: Weights = None,
    log: LogFile = None,
    journal: JournalFolder = RUNS,
    no_journal: NoJournal = False,
    host: Host = "127.0.0.1",
    port: Port = 8643,
    no_token: NoToken = False,
    allow_host: AllowHost = None,
) -> None:
    """Compute what clients send to the recipe's model, over HTTP and WebSockets."""
    from lineside.commands.recipes import load_recipe

    with needed_for("lineside predict serve"):
        from lineside.bus.service import user_token
        from lineside.runners.serving import PredictionApp, PredictionLimits, PredictionServer, PredictionService
    made = load_recipe(recipe)
    config = override(made.predict, settings or ())
    limited_to = limited(PredictionLimits(), limits or ())
    token = None if no_token else user_token()
    with opened(log, None if no_journal else journal) as bus:
        predictor = _predictor(made, recipe, weights, bus, config)
        service = PredictionService(predictor, decode=made.decode, limits=limited_to)
        server = PredictionServer(PredictionApp(service, token=token, hosts=names(host, allow_host)), host, port)
        _serve(server, recipe, token)
    if service.error is not None:
        typer.echo(f"error: the run has failed: {type(service.error).__name__}: {service.error}", err=True)
        raise typer.Exit(FAILED)
    if server.signal is not None:
        raise typer.Exit(KILLED + server.signal)


def _predictor(made: Recipe, recipe: Path, weights: Path | None, bus: Bus, config: PredictConfig) -> Predictor[Any]:
    """Return the predictor of a recipe.

    Raises:
        RecipeUnreadable: what makes its model raises.
    """
    from lineside.commands.recipes import RecipeUnreadable

    try:
        return made.predictor(weights, bus=bus, config=config)
    except LinesideError:
        raise
    except Exception as error:
        raise RecipeUnreadable(recipe, error) from error


def _serve(server: PredictionServer, recipe: Path, token: str | None) -> None:
    # Whoever sends a broken form is told so. Its parser tells the terminal too, which anybody could fill with that.
    logging.getLogger("python_multipart").setLevel(logging.ERROR)
    listening, address = listen(server)
    page = f"{address}/docs{'' if token is None else f'?token={token}'}"
    server.on_begin = lambda: typer.echo(
        f"{recipe} computes what is sent to {address}/predict; {page} says how.\n"
        + ("" if token is None else f"Send it with the header 'Authorization: Bearer {token}'.\n")
        + "Ctrl-C ends it."
    )
    server.run([listening])
