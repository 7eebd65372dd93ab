"""`Keeper`: keeps a training run on disk, and brings it back exactly as it was."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from ..errors import CheckpointExists, CheckpointMismatch, CheckpointUnwritable
from ..identity import Identity
from . import checkpoint
from .distributed import Group
from .progress import Progress
from .random_state import State
from .stepper import Stepper


@dataclass(frozen=True)
class Parts:
    """What the user brought, as far as training changes it."""

    model: nn.Module
    optimizer: Optimizer
    scheduler: LRScheduler | None


@dataclass(frozen=True)
class Draws:
    """Where the random generators stand, so that the same batches and the same dropout come again."""

    now: State
    """At the moment of the checkpoint: what the next batch draws from."""
    epoch: State | None
    """When the loader of the epoch in work was opened: what gives the same batches again. None: no more are to come."""


@dataclass(frozen=True)
class Saved:
    """A checkpoint that was read and found to fit, before anything was touched."""

    path: Path
    state: Mapping[str, Any]

    @property
    def identity(self) -> Identity:
        """The run that it belongs to, and the attempt that comes now."""
        return Identity(str(self.state["run"]), int(self.state["attempt"]) + 1)

    @property
    def best(self) -> Path | None:
        """The best checkpoint beside it, if there is one."""
        best = self.path.with_name(checkpoint.BEST)
        return best if best.is_file() and self.state["progress"]["best_epoch"] is not None else None


def read_fitting(path: Path, parts: Parts, *, averaged: bool, size: int) -> Saved:
    """Read the checkpoint that `path` means, and refuse one that does not fit.

    Args:
        path: A checkpoint or a folder.
        parts: What it is to be loaded into.
        averaged: Whether this run has a moving average.
        size: Processes of this run.

    Raises:
        CheckpointError: it is missing, unreadable or of another set-up; the class says which.
    """
    found = checkpoint.find(path)
    state = checkpoint.read(found)
    checkpoint.check_model(found, state["model"], parts.model)
    checkpoint.check_optimizer(found, state["optimizer"], parts.optimizer)
    checkpoint.check_part(found, "a scheduler", saved=state["scheduler"] is not None, own=parts.scheduler is not None)
    checkpoint.check_part(found, "a moving average (ema_decay)", saved=state["ema"] is not None, own=averaged)
    if len(state["random"]) != size:
        problem = f"it was written by {len(state['random'])} processes, this run has {size}"
        raise CheckpointMismatch(found, [problem], "resume with as many processes")
    return Saved(found, state)


def refuse_other_run(folder: Path) -> None:
    """Refuse a folder that holds checkpoints already.

    Raises:
        CheckpointExists: it does.
    """
    for name in (checkpoint.LAST, checkpoint.BEST):
        if (folder / name).exists():
            raise CheckpointExists(folder / name)


class Keeper:
    """Writes the checkpoints of one run; of a distributed run, the first process does.

    Args:
        folder: Where they go; it is made if it is not there.
        identity: The run.
        parts: What the user brought.
        stepper: What the run made of it.
        group: The processes of the run.
    """

    def __init__(self, folder: Path, identity: Identity, parts: Parts, stepper: Stepper, group: Group) -> None:
        self._folder = folder
        self._identity = identity
        self._parts = parts
        self._stepper = stepper
        self._group = group
        self.last: Path | None = None
        """The latest checkpoint."""
        self.best: Path | None = None
        """The best checkpoint."""

    def open(self, *, clear: bool) -> None:
        """Make the folder; `clear` it of the checkpoints of another run.

        Raises:
            CheckpointUnwritable: it could not be made.
        """
        if self._group.rank != 0:
            return
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            for name in (checkpoint.LAST, checkpoint.BEST) if clear else ():
                (self._folder / name).unlink(missing_ok=True)
        except OSError as error:
            raise CheckpointUnwritable(self._folder, error) from error

    def save(self, progress: Progress, draws: Draws, *, best: bool) -> int:
        """Write ``last.pt``, and let ``best.pt`` be the same file if it is the `best`. Return its size in bytes.

        Raises:
            CheckpointUnwritable: it could not be written; the one before it is untouched.
            UnsavableState: something in the state is no plain data.
        """
        random = self._group.gather({"now": draws.now, "epoch": draws.epoch})
        last = self._folder / checkpoint.LAST
        size = 0
        if self._group.rank == 0:
            size = checkpoint.write(last, {**self._state(), "random": random, "progress": progress.state()})
            if best:
                checkpoint.link(last, self._folder / checkpoint.BEST)
        self.last = last
        self.best = self._folder / checkpoint.BEST if best else self.best
        return size

    def _state(self) -> dict[str, Any]:
        parts, stepper = self._parts, self._stepper
        return {
            "run": self._identity.run,
            "attempt": self._identity.attempt,
            "model": parts.model.state_dict(),
            "optimizer": {"class": type(parts.optimizer).__qualname__, "state": parts.optimizer.state_dict()},
            "scheduler": None if parts.scheduler is None else parts.scheduler.state_dict(),
            "scaler": stepper.scaler.state_dict(),
            "ema": None if stepper.ema is None else stepper.ema.state_dict(),
        }

    def load(self, saved: Saved) -> tuple[Progress, Draws]:
        """Bring everything back as it was; return how far the run had come, and where the generators stood."""
        state, parts, stepper = saved.state, self._parts, self._stepper
        parts.model.load_state_dict(state["model"])
        parts.optimizer.load_state_dict(state["optimizer"]["state"])
        if parts.scheduler is not None:
            parts.scheduler.load_state_dict(state["scheduler"])
            # The optimizer has stepped, in the attempt before: else the scheduler warns that it has not.
            setattr(parts.optimizer, "_opt_called", True)  # noqa: B010  # an attribute that torch adds to it
        if stepper.ema is not None:
            stepper.ema.load_state_dict(state["ema"])
        if state["scaler"]:
            stepper.scaler.load_state_dict(state["scaler"])
        self.last, self.best = saved.path, saved.best
        return Progress.from_state(state["progress"]), Draws(**state["random"][self._group.rank])

    def best_weights(self) -> Mapping[str, Any] | None:
        """Return the weights that were validated best, the same in every process; None where none were saved."""
        if self.best is None:
            return None
        weights = None if self._group.rank else checkpoint.weights_of(checkpoint.read(self.best))
        return self._group.share(weights)
