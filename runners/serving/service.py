"""`PredictionService`: one long run of a predictor that clients bring their inputs to."""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import suppress
from itertools import count
from time import monotonic
from types import TracebackType
from typing import Any, Generic, Literal, Self

from typing_extensions import TypeVar

from ...schemas import RequestEnd, RequestOutcome, RequestStart, Transport
from ..predict.config import PredictResult
from ..predict.sources import AnySource, check_source
from ..predictor import Predictor
from ..run import Run
from .bodies import Bodies
from .decoding import Decode, Decoder
from .errors import NotServing
from .limits import DEFAULT, PredictionLimits
from .local import results
from .predictor import ServedPredictor
from .queue import RequestQueue
from .request import Given, Item, PredictionRequest

logger = logging.getLogger("lineside.serving")

MAX_WAIT = 0.005
"""Seconds that a batch waits for more inputs, where the predictor's settings do not say."""
CLOSE_SECONDS = 5.0
"""Time that closing waits for the batch at hand."""
GOODBYE_SECONDS = 1.0
"""Time that a request that is stopped has to say so to its client."""
SHUT_DOWN = "the service was shut down"
_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")

_PROCESS = secrets.token_hex(4)
_numbers = count(1)
"""Ids that are made: random ones would ask the system each time, which gives way to the threads that compute."""

State = Literal["new", "serving", "closing", "closed", "failed"]


R = TypeVar("R", default=Any)


