"""Events of prediction."""

from __future__ import annotations

from pydantic import Field

from .families import BatchEnd, BatchEvent, BatchStart, PredictEvent
from .fields import Count, Json, Milliseconds, Seconds


class PredictStart(PredictEvent):
    """The first result was asked for; the source is open."""

    source: str = Field(description="What is predicted, in words, e.g. a path or the type of the iterable.")
    batch_size: Count = Field(description="Largest number of inputs in a batch.")
    batches: int | None = Field(description="Batches to come; null where the source does not know.")


class PredictBatchStart(PredictEvent, BatchStart):
    """A batch was gathered; preprocessing and the forward pass come next."""

    inputs: tuple[str, ...] = Field(description="Names of the inputs: paths, or the position in the source.")


class PredictPostprocessEnd(PredictEvent, BatchEvent):
    """The outputs of a batch have become results."""

    results: Count = Field(description="Number of results.")
    speed: Milliseconds = Field(description="Milliseconds an input, by part: `preprocess`, `inference`, `postprocess`.")


class PredictBatchEnd(PredictEvent, BatchEnd, urgent=True):
    """The results of a batch are on their way to the consumers."""

    inputs: tuple[str, ...] = Field(description="Names of the inputs.")
    results: tuple[Json, ...] = Field(description="A result for each input, as data.")
    speed: Milliseconds = Field(description="Milliseconds an input, by part: `preprocess`, `inference`, `postprocess`.")


class PredictEnd(PredictEvent):
    """Prediction is over: the source is exhausted, or nobody reads any longer."""

    inputs: Count = Field(description="Inputs predicted.")
    batches: Count = Field(description="Batches computed.")
    duration: Seconds = Field(description="Seconds since `PredictStart`.")
    speed: Milliseconds = Field(description="Mean milliseconds an input, by part.")
