"""Events as lines of JSON in a file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

from ...schemas import Event, encode
from ..closing import Closing


class JsonLines(Closing):
    """Writes each event as one line of JSON to the end of a file; `lineside.schemas.decode` reads a line back.

    ::

        bus.subscribe(JsonLines("run.jsonl"))

    The file (and its folder) is made at the first event, in the process that the callback runs in. Lines go out when
    something urgent happened (an epoch, a run or an error: see `Event.urgent`) or 64 kB have gathered, so that a
    reader of the file sees whole epochs and writing costs one system call for many events. The bus closes it
    with the subscription.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._file: BinaryIO | None = None

    def __call__(self, event: Event) -> None:
        """Write `event`."""
        file = self._file or self._open()
        file.write(encode(event) + b"\n")
        if event.urgent:
            file.flush()

    def _open(self) -> BinaryIO:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self.path.open("ab", buffering=1 << 16)
        return self._file

    def close(self) -> None:
        """Write what is left. An event after that opens the file again."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def __getstate__(self) -> dict[str, object]:
        """Return what another process needs: the path. An open file stays here."""
        return {"path": self.path, "_file": None}

    def __repr__(self) -> str:
        return f"JsonLines({str(self.path)!r})"
