"""The recipe of the demo with photographs: ``from lineside.demo.photos.recipe import recipe``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from lineside.demo.photos.data import Photos, as_image
from lineside.demo.photos.labels import class_names
from lineside.demo.photos.network import SIDE, lite0, prepare
from lineside.demo.photos.results import LabelledPhoto, thumbnail
from lineside.runners import PredictConfig, Recipe, classes
from lineside.runners.predictor import PredictBatch

classify = classes(class_names(), top=5)


def preprocess(inputs: Sequence[object]) -> Tensor:
    """Return what the network takes of these inputs, see `as_image`."""
    return prepare(as_image(value) for value in inputs)


def name_photos(logits: Tensor, batch: PredictBatch) -> list[LabelledPhoto]:
    """Return what is on each photograph of a batch, with a thumbnail of it."""
    named = zip(batch.names, batch.images, classify(logits, batch), strict=True)
    return [
        LabelledPhoto(name=Path(name).stem, picture=thumbnail(as_image(image)), classes=found)
        for name, image, found in named
    ]


recipe = Recipe(
    model=lite0,
    predict_data=Photos.shipped,
    example_inputs=lambda: torch.zeros(1, 3, SIDE, SIDE),
    preprocess=preprocess,
    postprocess=name_photos,
    predict=PredictConfig(batch_size=2),
)
