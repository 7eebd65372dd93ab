"""A service elsewhere, as its clients in Python see it. Needs the packages of ``lineside[client]``."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncGenerator, Collection, Mapping
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any, Generic, Self, TypeAlias, TypeVar, overload
from urllib.parse import parse_qs, urlsplit

import httpx2 as httpx
from pydantic import TypeAdapter

from ..schemas import Event, RunEnd, decode, events, find_events, wire_name
from .errors import BusError
from .journal.runs import RunSummary
from .journal.tail import Gap
from .source import check_run_id

E = TypeVar("E", bound=Event)
E1 = TypeVar("E1", bound=Event)
E2 = TypeVar("E2", bound=Event)
E3 = TypeVar("E3", bound=Event)

logger = logging.getLogger("lineside.remote")

SILENCE_SECONDS = 40.0
"""Time without a word after which a connection counts as lost: the service says something every 15 s."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 2.0

Query: TypeAlias = list[tuple[str, str | int | float | bool | None]]
_SUMMARIES = TypeAdapter(list[RunSummary])


class RemoteError(BusError):
    """Something is wrong with a service elsewhere, or its use."""


class ServiceLost(RemoteError, ConnectionError):
    """The service does not answer."""

    def __init__(self, url: str, seconds: float, reason: str) -> None:
        since = f" for {seconds:.0f} s" if seconds else ""
        super().__init__(f"no service answers at {url}{since}: {reason}; is `lineside serve` running there?")


