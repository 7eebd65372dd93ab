"""`Predictor`: runs a module on inputs, and hands out a result for each as fast as its reader takes them."""

from __future__ import annotations

import asyncio
import concurrent.futures
import math
from collections.abc import AsyncIterable, Callable, Generator, Iterable, Mapping, Sequence
from contextlib import closing
from functools import partial
from typing import Any, ClassVar, Generic, TypeVar, cast, overload

from torch import Tensor, nn

from ..bus import Bus
from ..bus.callables import is_async, why_not_callable
from ..schemas import (
    PredictBatchEnd,
    PredictBatchStart,
    PredictEnd,
    PredictEvent,
    PredictPostprocessEnd,
    PredictStart,
    events,
)
from ..schemas.run import Kind
from .errors import InvalidArgument, WouldDeadlock
from .inference import check_model, evaluating, place, resolve_device
from .loops import running_loop
from .predict.batches import PredictBatch, rows, stack
from .predict.channel import Demand
from .predict.config import PredictConfig, PredictResult
from .predict.data import ResultsData
from .predict.errors import NoBatch
from .predict.inputs import AsyncInputs, Inputs, PromptInputs, SyncInputs
from .predict.schedule import Ahead, InOrder, Schedule
from .predict.session import PredictControl, Prediction, StreamedPrediction
from .predict.sources import AnyPlainSource, AnySource, check_source
from .predict.stream import CLOSE_TIMEOUT, PredictStream
from .predict.tally import Tally
from .predict.threads import Settings
from .predict.work import Steps, Work
from .relay import Relay
from .run import Run
from .runner import Ending, Runner

__all__ = ["PredictBatch", "PredictConfig", "PredictResult", "PredictStream", "Predictor"]

R = TypeVar("R")

Preprocess = Callable[[list[Any]], object]
"""From the inputs of a batch to what the model takes: a tensor, a tuple of arguments or a mapping of keywords."""

Postprocess = Callable[[Any, PredictBatch], Sequence[R]]
"""From the model's outputs and the batch to one result for each input."""


