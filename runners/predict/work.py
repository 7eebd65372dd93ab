"""The work that one batch makes: its preprocessing, its forward pass, its postprocessing."""

from __future__ import annotations

import queue
from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Generic, Literal, TypeVar

import torch
from torch import nn

from ..feed import to_device
from ..inference import precision
from .batches import PredictBatch, check_results, forward
from .tally import Watch

R = TypeVar("R")


@dataclass(frozen=True)
class Steps(Generic[R]):
    """What is done with every batch."""

    model: nn.Module
    device: torch.device
    amp: Literal["off", "bf16", "fp16"]
    preprocess: Callable[[list[Any]], object]
    postprocess: Callable[[Any, PredictBatch], object]


class Work(Generic[R]):
    """A batch on its way from inputs to results.

    Its three steps are taken once and in order. Each may be taken by another thread, if one hands over to the other.

    Args:
        batch: The inputs.
        steps: What is done with them.
        ahead: Whether others compute it, before the run's own thread comes to it.
    """

    def __init__(self, batch: PredictBatch, steps: Steps[R], *, ahead: bool = False) -> None:
        self.batch = batch
        self.watch = Watch(len(batch.names))
        self._steps = steps
        self._ahead = ahead
        self._made: object = None
        """What the last step made of the batch."""
        self._error: BaseException | None = None
        self._computed: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._finished: queue.SimpleQueue[None] = queue.SimpleQueue()

    def results(self) -> list[R]:
        """Return the results, for which the outputs are waited for or computed; once, by the run's own thread."""
        if self._ahead:
            self._computed.get()
            self._raise()
        else:
            self._prepare()
            self._compute()
        return self._postprocess()

    # ---- for those who work ahead

    def prepare(self) -> bool:
        """Preprocess; False: it raised, which `results` tells."""
        prepared = self._attempt(self._prepare)
        if not prepared:
            self._computed.put(None)
        return prepared

    def compute(self) -> None:
        """Compute the outputs; what it raises, `results` tells."""
        self._attempt(self._compute)
        self._computed.put(None)

    def finish(self) -> None:
        """Say that nothing more is done with it."""
        self._finished.put(None)

    def wait(self) -> None:
        """Wait until nothing more is done with it."""
        self._finished.get()

    # ---- the steps

    def _prepare(self) -> None:
        began, steps = perf_counter(), self._steps
        self._made = to_device(steps.preprocess(list(self.batch.images)), steps.device)
        self.watch.add("preprocess", began)

    def _compute(self) -> None:
        began, steps = perf_counter(), self._steps
        prepared, self._made = self._made, None
        with torch.inference_mode(), precision(steps.device, steps.amp):
            self._made = forward(steps.model, prepared)
        self.watch.add("inference", began)

    def _postprocess(self) -> list[R]:
        began = perf_counter()
        outputs, self._made = self._made, None
        results = check_results(self._steps.postprocess(outputs, self.batch), self.batch)
        self.watch.add("postprocess", began)
        return results

    def _attempt(self, step: Callable[[], None]) -> bool:
        try:
            step()
        except BaseException as error:
            self._error = error
            return False
        return True

    def _raise(self) -> None:
        error, self._error = self._error, None
        try:
            if error is not None:
                raise error
        finally:
            del error  # its traceback has this frame: a cycle would keep the batch until it is collected
