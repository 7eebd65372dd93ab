"""A recipe: how to make the parts that the command line trains, validates, predicts with and exports.

    lineside train examples/digits_recipe.py --set epochs=5
    lineside val examples/digits_recipe.py --weights runs/NAME
    lineside predict examples/digits_recipe.py --weights runs/NAME
    lineside export examples/digits_recipe.py digits.onnx digits.pt2 --weights runs/NAME

NAME is what training says its run is called. Parts are functions: only what a command needs is made.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics.classification import MulticlassAccuracy

from lineside import PredictConfig, Recipe, TrainConfig

EPOCHS = 20

data = cast(Any, load_digits())  # scikit-learn has no types
pixels = torch.tensor(data.data, dtype=torch.float32) / 16
labels = torch.tensor(data.target)


def model() -> nn.Module:
    return nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))


def batches(first: int, last: int, shuffle: bool = False) -> DataLoader[tuple[Tensor, ...]]:
    return DataLoader(TensorDataset(pixels[first:last], labels[first:last]), batch_size=32, shuffle=shuffle)


def cosine(optimizer: Optimizer) -> CosineAnnealingLR:
    return CosineAnnealingLR(optimizer, T_max=EPOCHS)


recipe = Recipe(
    model=model,
    train_data=lambda: batches(0, 1200, shuffle=True),
    val_data=lambda: batches(1200, 1500),
    predict_data=lambda: pixels[1500:],
    example_inputs=lambda: pixels[:2],
    loss=nn.CrossEntropyLoss(),
    optimizer=lambda parameters: SGD(parameters, lr=0.1, momentum=0.9),
    scheduler=cosine,
    metrics=lambda: {"accuracy": MulticlassAccuracy(num_classes=10, average="micro")},
    postprocess=lambda logits, batch: logits.argmax(dim=1).tolist(),
    train=TrainConfig(epochs=EPOCHS, clip_norm=1.0, seed=0),
    predict=PredictConfig(batch_size=16),
)
