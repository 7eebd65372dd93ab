"""Training in several processes, started by ``torchrun``: one process a device, one `Group` a run.

A process that runs alone has a `Group` too, whose answers are its own.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from functools import partial
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ..inference import resolve_device
from ..objective import Loss, Objective

T = TypeVar("T")

Step = Callable[[Any], Loss]
"""Computes the loss of a batch."""

_collective = cast("Any", dist)
"""The collective functions, which torch leaves untyped."""


class Group:
    """The processes of a run: only this one."""

    rank = 0
    size = 1

    def wrap(self, model: nn.Module, objective: Objective) -> Step:
        """Return what computes the loss of a batch with `model`, in training."""
        return partial(objective.loss, model)

    def accumulating(self, step: Step) -> AbstractContextManager[None]:
        """Enter it around a backward pass whose gradients are not complete: they are not exchanged yet."""
        del step
        return nullcontext()

    def agree(self, wishes: Sequence[int]) -> Sequence[int]:
        """Return the largest of each of the wishes of all processes: the same in all of them, at the same step."""
        return wishes

    def agree_now(self, wishes: Sequence[int]) -> Sequence[int]:
        """Like `agree`, and wait for the others: for the ends of epochs."""
        return wishes

    def share(self, value: T) -> T:
        """Return the `value` of the first process."""
        return value

    def gather(self, value: T) -> list[T]:
        """Return the values of all processes, by rank."""
        return [value]

    def add_up(self, values: Sequence[float]) -> list[float]:
        """Return the sums over all processes."""
        return list(values)

    def close(self) -> None:
        """Leave the group."""


class ProcessGroup(Group):
    """The processes that ``torchrun`` started. Gradients go by NCCL on CUDA and by gloo elsewhere.

    What steers the run goes by a gloo group of its own, on the CPU, so that it never makes a device wait.

    Args:
        device: The device of this process.
        timeout: How long to wait for the others.
    """

    def __init__(self, device: torch.device, timeout: timedelta = timedelta(minutes=30)) -> None:
        if not dist.is_initialized():
            dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=timeout)
            atexit.register(_leave)  # not with the run: a process cannot join a second time
        self.rank = dist.get_rank()
        self.size = dist.get_world_size()
        self._control: Any = _collective.new_group(backend="gloo", timeout=timeout)
        self._pending: tuple[Any, Tensor] | None = None

    def wrap(self, model: nn.Module, objective: Objective) -> Step:
        """Return what computes the loss, and has the gradients averaged over the processes."""
        if not any(parameter.requires_grad for parameter in model.parameters()):
            return super().wrap(model, objective)
        return DistributedDataParallel(_WholeStep(model, objective))

    def accumulating(self, step: Step) -> AbstractContextManager[None]:
        """Hold the exchange of gradients back until the window's last backward pass."""
        return step.no_sync() if isinstance(step, DistributedDataParallel) else nullcontext()

    def agree(self, wishes: Sequence[int]) -> Sequence[int]:
        """Return the largest of each of the wishes of all processes as of the call before this one, 0 at the first.

        The wishes are exchanged while the next step computes, and waited for one step later: the same answer
        everywhere at the same step, without holding the step up.
        """
        agreed = self._settle() or [0] * len(wishes)
        largest = torch.tensor(wishes)
        work = _collective.all_reduce(largest, op=dist.ReduceOp.MAX, group=self._control, async_op=True)
        self._pending = (work, largest)
        return agreed

    def agree_now(self, wishes: Sequence[int]) -> Sequence[int]:
        """Return the largest of each of the wishes of all processes as of this call."""
        self._settle()
        largest = torch.tensor(wishes)
        _collective.all_reduce(largest, op=dist.ReduceOp.MAX, group=self._control)
        return _integers(largest)

    def _settle(self) -> Sequence[int]:
        if self._pending is None:
            return []
        (work, largest), self._pending = self._pending, None
        work.wait()
        return _integers(largest)

    def share(self, value: T) -> T:
        """Return the `value` of the first process."""
        box: list[Any] = [value]
        _collective.broadcast_object_list(box, src=0, group=self._control)
        return cast(T, box[0])

    def gather(self, value: T) -> list[T]:
        """Return the values of all processes, by rank."""
        values: list[Any] = [None] * self.size
        _collective.all_gather_object(values, value, group=self._control)
        return cast("list[T]", values)

    def add_up(self, values: Sequence[float]) -> list[float]:
        """Return the sums over all processes."""
        total = torch.tensor(values, dtype=torch.float64)
        _collective.all_reduce(total, group=self._control)
        return [float(value) for value in total]

    def close(self) -> None:
        """Leave the group of the run."""
        control, is_quiet = self._control, self._pending is None
        self._pending = None
        dist.destroy_process_group(control)
        if is_quiet:  # the last reference joins the group's threads, which would wait for an exchange that nobody joins
            del self._control


def _integers(tensor: Tensor) -> list[int]:
    return [int(value) for value in tensor]


class _WholeStep(nn.Module):
    """Model and objective as one module: a step may then use the model as it likes, and gradients are exchanged.

    Around the model alone, `DistributedDataParallel` would hide its attributes, and parts that were called by
    themselves would be trained in each process on its own.
    """

    def __init__(self, model: nn.Module, objective: Objective) -> None:
        super().__init__()
        self.model = model
        self._objective = objective

    def forward(self, batch: Any) -> Loss:
        return self._objective.loss(self.model, batch)


def _leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def join(device: str) -> tuple[Group, torch.device]:
    """Return the group that this process belongs to, and its device.

    ``torchrun`` says by environment variables that there are several processes; read once, here.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) <= 1 and not (dist.is_available() and dist.is_initialized()):
        return Group(), resolve_device(device)
    local = int(os.environ.get("LOCAL_RANK", "0"))
    own = resolve_device(f"cuda:{local}" if device in ("auto", "cuda") and torch.cuda.is_available() else device)
    if own.type == "cuda":
        torch.cuda.set_device(own)
    return ProcessGroup(own), own
