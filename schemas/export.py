"""Events of export."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from .families import ExportEvent
from .fields import Bytes, FilePath, Seconds

Format = Literal["pt2", "onnx"]
Phase = Literal["capture", "lower", "save", "verify"]


class ExportStart(ExportEvent):
    """An export begins."""

    format: Format = Field(description="`pt2` (torch.export) or `onnx`.")
    path: FilePath = Field(description="File to be written.")
    dynamic_batch: bool = Field(description="Whether the batch dimension is left open.")


class ExportPhase(ExportEvent):
    """A phase of the export is done."""

    format: Format = Field(description="`pt2` or `onnx`.")
    phase: Phase = Field(description="`capture` the graph, `lower` it to the format, `save` the file, `verify` it.")
    duration: Seconds = Field(description="Seconds the phase took.")


class ExportEnd(ExportEvent):
    """The file is written and was run against the module. Comes after success only."""

    format: Format = Field(description="`pt2` or `onnx`.")
    path: FilePath = Field(description="The file.")
    bytes: Bytes = Field(description="Its size.")
    max_error: float = Field(description="Largest absolute difference between the file's outputs and the module's.")
    tolerance: float = Field(description="Largest difference allowed.")
    duration: Seconds = Field(description="Seconds the export took, verification included.")
