"""The file formats: how a captured program becomes a file, and how that file is run again."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram, ShapesCollection

from ...schemas.export import Format
from .compare import tensors
from .errors import ExportPackageMissing
from .example import Example

Loaded = Callable[[Sequence[Tensor]], list[Tensor]]
"""A file that was loaded: from inputs to outputs, flat and on the CPU."""

Save = Callable[[Path], object]
"""Writes a program that was lowered."""


@dataclass(frozen=True)
class Captured:
    """The graph of a module, and which of its dimensions are open."""

    program: ExportedProgram
    shapes: dict[str, Any] | None = None


class FileFormat(Protocol):
    """One format. The methods are called in this order, each a phase of the export."""

    packages: tuple[str, ...]
    """What has to be importable."""
    device: str | None
    """Where the module has to be when it is captured; None: where it is."""
    lowers: bool
    """Whether `lower` is work, and a phase of its own."""

    def lower(self, captured: Captured, *, opset: int | None) -> Save:
        """Translate the program into the format and return what writes it."""
        ...

    def load(self, path: Path) -> Loaded:
        """Return the file at `path`, ready to run."""
        ...


class Pt2:
    """A `torch.export` archive. It keeps the program as captured: whoever loads it decides what to lower it to."""

    packages: tuple[str, ...] = ()
    device: str | None = None
    lowers = False

    def lower(self, captured: Captured, *, opset: int | None) -> Save:
        """Return what writes the program; an opset means nothing here."""
        return partial(torch.export.save, captured.program)

    def load(self, path: Path) -> Loaded:
        """Load the archive as a module."""
        module = torch.export.load(path).module()
        return lambda inputs: tensors(module(*inputs))


class Onnx:
    """An ONNX model from torch's dynamo exporter, run again by onnxruntime on the CPU.

    The module is captured on the CPU too: the lower precision of a GPU would look like an error of the file.
    """

    packages: tuple[str, ...] = ("onnx", "onnxscript", "onnxruntime")
    device: str | None = "cpu"
    lowers = True

    def lower(self, captured: Captured, *, opset: int | None) -> Save:
        """Translate every operator; `opset` is the version of ONNX's operators, None: torch's choice."""
        export = cast("Callable[..., _OnnxModel]", torch.onnx.export)  # pyright: ignore[reportUnknownMemberType]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # no code of the module runs here: this is the exporter's talk
            # The shapes are in the program already; given again, they name the file's dimensions.
            model = export(
                captured.program, dynamo=True, dynamic_shapes=captured.shapes, opset_version=opset, verbose=False
            )
        return model.save

    def load(self, path: Path) -> Loaded:
        """Open an inference session on the CPU."""
        session: _Session = import_module("onnxruntime").InferenceSession(str(path), providers=["CPUExecutionProvider"])
        names = [value.name for value in session.get_inputs()]

        def run(inputs: Sequence[Tensor]) -> list[Tensor]:
            feed = {name: value.numpy() for name, value in zip(names, inputs, strict=True)}
            return [torch.as_tensor(value) for value in session.run(None, feed)]

        return run


class _OnnxModel(Protocol):
    """What torch's exporter returns; its own type is partly unknown to type checkers."""

    def save(self, destination: Path) -> object: ...


class _Value(Protocol):
    name: str


class _Session(Protocol):
    """The part of onnxruntime, which has no types of its own, that is used here."""

    def get_inputs(self) -> list[_Value]: ...
    def run(self, output_names: None, feed: dict[str, Any]) -> list[Any]: ...


FORMATS: dict[Format, FileFormat] = {"pt2": Pt2(), "onnx": Onnx()}


def capture(model: nn.Module, example: Example, *, dynamic_batch: bool) -> Captured:
    """Return the graph of `model`, its batch dimension left open where asked for."""
    if not dynamic_batch:
        return Captured(torch.export.export(model, example.inputs))
    # A dimension of length 1 is taken for a constant, so one row is captured as two.
    example = example.resized(max(example.batch_size, 2))
    shapes = _open_batch(model, example)
    return Captured(torch.export.export(model, example.inputs, dynamic_shapes=shapes), shapes)


def _open_batch(model: nn.Module, example: Example) -> dict[str, Any]:
    """Return the shapes by parameter of `forward`, with the batch as an open dimension of that name."""
    batch = Dim("batch")
    shapes = ShapesCollection()  # type: ignore[no-untyped-call]  # torch has no types there
    for value in example.inputs:
        if example.batched(value):
            shapes[value] = {0: batch}
    find = cast("Callable[..., dict[str, Any]]", shapes.dynamic_shapes)  # pyright: ignore[reportUnknownMemberType]
    return find(model, example.inputs)


def require(file_format: Format) -> None:
    """Raise `ExportPackageMissing` where a package that `file_format` needs cannot be imported."""
    for package in FORMATS[file_format].packages:
        try:
            import_module(package)
        except ImportError as error:
            raise ExportPackageMissing(file_format, package) from error
