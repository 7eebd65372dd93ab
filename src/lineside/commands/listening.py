"""Where the services of the command line listen, and who is let in: what their commands have in common."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Annotated

import typer

from lineside.commands.group import FAILED

if TYPE_CHECKING:
    from lineside.bus.service import Server

_EVERYWHERE = frozenset({"0.0.0.0", "::"})

Host = Annotated[str, typer.Option(help="Address to listen at; others than this machine's own are let in by it.")]
Port = Annotated[int, typer.Option(min=0, max=65535, help="Port to listen at; 0: any that is free.")]
NoToken = Annotated[bool, typer.Option("--no-token", help="Let in everybody who reaches it.")]
AllowHost = Annotated[
    list[str] | None,
    typer.Option("--allow-host", metavar="NAME", help="Another name that it is reached by; may be repeated."),
]


def names(host: str, allowed: AllowHost) -> set[str]:
    """Return the names that a service which listens at `host` answers to."""
    return {*(allowed or ()), *({socket.gethostname(), socket.getfqdn()} if host in _EVERYWHERE else {host})}


def listen(server: Server) -> tuple[socket.socket, str]:
    """Return the socket that `server` listens at, and the address for a browser, without a slash at its end.

    Raises:
        Exit: it cannot listen there; that was said.
    """
    host, port = server.config.host, server.config.port
    try:
        listening = server.bind()
    except OSError as error:
        typer.echo(f"error: cannot listen at {host}:{port}: {error.strerror or error}; try --port 0", err=True)
        raise typer.Exit(FAILED) from None
    shown = "127.0.0.1" if host in _EVERYWHERE else f"[{host}]" if ":" in host else host
    return listening, f"http://{shown}:{listening.getsockname()[1]}"
