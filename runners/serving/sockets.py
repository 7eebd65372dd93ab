"""A WebSocket: inputs come in, one by one, and results go out, in the same order."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress

import anyio
from starlette.types import Message
from starlette.websockets import WebSocket, WebSocketDisconnect

from ...bus.service.stream import abort
from ...schemas import RequestOutcome
from .answers import counted
from .errors import RequestTooLarge, ServingError
from .forms import end_json
from .request import Given, PredictionRequest
from .service import PredictionService

GOING_AWAY = 1001
NORMAL = 1000


class Conversation:
    """One WebSocket, from when it was accepted to its end.

    It is not read from while `in_flight` of its inputs are not answered, so a client that goes on sending waits.
    """

    def __init__(self, service: PredictionService, request: PredictionRequest, socket: WebSocket) -> None:
        self._service = service
        self._request = request
        self._socket = socket
        self._said: asyncio.Queue[Message] = asyncio.Queue(1)

    async def run(self) -> None:
        """Talk until the client says that it has no more, or goes away."""
        outcome: RequestOutcome = "cancelled"
        reason: str | None = None
        try:
            async with anyio.create_task_group() as group:
                self._request.cut = group.cancel_scope.cancel
                group.start_soon(self._listen, group.cancel_scope)
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
            await self._said.put(message)
        scope.cancel()

    async def _take_in(self) -> None:
        """Take inputs as long as there is room for them."""
        queue, most = self._service.queue, self._service.limits.in_flight
        while True:
            while self._request.unsent >= most:
                await queue.change()
            message = await self._said.get()
            said = message.get("bytes")
            given = await self._understood(message.get("text", "") if said is None else said)
            if given is None:
                self._request.complete()
                return
            for one in given:
                await queue.add_when_there_is_room(self._request, one, most)

    async def _understood(self, message: bytes | str) -> Sequence[Given] | None:
        """Return the inputs in a message; one that holds none is answered by its error, in its turn."""
        limits = self._service.limits
        try:
            if len(message) > limits.message:
                raise RequestTooLarge("the message is too long", f"{limits.message} bytes")
            return await self._service.bodies.message(message)
        except ServingError as error:
            self._service.queue.fail(self._request, None, str(error))
            return ()

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
