from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lineside.bus import Bus
from lineside.runners.errors import InvalidConfig, InvalidModel
from lineside.runners.export.errors import (
    ExampleUnusable,
    ExportError,
    ExportMismatch,
    ExportPackageMissing,
    ExportPhaseFailed,
    ExportTargetExists,
    ExportUnwritable,
)
from lineside.runners.exporter import ExportConfig, Exporter
from lineside.schemas import Event, ExportEnd, ExportPhase, ExportStart, RunEnd, RunStart

from .support import events_of_run

PHASES = {"pt2": ["capture", "save", "verify"], "onnx": ["capture", "lower", "save", "verify"]}


def cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(), nn.Flatten(), nn.Linear(4 * 6 * 6, 10)
    )


def load(path: Path) -> Callable[[Tensor], Tensor]:
    """Return a function that runs the file, with nothing of ours."""
    if path.suffix == ".pt2":
        return torch.export.load(path).module()
    session = import_module("onnxruntime").InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def run(images: Tensor) -> Tensor:
        pixels: NDArray[np.float32] = images.numpy()
        return torch.as_tensor(session.run(None, {session.get_inputs()[0].name: pixels})[0])

    return run


def types(events: list[Event]) -> list[str]:
    return [event.phase if isinstance(event, ExportPhase) else event.type for event in events]


def check_failed(bus: Bus, phases: list[str], error: str) -> None:
    events = events_of_run(bus)
    end = events[-1]
    assert types(events) == ["RunStart", "ExportStart", *phases, "RunEnd"]
    assert isinstance(end, RunEnd)
    assert end.outcome == "failed"
    assert end.error is not None
    assert end.error.type.endswith(error)


# ---- the files


@pytest.mark.parametrize("suffix", ["pt2", "onnx"])
def test_an_exported_file_computes_what_the_module_computes_in_any_batch_size(
    tmp_path: Path, bus: Bus, suffix: str, capfd: pytest.CaptureFixture[str]
) -> None:
    model, path = cnn(), tmp_path / "new" / f"digits.{suffix}"
    result = Exporter(model, torch.randn(3, 1, 8, 8), path=path, bus=bus, name="out").run()
    assert model.training
    run = load(path)
    model.eval()
    for rows in (1, 2, 3, 7):
        images = torch.randn(rows, 1, 8, 8)
        torch.testing.assert_close(run(images), model(images), rtol=0, atol=1e-4)
    assert result.path == path
    assert result.bytes == path.stat().st_size
    assert result.max_error is not None
    assert result.max_error <= result.tolerance == 1e-4
    assert (result.run, result.outcome) == ("out", "completed")
    assert list(path.parent.iterdir()) == [path]
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("suffix", ["pt2", "onnx"])
def test_the_events_of_an_export_come_in_the_promised_order(tmp_path: Path, bus: Bus, suffix: str) -> None:
    path = tmp_path / f"model.{suffix}"
    result = Exporter(nn.Linear(2, 2), torch.randn(2, 2), bus=bus, config=ExportConfig(path=path)).run()
    start, begin, *phases, end, over = events = events_of_run(bus)
    assert types(events) == ["RunStart", "ExportStart", *PHASES[suffix], "ExportEnd", "RunEnd"]
    assert isinstance(start, RunStart)
    assert (start.kind, start.model, start.device) == ("export", "Linear", "cpu")
    assert isinstance(begin, ExportStart)
    assert (begin.format, begin.path, begin.dynamic_batch) == (suffix, path, True)
    assert all(isinstance(phase, ExportPhase) and phase.duration > 0 for phase in phases)
    assert isinstance(end, ExportEnd)
    assert (end.path, end.bytes, end.max_error) == (path, result.bytes, result.max_error)
    assert isinstance(over, RunEnd)
    assert over.outcome == "completed"


def test_a_callback_finds_what_came_of_the_export_in_the_exporter(tmp_path: Path) -> None:
    exporter = Exporter(nn.Linear(2, 2), torch.randn(2, 2), path=tmp_path / "model.pt2", overwrite=True)
    found: list[Any] = []
    exporter.add_callback("on_export_start", lambda exporter: found.append(exporter.result))
    exporter.add_callback("on_export_end", lambda exporter: found.append(exporter.result))
    first, second = exporter.run(), exporter.run()
    assert found == [None, first, None, second]
    assert exporter.result is second


