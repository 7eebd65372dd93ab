"""What a run returns."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from ..schemas import Scalars


class RunResult(BaseModel, frozen=True):
    """What every run returns. A failed run returns nothing: it raises the error that ended it."""

    model_config = ConfigDict(extra="forbid")

    run: str = Field(description="Id of the run.")
    attempt: int = Field(default=1, description="Attempt of the run, from 1; a resumed run has the next one.")
    outcome: Literal["completed", "stopped"] = Field(description="`completed` by itself, or `stopped` by request.")
    reason: str | None = Field(default=None, description="Why it ended where that is not obvious.")
    signal: int | None = Field(default=None, description="Number of the signal that stopped it, if one did.")
    duration: float = Field(description="Seconds from the run's begin to this result.")


class TrainResult(RunResult, frozen=True):
    """What training returns."""

    epochs: int = Field(description="Epochs completed, those of earlier attempts included.")
    step: int = Field(description="Optimizer steps completed, those of earlier attempts included.")
    losses: Scalars = Field(
        default_factory=dict[str, float], description="Mean training losses of the last whole epoch, by name."
    )
    metrics: Scalars = Field(
        default_factory=dict[str, float],
        description="Metrics and losses of the final evaluation; of the last validation where there was no final one.",
    )
    best_fitness: float | None = Field(default=None, description="The best fitness reached, larger is better.")
    best_epoch: int | None = Field(default=None, description="The epoch it was reached in, from 0.")
    best: Path | None = Field(default=None, description="The best checkpoint.")
    last: Path | None = Field(default=None, description="The latest checkpoint.")


class ValResult(RunResult, frozen=True):
    """What validation returns."""

    metrics: Scalars = Field(description="The metrics, by name.")
    losses: Scalars = Field(description="Mean losses by name, weighted by batch size; empty without a loss.")
    fitness: float | None = Field(default=None, description="The number that is to be improved, larger is better.")
    batches: int = Field(description="Batches evaluated.")
    samples: int = Field(description="Samples evaluated.")
    speed: Scalars = Field(description="Milliseconds a sample, by part: `data`, `inference`, `metrics`.")
