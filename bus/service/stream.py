"""Streams: what follows a feed on behalf of one client, as Server-Sent Events or over a WebSocket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, suppress

import anyio
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from .errors import Crowded
from .feed import Hub
from .frames import Batch, Choice, Form, message

SLOW_SECONDS = 0.2
"""Time after which nothing is read ahead for a client that has not taken what it was sent."""
TRANSPORT = "lineside.transport"
"""Key of the connection in an ASGI scope."""
GONE = "lineside.gone"
"""Key, in the ASGI scope of a WebSocket, of the event that tells of its end, also to an app that does not receive."""


class Stream:
    """What one client follows.

    Args:
        hub: Where the feeds are.
        batches: Begins what to send. Not before `run`: a client may be gone until then, and nobody would end it.
        choice: What of it.
        form: In which form.
    """

    def __init__(self, hub: Hub, batches: Callable[[], AsyncGenerator[Batch]], choice: Choice, form: Form) -> None:
        self._hub = hub
        self._batches = batches
        self._choice = choice
        self._form = form

    async def run(
        self,
        scope: Scope,
        receive: Receive,
        begin: Callable[[], Awaitable[None]],
        send: Callable[[bytes], Awaitable[None]],
    ) -> bool:
        """Send until it is over, or the client is gone; return whether it is still there.

        Before it has a place to go on from, it does not `begin`: whoever then asks for the past, of which it sends
        nothing, finds all that it will not send.

        A client that does not read for too long is let go: what was written to it must not stay in memory.

        Raises:
            Crowded: it is over before it has begun.
        """
        limits, clock = self._hub.limits, asyncio.get_running_loop()
        begun = here = False
        async with aclosing(self._batches()) as batches, anyio.create_task_group() as group:

            def cut() -> None:
                if not abort(scope):  # else it is told like any other end
                    group.cancel_scope.cancel()

            group.start_soon(until_gone, receive, group.cancel_scope)
            with self._hub.opened(cut):
                try:
                    async for batch in batches:
                        if not begun:
                            begun = True
                            async with asyncio.timeout(limits.stalled):
                                await begin()
                        ahead = batch.release and clock.call_later(SLOW_SECONDS, batch.release)
                        for piece in batch.pieces(self._form, self._choice, limits.piece):
                            async with asyncio.timeout(limits.stalled):
                                await send(piece)
                        if ahead:
                            ahead.cancel()
                    here = True
                    group.cancel_scope.cancel()
                except TimeoutError:
                    cut()
                except WebSocketDisconnect:  # it is gone, and `receive` has not said so yet
                    group.cancel_scope.cancel()
        if here and not begun:
            raise Crowded("the service shuts down, or cannot read its journal")
        return here


class EventStream(Response):
    """A stream as the answer to a request: ``text/event-stream``."""

    media_type = "text/event-stream"

    def __init__(self, stream: Stream) -> None:
        super().__init__(headers={"cache-control": "no-store", "x-accel-buffering": "no"})
        del self.headers["content-length"]
        self._stream = stream

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""
        begun = False

        async def begin() -> None:
            nonlocal begun
            begun = True
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})

        async def forward(piece: bytes) -> None:
            await send({"type": "http.response.body", "body": piece, "more_body": True})

        if scope["method"] == "HEAD":
            await begin()
        elif not await self._stream.run(scope, receive, begin, forward):
            if not begun:
                await nobody()(scope, receive, send)
            return
        await send({"type": "http.response.body", "body": b""})


async def converse(stream: Stream, socket: WebSocket) -> None:
    """Send a stream over a WebSocket, a message for each event; what the client says is not listened to."""

    async def begin() -> None:
        try:
            await socket.accept()
        except OSError as error:  # the server's word; of what is sent later, Starlette translates it
            raise WebSocketDisconnect(1006) from error

    async def forward(piece: bytes) -> None:
        await socket.send_text(piece.decode())

    with suppress(WebSocketDisconnect):  # it is gone: there is nobody to tell
        await socket.receive()  # that it connects, which `accept` would wait for beside us
        if await stream.run(socket.scope, socket.receive, begin, forward):
            await socket.close(1001)


MESSAGES = Form(message, joined=False)


async def until_gone(receive: Receive, scope: anyio.CancelScope) -> None:
    """Cancel `scope` once the client is gone; whatever else it says is not listened to."""
    heard: Message = {"type": ""}
    with suppress(HTTPException):  # the guard: it says too much
        while heard["type"] not in ("http.disconnect", "websocket.disconnect"):
            heard = await receive()
    scope.cancel()


def nobody() -> Response:
    """Return an answer for a client that is gone: nothing reaches it, but what is in between waits for an answer."""
    return Response(status_code=499)


def abort(scope: Scope) -> bool:
    """Cut the connection, with what waits to be sent; return whether the server is one that lets us."""
    cut = getattr(scope.get(TRANSPORT), "abort", None)
    if cut is not None:
        cut()
    return cut is not None