def test_the_open_dimension_of_an_onnx_file_is_called_batch(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    Exporter(nn.Linear(2, 3), torch.randn(2, 2), path=path).run()
    session = import_module("onnxruntime").InferenceSession(str(path), providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape == ["batch", 2]
    assert session.get_outputs()[0].shape == ["batch", 3]


def test_an_example_of_one_row_leaves_the_batch_open_too(tmp_path: Path) -> None:
    path = tmp_path / "model.pt2"
    Exporter(nn.Linear(2, 3), torch.randn(1, 2), path=path).run()
    assert load(path)(torch.randn(5, 2)).shape == (5, 3)


def test_the_batch_can_be_fixed(tmp_path: Path) -> None:
    path = tmp_path / "model.pt2"
    Exporter(nn.Linear(2, 3), torch.randn(2, 2), path=path, dynamic_batch=False).run()
    assert load(path)(torch.randn(2, 2)).shape == (2, 3)
    with pytest.raises(AssertionError):
        load(path)(torch.randn(5, 2))


class Scaled(nn.Module):
    """Several inputs, one of them without a batch; outputs by name, one of them none."""

    def forward(self, value: Tensor, other: Tensor, scale: Tensor) -> dict[str, Any]:
        return {"sum": (value + other) * scale, "pair": (value > 0, None), "total": value.sum(0)}


@pytest.mark.parametrize("suffix", ["pt2", "onnx"])
def test_a_module_may_have_several_inputs_and_outputs(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"model.{suffix}"
    inputs = (torch.randn(2, 3), torch.randn(2, 3), torch.tensor([1.0, 2.0, 3.0]))
    assert Exporter(Scaled(), inputs, path=path).run().path == path


async def test_an_export_can_be_awaited(tmp_path: Path) -> None:
    result = await Exporter(nn.Linear(2, 2), torch.randn(2, 2), path=tmp_path / "model.pt2").start()
    assert result.outcome == "completed"


def test_infinities_that_are_equal_are_no_difference(tmp_path: Path) -> None:
    class Masked(nn.Module):
        def forward(self, value: Tensor) -> Tensor:
            return value.masked_fill(value > 0, -math.inf)

    result = Exporter(Masked(), torch.randn(4, 4), path=tmp_path / "model.pt2").run()
    assert result.max_error == 0


# ---- what must not be written


class Noisy(nn.Module):
    """Computes something else every time."""

    def forward(self, value: Tensor) -> Tensor:
        return value + torch.rand(())


class NotANumber(nn.Module):
    def forward(self, value: Tensor) -> Tensor:
        return value * math.nan


class Growing(nn.Module):
    """Returns more columns from the second call on."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, value: Tensor) -> Tensor:
        self.calls += 1
        return value if self.calls == 1 else torch.cat([value, value], dim=1)


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (Noisy(), "largest difference 0.* tolerance 0.0001, on inputs of the shapes"),
        (NotANumber(), "largest difference nan"),
        (Growing(), "shapes"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_file_that_computes_something_else_is_not_kept(
    tmp_path: Path, bus: Bus, model: nn.Module, reason: str
) -> None:
    path = tmp_path / "model.pt2"
    path.write_bytes(b"the one before")
    with pytest.raises(ExportMismatch, match=reason) as raised:
        Exporter(model, torch.randn(2, 2), path=path, bus=bus, overwrite=True).run()
    assert raised.value.max_error is None or not raised.value.max_error <= 1e-4
    assert path.read_bytes() == b"the one before"
    assert list(tmp_path.iterdir()) == [path]
    assert model.training
    check_failed(bus, ["capture", "save"], "ExportMismatch")


def test_a_file_that_passed_takes_the_place_of_the_one_before(tmp_path: Path) -> None:
    path = tmp_path / "model.pt2"
    path.write_bytes(b"the one before")
    Exporter(nn.Linear(2, 3), torch.randn(2, 2), path=path, overwrite=True).run()
    assert load(path)(torch.randn(4, 2)).shape == (4, 3)


class Untouched(nn.Module):
    def forward(self, value: Tensor) -> Tensor:
        raise AssertionError("there was work")


def test_a_file_that_is_there_is_refused_before_any_work(tmp_path: Path, bus: Bus) -> None:
    path = tmp_path / "model.pt2"
    path.write_bytes(b"the one before")
    with pytest.raises(ExportTargetExists, match="overwrite=True"):
        Exporter(Untouched(), torch.randn(2, 2), path=path, bus=bus).run()
    assert path.read_bytes() == b"the one before"
    check_failed(bus, [], "ExportTargetExists")


def test_a_target_that_cannot_be_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "folder.pt2").mkdir()
    with pytest.raises(ExportTargetExists, match="is a directory"):
        Exporter(Untouched(), torch.randn(2, 2), path=tmp_path / "folder.pt2", overwrite=True).run()
    (tmp_path / "file").touch()
    with pytest.raises(ExportUnwritable, match="cannot be written"):
        Exporter(Untouched(), torch.randn(2, 2), path=tmp_path / "file" / "model.pt2").run()


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_a_missing_package_is_named_before_any_work(
    tmp_path: Path, bus: Bus, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ExportPackageMissing, match=rf"needs {package}: pip install lineside\[export\]"):
        Exporter(Untouched(), torch.randn(2, 2), path=tmp_path / "model.onnx", bus=bus).run()
    assert list(tmp_path.iterdir()) == []
    check_failed(bus, [], "ExportPackageMissing")


def test_a_model_that_cannot_be_captured_is_an_error_of_ours(tmp_path: Path, bus: Bus) -> None:
    model = Untouched()
    with pytest.raises(
        ExportPhaseFailed, match="cannot export Untouched to pt2: capture raised AssertionError"
    ) as raised:
        Exporter(model, torch.randn(2, 2), path=tmp_path / "model.pt2", bus=bus).run()
    assert isinstance(raised.value.__cause__, AssertionError)
    assert model.training
    assert list(tmp_path.iterdir()) == []
    check_failed(bus, [], "ExportPhaseFailed")


def test_a_model_that_fixes_its_batch_size_is_told_the_way_out(tmp_path: Path) -> None:
    class Fixed(nn.Module):
        def forward(self, value: Tensor) -> Tensor:
            return value.view(2, -1)

    with pytest.raises(ExportPhaseFailed, match="export with dynamic_batch=False"):
        Exporter(Fixed(), torch.randn(2, 2), path=tmp_path / "model.pt2").run()
    Exporter(Fixed(), torch.randn(2, 2), path=tmp_path / "model.pt2", dynamic_batch=False).run()


def test_an_operator_that_the_format_lacks_is_an_error_of_ours(tmp_path: Path, bus: Bus) -> None:
    class Unusual(nn.Module):
        def forward(self, value: Tensor) -> Tensor:
            eigenvalues = cast("Tensor", torch.linalg.eigvals(value))  # pyright: ignore[reportUnknownMemberType]
            return eigenvalues.real

    with pytest.raises(ExportPhaseFailed, match=r"cannot export Unusual to onnx: lower raised .*linalg_eig"):
        Exporter(Unusual(), torch.randn(2, 3, 3), path=tmp_path / "model.onnx", bus=bus).run()
    check_failed(bus, ["capture"], "ExportPhaseFailed")


def test_a_stop_in_between_leaves_everything_as_it_was(tmp_path: Path, bus: Bus) -> None:
    path = tmp_path / "model.pt2"
    exporter = Exporter(nn.Linear(2, 2), torch.randn(2, 2), path=path, bus=bus)

    @exporter.hook(ExportPhase)
    def stop(event: ExportPhase, exporter: Exporter) -> None:
        if event.phase == "verify":
            exporter.stop("changed my mind")

    result = exporter.run()
    assert (result.outcome, result.reason, result.path) == ("stopped", "changed my mind", None)
    assert list(tmp_path.iterdir()) == []
    assert types(events_of_run(bus)) == ["RunStart", "ExportStart", *PHASES["pt2"], "RunEnd"]


def test_the_warnings_of_a_module_are_not_hidden(tmp_path: Path) -> None:
    class Warning_(nn.Module):  # noqa: N801  the name without it is taken
        def forward(self, value: Tensor) -> Tensor:
            warnings.warn("mine", UserWarning, stacklevel=1)
            return value

    with pytest.warns(UserWarning, match="mine"):
        Exporter(Warning_(), torch.randn(2, 2), path=tmp_path / "model.pt2").run()


# ---- bad input


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"path": "model.pth"}, "has to end in .pt2 or .onnx"),
        ({"path": "model.pt2", "format": "onnx"}, "has to end in .onnx"),
        ({"path": "model.pt2", "opset": 18}, "opset is for ONNX only"),
        ({"path": "model.pt2", "tolerance": -1}, "tolerance"),
        ({"path": "model.pt2", "tolerence": 1}, "there is no such setting"),
        ({}, "path"),
    ],
)
def test_settings_that_cannot_be_are_refused_at_once(settings: dict[str, Any], problem: str) -> None:
    with pytest.raises(InvalidConfig, match=problem):
        Exporter(nn.Identity(), torch.randn(2, 2), **settings)


@pytest.mark.parametrize(
    ("inputs", "problem"),
    [
        ([], "got nothing"),
        ((torch.randn(2), "two"), "got Tensor, str"),
        (3, "expected one tensor or a sequence of tensors, got int"),
        (torch.tensor(1.0), "dynamic batch"),
        (torch.randn(0, 3), "at least one row"),
    ],
)
def test_an_example_that_cannot_be_used_is_refused_at_once(inputs: Any, problem: str) -> None:
    with pytest.raises(ExampleUnusable, match=problem):
        Exporter(nn.Identity(), inputs, path="model.pt2")


def test_what_is_no_module_is_refused_at_once() -> None:
    with pytest.raises(InvalidModel, match=r"expected a torch\.nn\.Module"):
        Exporter(cast("nn.Module", nn.Linear), torch.randn(2, 2), path="model.pt2")


def test_every_error_of_an_export_is_one_of_ours_and_a_builtin() -> None:
    for error, builtin in [
        (ExampleUnusable, ValueError),
        (ExportTargetExists, FileExistsError),
        (ExportPackageMissing, ImportError),
        (ExportUnwritable, OSError),
        (ExportPhaseFailed, RuntimeError),
        (ExportMismatch, ArithmeticError),
    ]:
        assert issubclass(error, ExportError)
        assert issubclass(error, builtin)
