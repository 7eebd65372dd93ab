"""The server of a prediction service: it lets requests be finished before it ends."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections import deque
from collections.abc import Callable
from contextlib import aclosing
from types import FrameType
from typing import ClassVar, cast

from websockets.frames import CloseCode, Frame
from websockets.http11 import Request

from ...bus.service.server import Lookout, Served, Server, Talk
from .app import PredictionApp
from .errors import NotServing
from .sockets import TAKEN

FRAME_BYTES = 64
"""What a frame takes beside what is in it."""
FRAMES = 16_384
"""Frames that a message may come in: pieces of half a KiB, of the longest that is taken by default."""


class Dialogue(Talk):
    """A WebSocket on which what is said is listened to, a message at a time.

    What the client said and the app has not taken is counted, for all clients together.
    """

    _late: asyncio.TimerHandle | None = None
    _frames = 0
    """Bytes of the frames of a message of which more are to come."""
    _counted = 0
    """Bytes that the queue was told of."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        super().connection_made(transport)
        app = cast(PredictionApp, self.config.app)
        self._queue, self._limits = app.service.queue, app.service.limits
        self._messages: deque[int] = deque()
        self._lookout = Lookout(self.transport, self._cut)

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        self._message_came()
        self._lookout.end()
        self._queue.unread -= self._counted
        self._counted = 0
        super().connection_lost(exc)

    def handle_connect(self, event: Request) -> None:
        """Have the app say when it has taken a message."""
        super().handle_connect(event)
        if not self.close_sent:
            self.scope[TAKEN] = self._taken  # type: ignore[literal-required]

    def data_received(self, data: bytes) -> None:
        """Read on, as long as there is room for it and a message is not too long on its way."""
        super().data_received(data)
        if self.transport.is_closing():
            return
        self._count()
        others = self._queue.unread - self._counted  # what comes alone may be larger than all the room
        if others and self._queue.unread > self._limits.memory:
            self._refuse(CloseCode.TRY_AGAIN_LATER, "the service is overloaded: too much waits to be read")
        elif len(self.frames) > FRAMES:
            self._refuse(CloseCode.MESSAGE_TOO_BIG, f"the message is too long; at most {FRAMES} frames are taken")
        elif not self._frames and not self.conn.reader.buffer:
            self._message_came()
        elif self._late is None:
            self._await_message()

    def handle_text(self, event: Frame) -> None:
        """Take the first frame of a message."""
        self._frames = FRAME_BYTES + len(event.data)
        super().handle_text(event)

    def handle_bytes(self, event: Frame) -> None:
        """Take the first frame of a message."""
        self._frames = FRAME_BYTES + len(event.data)
        super().handle_bytes(event)

    def handle_cont(self, event: Frame) -> None:
        """Take a further frame of a message."""
        self._frames += FRAME_BYTES + len(event.data)
        super().handle_cont(event)

    def send_receive_event_to_app(self) -> None:
        """Hand a message to the app, and read no further before it asks for the next."""
        self._message_came()
        if self.transport.is_closing():
            return
        if not self.close_sent:
            if self.curr_msg_data_type == "text" and not self._is_text():
                self._refuse(CloseCode.INVALID_DATA, "the message is no valid text; send UTF-8, or a binary message")
                return
            self._messages.append(self._frames)
        self._frames = 0
        super().send_receive_event_to_app()
        self._lookout.begin()

    def _is_text(self) -> bool:
        """Return whether a message is valid text; over one that is not, Uvicorn logs an error."""
        message = b"".join(self.frames)
        self.frames = [message]
        try:
            message.decode()
        except UnicodeDecodeError:
            return False
        return True

    def _taken(self) -> None:
        """Count a message no longer."""
        if self._messages and self._counted:
            self._messages.popleft()
            self._count()

    def _count(self) -> None:
        unread = len(self.conn.reader.buffer) + self._frames + sum(self._messages)
        self._queue.unread += unread - self._counted
        self._counted = unread

    def _await_message(self) -> None:
        self._late = self.loop.call_later(self._limits.request, self._time_is_up)

    def _message_came(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _time_is_up(self) -> None:
        if self.read_paused:  # it is we who do not read on
            self._await_message()
        elif not self.transport.is_closing():
            self._refuse(CloseCode.POLICY_VIOLATION, f"at most {self._limits.request:g} s are waited for a message")

    def _refuse(self, code: CloseCode, why: str) -> None:
        """Close the connection, and say why."""
        self.conn.fail(code, why)
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.transport.close()
        self._gone()


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
        return cast(PredictionApp, app).service.limits.message

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until a signal comes, `should_exit` is set or the run fails.

        Raises:
            Exception: what the run ended with before it took any input.
        """
        self.service.on_failure = self._leave
        self._loop = asyncio.get_running_loop()
        with self.capture_signals():  # Uvicorn would begin to only now that the run has begun
            try:
                await self.service.__aenter__()
            except NotServing:
                if self.signal is None:
                    raise
                return
            async with aclosing(self.service):
                await super().serve(sockets)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen."""
        await super().startup(sockets)
        if not self.should_exit:
            self.on_begin()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End everything: requests first, while those who come meanwhile are told to try again."""
        self.service.close()
        await self.service.emptied()
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Take a signal. The command ends by it once everything is closed, not Uvicorn in the middle of that."""
        again = self.should_exit and sig == signal.SIGINT
        self.force_exit = self.force_exit or again
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self.service.hurry if again else self.service.close)
        self.signal, self.should_exit = sig, True

    def _leave(self) -> None:
        self.should_exit = True


def _nothing() -> None: ...
