"""The photographs that scikit-image brings, and what else can be one."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import cast, overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lineside.schemas import LinesideError

SHIPPED = (
    "coffee.png",
    "chelsea.png",
    "camera.png",
    "rocket.jpg",
    "clock_motion.png",
    "astronaut.png",
    "coins.png",
    "hubble_deep_field.jpg",
)
"""What is used of scikit-image's own: photographs that lie in its wheel, free of copyright or in the public domain."""


class Photo:
    """A photograph in a file, which is read when it is first looked at."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def filename(self) -> str:
        """What events call it."""
        return self.path.name

    @cached_property
    def image(self) -> Image.Image:
        """The photograph, in RGB."""
        with Image.open(self.path) as file:
            return file.convert("RGB")


class Photos(Sequence[Photo]):
    """Photographs, none of which is in memory before it is looked at, nor for longer than that."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths

    @classmethod
    def shipped(cls) -> Photos:
        """Return those that scikit-image brings."""
        folder = Path(str(files("skimage"))) / "data"
        return cls([folder / name for name in SHIPPED])

    def __len__(self) -> int:
        return len(self._paths)

    @overload
    def __getitem__(self, index: int) -> Photo: ...
    @overload
    def __getitem__(self, index: slice) -> Photos: ...
    def __getitem__(self, index: int | slice) -> Photo | Photos:
        return Photos(self._paths[index]) if isinstance(index, slice) else Photo(self._paths[index])


class NoPhoto(LinesideError, ValueError):
    """An input is no photograph."""

    def __init__(self, value: object) -> None:
        shape = getattr(value, "shape", None)
        found = f"a {type(value).__qualname__}" + ("" if shape is None else f" of shape {tuple(shape)}")
        super().__init__(
            f"got {found}; expected a Pillow image, or an array of shape (height, width, 3) with values from 0 to 255"
        )


def as_image(value: object) -> Image.Image:
    """Return `value` as an image in RGB: a `Photo`, a Pillow image, or an array (height, width, 3) from 0 to 255.

    Not a path, however handy: inputs come from clients of a prediction service too, who must not choose files.

    Raises:
        NoPhoto: it is something else.
    """
    if isinstance(value, Photo):
        return value.image
    if isinstance(value, Image.Image):
        return value.convert("RGB")
    if not isinstance(value, np.ndarray):
        raise NoPhoto(value)
    array = cast("NDArray[np.float64]", value)  # or of any other numbers
    if array.ndim != 3 or array.shape[2] != 3:
        raise NoPhoto(array)
    return Image.fromarray(array.astype(np.uint8))
