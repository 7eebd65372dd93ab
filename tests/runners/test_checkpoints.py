"""Checkpoints: what they hold, and which of them are refused, before anything is overwritten."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import lr_scheduler

from lineside.bus import Bus
from lineside.runners import (
    CheckpointError,
    CheckpointExists,
    CheckpointMismatch,
    CheckpointNotFound,
    CheckpointUnreadable,
    CheckpointUnwritable,
    InvalidObjective,
    ModelMismatch,
    OptimizerMismatch,
    ShorterData,
    Trainer,
    UnsavableState,
    load_weights,
)
from lineside.schemas import (
    ModelSave,
    RunEnd,
    TrainBatchEnd,
)

from .support import (
    PATIENCE,
    make_loader,
    make_model,
    make_trainer,
    same_state,
    scheduled,
    sgd,
    stop_at,
)


def test_the_checkpoint_holds_nothing_but_tensors_and_plain_data(tmp_path: Path) -> None:
    make_trainer(tmp_path, ema_decay=0.9, scheduler=scheduled(lr_scheduler.MultiStepLR, [1])).run()
    state = torch.load(tmp_path / "run" / "last.pt", weights_only=True)
    assert state.keys() >= {"model", "optimizer", "scheduler", "ema", "random", "progress", "run", "attempt"}
    assert (tmp_path / "run" / "last.pt").stat().st_mode & 0o777 == 0o666 & ~_umask()
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["best.pt", "last.pt"]


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_the_best_weights_can_be_loaded_into_a_model(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, ema_decay=0.9, epochs=1)
    trainer.run()
    model = make_model(8)
    load_weights(model, tmp_path / "run")
    assert trainer.ema is not None
    assert same_state(dict(model.state_dict()), dict(trainer.ema.state_dict()))


# ---- what cannot be resumed


def saved_run(folder: Path, **overrides: Any) -> Path:
    make_trainer(folder, epochs=1, **overrides).run()
    return folder / "run" / "last.pt"


def refused(folder: Path, error: type[CheckpointError], **overrides: Any) -> str:
    """Try to start a run that is to be refused; return the message."""
    before = {path: path.read_bytes() for path in folder.rglob("*.pt")}
    model = overrides.pop("model", None) or make_model()
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    with Bus() as bus, bus.stream() as events:
        trainer = make_trainer(folder, model=model, bus=bus, **overrides)
        with pytest.raises(error) as caught:
            trainer.run()
        with pytest.raises(error):
            trainer.start()
        bus.drain(PATIENCE)
        assert bus.stats().published == 0
        events.close()
    assert {path: path.read_bytes() for path in folder.rglob("*.pt")} == before
    assert same_state(weights, dict(model.state_dict()))
    return str(caught.value)


def test_a_missing_checkpoint_is_refused(tmp_path: Path) -> None:
    message = refused(tmp_path, CheckpointNotFound, resume=tmp_path / "nothing.pt")
    assert f"there is no checkpoint at {tmp_path / 'nothing.pt'}" in message
    (tmp_path / "empty").mkdir()
    assert "last.pt" in refused(tmp_path, CheckpointNotFound, resume=tmp_path / "empty")


def half(data: bytes) -> bytes:
    return data[: len(data) // 2]


def head(data: bytes) -> bytes:
    return data[:10]


def nothing(data: bytes) -> bytes:
    return b""


def garbage(data: bytes) -> bytes:
    return b"garbage" * 99


@pytest.mark.parametrize("damage", [half, head, nothing, garbage])
def test_a_truncated_or_garbled_checkpoint_is_refused(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    last = saved_run(tmp_path)
    last.write_bytes(damage(last.read_bytes()))
    message = refused(tmp_path, CheckpointUnreadable, resume=last)
    assert message.startswith(f"{last} cannot be read as a checkpoint: ")


def test_a_file_that_is_not_ours_is_refused(tmp_path: Path) -> None:
    torch.save(make_model().state_dict(), tmp_path / "weights.pt")
    assert "was not written by a Trainer" in refused(tmp_path, CheckpointUnreadable, resume=tmp_path / "weights.pt")
    torch.save(make_model(), tmp_path / "pickled.pt")
    assert "plain data" in refused(tmp_path, CheckpointUnreadable, resume=tmp_path / "pickled.pt")


def test_the_weights_of_another_model_are_refused_with_what_differs(tmp_path: Path) -> None:
    last = saved_run(tmp_path)
    other = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 2))
    message = refused(tmp_path, ModelMismatch, resume=last, model=other)
    assert "2.weight is in the model but not in the checkpoint" in message
    assert "4.weight is in the checkpoint but not in the model" in message
    wider = nn.Sequential(nn.Linear(4, 16), nn.BatchNorm1d(16), nn.Dropout(), nn.ReLU(), nn.Linear(16, 2))
    message = refused(tmp_path, ModelMismatch, resume=last, model=wider)
    assert "0.weight has shape (8, 4) in the checkpoint and (16, 4) in the model" in message


def test_the_state_of_another_optimizer_is_refused(tmp_path: Path) -> None:
    last = saved_run(tmp_path)
    message = refused(tmp_path, OptimizerMismatch, resume=last, optimizer=sgd(0.1))
    assert "it was made with Adam, this run has SGD" in message

    def two_groups(parameters: Any) -> torch.optim.Optimizer:
        first, *rest = parameters
        return torch.optim.Adam([{"params": [first]}, {"params": rest}])

    message = refused(tmp_path, OptimizerMismatch, resume=last, optimizer=two_groups)
    assert "its parameter groups hold [6] parameters, those of this run [1, 5]" in message


def test_another_set_up_is_refused(tmp_path: Path) -> None:
    last = saved_run(tmp_path, name="first")
    message = refused(tmp_path, CheckpointMismatch, resume=last, ema_decay=0.9)
    assert "this run has a moving average (ema_decay), the checkpoint has none" in message
    message = refused(tmp_path, CheckpointMismatch, resume=last, scheduler=scheduled(lr_scheduler.StepLR, 1))
    assert "this run has a scheduler, the checkpoint has none" in message
    message = refused(tmp_path, CheckpointMismatch, resume=last, name="second")
    assert "it belongs to run 'first', but name='second' was given" in message


def test_a_new_run_does_not_overwrite_another_one_unless_it_is_told_to(tmp_path: Path) -> None:
    last = saved_run(tmp_path)
    message = refused(tmp_path, CheckpointExists)
    assert f"resume={str(last)!r}" in message
    assert "overwrite=True" in message
    assert make_trainer(tmp_path, overwrite=True, epochs=1, validate=False).run().best is None
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["last.pt"]


def test_resuming_into_the_folder_of_a_third_run_is_refused(tmp_path: Path) -> None:
    last = saved_run(tmp_path)
    saved_run(tmp_path / "third")
    refused(tmp_path / "third", CheckpointExists, resume=last)


def test_resuming_into_an_empty_folder_leaves_the_first_one_alone(tmp_path: Path) -> None:
    last = saved_run(tmp_path)
    before = last.read_bytes()
    result = make_trainer(tmp_path, epochs=2, resume=last, directory=tmp_path / "second").run()
    assert result.last == tmp_path / "second" / "last.pt"
    assert last.read_bytes() == before


def test_resuming_with_less_data_is_refused_where_batches_are_missing(tmp_path: Path) -> None:
    first = make_trainer(tmp_path)
    stop_at(first, TrainBatchEnd, 0, 1)
    first.run()
    with pytest.raises(ShorterData, match="the training data has 1 batches, but 2 of this epoch were done"):
        make_trainer(tmp_path, train=make_loader(4), resume=tmp_path / "run").run()


def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make_trainer(tmp_path)
    save = torch.save

    @trainer.hook(ModelSave)
    def fill_the_disk(event: ModelSave, trainer: Trainer) -> None:
        def full(*arguments: Any) -> None:
            save(*arguments)
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(torch, "save", full)

    run = trainer.start()
    events = list(run.stream(RunEnd))
    with pytest.raises(CheckpointUnwritable, match="No space left on device"):
        run.result(PATIENCE)
    assert isinstance(events[0], RunEnd)
    assert events[0].outcome == "failed"
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["best.pt", "last.pt"]
    monkeypatch.undo()
    assert make_trainer(tmp_path, resume=tmp_path / "run").run().epochs == 2


def test_state_that_a_checkpoint_cannot_hold_is_named(tmp_path: Path) -> None:
    class Schedule(lr_scheduler.StepLR):
        def state_dict(self) -> dict[str, Any]:
            return {**super().state_dict(), "shape": {"curve": object()}}

    with pytest.raises(UnsavableState, match=r"\['scheduler'\]\['shape'\]\['curve'\], <object"):
        make_trainer(tmp_path, scheduler=scheduled(Schedule, 1)).run()


def test_a_folder_to_overwrite_is_left_alone_until_there_is_something_to_put_there(tmp_path: Path) -> None:
    saved_run(tmp_path)
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()}

    def no_loss(outputs: Tensor, targets: Tensor) -> Tensor:
        return outputs

    with pytest.raises(InvalidObjective):
        make_trainer(tmp_path, overwrite=True, loss=no_loss).run()
    assert {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()} == before


def test_a_loader_that_has_lost_its_generator_is_refused(tmp_path: Path) -> None:
    make_trainer(tmp_path, train=make_loader(generator=torch.Generator().manual_seed(7)), epochs=1).run()
    message = refused(tmp_path, CheckpointMismatch, resume=tmp_path / "run")
    assert "the training data had 1 torch.Generator of its own, that of this run has 0" in message
