"""The app of a prediction service: its routes, behind their guard."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Collection, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict
from typing import Any, Generic, cast, overload

from fastapi import APIRouter, FastAPI, WebSocket
from fastapi.routing import APIRoute
from pydantic_core import to_json
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocketDisconnect
from typing_extensions import TypeVar

from ...bus.service.base import App, problems
from ...bus.service.guard import LOOPBACK, Guard
from ...bus.service.manual import manual
from ...bus.service.stream import nobody
from ...bus.service.token import checked
from ..errors import InvalidArgument
from ..predictor import Predictor
from ..recipe import Recipe, Weights
from .answers import PredictionAnswer, refusal
from .decoding import Decode
from .described import ANSWERED, SECURITY, Health, request_body
from .errors import ServingError
from .forms import EVENTS, NDJSON, ONE, wanted
from .limits import DEFAULT, PredictionLimits
from .request import PredictionRequest
from .service import PredictionService, request_id
from .sockets import Conversation

ID_HEADER = "x-request-id"
_ID = "lineside.request"
"""Key of the id in an ASGI scope."""

R = TypeVar("R", default=Any)


class PredictionApp(App, Generic[R]):
    """The app of a `PredictionService`. Served by itself it begins and ends the service.

    Mounted in another app it does not, for the lifespan of mounted apps is not run: enter the service in that of
    yours, ``async with app.service``.
    """

    def __init__(self, service: PredictionService[R], *, token: str | None = None, hosts: Collection[str] = ()) -> None:
        @asynccontextmanager
        async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
            async with service:
                yield

        super().__init__(
            title="Lineside predictions",
            summary="Send inputs, and get results as they come.",
            lifespan=lifespan,
            handlers={ServingError: _tell, ClientDisconnect: _tell_nobody},
        )
        self.service = self.hub = service
        self._guarded = token is not None
        self.include_router(routes(service))
        self.add_middleware(Guard, token=token, hosts=LOOPBACK | frozenset(hosts), limits=service.limits)
        self.add_middleware(RequestIds)  # the outermost: what the guard refuses has an id, too

    def openapi(self) -> dict[str, Any]:
        """Return what can be asked, and that it takes the token."""
        described = super().openapi()
        if self._guarded:
            described["components"]["securitySchemes"] = SECURITY
            described["security"] = [{name: []} for name in SECURITY]
            described["paths"]["/healthz"]["get"]["security"] = []
        return described


@overload
def prediction_service(
    source: Predictor[R],
    weights: None = None,
    *,
    decode: Decode | None = None,
    token: str | None = None,
    hosts: Collection[str] = (),
    limits: PredictionLimits = DEFAULT,
) -> PredictionApp[R]: ...
@overload
def prediction_service(
    source: Recipe,
    weights: Weights | None = None,
    *,
    decode: Decode | None = None,
    token: str | None = None,
    hosts: Collection[str] = (),
    limits: PredictionLimits = DEFAULT,
) -> PredictionApp[Any]: ...
def prediction_service(
    source: Predictor[Any] | Recipe,
    weights: Weights | None = None,
    *,
    decode: Decode | None = None,
    token: str | None = None,
    hosts: Collection[str] = (),
    limits: PredictionLimits = DEFAULT,
) -> PredictionApp:
    """Return an app that computes what clients send, in batches that they share.

    Serve it by itself (``lineside predict serve RECIPE.py``, or any ASGI server), or mount it in an app of yours and
    enter ``app.service`` in the lifespan of that.

    Args:
        source: A predictor, or a recipe to make one of.
        weights: Those of the recipe's model. Default: fresh ones.
        decode: Makes an input of bytes, see `PredictionService`. Default: the recipe's.
        token: What clients have to bring, as ``Authorization: Bearer …``. None lets everybody in who reaches it.
        hosts: Names that it answers to, beyond ``localhost``, ``127.0.0.1`` and ``[::1]``.
        limits: How much clients may bring.

    Raises:
        ServiceRefused: the token is too short.
        CheckpointError: the weights cannot be loaded.
        InvalidArgument: there are weights for a predictor, which has its own.
    """
    if token is not None:
        checked(token)
    if isinstance(source, Recipe):
        predictor, decode = source.predictor(weights), decode or source.decode
    elif weights is not None:
        raise InvalidArgument(
            f"weights={str(weights)!r:.80} for a Predictor",
            "its model has its own: load them into that, or give a Recipe",
        )
    else:
        predictor = source
    service = PredictionService(predictor, decode=decode, limits=limits)
    return PredictionApp(service, token=token, hosts=hosts)


def routes(service: PredictionService) -> APIRouter:
    """Return the routes that `service` answers."""
    router = APIRouter(
        responses=problems(
            {
                401: "The token is missing.",
                403: "Not allowed.",
                408: "The request took too long.",
                413: "The body is too long.",
                421: "The host is none of this service's.",
                431: "The head of the request is too long.",
            }
        ),
        route_class=Direct,
    )
    refused = problems(
        {
            400: "The body holds no inputs.",
            413: "The body, a picture or the number of inputs is over its limit.",
            415: "Nothing decodes bodies of this kind.",
            503: "There is no room for more inputs, or nothing is computed; `Retry-After` says when to try again.",
            504: "It was not decoded, or the results were not there, in time.",
        }
    )

    @router.post(
        "/predict",
        response_class=Response,
        responses={**refused, 200: {"content": ANSWERED}},
        openapi_extra={"requestBody": request_body(anything=service.bodies.take_anything)},
    )
    async def predict(request: Request) -> Response:
        """A result for each input in the body, in their order and as they come.

        The body is JSON (`{"inputs": [...]}`, or `{"input": ...}` for one; an input is a number, nested lists of them
        or what the recipe takes), a picture, or several of either as multipart/form-data. The answer is by `Accept` a
        line of JSON for each result (`application/x-ndjson`, the default), an event for each (`text/event-stream`), or
        one object with all (`application/json`). What comes last has `end` and their `count`: without it, the answer
        was cut off. An input that cannot be computed has an `error` in place of its `result`. `X-Request-Id` names the
        request, in the answer and in the events of the run.
        """
        id_: str = request.scope[_ID]
        try:
            service.queue.check_open()
            inputs = await service.bodies.read(request)
            asked = PredictionRequest(id_, "http")
            service.open(asked, inputs)
        except (ServingError, HTTPException) as error:
            service.refuse(id_, "http", str(error.detail if isinstance(error, HTTPException) else error))
            raise
        asked.complete()
        return PredictionAnswer(service, asked, wanted(", ".join(request.headers.getlist("accept"))))

    @router.websocket("/predict")
    async def converse(socket: WebSocket) -> None:
        """Inputs in, results out, in one order, until the client says `{"end": true}` or goes away.

        A binary message is a picture, a text message JSON: `{"input": ...}` or `{"inputs": [...]}`.
        """
        id_: str = socket.scope[_ID]
        asked = PredictionRequest(id_, "ws")
        with suppress(WebSocketDisconnect):  # it is gone: there is nobody to tell
            try:
                service.open(asked, ())
            except ServingError as error:
                service.refuse(id_, "ws", str(error))
                await socket.send_denial_response(refusal(error))
                return
            try:
                await socket.accept()
            except BaseException:
                service.finish(asked, "cancelled")
                raise
            await Conversation(service, asked, socket).run()

    @router.get("/")
    async def about(_: Request) -> Response:
        """What is served, and how much clients may bring."""
        return _json(_about(service))

    @router.head("/healthz", include_in_schema=False)
    @router.get("/healthz", responses={200: {"model": Health}, 503: {"model": Health, "description": "It does not."}})
    async def healthz(_: Request) -> Response:
        """Whether anything is computed: 200, else 503; needs no token."""
        serving = service.state == "serving"
        return _json({"status": "ok" if serving else service.state}, 200 if serving else 503)

    @router.get("/docs", response_class=HTMLResponse, include_in_schema=False)
    async def docs(request: Request) -> Response:
        return HTMLResponse(manual(request.app.openapi(), {}))

    return router


class Direct(APIRoute):
    """A route whose function takes the request itself: there is nothing for FastAPI to make of it."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the function."""
        return cast("Callable[[Request], Coroutine[Any, Any, Response]]", self.endpoint)


