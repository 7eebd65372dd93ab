"""The way of scalars from a CUDA device, with a device that is made up: it is done when the test says so."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

from lineside.bus import Bus
from lineside.runners import Trainer, tracked, trainer
from lineside.runners.scalars import CudaScalars, HostScalars, Snapshot, Sums
from lineside.schemas import FitEpochEnd, OptimizerStep, TrainBatchEnd, TrainEpochEnd

from .support import CLOSING, OPENING, PATIENCE, T, follow, make_trainer, names, of

CPU = torch.device("cpu")


class FakeEvent:
    """An event of a device that works in order, and only when somebody waits for it or lets it become idle."""

    idle = False
    """Whether the device does everything at once."""
    recorded = 0
    done = 0
    queries = 0
    waits = 0

    def __init__(self) -> None:
        self._number = 0

    def record(self) -> None:
        FakeEvent.recorded += 1
        self._number = FakeEvent.recorded

    def query(self) -> bool:
        FakeEvent.queries += 1
        return FakeEvent.idle or self._number <= FakeEvent.done

    def synchronize(self) -> None:
        FakeEvent.waits += 1
        FakeEvent.done = max(FakeEvent.done, self._number)


@pytest.fixture(autouse=True)
def _made_up_device(monkeypatch: pytest.MonkeyPatch) -> None:  # pyright: ignore[reportUnusedFunction]
    empty = cast("Any", torch).empty

    def without_pinning(*size: int, pin_memory: bool = False, **options: Any) -> Any:
        return empty(*size, **options)

    monkeypatch.setattr(torch, "empty", without_pinning)
    monkeypatch.setattr(torch.cuda, "Event", FakeEvent)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    monkeypatch.setattr(FakeEvent, "idle", False)
    for name in ("recorded", "done", "queries", "waits"):
        monkeypatch.setattr(FakeEvent, name, 0)


def named(values: Sequence[float]) -> Mapping[str, object]:
    return {"a": values[0]}


def take(scalars: CudaScalars, value: float) -> Snapshot:
    return scalars.take([torch.tensor(value)], named)


def test_a_snapshot_is_ready_when_its_copy_is_done_and_not_before() -> None:
    snapshot = take(CudaScalars(CPU), 1.5)
    assert not snapshot.known
    assert not snapshot.ready()
    FakeEvent.idle = True
    assert snapshot.ready()
    assert snapshot.result() == {"a": 1.5}
    assert FakeEvent.waits == 0


def test_waiting_for_a_snapshot_waits_for_its_event_alone() -> None:
    scalars = CudaScalars(CPU)
    first, second = take(scalars, 1.0), take(scalars, 2.0)
    assert first.wait() == {"a": 1.0}
    assert FakeEvent.waits == 1
    assert not second.ready()


def test_a_slot_is_used_again_after_its_values_were_copied_out() -> None:
    scalars = CudaScalars(CPU, slots=1)
    for value in (1.0, 2.0, 3.0):
        snapshot = take(scalars, value)
        assert snapshot.wait() == {"a": value}
        assert snapshot.result() == {"a": value}
    assert scalars.dropped == 0


def test_what_has_arrived_is_copied_out_by_the_next_step_though_nobody_asked_for_it() -> None:
    scalars = CudaScalars(CPU, slots=1)
    first = take(scalars, 1.0)
    FakeEvent.idle = True
    second = take(scalars, 2.0)
    assert not second.lost
    assert (first.result(), second.wait()) == ({"a": 1.0}, {"a": 2.0})


def test_dropped_values_are_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    scalars = CudaScalars(CPU, slots=1)
    lost = [take(scalars, value).lost for value in (1.0, 2.0, 3.0)]
    assert lost == [False, True, True]
    (record,) = caplog.records
    assert "more than 1 steps behind" in record.getMessage()


def test_values_are_dropped_and_counted_when_no_slot_is_free_and_the_sums_still_count_them() -> None:
    scalars = CudaScalars(CPU, slots=2)
    sums = Sums(scalars)
    snapshots = [take(scalars, value) for value in (1.0, 2.0, 6.0)]
    for snapshot in snapshots:
        sums.add(snapshot, 2)
    assert [snapshot.lost for snapshot in snapshots] == [False, False, True]
    assert scalars.dropped == 1
    assert math.isnan(cast("float", snapshots[2].result()["a"]))
    assert sums.read() == [18.0]
    assert (snapshots[0].wait(), snapshots[1].wait()) == ({"a": 1.0}, {"a": 2.0})
    assert not take(scalars, 4.0).lost


def test_a_wide_snapshot_replaces_the_ring_and_the_narrow_ones_still_arrive() -> None:
    scalars = CudaScalars(CPU, slots=1, width=1)
    narrow = take(scalars, 1.0)
    wide = scalars.take([torch.tensor(2.0), torch.tensor(3.0)], lambda values: {"a": list(values)})
    assert (wide.wait(), narrow.wait()) == ({"a": [2.0, 3.0]}, {"a": 1.0})


def test_nobody_asks_the_device_during_the_computation_of_a_step() -> None:
    scalars = CudaScalars(CPU)
    snapshot = take(scalars, 1.0)
    FakeEvent.idle = True
    with scalars.computing:
        assert not snapshot.ready()
    assert FakeEvent.queries == 0
    assert snapshot.ready()


def test_nobody_asks_the_device_while_a_graph_is_captured(monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot = take(CudaScalars(CPU), 1.0)
    FakeEvent.idle = True
    with monkeypatch.context() as capture:
        capture.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
        assert not snapshot.ready()
    assert snapshot.ready()


@pytest.fixture
def on_device(monkeypatch: pytest.MonkeyPatch) -> CudaScalars:
    scalars = CudaScalars(CPU)

    def scalars_of(device: torch.device) -> CudaScalars:
        return scalars

    monkeypatch.setattr(trainer, "scalars_of", scalars_of)
    return scalars


def test_a_run_waits_for_the_device_at_the_ends_of_epochs_only(tmp_path: Path, on_device: CudaScalars) -> None:
    waits: list[int] = []
    training = make_trainer(tmp_path, validate=False, clip_norm=1.0, save=False)
    training.add_callback("on_before_zero_grad", lambda _: waits.append(FakeEvent.waits))
    events = follow(training)
    epoch = ["TrainEpochStart", *T, *T, *T, "TrainEpochEnd", "FitEpochEnd"]
    assert names(events) == [*OPENING, *epoch, *epoch, *CLOSING]
    assert waits[:3] == [0, 0, 0]
    assert waits[3] == waits[5]
    assert on_device.dropped == 0
    losses = [event.loss for event in of(events, TrainBatchEnd)]
    assert of(events, TrainEpochEnd)[0].losses == {"loss": pytest.approx(sum(losses[:3]) / 3)}
    assert all(event.grad_norm > 0 for event in of(events, OptimizerStep))


def test_what_a_step_reports_beside_its_loss_is_not_waited_for_either(tmp_path: Path, on_device: CudaScalars) -> None:
    def step(model: nn.Module, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, dict[str, Tensor | float]]:
        outputs = model(batch[0])
        return nn.functional.cross_entropy(outputs, batch[1]), {"mean": outputs.mean(), "length": len(outputs)}

    waits: list[int] = []
    training = make_trainer(tmp_path, validate=False, epochs=1, save=False, loss=None, step=step)
    training.add_callback("on_before_zero_grad", lambda _: waits.append(FakeEvent.waits))
    told = follow(training)
    assert waits == [0, 0, 0]
    assert [end.losses["length"] for end in of(told, TrainBatchEnd)] == [4.0, 4.0, 4.0]
    assert of(told, TrainEpochEnd)[0].losses["length"] == 4.0


def test_a_hook_gets_values_that_have_arrived(tmp_path: Path, on_device: CudaScalars) -> None:
    seen: list[float] = []
    training = make_trainer(tmp_path, validate=False, epochs=1)
    training.hook(TrainBatchEnd)(lambda event, trainer: seen.append(event.loss))
    events = follow(training)
    assert seen == [event.loss for event in of(events, TrainBatchEnd)]


def test_a_loss_that_is_not_finite_is_reported_as_soon_as_it_is_known(tmp_path: Path, on_device: CudaScalars) -> None:
    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        return outputs.mean() * math.nan

    def catch_up(trainer: Trainer) -> None:
        FakeEvent.idle = trainer.progress.batch == 1

    training = make_trainer(tmp_path, validate=False, epochs=1, loss=loss)
    training.add_callback("on_before_zero_grad", catch_up)
    reached = [name for name in names(follow(training)) if name in ("TrainBatchEnd", "NonFinite", "TrainEpochEnd")]
    # The first loss arrives during the second batch, the third one is waited for at the end of the epoch.
    assert reached == [
        "TrainBatchEnd",
        "TrainBatchEnd",
        "NonFinite",
        "NonFinite",
        "TrainBatchEnd",
        "NonFinite",
        "TrainEpochEnd",
    ]


def test_a_run_that_was_stopped_on_a_device_keeps_its_running_mean(tmp_path: Path, on_device: CudaScalars) -> None:
    training = make_trainer(tmp_path, validate=False, epochs=1)
    training.hook(TrainBatchEnd)(lambda event, trainer: trainer.stop() if event.batch == 1 else None)
    first = follow(training)
    second = follow(make_trainer(tmp_path, validate=False, epochs=1, resume=tmp_path / "run"))
    losses = [event.loss for event in of([*first, *second], TrainBatchEnd)]
    assert of(second, TrainEpochEnd)[0].losses == {"loss": pytest.approx(sum(losses) / 3)}


class Elsewhere(HostScalars):
    """Knows the way of values that are nowhere: they are zero."""

    def read(self, row: Any) -> list[float]:
        return [0.0] * len(row)


def test_values_of_a_device_go_its_way_whatever_was_logged_before_them(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    devices: list[str] = []

    def scalars_of(device: torch.device) -> Elsewhere:
        devices.append(device.type)
        return Elsewhere()

    monkeypatch.setattr(tracked, "scalars_of", scalars_of)
    with bus.run() as run:
        for _ in run.track(range(1)):
            run.log(loss=torch.tensor(1.0), part=torch.zeros((), device="meta"))
    assert devices == ["meta"]


def test_a_loop_of_the_users_own_never_waits_for_the_device(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracked, "scalars_of", CudaScalars)
    got: list[Any] = []
    bus.subscribe(got.append, TrainBatchEnd, TrainEpochEnd, FitEpochEnd)
    with bus.run() as run:
        for n in run.track([torch.zeros(3), torch.zeros(1)]):
            run.log(loss=torch.tensor(float(len(n))), part=2, lr=0.1)
        run.log(accuracy=torch.tensor(0.5))
    assert FakeEvent.waits == 0
    FakeEvent.idle = True
    bus.drain(PATIENCE)
    assert [event.loss for event in of(got, TrainBatchEnd)] == [3.0, 1.0]
    assert of(got, TrainBatchEnd)[0].losses == {"loss": 3.0, "part": 2.0}
    assert of(got, TrainEpochEnd)[0].losses == {"loss": 2.5, "part": 2.0}
    assert of(got, FitEpochEnd)[0].metrics == {"accuracy": 0.5}
    assert FakeEvent.waits == 0
