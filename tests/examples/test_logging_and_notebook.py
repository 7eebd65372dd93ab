from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import nbclient
import nbformat
import pytest

from lineside.schemas import FitEpochEnd, decode

EXAMPLES = Path(__file__).parent.parent.parent / "examples"

pytestmark = pytest.mark.slow


def test_the_logging_example_writes_every_event_and_posts_the_epochs(tmp_path: Path) -> None:
    script = EXAMPLES / "logging_subscriber.py"
    done = subprocess.run(
        [sys.executable, "-W", "error::ResourceWarning", str(script), "events.jsonl"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    events = [decode(line) for line in (tmp_path / "events.jsonl").read_bytes().splitlines()]
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    posted = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("webhook:")]
    expected = [event.type for event in events if isinstance(event, FitEpochEnd)] + ["RunEnd"]
    assert posted == expected
    assert "every event is in events.jsonl" in done.stdout


def notebook() -> Any:
    """Return the notebook: a tree of dicts whose items are attributes too."""
    read = cast("Callable[..., Any]", nbformat.read)  # pyright: ignore[reportUnknownMemberType]  it is not typed
    return read(EXAMPLES / "notebook.ipynb", as_version=4)


def test_the_notebook_starts_streams_holds_changes_the_learning_rate_and_stops() -> None:
    run = notebook()
    nbclient.NotebookClient(run, timeout=100).execute()
    shown = [text(cell) for cell in run.cells if cell.cell_type == "code"]
    assert shown[1].startswith("<Run train")
    assert [line.partition(":")[0] for line in shown[3].splitlines()] == ["epoch 0", "epoch 1", "epoch 2"]
    assert "a tenth of the learning rate" in shown[4]
    assert "0.0003" in shown[4]
    assert shown[5].startswith("stopped after ")
    assert shown[5].endswith("good enough\n")


def text(cell: Any) -> str:
    """Return what a cell printed and what its last line gave."""
    outputs: list[dict[str, Any]] = cell.outputs
    return "".join(output.get("text") or output["data"]["text/plain"] for output in outputs)


def test_the_notebook_is_kept_without_outputs() -> None:
    assert not any(cell.get("outputs") for cell in notebook().cells)
