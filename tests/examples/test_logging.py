from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from lineside.schemas import FitEpochEnd, decode

EXAMPLES = Path(__file__).parent.parent.parent / "examples"


@pytest.mark.slow
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
