"""Whether a checkpoint fits what it is to be loaded into: refused before anything is touched."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from ..errors import CheckpointMismatch, ModelMismatch, OptimizerMismatch
from ..identity import Identity
from . import checkpoint
from .distributed import Group


@dataclass(frozen=True)
class Parts:
    """What the user brought, as far as training changes it."""

    model: nn.Module
    optimizer: Optimizer
    scheduler: LRScheduler | None

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint holds of them."""
        return {
            "model": self.model.state_dict(),
            "optimizer": {"class": type(self.optimizer).__qualname__, "state": self.optimizer.state_dict()},
            "scheduler": None if self.scheduler is None else self.scheduler.state_dict(),
        }


@dataclass(frozen=True)
class Saved:
    """A checkpoint that was read and found to fit, before anything was touched."""

    path: Path
    state: Mapping[str, Any]

    @property
    def identity(self) -> Identity:
        """The run that it belongs to, and the attempt that comes now."""
        run, attempt = str(self.state["run"]), int(self.state["attempt"])
        return Identity(run, max(attempt, self._noted(run)) + 1)

    def note(self, identity: Identity) -> None:
        """Note beside the checkpoint which attempt was begun: it may end before it saves anything."""
        with suppress(OSError):  # where nothing can be written, an attempt that saves nothing leaves no trace
            self._note.write_text(f"{identity.run} {identity.attempt}\n", encoding="utf-8")

    def _noted(self, run: str) -> int:
        try:
            of, attempt = self._note.read_text(encoding="utf-8").split()
            return int(attempt) if of == run else 0
        except (OSError, ValueError):  # there is none, or somebody wrote in it
            return 0

    @property
    def _note(self) -> Path:
        return self.path.with_name(".attempt")

    @property
    def best(self) -> Path | None:
        """The best checkpoint beside it, if there is one."""
        best = self.path.with_name(checkpoint.BEST)
        return best if best.is_file() and self.state["progress"]["best_epoch"] is not None else None


def read_fitting(path: Path, parts: Parts, group: Group, *, averaged: bool, generators: int) -> Saved:
    """Read the checkpoint that `path` means, and refuse one that does not fit.

    Args:
        path: A checkpoint or a folder.
        parts: What it is to be loaded into.
        group: The processes of this run.
        averaged: Whether this run has a moving average.
        generators: Random generators that its training data has.

    Raises:
        CheckpointError: it is missing, unreadable or of another set-up; the class says which.
    """
    found = checkpoint.find(path)
    state = checkpoint.read(found)
    check_model(found, state["model"], parts.model)
    _check_optimizer(found, state["optimizer"], parts.optimizer)
    _check_part(found, "a scheduler", saved=state["scheduler"] is not None, own=parts.scheduler is not None)
    _check_part(found, "a moving average (ema_decay)", saved=state["ema"] is not None, own=averaged)
    if len(state["random"]) != group.size:
        problem = f"it was written by {len(state['random'])} processes, this run has {group.size}"
        raise CheckpointMismatch(found, [problem], "resume with as many processes")
    saved = len(state["random"][group.rank]["now"]["generators"])
    if saved != generators:
        problem = f"the training data had {saved} torch.Generator of its own, that of this run has {generators}"
        raise CheckpointMismatch(found, [problem], "make the loader and its sampler as they were")
    return Saved(found, state)


def check_model(path: Path, saved: Mapping[str, Any], model: nn.Module) -> None:
    """Refuse weights of another model, naming what differs.

    Raises:
        ModelMismatch: a name is missing or too many, or a shape differs.
    """
    own = model.state_dict()
    problems = [f"{name} is in the model but not in the checkpoint" for name in own if name not in saved]
    problems += [f"{name} is in the checkpoint but not in the model" for name in saved if name not in own]
    for name in own.keys() & saved.keys():
        shapes = _shape(saved[name]), _shape(own[name])
        if shapes[0] != shapes[1]:
            problems.append(f"{name} has shape {shapes[0]} in the checkpoint and {shapes[1]} in the model")
    if problems:
        raise ModelMismatch(path, problems)


def _shape(value: object) -> object:
    return tuple(value.shape) if isinstance(value, Tensor) else type(value).__qualname__


def _check_optimizer(path: Path, saved: Mapping[str, Any], optimizer: Optimizer) -> None:
    """Refuse the state of another optimizer, naming what differs.

    Raises:
        OptimizerMismatch: another class, or other parameter groups.
    """
    problems: list[str] = []
    if saved["class"] != type(optimizer).__qualname__:
        problems.append(f"it was made with {saved['class']}, this run has {type(optimizer).__qualname__}")
    sizes = [len(group["params"]) for group in saved["state"]["param_groups"]]
    own = [len(group["params"]) for group in optimizer.param_groups]
    if sizes != own:
        problems.append(f"its parameter groups hold {sizes} parameters, those of this run {own}")
    if problems:
        raise OptimizerMismatch(path, problems)


def _check_part(path: Path, name: str, *, saved: bool, own: bool) -> None:
    """Refuse a checkpoint where either it or the run has a part, e.g. a scheduler, and the other has not.

    Raises:
        CheckpointMismatch: one has it, the other has not.
    """
    if saved != own:
        has, lacks = ("the checkpoint", "this run") if saved else ("this run", "the checkpoint")
        problem = f"{has} has {name}, {lacks} has none"
        raise CheckpointMismatch(path, [problem], "resume with the set-up of the first attempt")


def load_weights(model: nn.Module, path: str | os.PathLike[str]) -> None:
    """Load the weights in a checkpoint into `model`: the moving average's where there is one, as validation used them.

    Raises:
        CheckpointNotFound: there is no such file; for a folder, no ``best.pt`` and no ``last.pt`` in it.
        CheckpointUnreadable: it is truncated, damaged, or no checkpoint of ours.
        ModelMismatch: they are the weights of another model.
    """
    given = Path(path)
    best = given / checkpoint.BEST
    found = checkpoint.find(best if best.is_file() else given)
    weights = checkpoint.weights_of(checkpoint.read(found))
    check_model(found, weights, model)
    model.load_state_dict(weights)
