"""The routes: what can be asked, and who answers."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import asdict
from functools import cache
from math import inf
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Body, Header, Path, Query, WebSocket
from pydantic import BaseModel, Field
from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.websockets import WebSocketDisconnect

from ...schemas import UnknownEventName, documents, events, find_event, wire_name
from ..errors import BusError
from ..journal.runs import RunSummary
from ..journal.tail import Tail, Told
from .base import problems
from .errors import BadRequest, status_of
from .feed import in_thread
from .frames import AllBut, Choice, Form, cloud, message, plain, sse
from .guard import failure
from .history import Points, Span
from .manual import manual
from .newest import newest
from .prometheus import exposition
from .source import Going, Source
from .stream import EventStream, Stream, converse

MOST = 5000
"""Events on a page."""
NOW = "now"
ALSO = {"asyncapi.json": "AsyncAPI", "schemas": "the JSON Schemas of the events"}
"""What else describes the service, beside its manual."""

RunId = Annotated[str, Path(pattern="^[A-Za-z0-9_-]{1,64}$", description="Id of the run.")]
Types = Annotated[
    list[str] | None, Query(alias="type", max_length=64, description="Only events of this type; may be repeated.")
]
NotTypes = Annotated[
    list[str] | None,
    Query(
        alias="not_type",
        max_length=64,
        description="No events of this type, whatever else is asked for; may be repeated.",
    ),
]
Families = Annotated[
    list[str] | None,
    Query(alias="family", max_length=64, description="Only events of this family, e.g. `ValEvent`; may be repeated."),
]
Ranks = Annotated[
    list[Annotated[int, Field(ge=0, lt=1 << 31)]] | None,
    Query(alias="rank", max_length=1024, description="Only what this rank published; may be repeated."),
]
After = Annotated[
    str,
    Query(
        max_length=1 << 16,
        description="Position to go on behind: `position` of a page, `id` of an event of a stream. Empty: from the "
        "beginning. For streams also `now`.",
    ),
]
LastEventId = Annotated[
    str | None, Header(max_length=1 << 16, description="What a browser says that resumes a stream: `after` for it.")
]
Format = Annotated[
    Literal["plain", "cloudevents"], Query(description="`cloudevents`: each event as CloudEvents 1.0 JSON.")
]


class Runs(BaseModel):
    """All runs."""

    runs: list[RunSummary] = Field(description="The newest first.")


class Page(BaseModel):
    """Some events of a run."""

    events: list[dict[str, Any]] = Field(description="As they are in the journal; `/schemas` describes them.")
    position: str = Field(description="Ask with `after=` for what comes then.")
    more: bool = Field(description="Whether there is more already.")


class Series(BaseModel):
    """What can be plotted: without `series=` the names, with it the points."""

    names: list[str] | None = None
    series: dict[str, Points] | None = None
    sampled: bool = Field(default=False, description="Whether there was too much to read, so that samples were taken.")


class Timeline(BaseModel):
    """The stages of a run."""

    spans: list[Span]


class Observing(BaseModel):
    """What observing costs a live run, and whether it can be steered. Nulls where its bus is out of reach."""

    subscriptions: list[dict[str, Any]] | None = None
    microseconds_per_step: float | None = Field(
        default=None,
        description="CPU time of the bus itself for each optimizer step of the run on it; of several runs there, by "
        "their share of the events.",
    )
    steering: Going | None = Field(default=None, description="What the run does; null: nobody can steer it from here.")


class Wish(BaseModel):
    """Why a run shall be steered."""

    reason: str = Field(default="asked for over the network", max_length=500)


STREAM: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {
            "text/event-stream": {
                "schema": {
                    "type": "object",
                    "properties": {name: {"type": "string"} for name in ("id", "event", "data")},
                }
            }
        }
    }
}
"""How a stream of server-sent events is described: each of them by its fields."""


def routes(source: Source) -> APIRouter:
    """Return the routes that `source` answers."""
    described = problems(
        {
            400: "A parameter makes no sense.",
            401: "The token is missing.",
            403: "Not allowed.",
            404: "There is no such run.",
            408: "The request took too long.",
            409: "Out of reach.",
            413: "The body is too long.",
            421: "The host is none of this service's.",
            431: "The head of the request is too long.",
            503: "The journal cannot be read.",
        }
    )
    router = APIRouter(responses=described)

    @router.get("/runs", response_model=Runs)
    def runs() -> Response:
        """All runs, the newest first."""
        return _json({"runs": source.summaries()})

    @router.get("/runs/{run}", response_model=RunSummary)
    def run(run: RunId) -> Response:
        """A run in a few figures."""
        return _json(source.summary(run))

    @router.get(
        "/runs/{run}/events",
        response_model=Page,
        responses=STREAM,
    )
    async def run_events(
        request: Request,
        run: RunId,
        after: After = "",
        limit: Annotated[int, Query(ge=1, le=MOST, description="Events on a page.")] = 500,
        tail: Annotated[
            int | None,
            Query(ge=1, le=MOST, description="The last events instead, so many; with neither `after` nor `limit`."),
        ] = None,
        types: Types = None,
        not_types: NotTypes = None,
        families: Families = None,
        ranks: Ranks = None,
        format: Format = "plain",  # noqa: A002
        last_event_id: LastEventId = None,
    ) -> Response:
        """The events of a run, in their order: a page, or, with `Accept: text/event-stream`, a stream.

        A stream sends `id` (the position), `event` (the type) and `data` (the event). `gap` tells of positions
        that nothing is known of any more, `bye` that the service shuts down: ask again, with `Last-Event-ID`.
        """
        choice = _choice(types, not_types, families, ranks)
        body = cloud if format == "cloudevents" else plain
        if tail is not None:
            _refuse_beside_tail(request)
            return await in_thread(last, run, tail, choice, body)
        if _wants_stream(request):
            stream = await following(run, last_event_id or after, choice, Form(sse, body))
            return EventStream(stream)
        return await in_thread(page, run, after, limit, choice, body)

    def page(run: str, after: str, limit: int, choice: Choice, body: Callable[[Told], bytes]) -> Response:
        with behind(run, after, choice) as tail:
            found = tail.read(limit + 1)
            more = len(found) > limit
            position = found[limit - 1].position if more else tail.position
        return told(run, found[:limit], body, position, more)

    def last(run: str, count: int, choice: Choice, body: Callable[[Told], bytes]) -> Response:
        found, position = newest(source.journal.path, run, choice, count)
        return told(run, found, body, position, more=False)

    def told(run: str, found: Sequence[Told], body: Callable[[Told], bytes], position: str, more: bool) -> Response:
        if not found:
            source.summary(run)  # which says if there is none
        written = b",".join([body(one) for one in found])
        end = to_json({"position": position, "more": more})
        return Response(b'{"events":[' + written + b"]," + end[1:], media_type="application/json")

    def behind(run: str, after: str, choice: Choice) -> Tail:
        return Tail(source.journal.path, run=run, names=choice.names, ranks=choice.ranks, after=after)

    async def following(run: str, after: str, choice: Choice, form: Form) -> Stream:
        await in_thread(source.summary, run)
        source.hub.refuse_more()
        past = None if after == NOW else await in_thread(behind, run, after, choice)
        return Stream(source.hub, lambda: source.hub.run(run).follow(past, choice), choice, form)

    @router.websocket("/runs/{run}/ws")
    async def run_socket(
        socket: WebSocket,
        run: RunId,
        after: After = "",
        types: Types = None,
        not_types: NotTypes = None,
        families: Families = None,
        ranks: Ranks = None,
        format: Format = "plain",  # noqa: A002
    ) -> None:
        """The stream of a run as messages `{"id", "event", "data"}`."""
        try:
            choice = _choice(types, not_types, families, ranks)
            body = cloud if format == "cloudevents" else plain
            stream = await following(run, after, choice, Form(message, body, joined=False))
            await converse(stream, socket)
        except BusError as error:
            with suppress(WebSocketDisconnect):  # it is gone: there is nobody to tell
                await socket.send_denial_response(failure(status_of(error), str(error)))

    @router.get("/runs/{run}/metrics", response_model=Series)
    def run_metrics(
        run: RunId,
        series: Annotated[
            list[str] | None, Query(max_length=256, description="Name of a series; may be repeated. None: the names.")
        ] = None,
        points: Annotated[int, Query(ge=1, le=10_000, description="Most points of a series.")] = 2000,
        begin: Annotated[float | None, Query(alias="from", description="First step.")] = None,
        end: Annotated[float | None, Query(alias="to", description="Last step.")] = None,
    ) -> Response:
        """Series for plots, over optimizer steps, down-sampled; each point with the smallest and the largest value."""
        source.summary(run)
        history = source.histories.of(run)
        if not series:
            return _json({"names": history.names()})
        found, sampled = history.series(series, points, -inf if begin is None else begin, inf if end is None else end)
        return _json({"series": found, "sampled": sampled})

    @router.get("/runs/{run}/timeline", response_model=Timeline)
    def run_timeline(run: RunId) -> Response:
        """The stages of a run: training, validation, saving, prediction, export."""
        summary = source.summary(run)
        over = summary.updated if summary.state in ("finished", "failed") else None
        return _json({"spans": source.histories.of(run).spans(over)})

    @router.get("/runs/{run}/observing", response_model=Observing)
    def run_observing(run: RunId) -> Response:
        """What observing costs a run, how far each subscription is, and whether the run can be steered."""
        bus = source.bus(run)
        if bus is None:
            return _json(Observing())
        cost = source.cost(run)
        return _json(
            Observing(
                subscriptions=[asdict(stats) for stats in bus.stats().subscriptions],
                microseconds_per_step=None if cost is None else cost * 1e6,
                steering=source.going(run),
            )
        )

    def steer(run: str, what: str, *reason: str) -> Response:
        if not source.steered:
            return failure(403, "runs are steered only through a service that asks for a token; give it one")
        getattr(source.wheel(run, what), what)(*reason)
        return _json({"run": run, "asked": what}, 202)

    @router.post("/runs/{run}/stop", status_code=202)
    def stop(run: RunId, wish: Annotated[Wish | None, Body()] = None) -> Response:
        """Ask a run to stop at the next batch, and save."""
        return steer(run, "stop", (wish or Wish()).reason)

    @router.post("/runs/{run}/pause", status_code=202)
    def pause(run: RunId, wish: Annotated[Wish | None, Body()] = None) -> Response:
        """Ask a run to stand still at the next batch."""
        return steer(run, "pause")

    @router.post("/runs/{run}/resume", status_code=202)
    def resume(run: RunId, wish: Annotated[Wish | None, Body()] = None) -> Response:
        """Let a paused run go on."""
        return steer(run, "resume")

    @router.get(
        "/events-of-runs",
        response_class=Response,
        responses=STREAM,
    )
    async def events_of_runs() -> Response:
        """A stream of `run` events, with the summary of each run, at first and whenever it has changed."""
        await in_thread(source.summaries)
        source.hub.refuse_more()
        return EventStream(Stream(source.hub, lambda: source.hub.runs().follow(), Choice(), Form()))

    @router.get("/metrics", response_class=PlainTextResponse)
    def prometheus() -> Response:
        """The state of the runs, for Prometheus."""
        text = exposition(source.summaries(), source.hub.streams)
        return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")

    @router.head("/healthz", include_in_schema=False)
    @router.get("/healthz")
    async def healthz() -> Response:
        """Whether the service is there; needs no token."""
        return _json({"status": "ok"})

    @router.get("/schemas")
    def schemas() -> Response:
        """A JSON Schema for each type of event, by its name."""
        return _json(_schemas(len(events())))

    @router.get("/asyncapi.json")
    def asyncapi() -> Response:
        """An AsyncAPI document of the events."""
        return _json(_asyncapi(len(events())))

    @router.get("/docs", response_class=HTMLResponse, include_in_schema=False)
    async def docs(request: Request) -> Response:
        return HTMLResponse(manual(request.app.openapi(), ALSO))

    return router


def _json(content: object, status: int = 200) -> Response:
    return Response(to_json(content, inf_nan_mode="null"), status, media_type="application/json")


def _wants_stream(request: Request) -> bool:
    return "text/event-stream" in request.headers.get("accept", "")


def _refuse_beside_tail(request: Request) -> None:
    """Let `tail` stand alone.

    Raises:
        BadRequest: it does not.
    """
    for other in ("after", "limit"):
        if other in request.query_params:
            raise BadRequest(f"tail= asks for the last events, whatever came before; leave out {other}=, or tail=")
    if _wants_stream(request):
        raise BadRequest("tail= asks for a page; a stream begins with after=, e.g. with the `position` of that page")


def _choice(
    types: Collection[str] | None,
    not_types: Collection[str] | None,
    families: Collection[str] | None,
    ranks: Collection[int] | None,
) -> Choice:
    """Return what is chosen.

    Raises:
        BadRequest: there is no such family. A type may be one that only its publisher knows.
    """
    names = set(types or ())
    for name in families or ():
        try:
            family = find_event(name)
        except UnknownEventName as error:
            raise BadRequest(str(error)) from None
        names |= {wire_name(cls) for cls in events(family)} if family.family else {wire_name(family)}
    unwanted = frozenset(not_types or ())
    chosen = frozenset(names) - unwanted if types or families else AllBut(unwanted) if unwanted else None
    return Choice(chosen, None if ranks is None else frozenset(ranks))


@cache
def _schemas(known: int) -> dict[str, Any]:
    return documents.json_schemas()


@cache
def _asyncapi(known: int) -> dict[str, Any]:
    return documents.asyncapi()
