from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from lineside.schemas import PredictBatchEnd, decode

EXAMPLES = Path(__file__).parent.parent.parent / "examples"

pytestmark = pytest.mark.slow


def run(script: str, *arguments: str, folder: Path) -> list[str]:
    """Run an example in `folder`, which has to end well and say nothing on stderr, and return what it printed."""
    done = subprocess.run(
        [sys.executable, "-W", "error::ResourceWarning", str(EXAMPLES / script), *arguments],
        capture_output=True,
        text=True,
        encoding="utf-8",
        cwd=folder,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout.splitlines()


def test_three_consumers_of_one_prediction_get_all_of_it(tmp_path: Path) -> None:
    *shown, summary, counted = run("streaming_predictions.py", "results.jsonl", folder=tmp_path)
    written = [decode(line) for line in (tmp_path / "results.jsonl").read_bytes().splitlines()]
    assert shown == [
        f"batch {event.batch}: {' '.join(map(str, event.results))}"
        for event in written
        if isinstance(event, PredictBatchEnd)
    ]
    assert len(shown) == 9
    found = [digit for line in shown for digit in line.partition(": ")[2].split()]
    assert len(found) == 270
    assert summary.startswith("270 digits read, 9")
    assert summary.endswith("every result is in results.jsonl")
    assert counted == "found: " + ", ".join(f"{found.count(digit)} x {digit}" for digit in sorted(set(found)))


def test_frames_are_returned_with_their_results(tmp_path: Path) -> None:
    lines = run("returning_frames.py", folder=tmp_path)
    assert len(lines) == 3 * (1 + 8)
    for title, *frame in (lines[i : i + 9] for i in (0, 9, 18)):
        assert title.startswith("a ")
        assert all(len(row.split()) == 8 for row in frame)
        assert any("█" in row for row in frame)
