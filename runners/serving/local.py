"""Requests from within the program: inputs of an iterable in, results out, in batches that all clients share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, TypeVar, cast

from ...schemas import RequestOutcome
from ..predict.pictures import Named
from ..predict.sources import Source, inputs_of
from .decoding import size_of
from .errors import InputFailed, NotServing, ServingError
from .request import Failure, Given, PredictionRequest

if TYPE_CHECKING:
    from .service import PredictionService

R = TypeVar("R")


async def results(service: PredictionService[R], inputs: Source, id_: str) -> AsyncGenerator[R]:
    """Yield the results of `inputs`, of which no more are taken at once than a WebSocket may send.

    Raises:
        InputFailed: an input could not be computed.
        NotServing: the service does not serve, or no longer, or on another loop.
        ServiceOverloaded: there are too many requests.
        Exception: what `inputs` raises, after the results of those before.
    """
    request = _opened(service, id_)
    outcome: RequestOutcome = "cancelled"
    reason: str | None = None
    request.cut = lambda: service.finish(request, outcome, reason)
    taking = asyncio.create_task(_take(service, request, inputs))
    try:
        while answers := await request.more():
            for answer in answers:
                service.queue.sent(request, 1)
                if isinstance(answer.result, Failure):
                    request.errors += 1
                    raise InputFailed(answer.label, answer.result.error)
                request.results += 1
                yield cast("R", answer.result)
        await taking
        outcome = "completed"
    except Exception as error:
        outcome, reason = "failed", str(error)
        raise
    finally:
        taking.cancel()
        if not request.over:
            service.finish(request, outcome, reason)


def _opened(service: PredictionService[Any], id_: str) -> PredictionRequest:
    if service.loop not in (None, asyncio.get_running_loop()):
        raise NotServing(
            "this service serves on another event loop; ask it there, e.g. by asyncio.run_coroutine_threadsafe"
        )
    request = PredictionRequest(id_, "local")
    try:
        service.open(request, ())
    except ServingError as error:
        service.refuse(id_, "local", str(error))
        raise
    return request


async def _take(service: PredictionService[Any], request: PredictionRequest, inputs: Source) -> None:
    queue, most = service.queue, service.limits.in_flight
    try:
        async with aclosing(_each(inputs)) as values:
            async for value in values:
                given = _given(value)
                await queue.take_memory(request, given.size)
                await queue.add_when_there_is_room(request, given, most)
    finally:
        request.complete()


def _given(value: object) -> Given:
    name = None
    if isinstance(value, Named):
        name, value = value.name, value.value
    return Given(value, size_of(value), name)


async def _each(inputs: Source) -> AsyncGenerator[object]:
    if isinstance(inputs, AsyncIterable):
        async for value in inputs:
            yield value
    else:
        for value in inputs_of(inputs):
            yield value
