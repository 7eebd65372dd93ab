"""What a predictor can be told, and what a prediction returns."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import repeat
from typing import Generic, Literal, Self, TypeVar

from pydantic import Field, model_validator

from ...schemas import Scalars
from ..config import RunnerConfig
from ..results import RunResult

T = TypeVar("T")


class PredictConfig(RunnerConfig, frozen=True):
    """How to predict."""

    batch_size: int = Field(default=32, ge=1, description="Largest number of inputs that are computed together.")
    first_batch: int | None = Field(
        default=None,
        ge=1,
        description="Largest number of inputs in the first batch: fewer than `batch_size` have the first result there "
        "sooner. Default: `batch_size`.",
    )
    prefetch: int = Field(
        default=2,
        ge=0,
        description="Batches a stream may be ahead of the one its reader is at; 0: each is computed when asked for, as "
        "always with `overlap=False` and `for`.",
    )
    overlap: bool = Field(
        default=True,
        description="Read, preprocess and compute the next batches while results are made of the last. Without, with "
        "`prefetch=0`, or with a hook for `PredictBatchStart`, everything is done in order.",
    )
    max_wait: float | None = Field(
        default=None,
        ge=0,
        allow_inf_nan=False,
        description="Seconds that a batch waits for more after its first input; 0: it takes what is there. Default: "
        "until it is full, or the source at its end.",
    )
    amp: Literal["off", "bf16", "fp16"] = Field(default="off", description="Precision of the forward pass.")
    publish_results: bool = Field(default=True, description="Put the results, as data, into `PredictBatchEnd`.")

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if self.first_batch is not None and self.first_batch > self.batch_size:
            raise ValueError(
                f"first_batch={self.first_batch} is more than batch_size={self.batch_size}, which no batch exceeds: "
                "set it to fewer, or leave it out"
            )
        return self

    def sizes(self) -> Iterator[int]:
        """Yield the largest number of inputs of each batch."""
        yield self.first_batch or self.batch_size
        yield from repeat(self.batch_size)

    def batches_of(self, inputs: int) -> int:
        """Return how many batches so many inputs make, if none goes before it is full."""
        first = min(inputs, self.first_batch or 0)
        return (first > 0) + math.ceil((inputs - first) / self.batch_size)


class PredictResult(RunResult, Generic[T], frozen=True):
    """What a prediction returns."""

    results: tuple[T, ...] = Field(
        description="The results, one for each input; none where they went to a stream or were not to be collected."
    )
    inputs: int = Field(description="Inputs predicted.")
    batches: int = Field(description="Batches computed.")
    speed: Scalars = Field(description="Mean milliseconds an input: `preprocess`, `inference`, `postprocess`.")
