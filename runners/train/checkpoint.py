"""Checkpoint files: written whole or not at all, read without running code."""

from __future__ import annotations

import os
import pickle
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import torch

from ..errors import CheckpointNotFound, CheckpointUnreadable, CheckpointUnwritable
from .plain import plain

FORMAT = 1
"""Version of what is in the file."""
LAST = "last.pt"
BEST = "best.pt"

State = Mapping[str, Any]

_KEYS = {"lineside", "run", "attempt", "model", "optimizer", "scheduler", "scaler", "ema", "random", "progress"}


def write(path: Path, state: State, prepare: Callable[[Path], None] = lambda _: None) -> int:
    """Write `state` to `path`, whole or not at all, and return the size in bytes.

    It goes to a temporary file in the same folder, then to the disk; `prepare` may do something with that file before
    it takes the place of `path`.

    Raises:
        CheckpointUnwritable: it could not be written; what was at `path` is untouched.
        UnsavableState: something in it is neither tensor nor plain data.
    """
    content = plain({**state, "lineside": FORMAT})
    draft = _draft(path)
    try:
        with draft.open("wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        prepare(draft)
        draft.replace(path)
        _sync_folder(path.parent)
        return path.stat().st_size
    except OSError as error:
        raise CheckpointUnwritable(path, error) from error
    finally:
        with suppress(OSError):  # none is there, or none can be
            draft.unlink()


def link(path: Path, alias: Path) -> None:
    """Make `alias` another name of the file at `path`, atomically; a copy where the file system has no links."""
    draft = _draft(alias)
    draft.unlink(missing_ok=True)
    try:
        draft.hardlink_to(path)
    except OSError:  # no hard links here
        shutil.copyfile(path, draft)
    draft.replace(alias)


def _draft(path: Path) -> Path:
    # Always the same name: what a killed process left behind is overwritten by the next attempt.
    return path.with_name(f".{path.name}.partial")


def _sync_folder(folder: Path) -> None:
    """Have the folder's new entry on the disk too, where the system can do that."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def find(path: Path) -> Path:
    """Return the checkpoint that `path` means: a file, or ``last.pt`` in a folder.

    Raises:
        CheckpointNotFound: there is none.
    """
    found = path / LAST if path.is_dir() else path
    if not found.is_file():
        raise CheckpointNotFound(found)
    return found


def read(path: Path) -> dict[str, Any]:
    """Return the state in the checkpoint at `path`, on the CPU. Loading runs no code.

    Raises:
        CheckpointNotFound: there is no such file.
        CheckpointUnreadable: it is truncated, damaged, or no checkpoint of ours.
    """
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise CheckpointNotFound(path) from None
    except pickle.UnpicklingError:
        raise CheckpointUnreadable(path, "it is damaged, or holds something else than tensors and plain data") from None
    except Exception as error:  # torch raises whatever its archive reader stumbles over
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointUnreadable(path, f"it is truncated or damaged ({reason:.120})") from None
    if not isinstance(content, dict) or not _KEYS.issubset(cast("dict[object, object]", content)):
        raise CheckpointUnreadable(path, "it was not written by a Trainer")
    if content["lineside"] != FORMAT:
        raise CheckpointUnreadable(path, f"it has format {content['lineside']}, this version reads {FORMAT}")
    return cast("dict[str, Any]", content)


def weights_of(state: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the weights that were validated: those of the moving average, where there is one."""
    ema: Mapping[str, Any] | None = state["ema"]
    if ema is None:
        return cast(Mapping[str, Any], state["model"])
    prefix = "module."
    return {name.removeprefix(prefix): value for name, value in ema.items() if name.startswith(prefix)}
