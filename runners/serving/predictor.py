"""A predictor in which an input that fails leaves the others alone, and one whose client left is passed over."""

from __future__ import annotations

import logging
import threading
from collections import defaultdict
from collections.abc import AsyncIterable, Callable, Mapping, Sequence
from dataclasses import dataclass
from traceback import clear_frames, format_exception, walk_tb
from typing import Any, cast

import torch
from torch import nn

from ...bus import Bus
from ...bus.subscription import Seldom
from ...schemas import RequestEvent
from ..feed import to_device
from ..inference import precision
from ..predict.batches import PredictBatch, check_results, forward
from ..predict.config import PredictResult
from ..predict.session import Prediction
from ..predictor import Predictor
from ..run import Run
from .forms import reason_of
from .request import Failure, Item

logger = logging.getLogger("lineside.serving")

LONGEST_LINE, MOST_LINES = 500, 200
"""Of a traceback that is logged: what clients sent may be in it."""

Deliver = Callable[[list[Item], list[object]], None]
"""Takes the results of a batch, in the thread of the run."""


@dataclass(frozen=True)
class Broken:
    """In place of a prepared batch, or of outputs: why there are none."""

    error: Exception


class Nothing:
    """In place of a prepared batch, or of outputs: nobody waits for any of its inputs any longer."""


class ServedPredictor(Predictor[Any]):
    """What `predictor` does, on the inputs of requests; its hooks, bus and settings are those of `predictor`.

    Where a batch fails, each of its inputs is computed alone, and those that fail again get a `Failure`. An input whose
    request is over before it is prepared is not computed; its result is None. Why a batch or an input fails is logged,
    once in a while for each place that raises. Where the device itself fails, so does the run.

    Args:
        predictor: What to do with inputs.
        max_wait: Seconds that a batch waits for more inputs, where the predictor's settings do not say.
    """

    def __init__(self, predictor: Predictor[Any], max_wait: float) -> None:
        private = cast(Any, predictor)
        config = predictor.config
        super().__init__(
            Guarded(predictor.model),
            preprocess=self._prepare_wanted,
            postprocess=self._results_of_wanted,
            bus=predictor.bus,
            config=config if config.max_wait is not None else config.with_(max_wait=max_wait),
        )
        self.served = predictor
        """The predictor that does it."""
        self.own_bus: Bus | None = None if private._given_bus is not None else predictor.bus
        """The bus that the predictor made for itself."""
        self._hooks = private._hooks
        self._failures_logged: dict[object, Seldom] = defaultdict(Seldom)
        self._prepare_all: Callable[[list[Any]], object] = private._preprocess
        self._results_of_all: Callable[[Any, PredictBatch], object] = private._postprocess

    def serve(self, source: AsyncIterable[Item], deliver: Deliver) -> Run[PredictResult[Any]]:
        """Predict in a worker thread until the run is stopped; `source` is read on the caller's event loop.

        Raises:
            RunnerBusy: a run of this runner is in progress.
        """
        return self._start_prediction(_Delivered(source, lambda results: self._hand_over(results, deliver)))

    def tell(self, event: type[RequestEvent], **fields: object) -> None:
        """Publish an event of a request, as one of the run."""
        self._source.publish(event, **fields)

    @property
    def batch(self) -> PredictBatch:
        """The batch at hand, with the inputs as they were decoded; see `Predictor.batch`."""
        batch = super().batch
        return batch._replace(images=[item.value for item in _items(batch)])

    def _facts(self) -> Mapping[str, object]:
        return {**super()._facts(), "model": type(self.served.model).__qualname__}

    def _hand_over(self, results: Sequence[object], deliver: Deliver) -> None:
        items = _items(super().batch)
        if len(results) == len(items):
            deliver(items, list(results))
            return
        # What belongs to whom cannot be told any more, so nobody gets anything.
        problem = f"a callback left {len(results)} results for a batch of {len(items)} inputs"
        deliver(items, [Failure(problem)] * len(items))

    # ---- what is done with a batch

    def _prepare_wanted(self, items: list[Item]) -> object:
        for item in items:
            item.begun = not item.request.over
        values = [item.value for item in items if item.begun]
        try:
            return self._prepare_all(values) if values else Nothing()
        except Exception as error:
            return Broken(error)

    def _results_of_wanted(self, outputs: object, batch: PredictBatch) -> list[object]:
        items = _items(batch)
        wanted = _part(batch, [i for i, item in enumerate(items) if item.begun])
        results = iter(self._results(outputs, wanted) if wanted.images else ())
        return [next(results) if item.begun else None for item in items]

    def _results(self, outputs: object, batch: PredictBatch) -> list[object]:
        try:
            if isinstance(outputs, Broken):
                raise outputs.error
            return check_results(self._results_of_all(outputs, batch), batch)
        except Exception as error:
            failure = self._failure(error, len(batch.images))
            if len(batch.images) == 1:
                return [failure]
        return [self._result_alone(_part(batch, [i])) for i in range(len(batch.images))]

    def _result_alone(self, batch: PredictBatch) -> object:
        try:
            prepared = to_device(self._prepare_all(list(batch.images)), self.device)
            with torch.inference_mode(), precision(self.device, self.config.amp):
                outputs = forward(self.model, prepared)
            if isinstance(outputs, Broken):
                raise outputs.error
            return check_results(self._results_of_all(outputs, batch), batch)[0]
        except Exception as error:
            return self._failure(error, 1)

    def _failure(self, error: Exception, inputs: int) -> Failure:
        """Log why `inputs` failed together, and let go of what they took.

        Raises:
            Exception: `error`, where it is the device that failed.
        """
        if isinstance(error, torch.AcceleratorError):  # after most of which it can compute nothing any more
            raise error
        failure = Failure(reason_of(error))
        what = f"a batch of {inputs} inputs failed: they are computed one by one, which takes longer"
        if inputs == 1:
            what = "an input failed, and its client is told why"
        level = logging.WARNING if self._failures_logged[_place(error)].due() else logging.DEBUG
        if logger.isEnabledFor(level):
            cut = _cut_traceback(error)
            if cut is None:
                logger.log(level, what, exc_info=error)
            else:
                logger.log(level, "%s\n%s", what, cut)
        _let_go(error)
        return failure


