"""The server of a prediction service: it lets requests be finished before it ends."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Callable
from types import FrameType
from typing import ClassVar

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from ...bus.service.server import Served, Server, Talk, hung_up
from .app import PredictionApp

LOOK_SECONDS = 1.0
"""Time between two looks at whether a client is still there that is not read from."""


class Dialogue(Talk):
    """A WebSocket on which what is said is listened to, a message at a time."""

    _look: asyncio.TimerHandle | None = None

    def send_receive_event_to_app(self) -> None:
        """Hand a message to the app, and read no further before it asks for the next."""
        WebSocketsSansIOProtocol.send_receive_event_to_app(self)
        if self._look is None:
            self._look_later()

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        if self._look is not None:
            self._look.cancel()
        super().connection_lost(exc)

    def _look_later(self) -> None:
        self._look = self.loop.call_later(LOOK_SECONDS, self._look_at_client)

    def _look_at_client(self) -> None:
        self._look = None
        if self.read_paused and not self.transport.is_closing():
            if hung_up(self.transport):
                self._cut()
            else:
                self._look_later()


class PredictionServer(Server):
    """Serves a prediction service by itself: begins it, and ends it on SIGINT and SIGTERM, or when its run has failed.

    At the end new requests are answered with 503, and those that are open have ``limits.grace`` seconds to be finished.

    Args:
        app: What to serve.
        host: Name or address to listen at.
        port: Port to listen at; 0: any.
    """

    talk: ClassVar[type[asyncio.Protocol]] = Dialogue

    def __init__(self, app: PredictionApp, host: str = "127.0.0.1", port: int = 8643) -> None:
        super().__init__(app, host, port)
        self.config.lifespan = "off"  # what the service cannot begin with is raised, rather than logged
        self.service = app.service
        self.on_begin: Callable[[], object] = _nothing
        """Called once the service takes requests."""
        self.signal: int | None = None
        """The signal that ended it, if one did."""
        self._loop: asyncio.AbstractEventLoop | None = None

    def longest_message(self, app: Served) -> int:
        """Return how many bytes a message over a WebSocket may have."""
        assert isinstance(app, PredictionApp)
        return app.service.limits.message

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until a signal comes, `should_exit` is set or the run fails.

        Raises:
            Exception: what the run ended with before it took any input.
        """
        self.service.on_failure = self._leave
        self._loop = asyncio.get_running_loop()
        async with self.service:
            await super().serve(sockets)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen."""
        await super().startup(sockets)
        self.on_begin()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End everything: requests first, while those who come meanwhile are told to try again."""
        self.service.close()
        await self.service.emptied()
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Take a signal. The command ends by it once everything is closed, not Uvicorn in the middle of that."""
        if self.should_exit and sig == signal.SIGINT:
            self.force_exit = True
            if self._loop is not None:
                self._loop.call_soon_threadsafe(self.service.hurry)
        self.signal, self.should_exit = sig, True

    def _leave(self) -> None:
        self.should_exit = True


def _nothing() -> None: ...
