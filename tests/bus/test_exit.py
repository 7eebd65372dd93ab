"""Whatever hangs, the interpreter exits within the deadline of the close: here some seconds, with code 0."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

PREAMBLE = """
import asyncio, sys, threading, time
from lineside.bus import Bus
from lineside.schemas import Event

class Tick(Event):
    n: int

entered = threading.Event()

async def awaits(event):
    entered.set()
    await asyncio.Event().wait()

async def awaits_stubbornly(event):
    entered.set()
    while True:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            pass

async def blocks(event):
    entered.set()
    time.sleep(1000)

def sleeps(event):
    entered.set()
    time.sleep(1000)

class Never:
    def ready(self):
        entered.set()
        return False

    def result(self):
        return {}
"""

CALLBACKS = {
    "an async callback that awaits for ever": "bus.subscribe(awaits, Tick)",
    "an async callback that refuses to be cancelled": "bus.subscribe(awaits_stubbornly, Tick)",
    "an async callback that blocks its loop": "bus.subscribe(blocks, Tick)",
    "a plain callback": "bus.subscribe(sleeps, Tick)",
    "a plain callback on the loop": "bus.subscribe(sleeps, Tick, lane='loop')",
    "a plain callback that was given up": "bus.subscribe(sleeps, Tick, timeout=0.01)",
    "a callback in another process": "bus.subscribe('lineside_hangs:hang', Tick, lane='process')",
    "late fields": "bus.source('r').publish_when(Never(), Tick)",
    "a reader that publishers wait for": "bus.subscribe(sleeps, Tick, overflow='wait', backlog=1)",
}
HANG = """
import sys, threading

def hang(event):
    print("entered", file=sys.stderr, flush=True)
    threading.Event().wait()
"""
# A loop that was entered is the user's: what blocks it for ever blocks the user's own program.
STOPPING_THE_LOOP = {
    "an async callback that refuses to be cancelled",
    "an async callback that blocks its loop",
    "a plain callback on the loop",
}

LEFT_OPEN = """
bus = Bus()
{subscribe}
bus.publish(Tick, n=1)
{wait}
print("done")
"""
CLOSED = """
with Bus() as bus:
    {subscribe}
    bus.publish(Tick, n=1)
    {wait}
print("done")
"""
ENTERED = """
async def main():
    async with Bus() as bus:
        {subscribe}
        bus.publish(Tick, n=1)
        await asyncio.sleep(0)
        {wait_without_blocking}

asyncio.run(main())
print("done")
"""
WAYS = {"left open": LEFT_OPEN, "closed": CLOSED, "entered": ENTERED}


def scripts() -> Iterator[tuple[str, str, str]]:
    for way, form in WAYS.items():
        for what, subscribe in CALLBACKS.items():
            if way != "entered" or what not in STOPPING_THE_LOOP:
                in_process = "process" in what
                yield (
                    way,
                    what,
                    PREAMBLE
                    + form.format(
                        subscribe=subscribe,
                        wait="" if in_process else "assert entered.wait(60)",
                        wait_without_blocking="" if in_process else "assert await asyncio.to_thread(entered.wait, 60)",
                    ),
                )


SCRIPTS = {f"{way}, {what}": script for way, what, script in scripts()}

Running = dict[str, tuple[float, "subprocess.Popen[str]"]]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """All scripts at once: together they take as long as one."""
    folder: Path = tmp_path_factory.mktemp("importable")
    (folder / "lineside_hangs.py").write_text(HANG)
    running = {
        name: (
            time.monotonic(),
            subprocess.Popen(
                [sys.executable, "-c", script],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env={**os.environ, "PYTHONPATH": str(folder)},
            ),
        )
        for name, script in SCRIPTS.items()
    }
    yield running
    for _, process in running.values():
        process.kill()
        process.communicate()


@pytest.mark.slow
@pytest.mark.parametrize("name", SCRIPTS)
def test_a_hung_callback_does_not_keep_the_interpreter_from_exiting(running: Running, name: str) -> None:
    started, process = running[name]
    out, err = process.communicate(timeout=60)  # generous: the machine may be busy
    print(f"{name}: {time.monotonic() - started:.1f} s, start included")
    assert process.returncode == 0, err
    assert out == "done\n"
    assert "Fatal" not in err
