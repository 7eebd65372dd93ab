"""Digits as pictures of half a character a pixel, for a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from rich.color import Color
from rich.console import Console, ConsoleOptions, RenderResult
from rich.style import Style
from rich.text import Text

SIDE = 8
"""Pixels in a row and in a column."""
INK = 16
"""Value of a pixel that is all ink; paper is 0."""
MARGIN = 10
GAP = 2

_SHADES = " ░▒▓█"
_PAPER, _INK = (28, 30, 38), (214, 226, 240)


class Picture(NamedTuple):
    """A digit and what is said of it."""

    pixels: bytes
    """64 values from 0 to `INK`, row by row."""
    caption: str
    """At most `SIDE` characters."""
    style: str


class Gallery:
    """Pictures side by side, as many as fit, with their captions below."""

    def __init__(self, pictures: Sequence[Picture]) -> None:
        self._pictures = pictures

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the lines."""
        shown = self._pictures[: max((options.max_width - MARGIN) // (SIDE + GAP), 1)]
        colored = console.color_system is not None and not console.no_color
        for y in range(0, SIDE, 2):
            yield _beside(_line(picture.pixels, y, colored) for picture in shown)
        yield _beside(Text(f"{picture.caption:^{SIDE}}", picture.style) for picture in shown)


def _beside(parts: Iterable[Text]) -> Text:
    line = Text(" " * MARGIN, no_wrap=True)
    for part in parts:
        line.append_text(part).append(" " * GAP)
    return line


def _line(pixels: bytes, y: int, colored: bool) -> Text:
    """Return the rows `y` and `y + 1`, one above the other in each character."""
    line = Text()
    for x in range(SIDE):
        upper, lower = pixels[y * SIDE + x], pixels[(y + 1) * SIDE + x]
        if colored:
            line.append("▀", Style(color=_gray(upper), bgcolor=_gray(lower)))
        else:
            line.append(_SHADES[(upper + lower) * (len(_SHADES) - 1) // (2 * INK)])
    return line


def _gray(ink: int) -> Color:
    return Color.from_rgb(*(paper + (full - paper) * ink // INK for paper, full in zip(_PAPER, _INK, strict=True)))
