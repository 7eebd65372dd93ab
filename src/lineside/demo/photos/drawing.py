"""Photographs on a terminal, two pixels to a character, each beside what it may show."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Sequence

from PIL import Image
from rich.color import Color
from rich.console import Console, ConsoleOptions, RenderResult
from rich.padding import Padding
from rich.style import Style
from rich.table import Table
from rich.text import Text

from lineside.bus.subscribers.drawing import DIM, LABEL
from lineside.demo.photos.results import LabelledPhoto

WIDEST, HIGHEST = 42, 28
"""Largest picture in pixels: a character is one wide and two high."""
NARROWEST = 16
NAME, TRACK, SHARE = 22, 12, 5
"""Width of the name of a class, of its bar, and of its score."""
MARGIN = LABEL + 1
GAP = 2
LEAST = 0.005
"""Score from which on a class is worth a line."""
COLORS = ("256", "truecolor")
"""What a terminal has to know for a photograph to be one."""


class Cards:
    """Photographs, each beside what it may show. Without colours there are only words."""

    def __init__(self, photos: Sequence[LabelledPhoto]) -> None:
        self._photos = photos

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield a row for each."""
        colored = console.color_system in COLORS and not console.no_color
        room = options.max_width - MARGIN - GAP - NAME - TRACK - SHARE
        width = max(min(room, WIDEST), NARROWEST) if colored else 0
        for photo in self._photos:
            yield Padding(_card(photo, width), (1, 0, 0, MARGIN))


def _card(photo: LabelledPhoto, width: int) -> Table:
    card = Table.grid(padding=(0, GAP, 0, 0))
    words = Text("\n").join(_words(photo))
    if width:
        card.add_column(width=width)
        card.add_column(vertical="middle")
        card.add_row(Text("\n", no_wrap=True).join(_lines(picture(photo, width))), words)
    else:
        card.add_row(words)
    return card


def _words(photo: LabelledPhoto) -> Iterator[Text]:
    yield Text(photo.name, DIM, no_wrap=True)
    for rank, (name, score) in enumerate(photo.classes.pairs()):
        if not rank or score >= LEAST:
            yield _line(name, score, "" if rank else "bold")


def _line(name: str, score: float, style: str) -> Text:
    shown = name if len(name) < NAME else f"{name[: NAME - 2]}…"
    full = round(score * TRACK)
    bar = Text.assemble(("━" * full, "cyan"), ("─" * (TRACK - full), DIM))
    return Text.assemble((f"{shown:<{NAME}}", style), bar, (f"{score:>{SHARE}.0%}", style), no_wrap=True)


def picture(photo: LabelledPhoto, width: int) -> Image.Image:
    """Return the thumbnail at no more than `width` pixels and `HIGHEST` rows of them, an even number."""
    image = Image.open(io.BytesIO(base64.b64decode(photo.picture.partition(",")[2]))).convert("RGB")
    scale = min(width / image.width, HIGHEST / image.height)
    columns, rows = max(round(image.width * scale), 1), max(round(image.height * scale / 2), 1)
    return image.resize((columns, 2 * rows), Image.Resampling.LANCZOS)


def _lines(image: Image.Image) -> Iterator[Text]:
    """Give two rows of pixels at a time, one above the other in each character."""
    pixels = image.tobytes()
    colors = [Color.from_rgb(*pixels[at : at + 3]) for at in range(0, len(pixels), 3)]
    for y in range(0, image.height, 2):
        upper, lower = (colors[row * image.width : (row + 1) * image.width] for row in (y, y + 1))
        line = Text(no_wrap=True)
        for above, below in zip(upper, lower, strict=True):
            line.append("▀", Style(color=above, bgcolor=below))
        yield line
