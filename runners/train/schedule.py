"""`Schedule`: when the learning rate changes, and what is said of it."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any, Literal

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from ..errors import InvalidArgument
from ..val.metrics import Direction


class Schedule:
    """Steps a scheduler at the end of every epoch or after every optimizer step.

    Args:
        scheduler: The scheduler, or a function that makes it of the optimizer, or None.
        optimizer: The optimizer whose learning rates it changes.
        every: Whether it steps every epoch or every optimizer step.

    Raises:
        InvalidArgument: `scheduler` is something else, changes another optimizer, or cannot step so often.
    """

    def __init__(
        self,
        scheduler: LRScheduler | Callable[[Optimizer], LRScheduler] | None,
        optimizer: Optimizer,
        every: Literal["epoch", "step"],
    ) -> None:
        made: object = scheduler
        if not isinstance(scheduler, LRScheduler) and callable(scheduler):
            made = scheduler(optimizer)
        if made is not None and not isinstance(made, LRScheduler):
            raise InvalidArgument(
                f"the scheduler is {made!r:.80} of type {type(made).__qualname__}",
                "expected a torch LRScheduler, or a function that makes one of the optimizer",
            )
        if made is not None and made.optimizer is not optimizer:
            raise InvalidArgument("the scheduler changes another optimizer", "make it of the optimizer of this run")
        if isinstance(made, ReduceLROnPlateau) and every == "step":
            raise InvalidArgument("ReduceLROnPlateau looks at validations", "set schedule='epoch'")
        self.scheduler = made
        self._optimizer = optimizer
        self._every = every
        self._beginning: tuple[dict[str, Any], list[dict[str, Any]]] | None = None

    def begin(self) -> None:
        """A new run begins: go back to where the first one began, with the options of the optimizer's groups."""
        if self.scheduler is None:
            return
        groups = self._optimizer.param_groups
        if self._beginning is None:
            options = [{name: value for name, value in group.items() if name != "params"} for group in groups]
            self._beginning = copy.deepcopy((self.scheduler.state_dict(), options))
            return
        state, options = copy.deepcopy(self._beginning)
        self.scheduler.load_state_dict(state)
        for group, before in zip(groups, options, strict=False):  # a hook may have added groups
            group.update(before)

    def refuse_other(self, direction: Direction | None) -> None:
        """Refuse a plateau scheduler that takes for better what is worse. `direction` None: it is not known yet.

        The value cannot be turned round for it: its threshold is relative, so that of negative values the same one
        would count as better.

        Raises:
            InvalidArgument: it is one.
        """
        if isinstance(self.scheduler, ReduceLROnPlateau) and direction not in (None, _mode(self.scheduler)):
            better = "larger" if direction == "max" else "smaller"
            raise InvalidArgument(
                f"ReduceLROnPlateau has mode={_mode(self.scheduler)!r}, but of what it looks at {better} is better",
                f"make it with mode={direction!r}, or let it look at something else: fitness=...",
            )

    def after_step(self) -> None:
        """An optimizer step is done."""
        if self._every == "step":
            self._step()

    def after_epoch(self, fitness: float | None) -> None:
        """An epoch is done, with this fitness (larger is better).

        A plateau scheduler gets it as it was computed, before it was turned, and is left alone without one.
        """
        plateau = self.scheduler
        if not isinstance(plateau, ReduceLROnPlateau):
            if self._every == "epoch":
                self._step()
        elif fitness is not None:
            plateau.step(fitness if _mode(plateau) == "max" else -fitness)  # pyright: ignore[reportUnknownMemberType]

    def _step(self) -> None:
        if self.scheduler is not None:
            self.scheduler.step()  # pyright: ignore[reportUnknownMemberType, reportCallIssue]  # not a plateau's

    def rates(self) -> dict[str, float]:
        """Return the learning rate by parameter group: its ``name``, else its number."""
        groups = enumerate(self._optimizer.param_groups)
        return {str(group.get("name", index)): _number(group["lr"]) for index, group in groups}


def _mode(plateau: ReduceLROnPlateau) -> str:
    return str(plateau.mode)  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]  # torch's is untyped


def _number(rate: Any) -> float:
    # A rate that lives on a device would have to be waited for.
    return math.nan if isinstance(rate, Tensor) and rate.device.type != "cpu" else float(rate)
