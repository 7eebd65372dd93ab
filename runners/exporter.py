"""`Exporter`: writes a module to a file that runs without its code, and proves that it does."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from ..bus import Bus
from ..schemas import ExportEnd, ExportEvent, ExportPhase, ExportStart
from ..schemas.export import Phase
from ..schemas.run import Kind
from .export.compare import max_error, tensors
from .export.config import ExportConfig, ExportResult
from .export.errors import ExportError, ExportMismatch, ExportPhaseFailed, ExportTargetExists, ExportUnwritable
from .export.example import Example
from .export.formats import FORMATS, Loaded, capture, require
from .export.quiet import quiet
from .inference import check_model, devices_of, evaluating, placed, resolve_device
from .runner import ReadyRunner

__all__ = ["ExportConfig", "ExportResult", "Exporter"]


class Exporter(ReadyRunner[ExportConfig, ExportResult]):
    """Exports a module to a `torch.export` archive (.pt2) or an ONNX file, with an open batch dimension.

    The phases, each an `ExportPhase`: `capture` the graph, `lower` it to the format (ONNX only: an archive keeps
    the graph as it was captured), `save` the file, `verify` it. To verify is to load the file and run it, by torch
    or by onnxruntime, against the module in eval mode: on the example and, where the batch is open, on other sizes.
    Only a file that passed takes the place of `path`; the module's mode and device are as before.

    Args:
        model: The module. It is captured in eval mode.
        example_inputs: Its positional inputs, one tensor or several. The first dimension of the first is the batch.
        bus: Where to publish. Default: a bus of its own.
        config: The settings.
        settings: Settings by name, in place of those in `config`.

    Raises:
        InvalidModel: `model` is no module.
        InvalidConfig: a setting does not exist or cannot have that value.
        ExampleUnusable: the example inputs are no tensors, or have no batch.

    A run raises an `ExportError` of these when it fails: `ExportTargetExists`, `ExportPackageMissing`,
    `ExportUnwritable`, `ExportPhaseFailed`, `ExportMismatch`.
    """

    kind: ClassVar[Kind] = "export"
    stages = (ExportEvent,)

    def __init__(
        self,
        model: nn.Module,
        example_inputs: Tensor | Sequence[Tensor],
        *,
        bus: Bus | None = None,
        config: ExportConfig | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(ExportConfig.of(config, **settings), bus=bus)
        self.model = check_model(model)
        self.example = Example.of(example_inputs)
        if self.config.dynamic_batch:
            _ = self.example.batch_size  # there has to be one
        self._format = FORMATS[self.config.file_format]
        self.result: ExportResult | None = None
        """What came of the export, from ``ExportEnd`` on; None before, and where no file was written."""

    def _facts(self) -> Mapping[str, object]:
        return {"model": type(self.model).__qualname__, "device": str(self._device())}

    def _device(self) -> torch.device:
        """Where the module is captured and compared."""
        asked = self._format.device if self.config.device == "auto" else self.config.device
        if asked is not None:
            return resolve_device(asked)
        return next(iter(sorted(devices_of(self.model), key=str)), torch.device("cpu"))

    def _body(self) -> ExportResult:
        config, began = self.config, perf_counter()
        self.result = None
        described: dict[str, object] = {"format": config.file_format, "path": config.path}
        self.reach(ExportStart, **described, dynamic_batch=config.dynamic_batch)
        self._check()
        written = self._write()
        if written is None:
            return self._result("stopped", None, 0, None)
        size, error = written
        self.result = self._result("completed", config.path, size, error)
        self.reach(
            ExportEnd,
            **described,
            bytes=size,
            max_error=error,
            tolerance=config.tolerance,
            duration=perf_counter() - began,
        )
        return self.result

    def _check(self) -> None:
        path = self.config.path
        if path.is_dir() or (path.exists() and not self.config.overwrite):
            raise ExportTargetExists(path)
        require(self.config.file_format)

    def _write(self) -> tuple[int, float] | None:
        """Write the file and return its size and error; None where a stop was asked for in between."""
        path, device = self.config.path, self._device()
        with evaluating(self.model), placed(self.model, device), _draft_of(path) as draft:
            if not self._convert(draft, self.example.to(device)):
                return None
            with self._phase("verify"):
                error = self._verify(draft, self.example.to(device))
            return None if self._interrupted() else (_move(draft, path), error)

    def _convert(self, draft: Path, example: Example) -> bool:
        """Capture, lower and save; return whether that was done, or a stop was asked for in between."""
        with self._phase("capture"):
            captured = capture(self.model, example, dynamic_batch=self.config.dynamic_batch)
        if self._interrupted():
            return False
        with self._phase("lower", silent=not self._format.lowers):
            save = self._format.lower(captured, opset=self.config.opset)
        if self._interrupted():
            return False
        with self._phase("save"):
            save(draft)
        return not self._interrupted()

    @contextmanager
    def _phase(self, phase: Phase, *, silent: bool = False) -> Generator[None]:
        """Do the block as `phase`: its events are published, its errors named after it."""
        config, began = self.config, perf_counter()
        try:
            with quiet():
                yield
        except ExportError:
            raise
        except Exception as error:
            name = type(self.model).__name__
            raise ExportPhaseFailed(name, config.file_format, phase, error, config.dynamic_batch) from error
        if not silent:
            self.reach(ExportPhase, format=config.file_format, phase=phase, duration=perf_counter() - began)

    def _verify(self, draft: Path, example: Example) -> float:
        """Return the largest error of the file at `draft`: on the example and, with an open batch, on other sizes."""
        run = self._format.load(draft)
        if not self.config.dynamic_batch:
            return self._compare(run, example)
        size = example.batch_size
        return max(self._compare(run, example.resized(rows)) for rows in dict.fromkeys((size, size + 1, 1)))

    def _compare(self, run: Loaded, example: Example) -> float:
        with torch.inference_mode():
            expected, actual = tensors(self.model(*example.inputs)), run(example.inputs)
        shapes = [tuple(value.shape) for value in example.inputs]
        try:
            error = max_error(expected, actual)
        except ValueError as mismatch:
            raise ExportMismatch(self.config.path, f"{mismatch}, on inputs of the shapes {shapes}") from None
        if not error <= self.config.tolerance:  # nan is not
            reason = (
                f"largest difference {error:.3g}, tolerance {self.config.tolerance:g}, on inputs of the shapes {shapes}"
            )
            raise ExportMismatch(self.config.path, reason, error)
        return error

    def _result(
        self, outcome: Literal["completed", "stopped"], path: Path | None, size: int, error: float | None
    ) -> ExportResult:
        return ExportResult(
            run=self.run_id,
            attempt=self._identity.attempt,
            outcome=outcome,
            reason=self._control.reason if outcome == "stopped" else None,
            duration=self._source.elapsed(),
            path=path,
            bytes=size,
            max_error=error,
            tolerance=self.config.tolerance,
        )


@contextmanager
def _draft_of(path: Path) -> Generator[Path]:
    """Give a file of the same name in a folder beside `path`, which is removed in the end.

    A folder, because large ONNX models have their weights in a second file that the first one names.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise ExportUnwritable(path, error) from error
    with folder:
        yield Path(folder.name, path.name)


def _move(draft: Path, path: Path) -> int:
    """Put `draft`, and what lies beside it, into place and return their size; `path` itself comes last."""
    files = sorted(draft.parent.iterdir(), key=lambda file: file == draft)
    size = sum(file.stat().st_size for file in files)
    try:
        for file in files:
            file.replace(path.parent / file.name)
    except OSError as error:
        raise ExportUnwritable(path, error) from error
    return size
