"""A WebSocket: inputs come in, one by one, and results go out, in the same order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import nullcontext, suppress

import anyio
from starlette.types import Message
from starlette.websockets import WebSocket, WebSocketDisconnect

from ...bus.service.stream import GONE, abort
from ...schemas import RequestOutcome
from .answers import counted
from .errors import RequestTooLarge, ServingError
from .forms import end_json
from .request import Given, PredictionRequest
from .service import PredictionService

GOING_AWAY = 1001
NORMAL = 1000
TAKEN = "lineside.taken"
"""Key, in the ASGI scope, of what is called when the app has taken a message."""


class Conversation:
    """One WebSocket, from when it was accepted to its end.

    It is not read from while `in_flight` of its inputs are not answered, so a client that goes on sending waits.
    """

    def __init__(self, service: PredictionService, request: PredictionRequest, socket: WebSocket) -> None:
        self._service = service
        self._request = request
        self._socket = socket
        self._said: asyncio.Queue[Message] = asyncio.Queue(1)
        self._taken: Callable[[], object] | None = socket.scope.get(TAKEN)  # other servers have none

    async def run(self) -> None:
        """Talk until the client says that it has no more, or goes away."""
        outcome: RequestOutcome = "cancelled"
        reason: str | None = None
        try:
            async with anyio.create_task_group() as group:
                self._request.cut = group.cancel_scope.cancel
                group.start_soon(self._listen, group.cancel_scope)
                group.start_soon(self._notice, group.cancel_scope)
                group.start_soon(self._take_in)
                try:
                    await self._tell()
                    outcome = "completed"
                except ServingError as error:
                    outcome, reason = "failed", str(error)
                except WebSocketDisconnect:  # it is gone, and `receive` has not said so yet
                    pass
                except TimeoutError:
                    abort(self._socket.scope)
                group.cancel_scope.cancel()
            if outcome != "cancelled":
                await self._say_goodbye(outcome, reason)
        finally:
            self._service.finish(self._request, outcome, reason)

    async def _listen(self, scope: anyio.CancelScope) -> None:
        """Read a message ahead, so that a client that leaves is noticed while its inputs wait for room."""
        while (message := await self._socket.receive())["type"] != "websocket.disconnect":
            self._request.heard()
            await self._said.put(message)
        scope.cancel()

    async def _notice(self, scope: anyio.CancelScope) -> None:
        """Wait for the end of the connection, of which `receive` tells after all that was said before."""
        gone: asyncio.Event | None = self._socket.scope.get(GONE)  # other servers have none
        if gone is not None:
            await gone.wait()
            scope.cancel()

    async def _take_in(self) -> None:
        """Take inputs as long as there is room for them."""
        queue, most = self._service.queue, self._service.limits.in_flight
        while True:
            while self._request.unsent >= most:
                await queue.change()
            if not await self._add(await self._said.get()):
                self._request.complete()
                return
            self._request.understood()

    async def _add(self, message: Message) -> bool:
        """Add the inputs in a message; return whether more may come."""
        queue, request = self._service.queue, self._request
        binary = message.get("bytes")
        said: bytes | str = message.get("text", "") if binary is None else binary
        # Of other messages nobody knows before how large they become.
        async with nullcontext() if self._service.bodies.stays_small(said) else queue.decoding:
            given = await self._understood(said)
            if given is None:
                return False
            if given:
                await queue.take_memory(request, sum(one.size for one in given))
        if self._taken is not None:
            self._taken()
        given.reverse()
        while given:  # none of them is kept longer than it takes
            await queue.add_when_there_is_room(request, given.pop(), self._service.limits.in_flight)
        return True

    async def _understood(self, message: bytes | str) -> list[Given] | None:
        """Return the inputs in a message; one that holds none is answered by its error, in its turn."""
        limits = self._service.limits
        try:
            if len(message) > limits.message:
                raise RequestTooLarge("the message is too long", f"{limits.message} bytes")
            return await self._service.bodies.message(message)
        except ServingError as error:
            self._service.queue.fail(self._request, None, str(error))
            return []

    async def _tell(self) -> None:
        """Send results until there are no more to come."""
        request = self._request
        while answers := await request.more():
            for frame in counted(request, answers):
                await self._say(frame)
            self._service.queue.sent(request, len(answers))

    async def _say(self, frame: bytes) -> None:
        async with asyncio.timeout(self._service.limits.stalled):
            await self._socket.send_text(frame.decode())

    async def _say_goodbye(self, outcome: RequestOutcome, reason: str | None) -> None:
        request = self._request
        with suppress(WebSocketDisconnect, TimeoutError):  # it is gone: there is nobody to tell
            await self._say(end_json(request.id, outcome, request.results + request.errors, reason))
            await self._socket.close(NORMAL if outcome == "completed" else GOING_AWAY)
