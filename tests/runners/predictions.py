"""A predictor whose results are known, and what its runs publish."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lineside.bus import Bus
from lineside.runners.predictor import PredictBatch, Predictor

BATCH = ["PredictBatchStart", "PredictPostprocessEnd", "PredictBatchEnd"]


def sequence(batches: int) -> list[str]:
    """The types of the events of a run, in the promised order."""
    return ["RunStart", "PredictStart", *BATCH * batches, "PredictEnd", "RunEnd"]


class Double(nn.Module):
    """Twice its input; remembers the mode it was called in."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(2.0))
        self.modes: set[tuple[bool, bool]] = set()

    def forward(self, value: Tensor) -> Tensor:
        self.modes.add((self.training, torch.is_inference_mode_enabled()))
        return value * self.factor


def numbers(outputs: Tensor, batch: PredictBatch) -> list[int]:
    return [int(value) for value in outputs]


def doubler(bus: Bus | None = None, **config: Any) -> Predictor[int]:
    return Predictor(Double(), postprocess=numbers, bus=bus, device="cpu", **config)
