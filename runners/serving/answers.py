"""The answer to a request over HTTP: its results as they come, until the last or until its client is gone."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import anyio
from pydantic_core import to_json
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ...bus.service.guard import failure
from ...bus.service.stream import abort, nobody, until_gone
from ...schemas import RequestOutcome
from .errors import RequestTimedOut, ServiceOverloaded, ServingError
from .forms import ResultForm, end_json, result_json
from .request import Answer, PredictionRequest
from .service import PredictionService


class PredictionAnswer(Response):
    """The answer to a request that was taken up.

    What was said before the first result decides its status; that of one object, sent when all is said, the end does.
    """

    def __init__(self, service: PredictionService, request: PredictionRequest, form: ResultForm) -> None:
        super().__init__(headers={"x-accel-buffering": "no"}, media_type=form.media_type)
        del self.headers["content-length"]
        self._service = service
        self._request = request
        self._form = form
        self._started = False
        self._collected: list[bytes] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""
        ending: tuple[RequestOutcome, str | None] = ("cancelled", None)
        try:
            async with anyio.create_task_group() as group:
                self._request.cut = group.cancel_scope.cancel
                group.start_soon(until_gone, receive, group.cancel_scope)
                try:
                    ending = await self._answer(scope, receive, send)
                except _Deaf:
                    abort(scope)
                group.cancel_scope.cancel()
        finally:
            self._service.finish(self._request, *ending)
        if not self._started:
            stopped = self._request.stopped
            await (nobody() if stopped is None else refusal(stopped))(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> tuple[RequestOutcome, str | None]:
        try:
            await self._answer_all(send)
        except ServingError as error:
            if self._started or self._collected:
                self.status_code = error.status  # which is too late for what is sent as it comes
                self.headers.update(_hints(error))
                await self._send(send, self._end("failed", str(error)), more=False)
            else:
                self._started = True
                await refusal(error)(scope, receive, send)
            return "failed", str(error)
        return "completed", None

    async def _answer_all(self, send: Send) -> None:
        limits, request = self._service.limits, self._request
        until = asyncio.get_running_loop().time() + limits.answer
        while not request.answered:
            try:
                async with asyncio.timeout_at(until):
                    answers = await request.more()
            except TimeoutError:
                raise RequestTimedOut("not all results were there", limits.answer) from None
            await self._pass_on(send, answers)

    async def _pass_on(self, send: Send, answers: list[Answer]) -> None:
        """Send answers, and what comes last together with the last of them."""
        frames, over = counted(self._request, answers), self._request.answered
        if self._form.streamed:
            parts = [self._form.frame("result", frame) for frame in frames]
        else:
            self._collected += frames
            parts = []
        if over:
            parts.append(self._end("completed"))
        if parts:
            await self._send(send, b"".join(parts), more=not over)
        self._service.queue.sent(self._request, len(answers))

    def _end(self, end: str, reason: str | None = None) -> bytes:
        request = self._request
        last = end_json(request.id, end, request.results + request.errors, reason)
        if not self._form.streamed:
            why = b"" if reason is None else b',"error":' + to_json(reason)  # as in what else is no 200
            last = last[:-1] + why + b',"results":[' + b",".join(self._collected) + b"]}"
        return self._form.frame("end", last)

    async def _send(self, send: Send, data: bytes, *, more: bool) -> None:
        try:
            async with asyncio.timeout(self._service.limits.stalled):
                if not self._started:
                    self._started = True
                    await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
                await send({"type": "http.response.body", "body": data, "more_body": more})
        except TimeoutError:
            raise _Deaf from None


class _Deaf(Exception):
    """The client does not read."""


def counted(request: PredictionRequest, answers: list[Answer]) -> list[bytes]:
    """Return `answers` as JSON, and count them as results and errors of `request`."""
    frames: list[bytes] = []
    for answer in answers:
        data, good = result_json(request.id, answer)
        request.results += good
        request.errors += not good
        frames.append(data)
    return frames


def refusal(error: ServingError) -> Response:
    """Return an answer that tells of `error`."""
    return failure(error.status, str(error), **_hints(error))


def _hints(error: ServingError) -> Mapping[str, str]:
    """Return the headers that say when to try again."""
    if isinstance(error, ServiceOverloaded):
        return {"retry-after": str(error.retry_after)}
    return {"retry-after": "5"} if error.status == 503 else {}
