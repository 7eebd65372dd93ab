"""The work that one batch makes: its preprocessing, its forward pass, its postprocessing."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterable
from time import perf_counter
from typing import Any, Generic, Literal, TypeVar

import torch
from torch import nn

from ..feed import to_device
from ..inference import precision
from .batches import PredictBatch, check_results, forward
from .tally import Watch

R = TypeVar("R")


def nothing() -> None:
    """Do nothing."""


class Steps(Generic[R]):
    """What is done with every batch. Each step is for one thread at a time."""

    def __init__(
        self,
        model: nn.Module,
        device: torch.device,
        amp: Literal["off", "bf16", "fp16"],
        preprocess: Callable[[list[Any]], object],
        postprocess: Callable[[Any, PredictBatch], object],
    ) -> None:
        self._model = model
        self._device = device
        self._preprocess = preprocess
        self._postprocess = postprocess
        # Made once: between two forward passes, which leave nothing in the processor's caches, making them takes long.
        # One for each thread that there may be.
        self.preparing, self.computing = torch.inference_mode(), torch.inference_mode()
        self._precision = precision(device, amp)

    def prepare(self, inputs: list[object]) -> object:
        """Return what the model takes, on its device."""
        return to_device(self._preprocess(inputs), self._device)

    def compute(self, prepared: object) -> object:
        """Return the model's outputs."""
        with self._precision:
            return forward(self._model, prepared)

    def conclude(self, outputs: object, batch: PredictBatch) -> list[R]:
        """Return one result for each input."""
        return check_results(self._postprocess(outputs, batch), batch)


class Work(Generic[R]):
    """A batch on its way from inputs to results, taken by the run's own thread.

    Args:
        batch: The inputs.
        steps: What is done with them.
        left: What whoever is done with the batch is to call.
    """

    def __init__(
        self,
        batch: PredictBatch,
        steps: Steps[R],
        left: Callable[[], object] = nothing,
    ) -> None:
        self.batch = batch
        self.left = left
        self.results: Iterable[Any] = []
        """The results, once there are any; a callback may put others in their place."""
        self.watch = Watch(len(batch.names))
        self._steps = steps
        self._made: object = None
        """What the last step made of the batch."""

    def predict(self) -> None:
        """Have the `results`; once, by the run's own thread."""
        with self._steps.computing:
            self._prepare()
            self._compute()
        self._conclude()

    def _prepare(self) -> None:
        began = perf_counter()
        self._made = self._steps.prepare(list(self.batch.images))
        self.watch.preprocess = perf_counter() - began

    def _compute(self) -> None:
        began = perf_counter()
        prepared, self._made = self._made, None
        self._made = self._steps.compute(prepared)
        self.watch.inference = perf_counter() - began

    def _conclude(self) -> None:
        began = perf_counter()
        outputs, self._made = self._made, None
        self.results = self._steps.conclude(outputs, self.batch)
        self.watch.postprocess = perf_counter() - began


class WorkAhead(Work[R]):
    """A batch that others prepare and compute before the run's own thread comes to it, one handing over to the next."""

    def __init__(self, batch: PredictBatch, steps: Steps[R]) -> None:
        super().__init__(batch, steps)
        self._error: BaseException | None = None
        self._computed: queue.SimpleQueue[None] = queue.SimpleQueue()

    def predict(self) -> None:
        """See `Work.predict`; the outputs are waited for."""
        self._computed.get()
        self._raise()
        self._conclude()

    def prepare(self) -> bool:
        """Preprocess; False: it raised, which `predict` tells."""
        prepared = self._attempt(self._prepare, self._steps.preparing)
        if not prepared:
            self._computed.put(None)
        return prepared

    def compute(self) -> None:
        """Compute the outputs; what it raises, `predict` tells."""
        self._attempt(self._compute, self._steps.computing)
        self._computed.put(None)

    def _attempt(self, step: Callable[[], None], inference: torch.inference_mode) -> bool:
        try:
            with inference:
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