class Predictor(Runner[PredictConfig, PredictResult[R]], Generic[R]):
    """Runs a module on the inputs of a source, in batches, in eval mode and without gradients.

    ``stream(source)`` is an iterator and an async iterator over the results, ``run(source)`` returns them all, and
    ``start(source)`` does that in a thread. A source is any iterable of inputs: a list, a generator, a tensor or
    array whose first dimension is the batch, a `Dataset` or `DataLoader` (its samples, or the rows of its batches; the
    first element where they are tuples), or the path of a folder of pictures or of one picture, which are
    read as arrays of shape (height, width, 3), uint8, RGB; for ``start`` and ``async for`` also an async iterable,
    which is read on the caller's event loop.

    Preprocessing and the model run in torch's inference mode. With ``overlap``, the next batches are read and
    preprocessed in a second thread and computed in a third, while the run's own makes results of the last: `preprocess`
    and `postprocess` must be fit to be called at the same time, each of them by one thread. Stages, hooks and results
    keep their order. A batch is begun only when it is wanted.

    During a batch `batch` and `results` can be read by hooks and callbacks. What a callback at
    ``on_predict_batch_end`` puts into `results` is what the reader gets; the event has the results before that.

    Args:
        model: The module. It is moved to the device of the configuration and stays there; its mode is given back.
        preprocess: From a list of inputs to what the model takes. Default: one float32 tensor of all of them, stacked.
        postprocess: From the outputs and the batch to one result for each input. Default: the rows of the output
            tensor, on the CPU.
        bus: Where to publish. Default: a bus of its own.
        config: The settings.
        settings: Settings by name, in place of those in `config`.

    Raises:
        InvalidModel: `model` is no module.
        InvalidConfig: a setting does not exist or cannot have that value.
        InvalidArgument: `preprocess` or `postprocess` cannot be called as described.
    """

    kind: ClassVar[Kind] = "predict"
    stages = (PredictEvent,)

    @overload
    def __init__(
        self: Predictor[Tensor],
        model: nn.Module,
        *,
        preprocess: Preprocess | None = None,
        postprocess: None = None,
        bus: Bus | None = None,
        config: PredictConfig | None = None,
        **settings: Any,
    ) -> None: ...
    @overload
    def __init__(
        self,
        model: nn.Module,
        *,
        preprocess: Preprocess | None = None,
        postprocess: Postprocess[R],
        bus: Bus | None = None,
        config: PredictConfig | None = None,
        **settings: Any,
    ) -> None: ...
    def __init__(
        self,
        model: nn.Module,
        *,
        preprocess: Preprocess | None = None,
        postprocess: Postprocess[Any] | None = None,
        bus: Bus | None = None,
        config: PredictConfig | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(PredictConfig.of(config, **settings), bus=bus)
        self.model = check_model(model)
        self._preprocess = preprocess or stack
        self._postprocess = cast("Postprocess[R]", postprocess or rows)
        _check_function("preprocess", self._preprocess, "inputs")
        _check_function("postprocess", self._postprocess, "outputs", "batch")
        self._work: Work[R] | None = None
        self.device = resolve_device(self.config.device)
        self._prediction: Prediction[R] = Prediction(())

    # ---- for everybody

    @property
    def batch(self) -> PredictBatch:
        """The batch at hand: ``names, images, source, strings = predictor.batch``, see `PredictBatch`.

        Raises:
            NoBatch: no batch is being computed.
        """
        return self._at_hand().batch

    @property
    def results(self) -> Iterable[Any]:
        """The results of the batch at hand, none before there are any; a callback may put others in their place.

        Raises:
            NoBatch: no batch is being computed.
        """
        return self._at_hand().results

    @results.setter
    def results(self, results: Iterable[Any]) -> None:
        self._at_hand().results = list(results)  # every callback after this one may look at them

    def _at_hand(self) -> Work[R]:
        if self._work is None:
            raise NoBatch
        return self._work

    def stream(self, source: AnySource) -> PredictStream[R]:
        """Return the results as an iterator and async iterator. Nothing happens before the first is asked for.

        Raises:
            SourceUnusable: `source` is nothing to take inputs from.
        """
        prediction: StreamedPrediction[R] = StreamedPrediction(check_source(source), self.config.prefetch)
        return PredictStream(
            prediction,
            begin=partial(self._begin_stream, prediction),
            abegin=partial(self._abegin_stream, prediction),
            before_blocking=partial(self._refuse_to_hold_up_loop, prediction),
        )

    def run(self, source: AnyPlainSource, *, collect: bool = True) -> PredictResult[R]:
        """Predict in the calling thread and return all results.

        Without `collect` only the events have them, and the source may be endless.

        In the main thread, SIGINT and SIGTERM stop the run at the next batch; a second SIGINT raises KeyboardInterrupt.

        Raises:
            RunnerBusy: a run of this runner is in progress.
            WouldDeadlock: this thread runs the loop that the bus's callbacks need.
            SourceUnusable: `source` is nothing to take inputs from, or can only be read on an event loop.
        """
        prediction: Prediction[R] = Prediction(check_source(source), collect=collect)
        prediction.read_synchronously("use `start(source)`")
        self._wait_for_abandoned()
        return self._run(partial(self._begin_prediction, prediction))

    def start(self, source: AnySource) -> Run[PredictResult[R]]:
        """Predict in a worker thread and return its handle at once; the result has all results.

        Async hooks run on the loop of the caller, if any.

        Raises:
            RunnerBusy: a run of this runner is in progress.
            SourceUnusable: `source` is nothing to take inputs from.
        """
        self._wait_for_abandoned()
        return self._start_prediction(Prediction(check_source(source)))

    # ---- what happens in a run

    def _open(self) -> Inputs:
        source, max_wait = self._prediction.source, self.config.max_wait
        if self._prediction.asynchronous:
            return AsyncInputs(cast("AsyncIterable[object]", source), self._loop or self.bus.loop, max_wait)
        iterable = cast("Iterable[object]", source)
        return SyncInputs(iterable) if max_wait is None else PromptInputs(iterable, max_wait)

    def _facts(self) -> Mapping[str, object]:
        return {"model": type(self.model).__qualname__, "device": str(self.device)}

    def _in_parts(self) -> Generator[None, None, PredictResult[R]]:
        place(self.model, self.device)
        inputs = self._open()
        batches = None if inputs.total is None else self.config.batches_of(inputs.total)
        with closing(self._schedule(inputs, batches)) as schedule, evaluating(self.model):
            self.reach(PredictStart, source=inputs.name, batch_size=self.config.batch_size, batches=batches)
            tally = Tally()
            while (work := schedule.next()) is not None:
                self._work = work
                self._predict(work, batches, tally)
                yield
        self.reach(
            PredictEnd, inputs=tally.inputs, batches=tally.batches, duration=tally.elapsed(), speed=tally.mean_speed()
        )
        return self._result(tally, schedule.exhausted)

    def _schedule(self, inputs: Inputs, batches: int | None) -> Schedule[R]:
        demand, config = self._prediction.demand, self.config
        steps: Steps[R] = Steps(self.model, self.device, config.amp, self._preprocess, self._postprocess)
        if self._one_by_one(demand) or batches in (0, 1) or self._in_step():
            return InOrder(inputs, config.sizes(), steps, demand, self._interrupted)
        return Ahead(inputs, config.sizes(), steps, demand, self._interrupted, self._in_step, self._awaited.caller)

    def _one_by_one(self, demand: Demand) -> bool:
        """Return whether nothing is done of a batch before the last one is through."""
        return not self.config.overlap or demand.prefetch == 0

    def _in_step(self) -> bool:
        """Return whether somebody is to see a batch before it is computed, and might change what computes it."""
        return bool(self._hooks.of(PredictBatchStart))

    def _predict(self, work: Work[R], batches: int | None, tally: Tally) -> None:
        names, size = tuple(work.batch.names), work.watch.inputs
        described: dict[str, object] = {"epoch": 0, "batch": tally.batches, "batches": batches, "batch_size": size}
        self.reach(PredictBatchStart, **described, inputs=names)
        work.predict()
        speed = work.watch.speed()
        self.reach(PredictPostprocessEnd, **described, results=size, speed=speed)
        results = work.results = list(work.results)
        data = ResultsData(results) if self.config.publish_results else ()
        self.reach(PredictBatchEnd, **described, inputs=names, results=data, speed=speed)
        self._prediction.deliver(list(work.results))
        tally.count(work.watch)

    def _result(self, tally: Tally, exhausted: bool) -> PredictResult[R]:
        prediction = self._prediction
        result: PredictResult[R] = PredictResult(
            run=self.run_id,
            attempt=self._identity.attempt,
            outcome="completed" if exhausted else "stopped",
            reason=None if exhausted else self._control.reason or prediction.abandoned,
            duration=self._source.elapsed(),
            results=tuple(prediction.results),
            inputs=tally.inputs,
            batches=tally.batches,
            speed=tally.mean_speed(),
        )
        return result

    def _teardown(self, ending: Ending) -> None:
        self._work = None
        self._prediction.forget()

    # ---- how a run begins and ends

    def _begin_prediction(self, prediction: Prediction[R], loop: asyncio.AbstractEventLoop | None) -> None:
        # A reader who blocks his thread blocks the loop in it, so async hooks cannot run there.
        self._begin(None if prediction.blocks else loop)
        self._prediction = prediction
        self._control = prediction.control = PredictControl(prediction.release)

    def _relay(self, parts: Generator[None, None, PredictResult[R]]) -> Relay[PredictResult[R]]:
        prediction = self._prediction
        alike = Settings().call if prediction.shared else None
        prediction.relay = Relay(parts, self._awaited.caller(), prediction.shared, alike)
        return prediction.relay

    def _execute_and_release(self) -> Generator[None, None, PredictResult[R]]:
        prediction = self._prediction
        try:
            return (yield from super()._execute_and_release())
        finally:
            prediction.end()

    def _wait_for_abandoned(self) -> None:
        """Wait for the run of a stream whose reader has left; it ends with the batch at hand."""
        if (over := self._prediction.ending) is not None:
            concurrent.futures.wait([over], CLOSE_TIMEOUT)

    async def _wait_for_abandoned_async(self) -> None:
        if self._busy.locked():  # who has just awaited a cancelled reader keeps his stream alive until the loop turns
            await asyncio.sleep(0)
        if (over := self._prediction.ending) is not None:
            await asyncio.wait([asyncio.wrap_future(over)], timeout=CLOSE_TIMEOUT)

    def _start_prediction(self, prediction: Prediction[R]) -> Run[PredictResult[R]]:
        return self._start(partial(self._begin_prediction, prediction))

    def _begin_stream(self, prediction: StreamedPrediction[R]) -> Run[PredictResult[R]]:
        prediction.read_synchronously("read the stream with `async for`")
        prediction.blocks = True
        prediction.shared = math.inf if self._one_by_one(prediction.demand) else 1
        self._refuse_to_hold_up_loop(prediction)
        self._wait_for_abandoned()
        return self._start_prediction(prediction)

    async def _abegin_stream(self, prediction: StreamedPrediction[R]) -> Run[PredictResult[R]]:
        await self._wait_for_abandoned_async()
        return self._start_prediction(prediction)

    def _refuse_to_hold_up_loop(self, prediction: StreamedPrediction[R]) -> None:
        """Refuse to let the caller block an event loop that the run needs: for an async source, or for async hooks."""
        loop = running_loop()
        if loop is None or not (prediction.asynchronous or self._has_async_hooks()):
            return
        own = None if prediction.blocks else self._loop
        if self.bus.serves(loop) if own is None else loop is own:
            raise WouldDeadlock(
                "reading the stream with `for`",
                "it would hold up the event loop that the predictor's async source or hooks run on",
                "use `async for`",
            )

    def _has_async_hooks(self) -> bool:
        return any(hook.awaits for event in events() for hook in self._hooks.of(event))


def _check_function(name: str, function: object, *arguments: str) -> None:
    problem = why_not_callable(function, len(arguments))
    if problem is None and callable(function) and is_async(function):
        problem = "it is async, and would be called in a thread that runs no event loop"
    if problem:
        raise InvalidArgument(f"{name}={function!r:.80}: {problem}", f"expected a function of ({', '.join(arguments)})")