class Guarded(nn.Module):
    """A module that returns what it cannot compute instead of raising, for one thread at a time."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self._one_thread = threading.Lock()

    def forward(self, *args: Any, **keywords: Any) -> object:
        """Return the outputs, or why there are none."""
        if args and isinstance(args[0], (Broken, Nothing)):
            return args[0]
        try:
            with self._one_thread:
                return cast(object, self.model(*args, **keywords))
        except Exception as error:
            return Broken(error)


class _Delivered(Prediction[Any]):
    """A prediction whose results are handed on, batch by batch."""

    abandoned = "the event loop of the service is closed"

    def __init__(self, source: AsyncIterable[Item], deliver: Callable[[Sequence[object]], None]) -> None:
        super().__init__(source)
        self._deliver = deliver

    def deliver(self, results: Sequence[Any]) -> None:
        """Hand the results of a batch on."""
        self._deliver(results)


def _items(batch: PredictBatch) -> list[Item]:
    return cast("list[Item]", batch.images)


def _part(batch: PredictBatch, positions: list[int]) -> PredictBatch:
    """Return the inputs at `positions` as a batch, as they were decoded."""
    items: Sequence[Any] = batch.images
    chosen: list[Any] = [items[i] for i in positions]
    values = [one.value if type(one) is Item else one for one in chosen]
    return PredictBatch(
        [batch.names[i] for i in positions], values, batch.source, [batch.strings[i] for i in positions]
    )


def _place(error: BaseException) -> object:
    """Return what kind of error it is, and where it was raised."""
    *_, (frame, line) = walk_tb(error.__traceback__)
    return type(error).__qualname__, frame.f_code.co_filename, line


def _cut_traceback(error: BaseException) -> str | None:
    """Return the traceback with what is too long left out; None: nothing is."""
    lines = "".join(format_exception(error)).splitlines()
    if len(lines) <= MOST_LINES and all(len(line) <= LONGEST_LINE for line in lines):
        return None
    half = MOST_LINES // 2
    shown = lines if len(lines) <= MOST_LINES else [*lines[:half], "…", *lines[-half:]]
    return "\n".join(line if len(line) <= LONGEST_LINE else f"{line[:LONGEST_LINE]}…" for line in shown)


def _let_go(error: BaseException) -> None:
    """Free what the functions held that `error` went through: there may be no memory for anything else."""
    known: set[int] = set()
    found: list[BaseException | None] = [error]
    for one in found:
        if one is not None and id(one) not in known:
            known.add(id(one))
            clear_frames(one.__traceback__)
            found += [one.__cause__, one.__context__]
