"""Durable subscriptions and processes that die: what kills is set aside, and what a sibling leaves is taken."""

from __future__ import annotations

import subprocess
import threading
from pathlib import Path
from typing import Any, Literal

import pytest

from lineside.bus import Bus
from lineside.bus.journal import Journal

from .support import Step, program

PATIENCE = 60.0
PIPES: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
CRASHES = 5

FRAGILE = """
import ctypes, signal
got = open(os.path.join(sys.argv[1], "got.txt"), "a")
death = sys.argv[2]
die = {
    "exit": lambda: os._exit(3),
    "segfault": lambda: ctypes.string_at(0),
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
}[death.removeprefix("async ")]

def upload(event):
    got.write(f"{event.n}\\n")
    got.flush()
    if event.n == 37:
        die()

async def upload_too(event):
    upload(event)

with Bus(sys.argv[1]) as bus:
    if sys.argv[3:]:
        for n in range(100):
            bus.publish(Step, n=n)
        bus.flush()
    bus.subscribe(upload_too if death.startswith("async") else upload, Step, durable="uploader", since="start")
    bus.drain()
"""


def started(folder: Path, *arguments: str) -> int:
    return subprocess.run(program(FRAGILE, folder, *arguments), timeout=PATIENCE).returncode


@pytest.mark.parametrize("death", ["exit", "segfault", "async kill"])
def test_an_event_that_kills_the_process_five_times_is_set_aside_and_the_rest_goes_on(
    tmp_path: Path, death: str
) -> None:
    starts = [started(tmp_path, death, "publish")]
    while starts[-1]:
        assert len(starts) < 20, "the restarts do not end"
        starts.append(started(tmp_path, death))
    assert len(starts) == CRASHES + 1
    got = [int(line) for line in (tmp_path / "got.txt").read_text().splitlines()]
    assert got.count(37) == CRASHES
    assert list(dict.fromkeys(got)) == list(range(100))
    (aside,) = Journal(tmp_path).set_aside()
    assert (aside.name, aside.type, aside.position) == ("uploader", "Step", 38)
    assert "the process died 5 times while uploader had this event in hand" in aside.error


SIBLING = """
import threading
stuck = threading.Event()

def upload(event):
    if event.n == 5:
        stuck.set()
        threading.Event().wait()

bus = Bus(sys.argv[1])
bus.subscribe(upload, Step, durable="uploader")
for n in range(10):
    bus.publish(Step, n=n)
bus.flush()
stuck.wait()
print("stuck", flush=True)
sys.stdin.read()
os._exit(3)
"""


@pytest.mark.parametrize("lane", ["thread", "loop"])
def test_what_a_sibling_leaves_that_dies_is_handled_by_the_one_that_lives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lane: Literal["thread", "loop"]
) -> None:
    monkeypatch.setattr("lineside.bus.journal.durable.LOOK_SECONDS", 0.05)
    monkeypatch.setattr("lineside.bus.journal.recorder.LOOK_SECONDS", 0.05)
    got, over = list[int](), threading.Event()

    def upload(event: Step) -> None:
        got.append(event.n)
        if event.n == 9:
            over.set()

    with Bus(tmp_path) as bus:
        bus.subscribe(upload, Step, durable="uploader", lane=lane)
        bus.publish(Step, n=100)
        bus.drain()
        for dead in (1, 2):
            with subprocess.Popen(program(SIBLING, tmp_path), **PIPES) as sibling:
                assert sibling.stdin is not None
                assert sibling.stdout is not None
                assert sibling.stdout.readline() == "stuck\n"
                assert len(got) < 6 * dead  # it lives: what is its own is left to it
                sibling.stdin.close()
            assert over.wait(PATIENCE)  # and nobody publishes anything meanwhile
            over.clear()
        bus.publish(Step, n=101)
        bus.drain()
    assert got[0] == 100
    assert got[-1] == 101
    assert [n for n in got if n < 100 and n >= 5] == [5, 6, 7, 8, 9] * 2


def test_of_two_that_live_one_takes_what_a_third_has_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lineside.bus.journal.durable.LOOK_SECONDS", 0.01)
    monkeypatch.setattr("lineside.bus.journal.recorder.LOOK_SECONDS", 0.01)
    got = list[int]()
    stuck, go = threading.Event(), threading.Event()

    def upload(event: Step) -> None:
        got.append(event.n)

    def never(event: Step) -> None:
        if event.n == 500:
            stuck.set()
            go.wait(PATIENCE)
            raise SystemExit

    with Bus(tmp_path) as first, Bus(tmp_path) as second:
        for bus in (first, second):
            bus.subscribe(upload, Step, durable="uploader")
        third = Bus(tmp_path)
        third.subscribe(never, Step, durable="uploader", retries=0)
        for n in range(1000):
            third.publish(Step, n=n)
        assert stuck.wait(PATIENCE)
        third.flush()
        third.close(timeout=0.3)
        while 999 not in got:
            first.drain()
            second.drain()
        first.drain()
        second.drain()
        go.set()  # not before: its end could still be saved, and be nobody's to repeat
    assert got == list(range(got[0], 1000))
    assert got[0] <= 500
