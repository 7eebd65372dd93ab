"""What the tests of the journal share."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from pathlib import Path

from lineside.bus import Bus
from lineside.bus.journal import Journal
from lineside.schemas import Event


class Step(Event, name="tests.journal.Step", urgent=False):
    n: int


class Done(Event, name="tests.journal.Done"):
    n: int


SCRIPT = """
import os, sys
from lineside.bus import Bus
from lineside.schemas import Event

class Step(Event, name="tests.journal.Step", urgent=False):
    n: int

def publish_on(bus, n=0):  # without end; tells the number of each step that is surely on disk
    while True:
        for _ in range(37):
            n += 1
            bus.publish(Step, n=n)
        bus.flush()
        print(n, flush=True)
"""


def program(text: str, *arguments: object) -> list[str]:
    """Return the command that runs `text` behind `SCRIPT`."""
    return [sys.executable, "-c", SCRIPT + text, *map(str, arguments)]


def killed(command: list[str], lines: int) -> int:
    """Kill the program when it has told so many numbers, and return the last."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        *_, last = (int(process.stdout.readline()) for _ in range(lines))
        process.send_signal(signal.SIGKILL)
    return last


def give_up(bus: Bus) -> None:
    """Close a bus whose callback is stuck; its file is free for others then, however busy the machine."""
    writers = [thread for thread in threading.enumerate() if thread.name == "lineside-journal"]
    bus.close(timeout=0.2)
    for writer in writers:
        writer.join(60)


def written(folder: Path, count: int = 1000, run: str = "run") -> Path:
    """Return the file of a bus that has published `count` steps and closed."""
    with Bus(folder) as bus:
        source = bus.source(run)
        for n in range(1, count + 1):
            source.publish(Step, n=n)
        path = bus.journal
    assert path is not None
    return path


def steps(folder: Path, run: str | None = None) -> list[int]:
    return [event.n for event in Journal(folder).events(Step, run=run)]
