"""How long a process takes to end when a callback hangs for ever: from the end of its own work to its exit.

    python benchmarks/exit.py [--quick] [--json FILE]

Each kind of hanging runs in a process of its own. Ours may take 5 s (the deadline of a close) and a little more for
the interpreter; the baseline is the same program with nothing hung.
"""

from __future__ import annotations

import argparse
import contextlib
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psutil
from hanging import Nudge, awaits, blocks, refuses, returns, sleeps
from harness import Report, Spread, Table, arguments, interleave

from lineside import Bus

NOTHING = "nothing hung"

KINDS = {
    NOTHING: (returns, "thread"),
    "async, awaits for ever": (awaits, "loop"),
    "async, swallows its cancellation": (refuses, "loop"),
    "async, blocks its loop": (blocks, "loop"),
    "plain, in its thread": (sleeps, "thread"),
    "plain, in its process": (sleeps, "process"),
}
UNCLOSED = " (the bus never closed)"

_kept: list[Bus] = []
"""Keeps a bus that nobody closes from being collected: the interpreter finds it when it exits."""


# ------------------------------------------------------------------------------------------------------ in the child


def child(kind: str) -> None:
    """Publish until the callback hangs, then say when the work was done, and leave."""
    callback, lane = KINDS[kind.removesuffix(UNCLOSED)]
    with tempfile.TemporaryDirectory() as folder:
        bus = Bus()
        _kept.append(bus)
        bus.subscribe(callback, Nudge, lane=lane)
        begun = Path(folder) / "begun"
        bus.publish(Nudge, begun=begun)
        while not begun.exists():
            time.sleep(0.005)
    print(time.time(), *[process.pid for process in psutil.Process().children()], flush=True)
    if not kind.endswith(UNCLOSED):
        bus.close()


# ----------------------------------------------------------------------------------------------------- in the parent


@dataclass(frozen=True)
class Leaving:
    """How a process left: seconds from the end of its work, and how many of its own processes outlived it."""

    seconds: float
    left_behind: int


def measure(kind: str) -> Leaving:
    command = [sys.executable, "-W", "ignore::ResourceWarning", __file__, "--child", kind]
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as process,
    ):
        assert process.stdout is not None
        done, *children = process.stdout.readline().split() or ["nan"]
        status = process.wait(timeout=120)
        ended = time.time()
        if status != 0:
            errors.seek(0)
            raise SystemExit(f"{kind}: exit status {status}\n{errors.read()}")
    return Leaving(ended - float(done), _end([int(pid) for pid in children]))


def _end(pids: list[int]) -> int:
    """Kill those of `pids` that are still running a second later, and return how many there were."""
    time.sleep(1)
    alive = [process for pid in pids if (process := _running(pid))]
    for process in alive:
        process.kill()
    return len(alive)


def _running(pid: int) -> psutil.Process | None:
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        return process if process.status() != psutil.STATUS_ZOMBIE else None
    return None


def main() -> None:
    if "--child" in sys.argv:
        parser = argparse.ArgumentParser()
        parser.add_argument("--child")
        child(parser.parse_args().child)
        return
    options = arguments("seconds to exit")
    report = Report("exit", options)
    rounds = options.rounds or (1 if options.quick else 3)
    names = [NOTHING] if options.quick else [*KINDS, *(kind + UNCLOSED for kind in KINDS)]
    results = interleave({kind: partial(measure, kind) for kind in names}, rounds)
    table = Table(
        "seconds from the end of the work to the end of the process",
        {"what hangs": "{}", "s": "{:.2f}", "processes left": "{}"},
    )
    for kind, rounds_of_it in results.items():
        seconds = Spread.of([leaving.seconds for leaving in rounds_of_it])
        table.add(kind, seconds, max(leaving.left_behind for leaving in rounds_of_it))
    report.show(table)
    report.finish()


if __name__ == "__main__":
    main()
