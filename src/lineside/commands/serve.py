"""``lineside serve``: a journal folder over HTTP, with the dashboard."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lineside.commands.group import FAILED
from lineside.commands.listening import AllowHost, Host, NoToken, Port, listen, names
from lineside.extras import needed_for


def serve(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="The folder that Bus('...') was given.")] = Path(
        "runs"
    ),
    host: Host = "127.0.0.1",
    port: Port = 8642,
    no_token: NoToken = False,
    allow_host: AllowHost = None,
) -> None:
    """Show the runs of a journal folder in a browser, live, and give their events to programs."""
    with needed_for("lineside serve"):
        from lineside.bus.service import Server, service, user_token
    if not folder.is_dir():
        typer.echo(f"error: there is no folder {folder}; name the one that Bus('...') was given", err=True)
        raise typer.Exit(FAILED)
    token = None if no_token else user_token()
    server = Server(service(folder, token=token, hosts=names(host, allow_host)), host, port)
    listening, address = listen(server)
    typer.echo(f"{folder} is shown at {address}/{'' if token is None else f'?token={token}'}\nCtrl-C ends it.")
    server.run([listening])
