from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from lineside.bus import Bus
from lineside.runners.scalars import CudaScalars, HostScalars, Scalars, Snapshot, Sums, scalars_of
from lineside.schemas import RunEnd, TrainBatchEnd

from .support import make_trainer

cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
DEVICES = ["cpu", pytest.param("cuda", marks=cuda)]


def named(values: Sequence[float]) -> Mapping[str, object]:
    return {"a": values[0], "b": values[1]}


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> torch.device:
    return torch.device(request.param)


@pytest.fixture
def scalars(device: torch.device) -> Scalars:
    return scalars_of(device)


def tensors(device: torch.device, *values: float) -> list[Tensor]:
    return [torch.tensor(value, device=device, requires_grad=True) for value in values]


def test_a_snapshot_holds_the_values_of_its_moment(device: torch.device, scalars: Scalars) -> None:
    total = torch.zeros((), device=device)
    snapshots: list[Snapshot] = []
    for _ in range(5):
        total += 1
        snapshots.append(scalars.take([total, total * 2], named))
    assert [snapshot.wait() for snapshot in snapshots] == [{"a": n, "b": 2 * n} for n in range(1, 6)]
    assert all(snapshot.ready() for snapshot in snapshots)
    assert [snapshot.result()["a"] for snapshot in snapshots] == [1, 2, 3, 4, 5]


def test_a_snapshot_keeps_no_history_and_any_precision(device: torch.device, scalars: Scalars) -> None:
    half = torch.tensor(0.5, device=device, dtype=torch.float16)
    snapshot = scalars.take([*tensors(device, 0.1), half], named)
    assert snapshot.wait() == {"a": pytest.approx(0.1), "b": 0.5}
    assert not isinstance(snapshot.row, Tensor) or not snapshot.row.requires_grad


def test_nan_and_infinity_are_values_like_any_other(device: torch.device, scalars: Scalars) -> None:
    fields = scalars.take(tensors(device, math.nan, -math.inf), named).wait()
    assert math.isnan(fields["a"])  # type: ignore[arg-type]
    assert fields["b"] == -math.inf


def test_sums_are_weighted_and_can_be_saved_and_restored(device: torch.device, scalars: Scalars) -> None:
    sums = Sums(scalars)
    assert sums.read() == []
    for value, weight in ((1.0, 4), (2.0, 2)):
        sums.add(scalars.take(tensors(device, value, 10 * value), named), weight)
    assert sums.read() == pytest.approx([8, 80])
    again = Sums(scalars)
    again.restore(sums.read(), sums.weight)
    again.add(scalars.take(tensors(device, 5.0, 50.0), named), 2)
    assert again.read() == pytest.approx([18, 180])
    assert again.weight == 8


def test_values_on_the_host_are_known_at_once() -> None:
    assert HostScalars().take([torch.tensor(1.0), torch.tensor(2.0)], named).known
    assert isinstance(scalars_of(torch.device("cpu")), HostScalars)


@cuda
def test_nothing_makes_the_host_wait_for_the_device() -> None:
    device = torch.device("cuda")
    scalars, values = CudaScalars(device), tensors(device, 1.0, 2.0)
    torch.cuda.set_sync_debug_mode("error")
    try:
        snapshot = scalars.take(values, named)
        Sums(scalars).add(snapshot, 4)
        assert snapshot.wait() == {"a": 1.0, "b": 2.0}
    finally:
        torch.cuda.set_sync_debug_mode("default")


@cuda
def test_when_no_slot_is_free_values_are_dropped_and_counted_and_the_sums_are_still_right() -> None:
    device = torch.device("cuda")
    scalars = CudaScalars(device, slots=2)
    sums = Sums(scalars)
    values = [tensors(device, float(n), 0.0) for n in range(3)]
    torch.cuda._sleep(1 << 30)  # type: ignore[no-untyped-call]  # half a second, behind which the copies queue
    snapshots = [scalars.take(value, named) for value in values]
    for snapshot in snapshots:
        sums.add(snapshot, 1)
    assert [snapshot.lost for snapshot in snapshots] == [False, False, True]
    assert scalars.dropped == 1
    assert math.isnan(snapshots[2].wait()["a"])  # type: ignore[arg-type]
    assert sums.read() == [3.0, 0.0]
    assert [snapshot.wait()["a"] for snapshot in snapshots[:2]] == [0.0, 1.0]
    assert not scalars.take(tensors(device, 3.0, 0.0), named).lost


@cuda
def test_a_wide_snapshot_replaces_the_ring_once() -> None:
    device = torch.device("cuda")
    scalars = CudaScalars(device, slots=2, width=2)
    narrow = scalars.take(tensors(device, 1.0, 2.0), named)
    wide = scalars.take(tensors(device, *range(9)), lambda values: {"all": list(values)})
    assert narrow.wait() == {"a": 1.0, "b": 2.0}
    assert wide.wait() == {"all": list(map(float, range(9)))}


@cuda
def test_nobody_asks_the_device_during_the_computation_of_a_step() -> None:
    device = torch.device("cuda")
    scalars = CudaScalars(device)
    snapshot = scalars.take(tensors(device, 1.0, 2.0), named)
    torch.cuda.synchronize()
    with scalars.computing:
        assert not snapshot.ready()
    assert snapshot.ready()


@cuda
def test_training_never_waits_for_the_device(tmp_path: Path) -> None:
    batches = [(torch.randn(4, 4).pin_memory(), torch.randint(2, (4,)).pin_memory()) for _ in range(8)]
    with Bus() as bus:
        losses: list[float] = []
        bus.subscribe(lambda event: losses.append(event.loss), TrainBatchEnd)
        trainer = make_trainer(
            tmp_path, train=batches, validate=False, save=False, bus=bus, device="cuda", clip_norm=1.0, ema_decay=0.9
        )
        trainer.add_callback("on_train_epoch_start", lambda _: torch.cuda.set_sync_debug_mode("error"))
        trainer.hook(RunEnd)(lambda event, trainer: torch.cuda.set_sync_debug_mode("default"))
        trainer.run()
        bus.drain()
    assert len(losses) == 16
    assert all(map(math.isfinite, losses))
    assert all(isinstance(module, nn.Module) for module in trainer.model.modules())
