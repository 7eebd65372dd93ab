"""A folder of pictures as a source: read one by one, when their turn comes."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import NoPictures, PictureUnreadable, PillowMissing, SourceUnusable

if TYPE_CHECKING:
    from PIL import Image

SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
"""What the files of a folder are called that are taken for pictures; case does not matter."""

Picture = np.ndarray[Any, np.dtype[np.uint8]]


@dataclass(frozen=True, slots=True)
class Named:
    """An input of a source that knows its name."""

    name: str
    value: object


class Pictures:
    """The pictures in a folder and its subfolders, in the natural order of their paths (2.png before 10.png).

    Links to other folders are followed; each folder counts once. Each picture is read with Pillow when it is asked for,
    upright, as an array of shape (height, width, 3) of uint8, RGB; of 16 bits the upper 8 are kept. What is hidden (a
    name that begins with a dot) and what is no picture by its name is left out.
    """

    def __init__(self, path: Path, files: list[Path]) -> None:
        self.path = path
        """The folder, or the one picture."""
        self._files = files

    @classmethod
    def at(cls, path: str | PurePath) -> Pictures:
        """Return the pictures that `path` leads to: those in that folder, or the one that it is the path of.

        Raises:
            SourceUnusable: there is nothing.
            NoPictures: there is a folder without pictures.
            PillowMissing: what reads pictures is not installed.
        """
        found = Path(path)
        if not path or not _exists(found):
            raise SourceUnusable(
                path,
                f"there is no file or folder {str(path)!r:.120}; expected a folder of pictures, a picture, or an "
                f"iterable of inputs: for a single one give a list of it: [value]",
            )
        _check_pillow(found)
        files = [found] if found.is_file() else _pictures_in(found)
        if not files:
            raise NoPictures(found, sorted(SUFFIXES))
        return cls(found, files)

    def __len__(self) -> int:
        return len(self._files)

    def __iter__(self) -> Iterator[Named]:
        return (Named(str(file), read(file)) for file in self._files)


def _pictures_in(folder: Path) -> list[Path]:
    files: list[Path] = []
    ways, read = [folder], set[Path]()
    for way in ways:  # first the folder itself, then the links in it, and those that they lead to
        for here, folders, names in os.walk(way):
            place = Path(here).resolve()
            if place in read:
                folders.clear()
                continue
            read.add(place)
            folders[:] = [name for name in sorted(folders) if not name.startswith(".")]
            ways += [link for link in (Path(here, name) for name in folders) if link.is_symlink()]
            files += [Path(here, name) for name in names if _is_picture(name)]
    return sorted(files, key=_natural)


def _is_picture(name: str) -> bool:
    return not name.startswith(".") and PurePath(name).suffix.lower() in SUFFIXES


def _natural(file: Path) -> tuple[list[list[tuple[int, int, str]]], str]:
    """Return what sorts numbers within names by their value; the path itself decides between 1.png and 01.png."""
    return [_natural_part(part) for part in file.parts], str(file)


def _natural_part(name: str) -> list[tuple[int, int, str]]:
    texts = re.split(r"([0-9]+)", name.lower())
    return [(0, int(text), "") if text.isdecimal() else (1, 0, text) for text in texts if text]


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # no path could be so long
        return False


def _check_pillow(path: PurePath) -> None:
    if find_spec("PIL") is None:
        raise PillowMissing(path)


def read(file: PurePath) -> Picture:
    """Return a picture, upright, as an array of shape (height, width, 3) of uint8, RGB.

    Raises:
        PictureUnreadable: the file is damaged, no picture, or cannot be read.
        PillowMissing: what reads pictures is not installed.
    """
    _check_pillow(file)
    from PIL import Image

    try:
        with Image.open(file) as image:
            return rgb_array(image)
    except Exception as error:  # Pillow raises whatever a damaged file makes it stumble over
        raise PictureUnreadable(file, error) from error


def rgb_array(image: Image.Image) -> Picture:
    """Return what Pillow opened, upright, as an array of shape (height, width, 3) of uint8, RGB.

    Of 16 bits the upper 8 are kept. `image` is changed.

    Raises:
        ValueError: it has floats or 32 bits.
        Exception: whatever Pillow raises at a file that is damaged.
    """
    from PIL import Image, ImageOps

    image.load()
    with suppress(Exception):  # its EXIF is damaged: turned, where it says how, it is before Pillow stumbles over that
        ImageOps.exif_transpose(image, in_place=True)
    # Pillow's own conversion cuts deeper values off at 255. Its mode I are 16 bits, or 32, by the kind of the file.
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    elif image.mode in ("I", "F"):
        kind = "floats" if image.mode == "F" else "integers of 32 bits"
        raise ValueError(f"its values are {kind}, and nothing says which of them is white")
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))  # which copies
