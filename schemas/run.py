"""The begin and the end of a run of any kind."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from .families import RunEvent
from .fields import Count, FilePath, FrozenDict, JsonObject, Seconds
from .part import Part

Kind = Literal["train", "val", "predict", "export"]
Outcome = Literal["completed", "stopped", "failed"]


class ErrorInfo(Part):
    """An exception as data."""

    type: str = Field(description="Qualified name of the exception's class.")
    message: str = Field(description="What it said.")
    traceback: str = Field(default="", description="The formatted traceback.")


class RunStart(RunEvent):
    """A run begins. The first event of every run."""

    kind: Kind = Field(description="Which runner.")
    model: str = Field(description="Class of the model.")
    device: str = Field(description="Device it computes on, e.g. `cpu`, `cuda:0`.")
    world_size: Count = Field(default=1, description="Processes of the run.")
    resumed_from: FilePath | None = Field(default=None, description="Checkpoint this attempt continues from.")
    config: JsonObject = Field(default_factory=FrozenDict, description="The runner's configuration.")
    host: str = Field(default="", description="Name of the machine.")
    pid: Count = Field(default=0, description="Process id.")
    versions: JsonObject = Field(default_factory=FrozenDict, description="Versions of Python, torch and this package.")


class RunEnd(RunEvent):
    """A run is over, however it ended. The last event of every run, always published."""

    kind: Kind = Field(description="Which runner.")
    outcome: Outcome = Field(description="`completed`, `stopped` (somebody asked for it) or `failed`.")
    reason: str | None = Field(
        default=None, description="Why it ended, where not obvious, e.g. `no improvement in 5 epochs`."
    )
    error: ErrorInfo | None = Field(default=None, description="The error of a failed run.")
    duration: Seconds = Field(description="Seconds from the run's begin to its end.")
