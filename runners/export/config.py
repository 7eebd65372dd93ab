"""What an exporter can be told, and what it returns."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from ...schemas.export import Format
from ..config import Device, RunnerConfig
from ..results import RunResult


class ExportConfig(RunnerConfig, frozen=True):
    """How to export."""

    path: Path = Field(description="File to write; its suffix, `.pt2` or `.onnx`, says the format.")
    format: Format | None = Field(
        default=None, description="`pt2` (torch.export) or `onnx`. Default: what the path's suffix says."
    )
    dynamic_batch: bool = Field(
        default=True, description="Leave the batch dimension open, so that any batch size can be run."
    )
    tolerance: float = Field(
        default=1e-4,
        ge=0,
        description="Largest absolute difference allowed between the file's outputs and the module's.",
    )
    opset: int | None = Field(
        default=None, ge=18, description="Version of the ONNX operators. Default: torch's choice."
    )
    overwrite: bool = Field(default=False, description="Replace a file that is there, once the new one is verified.")
    device: Device = Field(
        default="auto",
        description="Where the module is captured and compared. `auto`: where it is for pt2, the CPU for ONNX.",
    )

    @model_validator(mode="after")
    def _check_suffix(self) -> Self:
        expected = ".pt2 or .onnx" if self.format is None else f".{self.format}"
        if self.path.suffix not in expected.split(" or "):
            raise ValueError(f"the path {self.path} has to end in {expected}")
        if self.opset is not None and self.file_format != "onnx":
            raise ValueError("opset is for ONNX only")
        return self

    @property
    def file_format(self) -> Format:
        """The format, asked for or out of the suffix."""
        return self.format or ("onnx" if self.path.suffix == ".onnx" else "pt2")


class ExportResult(RunResult, frozen=True):
    """What an export returns. Where it was stopped there is no file, and nothing that was there before has changed."""

    path: Path | None = Field(description="The file; null where the export was stopped before.")
    bytes: int = Field(description="Its size, and that of a file of weights beside it.")
    max_error: float | None = Field(description="Largest absolute difference of its outputs from the module's.")
    tolerance: float = Field(description="Largest difference allowed.")
