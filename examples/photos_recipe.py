"""A recipe that names what is on photographs, with a pretrained network: EfficientNet-Lite0.

    lineside predict examples/photos_recipe.py
    lineside predict serve examples/photos_recipe.py

The first predicts the photographs that scikit-image brings. The second answers whoever sends some.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from lineside import PredictConfig, Recipe
from lineside.demo.photos.data import Photos, as_image
from lineside.demo.photos.labels import class_names
from lineside.demo.photos.network import lite0, prepare
from lineside.runners import classes


def preprocess(photos: Sequence[object]) -> Tensor:
    return prepare(as_image(photo) for photo in photos)


recipe = Recipe(
    model=lite0,
    predict_data=Photos.shipped,
    preprocess=preprocess,
    postprocess=classes(class_names(), top=3),
    predict=PredictConfig(batch_size=8),
)
