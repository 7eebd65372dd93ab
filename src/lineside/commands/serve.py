"""``lineside serve``: a journal folder over HTTP, with the dashboard."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Annotated

import typer

from lineside.commands.group import FAILED
from lineside.extras import needed_for

_EVERYWHERE = frozenset({"0.0.0.0", "::"})


def serve(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="The folder that Bus('...') was given.")] = Path(
        "runs"
    ),
    host: Annotated[
        str, typer.Option(help="Address to listen at; others than this machine's own are let in by it.")
    ] = ("127.0.0.1"),
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen at; 0: any that is free.")] = 8642,
    no_token: Annotated[bool, typer.Option("--no-token", help="Let in everybody who reaches it.")] = False,
    allow_host: Annotated[
        list[str] | None,
        typer.Option("--allow-host", metavar="NAME", help="Another name that it is reached by; may be repeated."),
    ] = None,
) -> None:
    """Show the runs of a journal folder in a browser, live, and give their events to programs."""
    with needed_for("lineside serve"):
        from lineside.bus.service import Server, service, user_token
    if not folder.is_dir():
        typer.echo(f"error: there is no folder {folder}; name the one that Bus('...') was given", err=True)
        raise typer.Exit(FAILED)
    token = None if no_token else user_token()
    names = {*(allow_host or ()), *({socket.gethostname(), socket.getfqdn()} if host in _EVERYWHERE else {host})}
    server = Server(service(folder, token=token, hosts=names), host, port)
    try:
        listening = server.bind()
    except OSError as error:
        typer.echo(f"error: cannot listen at {host}:{port}: {error.strerror or error}; try --port 0", err=True)
        raise typer.Exit(FAILED) from None
    shown = "127.0.0.1" if host in _EVERYWHERE else f"[{host}]" if ":" in host else host
    address = f"http://{shown}:{listening.getsockname()[1]}/"
    typer.echo(f"{folder} is shown at {address}{'' if token is None else f'?token={token}'}\nCtrl-C ends it.")
    server.run([listening])
