"""Checkpoint files: written whole or not at all, read without running code, refused before anything is touched."""

from __future__ import annotations

import os
import pickle
import shutil
from collections import Counter
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ..errors import (
    CheckpointMismatch,
    CheckpointNotFound,
    CheckpointUnreadable,
    CheckpointUnwritable,
    ModelMismatch,
    OptimizerMismatch,
    UnsavableState,
)

FORMAT = 1
"""Version of what is in the file."""
LAST = "last.pt"
BEST = "best.pt"

State = Mapping[str, Any]

_KEYS = {"lineside", "run", "attempt", "model", "optimizer", "scheduler", "scaler", "ema", "random", "progress"}
_PLAIN = (Tensor, str, bytes, bool, int, float, type(None))


def write(path: Path, state: State) -> int:
    """Write `state` to `path`, whole or not at all, and return the size in bytes.

    It goes to a temporary file in the same folder, then to the disk, then takes the place of `path`.

    Raises:
        CheckpointUnwritable: it could not be written; what was at `path` is untouched.
        UnsavableState: something in it is neither tensor nor plain data.
    """
    content = plain({**state, "lineside": FORMAT})
    with replacing(path) as file:
        torch.save(content, file)
    return path.stat().st_size


def link(path: Path, alias: Path) -> None:
    """Make `alias` another name of the file at `path`, atomically; a copy where the file system has no links.

    Raises:
        CheckpointUnwritable: it could not be made.
    """
    draft = _draft(alias)
    try:
        draft.unlink(missing_ok=True)
        try:
            draft.hardlink_to(path)
        except OSError:  # no hard links here
            shutil.copyfile(path, draft)
        draft.replace(alias)
    except OSError as error:
        raise CheckpointUnwritable(alias, error) from error
    finally:
        draft.unlink(missing_ok=True)


@contextmanager
def replacing(path: Path) -> Generator[IO[bytes]]:
    """Give a file that takes the place of `path` when the block ends well."""
    draft = _draft(path)
    try:
        with draft.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        raise CheckpointUnwritable(path, error) from error
    finally:
        draft.unlink(missing_ok=True)


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


def plain(value: object) -> object:
    """Return `value` as tensors on the host, numbers, strings and plain containers of them.

    Raises:
        UnsavableState: there is something else in it; the message says where.
    """
    copies = _HostCopies()
    made = _plain(value, "its state", copies)
    copies.wait()
    return made


def _plain(value: object, where: str, copies: _HostCopies) -> object:
    if isinstance(value, Tensor):
        return copies.of(value.detach())
    if isinstance(value, Mapping):
        mapping = cast("Mapping[object, object]", value)
        made = {key: _plain(item, f"{where}[{key!r}]", copies) for key, item in mapping.items()}
        return Counter(made) if isinstance(mapping, Counter) else made  # MultiStepLR relies on a Counter's zeros
    if isinstance(value, (list, tuple)):
        sequence = cast("Sequence[object]", value)
        items = [_plain(item, f"{where}[{index}]", copies) for index, item in enumerate(sequence)]
        return tuple(items) if isinstance(sequence, tuple) else items
    if type(value) in _PLAIN:
        return value
    if isinstance(value, np.generic):
        return cast("object", value.item())  # pyright: ignore[reportUnknownMemberType]  # of any number
    raise UnsavableState(where, value)


class _HostCopies:
    """Copies of tensors on CUDA, enqueued one behind the other and waited for once, by an event."""

    def __init__(self) -> None:
        self._devices: set[torch.device] = set()

    def of(self, tensor: Tensor) -> Tensor:
        if tensor.device.type != "cuda":
            return tensor
        self._devices.add(tensor.device)
        host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        return host.copy_(tensor, non_blocking=True)

    def wait(self) -> None:
        for device in self._devices:
            with torch.cuda.device(device):
                event = torch.cuda.Event()  # type: ignore[no-untyped-call]
                event.record()
                event.synchronize()


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


def check_optimizer(path: Path, saved: Mapping[str, Any], optimizer: Optimizer) -> None:
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


def check_part(path: Path, name: str, *, saved: bool, own: bool) -> None:
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
    found = find(given / BEST) if (given / BEST).is_file() else find(given)
    weights = weights_of(read(found))
    check_model(found, weights, model)
    model.load_state_dict(weights)


def weights_of(state: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the weights that were validated: those of the moving average, where there is one."""
    ema: Mapping[str, Any] | None = state["ema"]
    if ema is None:
        return cast(Mapping[str, Any], state["model"])
    prefix = "module."
    return {name.removeprefix(prefix): value for name, value in ema.items() if name.startswith(prefix)}
