"""Runs that have a name: each is told apart from the others of that name."""

from __future__ import annotations

import shutil
from pathlib import Path

from torch import nn

from lineside.bus import Bus
from lineside.bus.journal import Journal
from lineside.runners import Validator
from lineside.schemas import RunStart, TrainBatchEnd

from .support import make_loader, make_model, make_trainer, stop_at


def attempts(folder: Path, run: str) -> list[int]:
    """The attempts at `run` that a journal has, after a look whether its events can be told apart."""
    events = list(Journal(folder).events(run=run))
    assert len({(event.attempt, event.rank, event.seq) for event in events}) == len(events)
    return [event.attempt for event in events if isinstance(event, RunStart)]


def test_a_run_of_the_name_of_an_earlier_one_is_its_next_attempt(tmp_path: Path) -> None:
    for _ in range(2):
        with Bus(tmp_path / "journal") as bus:
            for _ in range(2):
                make_trainer(tmp_path, name="own", overwrite=True, bus=bus).run()
                Validator(make_model(), make_loader(), loss=nn.CrossEntropyLoss(), name="val", bus=bus).run()
    assert attempts(tmp_path / "journal", "own") == attempts(tmp_path / "journal", "val") == [1, 2, 3, 4]


def test_copies_of_one_checkpoint_are_resumed_as_attempts_of_their_own(tmp_path: Path) -> None:
    with Bus(tmp_path / "journal") as bus:
        trainer = make_trainer(tmp_path, name="own", bus=bus)
        stop_at(trainer, TrainBatchEnd, epoch=0, batch=1)
        trainer.run()
        for copy in ("one", "other"):
            shutil.copytree(tmp_path / "run", tmp_path / copy)
        for copy in ("one", "other"):
            make_trainer(tmp_path, directory=tmp_path / copy, resume=tmp_path / copy, bus=bus).run()
    assert attempts(tmp_path / "journal", "own") == [1, 2, 3]


def test_a_bus_of_its_own_knows_of_no_earlier_runs(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, name="own", save=False)
    assert [trainer.run().attempt, trainer.run().attempt] == [1, 1]
