"""Errors of export.

::

    RunnerError
    └── ExportError
        ├── ExampleUnusable       (also ValueError)       the example inputs cannot be exported with
        ├── ExportTargetExists    (also FileExistsError)  the file is there and was not to be overwritten
        ├── ExportPackageMissing  (also ImportError)      the format needs a package that is not installed
        ├── ExportUnwritable      (also OSError)          the folder cannot be written to
        ├── ExportPhaseFailed     (also RuntimeError)     a phase raised; `__cause__` is what it raised
        └── ExportMismatch        (also ArithmeticError)  the file computes something else than the module
"""

from __future__ import annotations

from pathlib import Path

from ...schemas.export import Format, Phase
from ..errors import RunnerError


class ExportError(RunnerError):
    """An export that could not be done. Nothing was written."""


class ExampleUnusable(ExportError, ValueError):
    """The example inputs are no tensors, or have no batch."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"the example inputs cannot be exported with: {reason}")


class ExportTargetExists(ExportError, FileExistsError):
    """The file is there already."""

    def __init__(self, path: Path) -> None:
        kind = "a directory" if path.is_dir() else "there already"
        super().__init__(
            f"{path} is {kind}: choose another path" + ("" if path.is_dir() else ", or give overwrite=True")
        )


class ExportPackageMissing(ExportError, ImportError):
    """The format needs a package that cannot be imported."""

    def __init__(self, file_format: Format, package: str) -> None:
        super().__init__(f"exporting to {file_format} needs {package}: pip install lineside[export]", name=package)


class ExportUnwritable(ExportError, OSError):
    """The file could not be put where it belongs."""

    def __init__(self, path: Path, error: OSError) -> None:
        super().__init__(f"{path} cannot be written: {error}; choose another path")


class ExportPhaseFailed(ExportError, RuntimeError):
    """A phase raised an error of torch's or onnxruntime's, which is the cause of this one."""

    def __init__(self, model: str, file_format: Format, phase: Phase, error: Exception, dynamic_batch: bool) -> None:
        root = _root(error)
        first = next(iter(str(root).strip().splitlines()), "").rstrip(".")
        hint = "; if the model fixes its batch size, export with dynamic_batch=False" if dynamic_batch else ""
        super().__init__(
            f"cannot export {model} to {file_format}: {phase} raised {type(root).__qualname__}: {first}"
            + (hint if phase == "capture" else "")
        )


def _root(error: BaseException) -> BaseException:
    """Return the error that all began with: there torch's exporters say what happened, above it only where."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


class ExportMismatch(ExportError, ArithmeticError):
    """The file's outputs are not the module's. The file was thrown away, one that was there before is untouched."""

    def __init__(self, path: Path, reason: str, max_error: float | None = None) -> None:
        super().__init__(f"the file for {path} does not compute what the module computes, and was not kept: {reason}")
        self.max_error = max_error
        """Largest absolute difference; nan where something was not a number; None where shapes differ."""