class PredictionService(Generic[R]):
    """Computes what clients send, in batches that they share, as one run of `predictor`.

    An async context manager: the run begins with the block and ends with it, as ``stopped``. A block that ends lets the
    requests that are open be finished, for ``limits.grace`` seconds at most; those whose bodies are still being read
    end at once, and so do WebSockets that wait for nothing. A service serves once.

    Args:
        predictor: What computes. Its settings give the size of the batches and, with `max_wait`, how long one waits
            for more inputs (where they do not say: 5 ms); its bus gets the events, those of the requests among them.
        decode: Makes one input of the bytes of a body, a part of one or a message, and their media type. Default:
            numbers and lists of them become arrays, other JSON values are inputs as they are, and pictures become
            arrays of shape (height, width, 3), RGB, uint8.
        limits: How much clients may bring.
    """

    def __init__(
        self, predictor: Predictor[R], *, decode: Decode | None = None, limits: PredictionLimits = DEFAULT
    ) -> None:
        self.limits = limits
        self.queue = RequestQueue(limits)
        self.queue.refusing = NotServing("the service was not started: serve its app, or enter `async with service`")
        self.bodies = Bodies(Decoder(decode, limits.pixels), self.queue, limits)
        self.predictor = ServedPredictor(predictor, MAX_WAIT)
        self.state: State = "new"
        self.error: BaseException | None = None
        """What the run failed with, if it did."""
        self.on_failure: Callable[[], object] = _nothing
        """Called when the run has failed: nothing is computed from then on."""
        self._own_bus = self.predictor.own_bus
        self._run: Run[PredictResult[Any]] | None = None
        self._watching: asyncio.Task[None] | None = None
        self._timers: list[asyncio.TimerHandle] = []
        self._closing = asyncio.Event()
        self._hurried = asyncio.Event()
        self.loop: asyncio.AbstractEventLoop | None = None
        """The loop that it serves on."""

    # ---- how it begins and ends

    async def __aenter__(self) -> Self:
        """Begin the run.

        Raises:
            NotServing: it has served already, or was closed meanwhile.
            RunnerBusy: a run of the predictor is in progress.
            Exception: what the run ended with before it took any input, e.g. as the model does not fit the device.
        """
        if self.state != "new":
            raise NotServing("this service has served already; make another one")
        loop = self.loop = asyncio.get_running_loop()

        def deliver(items: list[Item], results: list[object]) -> None:
            with suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(self.queue.deliver, items, results)

        self._run = self.predictor.serve(self.queue, deliver)
        self._watching = asyncio.create_task(self._watch(self._run))
        try:
            await self._begun(self._watching)
        except BaseException:  # whoever enters in vain does not leave
            await self._end_run(0.0 if self._closing.is_set() else CLOSE_SECONDS)  # it had its time to be closed
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _begun(self, watching: asyncio.Task[None]) -> None:
        events = (self.queue.begun, self._closing, self._hurried)
        begun, closing, hurried = waiting = [asyncio.create_task(event.wait()) for event in events]
        first = asyncio.FIRST_COMPLETED
        try:
            await asyncio.wait([begun, closing, watching], return_when=first)
            if self._closing.is_set() and self._run is not None:
                self._run.stop(SHUT_DOWN)  # the model may be on its way to its device
                await asyncio.wait([watching, hurried], timeout=self.limits.grace, return_when=first)
        finally:
            for one in waiting:
                one.cancel()
        if self.error is not None:
            raise self.error
        if self._closing.is_set() or watching.done():
            raise NotServing("the service was stopped before it had begun")
        self.state, self.queue.refusing = "serving", None

    async def _watch(self, run: Run[PredictResult[Any]]) -> None:
        """Wait for the end of the run, and tell whoever waits for results."""
        why = "the run of this service was stopped"
        try:
            await run
        except BaseException as error:  # what a hook raises may be a CancelledError
            if not run.done():
                raise  # this task is cancelled, not the run
            self.error = error
            why = f"the run of this service has failed: {type(error).__name__}"
            if self.state != "new":
                logger.exception("the run %s has failed: nothing is computed any longer", run.id, exc_info=error)
        if self.state in ("new", "serving"):
            self.state = "failed" if self.error is not None else "closed"
            self.queue.stop(NotServing(f"{why}; it has to be started anew"))
            self.on_failure()

    def close(self) -> None:
        """Take up no more requests. Those that are open are stopped after ``limits.grace`` seconds."""
        self._closing.set()
        if self.state == "serving":
            self.state = "closing"
            self.queue.refuse(NotServing("the service shuts down; try again later"))
            self._later(self.limits.grace, self._stop_requests)
            self._later(self.limits.grace + GOODBYE_SECONDS, self._cut)

    def hurry(self) -> None:
        """Let go of all clients now, and of a run that is about to begin."""
        self._hurried.set()
        self.close()
        self._stop_requests()
        self._cut()

    def _later(self, seconds: float, call: Callable[[], object]) -> None:
        self._timers.append(asyncio.get_running_loop().call_later(seconds, call))

    def _stop_requests(self) -> None:
        self.queue.stop(NotServing("the service shuts down; not all results were there in time"))

    def _cut(self) -> None:
        for request in list(self.queue.open):
            request.cut()

    async def emptied(self) -> None:
        """Wait until no request is open, and none is being read."""
        await self.queue.emptied()

    async def aclose(self) -> None:
        """Let the requests that are open be finished, and end the run. Closing twice is fine."""
        self.close()
        if self.state == "closing":
            await self.emptied()
        for timer in self._timers:
            timer.cancel()
        await self._end_run()

    async def _end_run(self, patience: float = CLOSE_SECONDS) -> None:
        if self._run is None or self._watching is None:
            return
        self._run.stop(SHUT_DOWN)
        done, _ = await asyncio.wait([self._watching], timeout=patience)
        if not done:
            logger.warning("the run %s goes on: its model or hooks hang", self._run.id)
            self._watching.cancel()
        if self.state != "failed":
            self.state = "closed"
        self.queue.stop(NotServing("the service is closed"))
        if self._own_bus is not None:
            await self._own_bus.aclose()

    # ---- what the program itself asks for

    async def predict(self, value: Any, *, request: str | None = None) -> R:
        """Return the result of one input, computed in a batch with those of other clients.

        Called on the event loop that the service was entered on.

        Args:
            value: What the predictor takes; it is not decoded.
            request: Id of the request, in the events; None makes one.

        Raises:
            InputFailed: it could not be computed.
            NotServing: the service does not serve, or on another loop.
            ServiceOverloaded: there are too many requests.
        """
        (result,) = [one async for one in self.stream([value], request=request)]
        return result

    def stream(self, inputs: AnySource, *, request: str | None = None) -> AsyncGenerator[R]:
        """Return the results of `inputs` as an async iterator, in their order, as they come. See `predict`.

        `inputs` is any source that the predictor takes, see `Predictor.stream`. It is read on the event loop: where it
        would hold that up, as a loader or a folder of pictures may, give an async iterable.

        No more than ``limits.in_flight`` inputs are taken ahead of whoever reads. What is left early frees its room at
        the latest when it is collected: `contextlib.aclosing` does it at once.

        Raises:
            SourceUnusable: `inputs` is nothing to take inputs from.

        Raises (when it is read):
            InputFailed: an input could not be computed; the results before it were yielded.
            NotServing: the service does not serve, or no longer, or on another loop.
            ServiceOverloaded: there are too many requests.
            Exception: what `inputs` raises, after the results of those before.
        """
        return results(self, check_source(inputs), request_id(request))

    # ---- what clients do

    def open(self, request: PredictionRequest, inputs: Sequence[Given]) -> None:
        """Take up a request with its first inputs.

        Raises:
            NotServing: nothing is computed.
            ServiceOverloaded: there is no room for it.
        """
        self.queue.admit(request, inputs)
        self.predictor.tell(RequestStart, request=request.id, transport=request.transport, inputs=len(inputs))

    def finish(self, request: PredictionRequest, outcome: RequestOutcome, reason: str | None = None) -> None:
        """Let go of a request; what of it was not computed yet will not be."""
        self.queue.finish(request)
        self._tell_end(request, outcome, reason)

    def refuse(self, id_: str, transport: Transport, reason: str) -> None:
        """Say that a request was refused."""
        self._tell_end(PredictionRequest(id_, transport), "refused", reason)

    def _tell_end(self, request: PredictionRequest, outcome: RequestOutcome, reason: str | None) -> None:
        if self.state not in ("serving", "closing"):
            return  # the run has told its last
        self.predictor.tell(
            RequestEnd,
            request=request.id,
            transport=request.transport,
            outcome=outcome,
            reason=reason,
            inputs=request.inputs,
            results=request.results,
            errors=request.errors,
            duration=monotonic() - request.began,
            waited=None if request.taken is None else request.taken - request.began,
        )


def request_id(given: str | None) -> str:
    """Return the id of a request: what the client calls it, where that is of up to 64 of ``A-Z a-z 0-9 . _ -``."""
    return given if given is not None and _ID.fullmatch(given) else f"{_PROCESS}-{next(_numbers)}"


def _nothing() -> None: ...
