"""`Keeper`: keeps a training run on disk, and brings it back exactly as it was."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import CheckpointExists, CheckpointUnwritable
from ..identity import Identity
from . import checkpoint
from .distributed import Group
from .fitting import Parts, Saved
from .progress import Progress
from .random_state import State
from .stepper import Stepper


@dataclass(frozen=True)
class Draws:
    """Where the random generators stand, so that the same batches and the same dropout come again."""

    now: State
    """At the moment of the checkpoint: what the next batch draws from."""
    epoch: State | None
    """When the loader of the epoch in work was opened: what gives the same batches again. None: no more are to come."""


Random = list[dict[str, Any]]
"""The draws of all processes, by rank, as a checkpoint has them."""


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
        replaces: Whether checkpoints of another run that are in the folder go, when the first one of this run comes.
    """

    def __init__(
        self, folder: Path, identity: Identity, parts: Parts, stepper: Stepper, group: Group, *, replaces: bool
    ) -> None:
        self._folder = folder
        self._identity = identity
        self._parts = parts
        self._stepper = stepper
        self._group = group
        self._replaces = replaces
        self.last: Path | None = None
        """The latest checkpoint."""
        self.best: Path | None = None
        """The best checkpoint."""

    def open(self) -> None:
        """Make the folder.

        Raises:
            CheckpointUnwritable: it could not be made.
        """
        if self._group.rank == 0:
            try:
                self._folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise CheckpointUnwritable(self._folder, error) from error

    def gather(self, draws: Draws) -> Random:
        """Return the draws of all processes. To be called by all of them."""
        return self._group.gather({"now": draws.now, "epoch": draws.epoch})

    def save(self, progress: Progress, draws: Draws, *, best: bool) -> int:
        """Write ``last.pt``, and let ``best.pt`` be the same file if it is the `best`. Return its size in bytes.

        To be called by all processes.

        Raises:
            CheckpointUnwritable: it could not be written; the one before it is untouched.
            UnsavableState: something in the state is no plain data.
        """
        random = self.gather(draws)
        last = self._folder / checkpoint.LAST
        size = self._write_last(progress, random, best=best) if self._group.rank == 0 else 0
        self._replaces = False
        self.last = last
        self.best = self._folder / checkpoint.BEST if best else self.best
        return size

    def _write_last(self, progress: Progress, random: Random, *, best: bool) -> int:
        def prepare(draft: Path) -> None:
            # Before the draft becomes the last checkpoint: whenever the process is killed, the last one in the folder
            # knows of no best one that is not there.
            for name in (checkpoint.LAST, checkpoint.BEST) if self._replaces else ():
                (self._folder / name).unlink(missing_ok=True)
            if best:
                checkpoint.link(draft, self._folder / checkpoint.BEST)

        state = self._state(progress, random)
        return checkpoint.write(self._folder / checkpoint.LAST, state, prepare)

    def save_aside(self, progress: Progress, random: Random, path: Path | None) -> tuple[Path, int]:
        """Write `path`, or ``last.pt`` where it is None, because somebody asked for it; return path and size in bytes.

        To be called by the first process alone.

        Raises:
            CheckpointUnwritable: it could not be written; what was there before is untouched.
            UnsavableState: something in the state is no plain data.
        """
        last = self._folder / checkpoint.LAST
        if path is None or path.resolve() == last.resolve():
            self.open()
            size = self._write_last(progress, random, best=False)
            self._replaces, self.last = False, last
            return last, size
        return path, checkpoint.write(path, self._state(progress, random))

    def _state(self, progress: Progress, random: Random) -> dict[str, Any]:
        ema = self._stepper.ema
        return {
            "run": self._identity.run,
            "attempt": self._identity.attempt,
            **self._parts.state(),
            "scaler": self._stepper.scaler.state_dict(),
            "ema": None if ema is None else ema.state_dict(),
            "random": random,
            "progress": progress.state(),
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

    def standing(self, progress: Progress) -> dict[str, Any]:
        """Return what events and the result say of the best and the last, now."""
        return {
            "best_fitness": progress.best_fitness,
            "best_epoch": progress.best_epoch,
            "best": self.best,
            "last": self.last,
        }
