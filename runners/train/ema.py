"""A moving average of the weights."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from itertools import chain
from typing import cast

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import PARAM_LIST, AveragedModel, get_ema_multi_avg_fn

Average = Callable[[PARAM_LIST, PARAM_LIST, Tensor | int], None]

_exponential = cast("Callable[[float], Average]", get_ema_multi_avg_fn)


class Ema(AveragedModel):
    """torch's `AveragedModel` with the exponential average of parameters and buffers.

    Only the walk over the tensors is ours: the original copies its counter to the device at every update, which makes
    the host wait for a GPU. Formula, state and the first update (a copy) are the original's.

    Args:
        model: The module that is trained.
        decay: Weight of the average before; 1 - `decay` is that of the new weights.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._average = _exponential(decay)
        super().__init__(model, multi_avg_fn=self._average, use_buffers=True)
        self.requires_grad_(False)

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        """Let the average follow `model`."""
        first = not self.n_averaged  # on the CPU, whatever the device
        groups: dict[object, tuple[list[Tensor], list[Tensor]]] = defaultdict(lambda: ([], []))
        for average, current in zip(_tensors(self.module), _tensors(model), strict=True):
            averages, currents = groups[average.device, average.dtype]
            averages.append(average.detach())
            currents.append(current.detach())
        for averages, currents in groups.values():
            if first:
                for average, current in zip(averages, currents, strict=True):
                    average.copy_(current)
            else:
                self._average(averages, currents, 0)
        self.n_averaged += 1


def _tensors(module: nn.Module) -> chain[Tensor]:
    return chain(module.parameters(), module.buffers())
