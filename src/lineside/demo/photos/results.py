"""What is said of a photograph: the result of a prediction, as the events have it."""

from __future__ import annotations

import base64
import io

from PIL import Image
from pydantic import Field

from lineside.schemas import Classes, Part

THUMBNAIL_BYTES = 6000
"""Largest thumbnail: 8,000 characters in an event."""
THUMBNAILS = ((288, 80), (288, 65), (288, 50), (240, 60), (240, 45), (192, 45), (128, 40))
"""Longer side in pixels, and quality: the first that is small enough is taken."""


class LabelledPhoto(Part):
    """A photograph and what is on it."""

    name: str = Field(description="Name of the photograph.")
    picture: str = Field(description="A thumbnail: `data:image/jpeg;base64,…`.")
    classes: Classes = Field(description="What it may show, the likeliest first.")


def thumbnail(image: Image.Image) -> str:
    """Return a small copy as a ``data:image/jpeg;base64,…`` text."""
    small, coded = image.copy(), b""
    for side, quality in THUMBNAILS:
        small.thumbnail((side, side))
        coded = _jpeg(small, quality)
        if len(coded) <= THUMBNAIL_BYTES:
            break
    return f"data:image/jpeg;base64,{base64.b64encode(coded).decode()}"


def _jpeg(image: Image.Image, quality: int) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality, optimize=True)
    return file.getvalue()
