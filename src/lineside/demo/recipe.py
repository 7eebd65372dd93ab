"""The demo's recipe. It is used as one's own would be: ``from lineside.demo.recipe import recipe``."""

from __future__ import annotations

from typing import TypedDict

import torch
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import ExponentialLR
from torchmetrics import Metric
from torchmetrics.classification import MulticlassAccuracy

from lineside.demo.digits import DigitsCNN, digits, loader
from lineside.runners import Recipe, TrainConfig
from lineside.runners.predictor import PredictBatch


class Reading(TypedDict):
    """What the model reads in a picture."""

    digit: int
    confidence: float


def read(logits: Tensor, batch: PredictBatch) -> list[Reading]:
    """Return what the model reads in each picture of a batch."""
    confidences, found = logits.softmax(dim=1).cpu().max(dim=1)
    pairs = zip(found, confidences, strict=True)
    return [Reading(digit=int(digit), confidence=float(confidence)) for digit, confidence in pairs]


def accuracy() -> dict[str, Metric]:
    """Return the share of the pictures that are read right."""
    return {"accuracy": MulticlassAccuracy(num_classes=10, average="micro")}


recipe = Recipe(
    model=DigitsCNN,
    train_data=lambda: loader("train"),
    val_data=lambda: loader("val"),
    predict_data=lambda: digits("held-back").images,
    example_inputs=lambda: torch.zeros(2, 1, 8, 8),
    loss=nn.CrossEntropyLoss(),
    optimizer=lambda parameters: AdamW(parameters, lr=3e-3),
    scheduler=lambda optimizer: ExponentialLR(optimizer, gamma=0.8),
    metrics=accuracy,
    postprocess=read,
    train=TrainConfig(epochs=8, seed=0),
)
