"""From the body of a request to its inputs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Any, TypeVar, cast

import anyio
from python_multipart.exceptions import FormParserError
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request
from typing_extensions import TypeVarTuple, Unpack

from .decoding import BYTES, JSON, Decoder, parsed
from .errors import MediaTypeUnknown, RequestTooLarge, RequestUnusable
from .limits import PredictionLimits
from .queue import RequestQueue
from .request import Given

T = TypeVar("T")
Args = TypeVarTuple("Args")

FORM = "multipart/form-data"
SMALL = 16 << 10
"""Bytes of JSON that are read faster than handed to another thread."""
AT_ONCE = 2
"""Bodies and pictures that are decoded at the same time: each may take many times its size meanwhile."""


class Bodies:
    """Reads bodies, and counts the memory that they and their inputs take meanwhile.

    Args:
        decoder: Makes the inputs.
        queue: Where the memory is counted.
        limits: Of bodies and inputs.
    """

    def __init__(self, decoder: Decoder, queue: RequestQueue, limits: PredictionLimits) -> None:
        self._decoder = decoder
        self._queue = queue
        self._limits = limits
        self._decoding = anyio.CapacityLimiter(AT_ONCE)
        self.most_inputs = min(limits.inputs, limits.queue)

    async def read(self, request: Request) -> list[Given]:
        """Return the inputs in the body of `request`.

        Raises:
            ServingError: there are none, too many, or some that cannot be decoded.
            ClientDisconnect: the client went away.
        """
        media_type = media_type_of(request.headers.get("content-type", ""))
        self._check_media_type(media_type)
        body, reserved = bytearray(), 0
        try:
            async with asyncio.timeout(self._limits.request):
                async for chunk in request.stream():
                    self._queue.reserve(len(chunk))
                    reserved += len(chunk)
                    body += chunk
                    if len(body) > self._limits.body:
                        raise RequestTooLarge("the body is too long", f"{self._limits.body} bytes")
            return self._checked(await self._inputs(request, bytes(body), media_type))
        except TimeoutError:
            raise HTTPException(
                408, f"the request took too long; at most {self._limits.request:g} s are waited for one"
            ) from None
        finally:
            self._queue.release(reserved)

    async def message(self, message: bytes | str) -> list[Given] | None:
        """Return the inputs in a message of a WebSocket; None: it says that no more come.

        Raises:
            ServingError: it has none, too many, or some that cannot be decoded.
        """
        if isinstance(message, bytes):
            return [await self._in_thread(self._decoder.part, message, BYTES)]
        value = parsed(message) if len(message) <= SMALL else await self._in_thread(parsed, message)
        if value == {"end": True}:
            return None
        return self._checked(await self._of_json(value, len(message)))

    async def _inputs(self, request: Request, body: bytes, media_type: str) -> list[Given]:
        if media_type == JSON:
            value = parsed(body) if len(body) <= SMALL else await self._in_thread(parsed, body)
            return await self._of_json(value, len(body))
        if media_type == FORM:
            return await self._of_form(request, body)
        if not body:
            raise RequestUnusable("the body is empty", "an input in it")
        return [await self._in_thread(self._decoder.part, body, media_type)]

    def _check_media_type(self, media_type: str) -> None:
        known = media_type in (JSON, FORM, BYTES) or media_type.startswith("image/")
        if not known and not self._decoder.takes_anything:
            raise MediaTypeUnknown(media_type or "no content-type", f"{JSON}, {FORM} or a picture, e.g. image/jpeg")

    async def _of_json(self, value: object, length: int) -> list[Given]:
        values = _values(value)
        self._check_number(len(values))
        if length <= SMALL and not self._decoder.takes_anything:
            return self._decoded(values)
        return await self._in_thread(self._decoded, values)

    def _decoded(self, values: list[object]) -> list[Given]:
        return [self._decoder.value(value) for value in values]

    async def _of_form(self, request: Request, body: bytes) -> list[Given]:
        parts = await self._parts(request, body)
        self._check_number(len(parts))
        found: list[Given] = []
        size = 0
        for data, media_type, name in parts:
            found.append(await self._in_thread(self._decoder.part, data, media_type, name))
            size += found[-1].size  # a small picture may be a large array
            if size > self._limits.memory:
                raise RequestTooLarge("the inputs are too large together", f"{self._limits.memory} bytes")
        return found

    async def _parts(self, request: Request, body: bytes) -> list[tuple[bytes, str, str | None]]:
        async def once() -> AsyncGenerator[bytes]:
            yield body

        try:
            form = await _Parts(
                request.headers, once(), max_files=self.most_inputs, max_fields=self.most_inputs
            ).parse()
        except MultiPartException as error:
            if error.message.startswith("Too many"):
                raise RequestTooLarge("these are too many parts", f"{self.most_inputs} inputs") from None
            raise RequestUnusable(f"this is no multipart body: {error.message}", "parts that are inputs") from None
        except (FormParserError, KeyError, ValueError) as error:
            raise RequestUnusable(f"this is no multipart body: {error}", "parts that are inputs") from None
        found: list[tuple[bytes, str, str | None]] = []
        try:
            for _, part in form.multi_items():
                if isinstance(part, UploadFile):
                    found.append((await part.read(), media_type_of(part.content_type or BYTES), _name(part.filename)))
                else:
                    found.append((part.encode(), JSON, None))
        finally:
            await form.close()
        return found

    def _checked(self, inputs: list[Given]) -> list[Given]:
        if not inputs:
            raise RequestUnusable("there is no input", "at least one")
        return inputs

    def _check_number(self, inputs: int) -> None:
        if inputs > self.most_inputs:
            raise RequestTooLarge(f"these are {inputs} inputs", f"{self.most_inputs} inputs")

    async def _in_thread(self, call: Callable[[Unpack[Args]], T], *args: *Args) -> T:
        return await anyio.to_thread.run_sync(call, *args, limiter=self._decoding)


class _Parts(MultiPartParser):
    """Keeps its parts in memory, where the body is already."""

    spool_max_size = 1 << 40


def media_type_of(header: str) -> str:
    """Return the media type in a ``Content-Type``, without its parameters."""
    return header.partition(";")[0].strip().lower()


def _values(value: object) -> list[object]:
    """Return the inputs in what was read from JSON.

    Raises:
        RequestUnusable: there are none where they belong.
    """
    expected = '{"inputs": [...]}, or {"input": ...} for one'
    if not isinstance(value, dict):
        raise RequestUnusable(f"this JSON is no object but a {type(value).__name__}", expected)
    given = cast("dict[str, Any]", value)
    if set(given) == {"input"}:
        return [given["input"]]
    if set(given) != {"inputs"} or not isinstance(given["inputs"], list):
        raise RequestUnusable(f"this JSON has {', '.join(map(repr, sorted(given)))[:200] or 'nothing'}", expected)
    return cast("list[object]", given["inputs"])


def _name(filename: str | None) -> str | None:
    """Return the client's name for a part, short and printable."""
    name = "".join(one for one in filename or "" if one.isprintable())[:200]
    return name or None
