"""`Stepper`: from a batch to changed parameters, with mixed precision, accumulation, clipping and a moving average."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from torch.optim import Optimizer

from ..config import TrainConfig
from ..errors import InvalidObjective
from ..inference import precision
from ..objective import Loss, Objective
from .distributed import Group
from .ema import Ema


class Stepper:
    """Accumulates the gradients of a window of batches, then steps the optimizer.

    Args:
        model: The module whose parameters are trained, on its device.
        optimizer: Steps them.
        objective: Says what is minimised.
        config: Precision, window, clipping, average, compilation.
        device: Where the parameters are.
        group: The processes of the run.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        objective: Objective,
        config: TrainConfig,
        device: torch.device,
        group: Group,
    ) -> None:
        self._model = model
        self._compute = group.wrap(_compile(model) if config.compile else model, objective)
        self._optimizer = optimizer
        self._config = config
        self._device = device
        self._group = group
        self._stepped = False
        self._watch = optimizer.register_step_post_hook(self._note_step)
        self.scaler = torch.amp.GradScaler(device.type, enabled=config.amp == "fp16")
        self.ema = None if config.ema_decay is None else Ema(model, config.ema_decay)

    def close(self) -> None:
        """Leave the optimizer as it was found."""
        self._watch.remove()

    def accumulate(self, batch: Any, window: int, *, complete: bool) -> Loss:
        """Add the gradients of a batch to those of its window, of so many batches; the last one makes it `complete`."""
        if complete:
            return self._forward_backward(batch, window)
        with self._group.accumulating(self._compute):
            return self._forward_backward(batch, window)

    def _forward_backward(self, batch: Any, window: int) -> Loss:
        with precision(self._device, self._config.amp):
            loss = self._compute(batch)
        if not loss.total.requires_grad:
            raise InvalidObjective(
                "the loss does not depend on the model's parameters, so nothing can be trained",
                "compute it from the model's outputs, without detach(), item() or no_grad()",
            )
        torch.autograd.backward(self.scaler.scale(loss.total / window if window > 1 else loss.total))
        return loss

    def finish_gradients(self) -> Tensor | None:
        """Unscale and clip the gradients of the window; return their norm before clipping, None without clipping."""
        if self.scaler.is_enabled():
            self.scaler.unscale_(self._optimizer)
        if self._config.clip_norm is None:
            return None
        return clip_grad_norm_(self._model.parameters(), self._config.clip_norm)

    def step(self) -> bool:
        """Step the optimizer and let the average follow. Return False if the scaler skipped it.

        An optimizer that is fused with the scaling skips on the device: the host cannot know, and it counts as a step.
        """
        self._stepped = False
        self.scaler.step(self._optimizer)
        self.scaler.update()
        if self._stepped and self.ema is not None:
            self.ema.update_parameters(self._model)
        return self._stepped

    def _note_step(self, *_: object) -> None:
        self._stepped = True

    def zero_grad(self) -> None:
        """Forget the gradients."""
        self._optimizer.zero_grad()

    @property
    def scale(self) -> float | None:
        """The loss scale, where the host can read it without waiting for the device."""
        return self.scaler.get_scale() if self._device.type == "cpu" else None

    @property
    def evaluated(self) -> nn.Module:
        """The module that is validated: the average where there is one."""
        return self._model if self.ema is None else self.ema.module


def _compile(model: nn.Module) -> nn.Module:
    compiled: object = torch.compile(model)  # pyright: ignore[reportUnknownMemberType]  # torch leaves it untyped
    return cast(nn.Module, compiled)
