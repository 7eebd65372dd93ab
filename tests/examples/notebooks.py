"""The notebooks of ``examples/``, executed in a real kernel."""

from __future__ import annotations

import base64
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import nbclient
import nbformat

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
NAMES = sorted(path.stem for path in EXAMPLES.glob("*.ipynb"))
VIEW = "application/vnd.jupyter.widget-view+json"


def read(name: str) -> Any:
    """Return the notebook as it is kept: a tree of dicts whose items are attributes too."""
    parse = cast("Callable[..., Any]", nbformat.read)  # pyright: ignore[reportUnknownMemberType]  it is not typed
    return parse(EXAMPLES / f"{name}.ipynb", as_version=4)


@dataclass(frozen=True)
class Cell:
    """A code cell that was executed."""

    source: str
    outputs: list[dict[str, Any]]

    @property
    def lines(self) -> list[str]:
        """What it printed."""
        printed: list[str] = [output["text"] for output in self.outputs if output.get("name") == "stdout"]
        return "".join(printed).splitlines()

    @property
    def shown(self) -> dict[str, Any]:
        """What it displayed, by MIME type; the only thing it did."""
        (data,) = [output["data"] for output in self.outputs if "data" in output]
        return cast("dict[str, Any]", data)

    @property
    def table(self) -> list[list[str]]:
        """The frame it displayed: the head, then the rows with their index."""
        assert "<table" in self.shown["text/html"]
        return [line.split() for line in self.shown["text/plain"].splitlines()]

    @property
    def picture(self) -> tuple[int, int]:
        """Width and height of the figure it displayed."""
        image = base64.b64decode(self.shown["image/png"])
        assert image[:8] == b"\x89PNG\r\n\x1a\n"
        width, height = struct.unpack(">II", image[16:24])
        return width, height


@dataclass(frozen=True)
class Executed:
    """A notebook whose cells were executed in `folder`, one after the other."""

    folder: Path
    cells: list[Cell]

    def cell(self, text: str) -> Cell:
        """Return the cell that has `text` in it, which has to be one."""
        (found,) = [cell for cell in self.cells if text in cell.source]
        return found

    @property
    def left(self) -> set[str]:
        """The files that there are now, and were not before."""
        return {path.relative_to(self.folder).as_posix() for path in self.folder.rglob("*") if path.is_file()}


def execute(name: str, folder: Path) -> Executed:
    """Execute the notebook in `folder`. A cell that raises is an error."""
    notebook = read(name)
    nbclient.NotebookClient(notebook, timeout=100, resources={"metadata": {"path": str(folder)}}).execute()
    cells = [Cell(cell.source, cell.outputs) for cell in notebook.cells if cell.cell_type == "code"]
    return Executed(folder, cells)
