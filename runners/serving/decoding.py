"""From what a client sent to an input: numbers become arrays, pictures are looked at before they are decoded."""

from __future__ import annotations

import codecs
import io
from collections.abc import Callable
from typing import Any, cast

import numpy as np
from pydantic_core import from_json, to_json

from ..predict.pictures import rgb_array
from .errors import MediaTypeUnknown, RequestTooLarge, RequestUnusable, ServingError
from .forms import reason_of
from .request import Given

Decode = Callable[[bytes, str], object]
"""From bytes and their media type, without parameters, to one input."""

JSON = "application/json"
BYTES = "application/octet-stream"
PART = "an input in JSON, or a part with a filename or a Content-Type, e.g. image/png, that says what it is"
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")
"""The kinds of pictures that are read, as Pillow calls them. Others can start programs, or make files open files."""


class Decoder:
    """Makes inputs of what clients send.

    Args:
        decode: The user's own way; None: JSON values, and pictures as arrays of shape (height, width, 3), RGB, uint8.
        pixels: Most pixels of a picture.
    """

    def __init__(self, decode: Decode | None, pixels: int) -> None:
        self._decode = decode
        self._pixels = pixels

    @property
    def takes_anything(self) -> bool:
        """Whether the user's own way decides what is taken."""
        return self._decode is not None

    def part(self, data: bytes, media_type: str, name: str | None = None) -> Given:
        """Return the input that a body, a part of one or a binary message is. Takes long: not for an event loop.

        Raises:
            ServingError: it is none.
        """
        if media_type == JSON:
            return self.value(parsed(data, PART), name)
        if self._decode is not None:
            return self._decoded(self._decode, data, media_type, name)
        if media_type != BYTES and not media_type.startswith("image/"):
            raise MediaTypeUnknown(media_type, "application/json, multipart/form-data or a picture, e.g. image/jpeg")
        picture = read_picture(data, self._pixels)
        return Given(picture, picture.nbytes, name)

    def value(self, value: object, name: str | None = None) -> Given:
        """Return the input that a value out of JSON is.

        Raises:
            ServingError: it is none.
        """
        if self._decode is not None:
            return self._decoded(self._decode, to_json(value), JSON, name)
        made = _array(cast("object", value)) if isinstance(value, (list, int, float)) else value
        return Given(made, size_of(made), name)

    def _decoded(self, decode: Decode, data: bytes, media_type: str, name: str | None) -> Given:
        try:
            value = decode(data, media_type)
        except ServingError:
            raise
        except Exception as error:
            problem = f"this {media_type} cannot be decoded: {reason_of(error, 200)}"
            raise RequestUnusable(problem, "what the recipe's decode takes") from error
        return Given(value, max(size_of(value), len(data)), name)


def parsed(data: bytes | str, expected: str = 'a JSON object, {"inputs": [...]}') -> object:
    """Return the value that is written in `data` as JSON; where it is none, the error says what was `expected`.

    Raises:
        RequestUnusable: it is no JSON.
    """
    # Some editors and languages begin every text with it.
    unmarked = data.removeprefix("\ufeff") if isinstance(data, str) else data.removeprefix(codecs.BOM_UTF8)
    try:
        return from_json(unmarked, allow_inf_nan=True)
    except ValueError as error:
        raise RequestUnusable(f"this is not JSON: {error}", expected) from None


def read_picture(data: bytes, pixels: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return a picture, upright, as an array of shape (height, width, 3) of uint8, RGB; of 16 bits the upper 8.

    Raises:
        RequestTooLarge: it has more than `pixels`, which is known before it is decoded.
        RequestUnusable: it is damaged, or of a kind or depth that is not read.
        MediaTypeUnknown: what reads pictures is not installed.
    """
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError:
        raise MediaTypeUnknown("image/*", "JSON: pictures need Pillow, which is not installed there") from None
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
            _check_pixels(picture.size, pixels)
            return rgb_array(picture)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise RequestTooLarge("this picture has too many pixels", f"{pixels} pixels") from None
    except ServingError:
        raise
    except Exception as error:  # Pillow raises whatever a damaged file makes it stumble over
        why = f"{error!s:.200}"
        if isinstance(error, UnidentifiedImageError):  # whose own words are about an object in this process
            why = "it is of no known kind" if data else "it is empty"
        expected = f"one of {', '.join(FORMATS)}, with 8 or 16 bits a value, or what a Recipe(decode=...) reads"
        raise RequestUnusable(f"this picture cannot be read: {why}", expected) from None


def _check_pixels(size: tuple[int, int], pixels: int) -> None:
    width, height = size
    if width * height > pixels:
        raise RequestTooLarge(f"this picture has {width} x {height} pixels", f"{pixels} pixels")


def _array(value: object) -> object:
    """Return numbers as an array; anything else as it is.

    Raises:
        RequestUnusable: its lists are of different lengths.
    """
    try:
        made: np.ndarray[Any, Any] = np.asarray(value)
    except ValueError:
        raise RequestUnusable(
            "an input has lists of different lengths", "numbers, or nested lists of one shape"
        ) from None
    return made if made.dtype.kind in "biuf" else value


def size_of(value: object) -> int:
    """Return about how many bytes `value` takes."""
    known = getattr(value, "nbytes", None)
    if isinstance(known, int):
        return known
    if isinstance(value, (str, bytes)):
        return len(value)
    if isinstance(value, dict):
        return sum(map(size_of, cast("dict[object, object]", value).values())) + 64
    return sum(map(size_of, cast("list[object]", value))) + 64 if isinstance(value, (list, tuple)) else 64
