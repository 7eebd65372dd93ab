"""Events of validation, alone or within training."""

from __future__ import annotations

from pydantic import Field

from .families import BatchEnd, BatchStart, ValEvent
from .fields import Count, Milliseconds, Scalars, Seconds


class ValStart(ValEvent):
    """Validation begins; its metrics are reset."""

    epoch: Count = Field(description="Epoch of the training run it belongs to; 0 alone.")
    batches: int | None = Field(description="Batches to evaluate; null where the loader does not know.")


class ValBatchStart(ValEvent, BatchStart):
    """A batch was fetched; the forward pass comes next."""


class ValBatchEnd(ValEvent, BatchEnd):
    """A batch was evaluated and counted in the metrics."""

    losses: Scalars = Field(description="Losses of the batch by name; empty where no loss was given.")


class ValEnd(ValEvent):
    """Validation is done."""

    epoch: Count = Field(description="Epoch of the training run it belongs to; 0 alone.")
    batches: Count = Field(description="Batches evaluated.")
    samples: Count = Field(description="Samples evaluated.")
    metrics: Scalars = Field(description="The metrics just computed, by name.")
    losses: Scalars = Field(description="Mean losses by name, weighted by batch size.")
    fitness: float | None = Field(description="The number that is to be improved, larger is better.")
    duration: Seconds = Field(description="Seconds it took.")
    speed: Milliseconds = Field(
        description="Milliseconds a sample, by part: `data`, `inference`, `metrics`. On the host: what a GPU has "
        "still to do is waited for in a later part, or at the end."
    )

    @property
    def scores(self) -> dict[str, float]:
        """Metrics and losses, by name: what ``FitEpochEnd.metrics`` has of an epoch."""
        return {**self.metrics, **self.losses}
