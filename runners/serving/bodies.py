"""From the body of a request to its inputs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import contextmanager
from tempfile import SpooledTemporaryFile
from typing import Any, TypeVar, cast

from python_multipart.exceptions import FormParserError
from starlette.datastructures import Headers, UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request
from typing_extensions import TypeVarTuple, Unpack

from ...bus.subscription import Seldom
from .decoding import BYTES, JSON, Decoder, parsed
from .errors import MediaTypeUnknown, RequestTimedOut, RequestTooLarge, RequestUnusable, ServingError
from .limits import PredictionLimits
from .queue import RequestQueue
from .request import Given
from .threads import Threads

logger = logging.getLogger("lineside.serving")

T = TypeVar("T")
Args = TypeVarTuple("Args")

FORM = "multipart/form-data"
Reserve = Callable[[int], None]
"""Takes memory for that many bytes."""
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
        self._threads = Threads(AT_ONCE)
        self._lateness_logged = Seldom()
        self.most_inputs = min(limits.inputs, limits.queue)

    @property
    def take_anything(self) -> bool:
        """Whether there is no kind of body that is refused."""
        return self._decoder.takes_anything

    async def read(self, request: Request) -> list[Given]:
        """Return the inputs in the body of `request`.

        Raises:
            ServingError: there are none, too many, or some that cannot be decoded; or the service shuts down.
            ClientDisconnect: the client went away.
        """
        media_type = media_type_of(request.headers.get("content-type", ""))
        _check_coding(request.headers)
        self._check_media_type(media_type)
        async with self._queue.reading():
            with self._reserving() as reserve:
                body = await self._received(request, reserve)
                return self._checked(await self._inputs(request, body, media_type, reserve))

    async def _received(self, request: Request, reserve: Reserve) -> bytes:
        body = bytearray()
        try:
            async with asyncio.timeout(self._limits.request):
                async for chunk in request.stream():
                    reserve(len(chunk))
                    body += chunk
                    if len(body) > self._limits.body:
                        raise RequestTooLarge("the body is too long", f"{self._limits.body} bytes")
        except TimeoutError:
            raise HTTPException(
                408, f"the request took too long; at most {self._limits.request:g} s are waited for one"
            ) from None
        return bytes(body)

    def stays_small(self, message: bytes | str) -> bool:
        """Return whether what is decoded of a message is not much larger than that, which is short."""
        return isinstance(message, str) and len(message) <= SMALL and not self._decoder.takes_anything

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

    async def _inputs(self, request: Request, body: bytes, media_type: str, reserve: Reserve) -> list[Given]:
        if media_type == JSON:
            value = parsed(body) if len(body) <= SMALL else await self._in_thread(parsed, body)
            return await self._of_json(value, len(body))
        if media_type == FORM:
            return await self._of_form(request, body, reserve)
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
        found: list[Given] = []
        size = 0
        for value in values:
            try:
                found.append(self._decoder.value(value))
            except ServingError as error:
                error.about = f"inputs[{len(found)}]" if len(values) > 1 else None
                raise
            size += found[-1].size
            if len(found) > 1:  # one alone may be larger than all the room
                self._check_size("the inputs", size)
        return found

    async def _of_form(self, request: Request, body: bytes, reserve: Reserve) -> list[Given]:
        parts = await self._parts(request, body)
        self._check_number(len(parts))
        found: list[Given] = []
        size = len(body)  # it is held as long as its parts are decoded
        for data, media_type, name in parts:
            try:
                found.append(await self._in_thread(self._decoder.part, data, media_type, name))
            except ServingError as error:
                error.about = _part(len(found), name) if len(parts) > 1 else None
                raise
            size += found[-1].size  # a small picture may be a large array
            self._check_size("the form and its inputs", size)
            reserve(found[-1].size)
        return found

    async def _parts(self, request: Request, body: bytes) -> list[tuple[bytes, str, str | None]]:
        async def once() -> AsyncGenerator[bytes]:
            yield body
            if not parts.ended:  # else its last part would be missing in silence
                raise MultiPartException("its end is missing, --BOUNDARY-- after the last part; it may be cut off")

        parts = _Parts(request.headers, once(), max_files=self.most_inputs, max_fields=self.most_inputs)
        try:
            form = await parts.parse()
        except MultiPartException as error:
            if error.message.startswith("Too many"):
                raise RequestTooLarge("these are too many parts", f"{self.most_inputs} inputs") from None
            raise RequestUnusable(f"this is no multipart body: {error.message}", "parts that are inputs") from None
        except (FormParserError, KeyError, ValueError) as error:
            raise RequestUnusable(f"this is no multipart body: {error}", "parts that are inputs") from None
        found: list[tuple[bytes, str, str | None]] = []
        try:
            for _, part in form.multi_items():
                assert isinstance(part, UploadFile)
                found.append((await part.read(), _media_type_of_part(part), _name(part.filename)))
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

    def _check_size(self, what: str, size: int) -> None:
        if size > self._limits.memory:
            raise RequestTooLarge(f"{what} are too large together", f"{self._limits.memory} bytes")

    @contextmanager
    def _reserving(self) -> Generator[Reserve]:
        """Give what reserves memory; all of it is given back in the end."""
        reserved = 0

        def reserve(size: int) -> None:
            nonlocal reserved
            self._queue.reserve(size)
            reserved += size

        try:
            yield reserve
        finally:
            self._queue.release(reserved)

    async def _in_thread(self, call: Callable[[Unpack[Args]], T], *args: *Args) -> T:
        until = asyncio.timeout(self._limits.answer)
        try:
            async with until:
                return await self._threads.call(call, *args)
        except TimeoutError:
            if not until.expired():
                raise
            if self._lateness_logged.due():
                logger.warning(
                    "an input was not decoded within %g s: what the %d threads that decode do takes long, or hangs",
                    self._limits.answer,
                    AT_ONCE,
                )
            raise RequestTimedOut("it was not decoded", self._limits.answer) from None


class _Parts(MultiPartParser):
    """Keeps its parts in memory, where the body is already, and all of them as files, also those without a name."""

    spool_max_size = 1 << 40
    ended = False
    """Whether the boundary came that ends them."""

    def on_end(self) -> None:
        """See `MultiPartParser`, which takes a body that is cut off for one without its last part."""
        self.ended = True

    def on_headers_finished(self) -> None:
        """See `MultiPartParser`, which would take a part without a filename for text, of 1 MiB at most."""
        super().on_headers_finished()
        part = self._current_part
        if part.file is None:
            file: Any = SpooledTemporaryFile(max_size=self.spool_max_size)  # noqa: SIM115
            self._files_to_close_on_error.append(file)
            part.file = UploadFile(file, size=0, headers=Headers(raw=part.item_headers))


def media_type_of(header: str) -> str:
    """Return the media type in a ``Content-Type``, without its parameters."""
    return header.partition(";")[0].strip().lower()


def _check_coding(headers: Headers) -> None:
    coding = ", ".join(headers.getlist("content-encoding")).strip().lower()
    if coding not in ("", "identity"):
        raise MediaTypeUnknown(
            f"Content-Encoding: {coding}", "the body as it is, not compressed: leave that header out"
        )


def _media_type_of_part(part: UploadFile) -> str:
    media_type = media_type_of(part.content_type or "")
    if part.filename is None:
        return JSON if media_type in ("", "text/plain") else media_type  # what a form calls text is a value
    return media_type or BYTES


def _values(value: object) -> list[object]:
    """Return the inputs in what was read from JSON.

    Raises:
        RequestUnusable: there are none where they belong.
    """
    expected = '{"inputs": [...]}, or {"input": ...} for one'
    if not isinstance(value, dict):
        raise RequestUnusable(f"this JSON is no object but {_KINDS[type(value)]}", expected)
    given = cast("dict[str, Any]", value)
    if set(given) == {"input"}:
        return [given["input"]]
    if set(given) != {"inputs"}:
        raise RequestUnusable(f"this JSON has {', '.join(map(repr, sorted(given)))[:200] or 'nothing'}", expected)
    inputs = given["inputs"]
    if not isinstance(inputs, list):
        raise RequestUnusable(f"the 'inputs' of this JSON are no list but {_KINDS[type(inputs)]}", expected)
    return cast("list[object]", inputs)


_KINDS: dict[type, str] = {
    dict: "an object",
    list: "a list",
    str: "a string",
    int: "a number",
    float: "a number",
    bool: "a boolean",
    type(None): "null",
}
"""What JSON calls its values."""


def _part(index: int, name: str | None) -> str:
    return f"part {index}" if name is None else f"part {index} ({name})"


def _name(filename: str | None) -> str | None:
    """Return the client's name for a part, short and printable."""
    name = "".join(one for one in filename or "" if one.isprintable())[:200]
    return name or None
