"""How long a process takes to end when a callback hangs for ever: from the end of its own work to its exit.

    python benchmarks/exit.py [--quick] [--json FILE]

Each kind of hanging runs in a process of its own. Ours may take 5 s (the deadline of a close) and a little more for
the interpreter; the baseline is the same program with nothing hung.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

from harness import Report, Spread, Table, arguments, interleave, paired

from lineside import Bus
from lineside.schemas import Event

FOR_EVER = 3600.0
NOTHING = "nothing hung"


class Nudge(Event):
    """Starts a callback that hangs; the file says that it has begun."""

    begun: Path


# ---------------------------------------------------------------------------------------------------- what may hang


async def awaits(event: Nudge) -> None:
    event.begun.touch()
    await asyncio.sleep(FOR_EVER)


async def blocks(event: Nudge) -> None:
    event.begun.touch()
    time.sleep(FOR_EVER)  # noqa: ASYNC251 (a mistake, made on purpose: the loop stands still)


async def refuses(event: Nudge) -> None:
    event.begun.touch()
    while True:
        try:
            await asyncio.sleep(FOR_EVER)
        except asyncio.CancelledError:
            continue


def sleeps(event: Nudge) -> None:
    event.begun.touch()
    time.sleep(FOR_EVER)


def returns(event: Nudge) -> None:
    event.begun.touch()


KINDS = {
    NOTHING: (returns, "thread"),
    "async, awaits for ever": (awaits, "loop"),
    "async, swallows its cancellation": (refuses, "loop"),
    "async, blocks its loop": (blocks, "loop"),
    "plain, in its thread": (sleeps, "thread"),
    "plain, in its process": (sleeps, "process"),
}
UNCLOSED = " (the bus never closed)"


# ------------------------------------------------------------------------------------------------------ in the child


def child(kind: str) -> None:
    """Publish until the callback hangs, then say when the work was done, and leave."""
    callback, lane = KINDS[kind.removesuffix(UNCLOSED)]
    with tempfile.TemporaryDirectory() as folder:
        bus = Bus()
        bus.subscribe(callback, Nudge, lane=lane)
        begun = Path(folder) / "begun"
        bus.publish(Nudge, begun=begun)
        while not begun.exists():
            time.sleep(0.005)
    print(time.time(), flush=True)
    if not kind.endswith(UNCLOSED):
        bus.close()


# ----------------------------------------------------------------------------------------------------- in the parent


def measure(kind: str) -> float:
    """Return the seconds from the end of the child's work to its exit."""
    command = [sys.executable, "-W", "ignore::ResourceWarning", __file__, "--child", kind]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    ended = time.time()
    if done.returncode != 0:
        raise SystemExit(f"{kind}: exit status {done.returncode}\n{done.stderr}")
    return ended - float(done.stdout.split()[0])


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
        {"what hangs": "{}", "s": "{:.2f}", "ratio": "{:.0f}x"},
    )
    for kind, seconds in results.items():
        table.add(kind, Spread.of(seconds), paired(seconds, results[NOTHING]))
    report.show(table)
    report.finish()


if __name__ == "__main__":
    main()
