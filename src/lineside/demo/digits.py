"""The data and the model of the demo: scikit-learn's 1,797 handwritten digits of 8x8 pixels, and a small CNN."""

from __future__ import annotations

from functools import cache
from typing import Literal, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

Split = Literal["train", "val", "held-back"]

_BOUNDS: dict[Split, tuple[int, int]] = {"train": (0, 1257), "val": (1257, 1527), "held-back": (1527, 1797)}


class Digits(NamedTuple):
    """Some of the digits."""

    images: Tensor
    """Shape (n, 1, 8, 8), float32, from 0 (paper) to 1 (ink)."""
    labels: Tensor
    """Shape (n,), int64, 0 to 9."""


def digits(split: Split) -> Digits:
    """Return one of three splits, always the same: 1,257 digits to train on, 270 to validate, 270 held back."""
    images, labels = _shuffled()
    part = slice(*_BOUNDS[split])
    return Digits(images[part], labels[part])


@cache
def _shuffled() -> Digits:
    pixels, labels = cast("tuple[NDArray[np.float64], NDArray[np.int64]]", load_digits(return_X_y=True))
    order = np.random.RandomState(0).permutation(len(labels))  # not default_rng: this stream is frozen for good
    images = torch.tensor(pixels[order] / 16, dtype=torch.float32).reshape(-1, 1, 8, 8)
    return Digits(images, torch.tensor(labels[order]))


def loader(split: Split, batch_size: int = 64) -> DataLoader[tuple[Tensor, ...]]:
    """Return batches of (images, labels); those to train on are shuffled anew every epoch."""
    return DataLoader(TensorDataset(*digits(split)), batch_size=batch_size, shuffle=split == "train")


class DigitsCNN(nn.Module):
    """Three convolutions and a linear layer: 39,370 parameters. From (n, 1, 8, 8) to (n, 10) logits."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *_block(1, width),
            *_block(width, 2 * width),
            nn.MaxPool2d(2),
            *_block(2 * width, 2 * width),
            nn.Flatten(),
            nn.Dropout(0.2),
            nn.Linear(2 * width * 4 * 4, 10),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits of `images`."""
        logits: Tensor = self.layers(images)
        return logits


def _block(inputs: int, outputs: int) -> tuple[nn.Module, ...]:
    return nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()