class ServiceRefusal(RemoteError, RuntimeError):
    """The service answered that it cannot or will not do that."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(f"the service refused ({status}): {reason}")
        self.status = status
        """The HTTP status."""


def connect(url: str, *, token: str | None = None, patience: float = 60.0) -> Remote:
    """Return a client of the service at `url`, to be used as ``async with lineside.connect(url) as remote``.

    Args:
        url: Its address, e.g. ``http://127.0.0.1:8642``, or the link that ``lineside serve`` printed, with its token.
        token: What the service asks for.
        patience: Seconds that a stream tries to get back a connection that was lost.

    Raises:
        ServiceLost: on entering: nobody answers there.
    """
    return Remote(url, token, patience)


class Remote:
    """A client of a service: an async context manager. Made by `connect`."""

    def __init__(self, url: str, token: str | None = None, patience: float = 60.0) -> None:
        split = urlsplit(url)
        token = token or next(iter(parse_qs(split.query).get("token", [])), None)
        self.url = split._replace(query="", fragment="").geturl().rstrip("/")
        """Its address."""
        self.patience = patience
        self._client = httpx.AsyncClient(
            base_url=self.url,
            headers={"authorization": f"Bearer {token}"} if token else None,
            timeout=httpx.Timeout(SILENCE_SECONDS, connect=5.0),
            limits=httpx.Limits(max_connections=None),
            trust_env=False,
        )
        self.streams: set[RemoteStream[Any]] = set()
        """Those that are open."""

    async def runs(self) -> list[RunSummary]:
        """Return the summaries of all runs, the newest first.

        Raises:
            ServiceLost: it does not answer.
            ServiceRefusal: it answers otherwise, e.g. without the token.
        """
        answer = await self._ask("GET", "/runs")
        return _SUMMARIES.validate_python(answer["runs"])

    async def run(self, run: str) -> RunSummary:
        """Return the summary of a run. Raises what `runs` does."""
        return RunSummary.model_validate(await self._ask("GET", f"/runs/{check_run_id(run)}"))

    async def stop(self, run: str, reason: str = "asked for over the network") -> None:
        """Ask a run to stop at the next batch, and save. Raises what `runs` does."""
        await self._ask("POST", f"/runs/{check_run_id(run)}/stop", {"reason": reason})

    async def pause(self, run: str) -> None:
        """Ask a run to stand still at the next batch. Raises what `runs` does."""
        await self._ask("POST", f"/runs/{check_run_id(run)}/pause")

    async def resume(self, run: str) -> None:
        """Let a paused run go on. Raises what `runs` does."""
        await self._ask("POST", f"/runs/{check_run_id(run)}/resume")

    @overload
    def stream(  # pyright: ignore[reportOverlappingOverload]
        self, t1: type[E1], /, *, run: str, after: str = "", ranks: Collection[int] | None = None
    ) -> RemoteStream[E1]: ...
    @overload
    def stream(
        self, t1: type[E1], t2: type[E2], /, *, run: str, after: str = "", ranks: Collection[int] | None = None
    ) -> RemoteStream[E1 | E2]: ...
    @overload
    def stream(
        self,
        t1: type[E1],
        t2: type[E2],
        t3: type[E3],
        /,
        *,
        run: str,
        after: str = "",
        ranks: Collection[int] | None = None,
    ) -> RemoteStream[E1 | E2 | E3]: ...
    @overload
    def stream(
        self, *types: type[Event] | str, run: str, after: str = "", ranks: Collection[int] | None = None
    ) -> RemoteStream[Event]: ...
    def stream(
        self, *types: type[Event] | str, run: str, after: str = "", ranks: Collection[int] | None = None
    ) -> RemoteStream[Any]:
        """Return the events of `types` (none: all) of a run as an async iterator, which ends with the run.

        Args:
            types: Classes, families or names.
            run: Id of the run.
            after: Position to begin behind, see `RemoteStream.position`; empty: at the first event; ``now``: with the
                next one.
            ranks: Only what these ranks published; None: all of them.

        Raises:
            UnknownEventName: no event has that name.
            RunIdRefused: `run` is no id.
        """
        return RemoteStream(self, find_events(types), check_run_id(run), after, ranks)

    def get(self, path: str, query: Query, headers: Mapping[str, str]) -> AbstractAsyncContextManager[httpx.Response]:
        """Ask for what comes bit by bit. For what this class has no word for."""
        return self._client.stream("GET", path, params=query, headers=headers)

    async def _ask(self, method: str, path: str, body: object = None) -> Any:
        try:
            response = await self._client.request(method, path, json=body)
        except httpx.TransportError as error:
            raise ServiceLost(self.url, 0.0, _said(error)) from None
        if response.is_error:
            raise ServiceRefusal(response.status_code, _reason(response))
        return response.json()

    async def __aenter__(self) -> Self:
        try:
            await self._ask("GET", "/healthz")
        except BaseException:
            await self._client.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for stream in tuple(self.streams):
            await stream.aclose()
        await self._client.aclose()


class RemoteStream(Generic[E]):
    """The events of a run elsewhere, each once and in order, over as many connections as it takes.

    Made by `Remote.stream`. Iterating raises:

        ServiceLost: a lost connection did not come back in time.
        ServiceRefusal: the service will not tell, e.g. of a run that it does not know.
    """

    def __init__(
        self, remote: Remote, types: tuple[type[Event], ...], run: str, after: str, ranks: Collection[int] | None
    ) -> None:
        self.run = run
        self.position = after
        """Position behind the event that was given last: ``after=`` takes it, to go on there some other time."""
        self.gaps: list[Gap] = []
        """Positions that the service could tell nothing of."""
        self._remote = remote
        self._types = types
        self._query: Query = [("rank", rank) for rank in ranks or ()]
        if not any(cls is Event for cls in types):
            names = {wire_name(cls) for cls in events() if issubclass(cls, (*types, RunEnd))}
            self._query += [("type", name) for name in sorted(names)]
        self._lost: float | None = None
        self._given = self._events()
        remote.streams.add(self)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> E:
        return await self._given.__anext__()

    async def aclose(self) -> None:
        """Give back its connection."""
        self._remote.streams.discard(self)
        await self._given.aclose()

    async def _events(self) -> AsyncGenerator[E]:
        pause = _FIRST_PAUSE
        end: RunEnd | None = None
        while True:
            try:
                if end is not None and await self._is_over(end):  # the service was lost before it could say so
                    return
                async for block in self._blocks():
                    pause = _FIRST_PAUSE
                    self._lost = None
                    event = self._take(block)
                    if event is None:
                        continue
                    if isinstance(event, self._types):
                        yield event  # type: ignore[misc]  # it is one of the types that E stands for
                    if isinstance(event, RunEnd):
                        end = event
                        if await self._is_over(end):
                            return
                self._note_loss("the service said goodbye")
            except httpx.TransportError as error:
                self._note_loss(_said(error))
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    async def _blocks(self) -> AsyncGenerator[bytes]:
        """Yield what one connection brings, block by block; what was cut off is not there."""
        headers = {"accept": "text/event-stream", "cache-control": "no-store"}
        query = [*self._query, ("after", self.position)]
        async with self._remote.get(f"/runs/{self.run}/events", query, headers) as response:
            if response.is_error:
                await response.aread()
                if response.status_code < 500:
                    raise ServiceRefusal(response.status_code, _reason(response))
                raise httpx.RemoteProtocolError(_reason(response))
            rest = b""
            async for data in response.aiter_raw():
                *blocks, rest = (rest + data).split(b"\n\n")
                for block in blocks:
                    yield block

    def _take(self, block: bytes) -> Event | None:
        fields = dict(_field(line) for line in block.split(b"\n") if line and not line.startswith(b":"))
        name, data = fields.get(b"event", b""), fields.get(b"data", b"")
        event = None
        if name == b"gap":
            gap = Gap(**json.loads(data))
            self.gaps.append(gap)
            logger.warning("run %s: positions %d to %d of %s are lost", self.run, gap.first, gap.last, gap.file)
        elif data and name != b"bye":
            event = decode(data)
        if b"id" in fields:
            self.position = fields[b"id"].decode()
        return event

    async def _is_over(self, end: RunEnd) -> bool:
        """Return whether nothing comes after `end`: another rank may be there still, or the run have been resumed.

        Raises:
            httpx.TransportError: the service cannot say now.
            ServiceRefusal: it will not.
        """
        if end.rank:
            return False
        try:
            summary = await self._remote.run(self.run)
        except ServiceLost as error:
            raise httpx.ConnectError(str(error)) from None
        except ServiceRefusal as error:
            if error.status < 500:
                raise
            raise httpx.RemoteProtocolError(str(error)) from None
        return summary.state in ("finished", "failed") and summary.attempt == end.attempt

    def _note_loss(self, reason: str) -> None:
        now = time.monotonic()
        self._lost = self._lost or now
        if now - self._lost > self._remote.patience:
            raise ServiceLost(self._remote.url, now - self._lost, reason)


def _field(line: bytes) -> tuple[bytes, bytes]:
    name, _, value = line.partition(b":")
    return name, value.removeprefix(b" ")


def _said(error: Exception) -> str:
    return str(error) or type(error).__name__


def _reason(response: httpx.Response) -> str:
    try:
        return str(response.json()["error"])
    except (ValueError, KeyError, TypeError):
        return response.reason_phrase
