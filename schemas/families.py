"""Families: groups of events that are subscribed to together, with the fields they share."""

from __future__ import annotations

from pydantic import Field

from .event import Event
from .fields import Count


class RunEvent(Event, family=True):
    """The begin and the end of any run."""


class TrainEvent(Event, family=True):
    """Training."""


class ValEvent(Event, family=True):
    """Validation, alone or within training."""

    aside: bool = Field(
        default=False, description="Whether somebody asked for it in between, with `run.evaluate`: not the run's own."
    )


class PredictEvent(Event, family=True):
    """Prediction."""


class ExportEvent(Event, family=True):
    """Export."""


class BusEvent(Event, family=True):
    """What the bus says of itself."""


class BatchEvent(Event, family=True, urgent=False):
    """Something that happens once a batch. These travel together, some milliseconds apart."""

    epoch: Count = Field(description="Epoch, from 0; 0 where there are no epochs.")
    batch: Count = Field(description="Batch of the epoch, from 0.")
    batches: int | None = Field(description="Batches of the epoch; null where the loader does not know.")
    batch_size: Count = Field(description="Samples in this batch.")


class BatchStart(BatchEvent, family=True):
    """A batch was fetched and is about to be computed."""


class BatchEnd(BatchEvent, family=True):
    """A batch is done."""


class OptimizerEvent(TrainEvent, BatchEvent, family=True):
    """A part of an optimizer step, inside the batch that completes its accumulation window."""

    step: Count = Field(description="Optimizer steps completed when this was published.")
