"""The server: Uvicorn, which says goodbye to open streams before it waits for them."""

from __future__ import annotations

import socket

import uvicorn

from .app import Service

SEND_BUFFER = 128 << 10
"""Bytes that the system keeps for a connection whose client does not read."""
EXIT_SECONDS = 1


class Server(uvicorn.Server):
    """Serves one app.

    Args:
        app: What to serve.
        host: Name or address to listen at.
        port: Port to listen at; 0: any.
    """

    def __init__(self, app: Service, host: str = "127.0.0.1", port: int = 8642) -> None:
        config = uvicorn.Config(
            app,
            host=host,
            port=port,
            log_level="warning",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            ws_max_size=app.hub.limits.body,
            ws_per_message_deflate=False,
            timeout_graceful_shutdown=EXIT_SECONDS,
        )
        super().__init__(config)
        self._app = app

    def bind(self) -> socket.socket:
        """Return the socket to listen with: `serve` and `run` take it. It may be asked for its port.

        Raises:
            OSError: the address is taken, or none of this machine.
        """
        family, kind, protocol, _, address = socket.getaddrinfo(
            self.config.host, self.config.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.socket(family, kind, protocol)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)  # of each connection
            listening.bind(address)
        except BaseException:
            listening.close()
            raise
        return listening

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End everything: streams first, or they would be waited for."""
        hub = self._app.hub
        hub.close()
        await hub.emptied()
        await super().shutdown(sockets)
