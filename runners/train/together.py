"""`Together`: checkpoints that one process of several is asked for, and all of them save."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from ..control import Control
from ..errors import RunnerError
from .distributed import Group
from .keeper import Random

Saved = tuple[Path, Mapping[str, object]]
"""The path of a checkpoint, and what ``ModelSave`` says of it."""


class Together:
    """Notes what this process is asked for, and saves once all have agreed to: each says where it stands, one writes.

    Args:
        group: The processes of the run.
        control: What is asked of this one.
        stand: Gives where the random generators of all processes stand; None: it is not to be saved.
        write: Writes a checkpoint.
    """

    def __init__(
        self,
        group: Group,
        control: Control,
        stand: Callable[[], Random | None],
        write: Callable[[Path | None, Random], Saved],
    ) -> None:
        self._group = group
        self._control = control
        self._stand = stand
        self._write = write
        self._asked: dict[Path | None, None] = {}
        self._saved: dict[Path | None, Saved | Exception] = {}

    def obstacle(self, path: Path | None) -> str | None:
        """Say why there is no checkpoint at `path` yet, and note that there is to be one; None: there is."""
        if path in self._saved:
            return None
        self._asked[path] = None
        return (
            f"it has {self._group.size} processes, which save together between two batches, and not while one stands "
            "in a hook or a hold; ask outside of them, or set save_every_steps=..."
        )

    def saved(self, path: Path | None) -> Saved:
        """Return what was saved for who asked for `path`; raise what failed."""
        saved = self._saved[path]
        if isinstance(saved, Exception):
            raise saved
        return saved

    def attend(self) -> bool:
        """Do what this process is asked for by itself; return whether a checkpoint is among what it cannot."""
        self._asked = {}  # who has gone meanwhile asks no more
        self._control.interrupted()
        return bool(self._asked)

    def save(self) -> None:
        """Save what any process is asked for; who asked for it gets it. To be called by all at the same step."""
        asked = self._group.gather([*self._asked])
        paths = dict.fromkeys(path for one in asked for path in one)
        random = self._stand() if paths else None
        if random is None:
            return
        first = self._group.rank == 0
        self._saved = self._group.share({path: self._attempt(path, random) for path in paths} if first else {})
        self._control.stand(lambda: True)
        self._saved = {}

    def _attempt(self, path: Path | None, random: Random) -> Saved | Exception:
        try:
            return self._write(path, random)
        except RunnerError as error:
            return error.with_traceback(None)
        except Exception as error:  # of a `state_dict` of the user's: another process may not be able to read it
            return RuntimeError(f"the first process could not save: {error!r:.400}")