class RequestIds:
    """Gives every request its id, and every answer that of its request."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand on."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        id_ = scope[_ID] = request_id(Headers(scope=scope).get(ID_HEADER))

        async def answer(message: Message) -> None:
            if message["type"] in ("http.response.start", "websocket.http.response.start", "websocket.accept"):
                MutableHeaders(scope=message).setdefault(ID_HEADER, id_)
            await send(message)

        await self._app(scope, receive, answer)


def _about(service: PredictionService) -> dict[str, object]:
    predictor = service.predictor
    return {
        "model": type(predictor.served.model).__qualname__,
        "device": str(predictor.device),
        "batch_size": predictor.config.batch_size,
        "max_wait": predictor.config.max_wait,
        "run": predictor.run_id,
        "state": service.state,
        "waiting": {"inputs": service.queue.unsent, "requests": len(service.queue.open)},
        "limits": asdict(service.limits),
        "answers": [NDJSON, EVENTS, ONE],
        "docs": "docs",
    }


def _json(content: object, status: int = 200) -> Response:
    return Response(to_json(content), status, media_type="application/json")


async def _tell(_: Request, error: Exception) -> Response:
    assert isinstance(error, ServingError)
    return refusal(error)


async def _tell_nobody(_: Request, error: Exception) -> Response:
    """Answer a client that is gone, whom nothing reaches."""
    return nobody()
