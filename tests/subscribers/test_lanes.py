from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lineside.bus import Bus, Lane
from lineside.bus.subscribers import JsonLines
from lineside.schemas import Event, decode

Story = Callable[[str], list[Event]]

SHOW_IN_A_PROCESS = """
from lineside.bus import Bus
from lineside.bus.subscribers import Progress
from lineside.schemas import RunEnd, RunStart

with Bus(close_timeout=60) as bus:
    bus.subscribe(Progress(), lane="process")
    source = bus.source("r")
    source.publish(RunStart, kind="val", model="Net", device="cpu")
    source.publish(RunEnd, kind="val", outcome="completed", duration=1)
"""


@pytest.mark.parametrize("lane", [Lane.THREAD, Lane.PROCESS])
def test_json_lines_are_whole_when_the_bus_has_closed(tmp_path: Path, story: Story, lane: Lane) -> None:
    path = tmp_path / "log.jsonl"
    with Bus(close_timeout=60) as bus:
        bus.subscribe(JsonLines(path), lane=lane)
        for event in story("train"):
            bus.publish(event)
    read = [decode(line) for line in path.read_bytes().splitlines()]
    assert [event.type for event in read] == [event.type for event in story("train")]
    assert [event.seq for event in read] == list(range(1, len(read) + 1))


def test_progress_in_another_process_writes_to_the_same_output() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SHOW_IN_A_PROCESS],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONWARNINGS": "error"},
        timeout=60,
        check=True,
    )
    assert done.stdout == "val      Net on cpu, run r\nval      completed in 1.00 s\n"
    assert done.stderr == ""


def test_a_reader_of_plain_lines_may_leave_before_the_end() -> None:
    code = """
import sys
from lineside.bus import Bus
from lineside.bus.subscribers import Progress
from lineside.schemas import RunEnd

with Bus() as bus:
    display = bus.subscribe(Progress(), lane="process")
    for _ in range(3):
        bus.publish(RunEnd, kind="val", outcome="completed", duration=1)
        bus.drain()
print("failed", display.stats.failed, file=sys.stderr)
"""
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == "failed 0\n"
