"""Durable subscriptions: after a crash they go on where they were, and what keeps failing is set aside and listed."""

from __future__ import annotations

import os
import random
import threading
from pathlib import Path
from typing import Any

import pytest

from lineside.bus import Bus, PolicyRefused
from lineside.bus.journal import Journal

from .support import Done, Step, give_up, killed, program

KILLS = int(os.environ.get("LINESIDE_KILLS", "10"))
PATIENCE = 60.0


def handled(folder: Path, *, durable: str = "uploader") -> list[int]:
    """Return what a durable subscription of a new bus gets of the buses before."""
    got: list[int] = []
    with Bus(folder) as bus:
        bus.subscribe(lambda event: got.append(event.n), Step, durable=durable)
        bus.publish(Done, n=0)
        bus.drain()
        if got:
            bus.publish(Step, n=-1)
            bus.drain()
    return [n for n in got if n != -1]


def test_what_was_not_handled_is_handled_by_the_next_bus(tmp_path: Path) -> None:
    first, stuck = list[int](), threading.Event()
    enough = threading.Event()

    def upload(event: Step) -> None:
        if event.n == 5:
            enough.set()
            stuck.wait(PATIENCE)
            raise SystemExit
        first.append(event.n)

    with Bus(tmp_path) as bus:
        bus.subscribe(upload, Step, durable="uploader", retries=0)
        for n in range(100):
            bus.publish(Step, n=n)
        assert enough.wait(PATIENCE)
        bus.flush()
        give_up(bus)
    stuck.set()
    assert first == [0, 1, 2, 3, 4]
    again = handled(tmp_path)
    assert again == list(range(again[0], 100))
    assert again[0] <= 5  # at least once
    assert handled(tmp_path) == []


def test_a_new_name_begins_now(tmp_path: Path) -> None:
    with Bus(tmp_path) as bus:
        for n in range(10):
            bus.publish(Step, n=n)
    assert handled(tmp_path, durable="another") == []


@pytest.mark.parametrize("kind", ["thread", "loop"])
def test_what_keeps_failing_is_tried_five_times_and_set_aside(tmp_path: Path, kind: str) -> None:
    tries: list[int] = []

    def fragile(event: Step) -> None:
        tries.append(event.n)
        if event.n % 4 == 1:
            raise ValueError(f"no {event.n}")

    async def fragile_too(event: Step) -> None:
        fragile(event)

    with Bus(tmp_path) as bus:
        bus.subscribe(fragile if kind == "thread" else fragile_too, Step, durable="uploader")
        for n in range(6):
            bus.publish(Step, n=n)
        bus.drain()
        path = bus.journal
    assert path is not None
    assert tries == [0, 1, 1, 1, 1, 1, 2, 3, 4, 5, 5, 5, 5, 5]
    aside = [(one.name, one.file, one.type, one.error) for one in Journal(tmp_path).set_aside()]
    assert aside == [("uploader", path.name, "Step", "no 1"), ("uploader", path.name, "Step", "no 5")]
    assert handled(tmp_path) == []


UPLOADER = """
bus = Bus(sys.argv[1], window=64)
got = open(os.path.join(sys.argv[1], "got.txt"), "a")

def upload(event):
    got.write(f"{event.n}\\n")
    got.flush()

bus.subscribe(upload, Step, durable="uploader")
publish_on(bus, int(sys.argv[2]))
"""


def test_killed_again_and_again_it_misses_nothing(tmp_path: Path) -> None:
    chance = random.Random(5)
    acknowledged: list[int] = []
    for _ in range(KILLS):
        begin = (len(acknowledged) + 1) * 1_000_000
        acknowledged.append(killed(program(UPLOADER, tmp_path, begin), chance.randint(1, 8)))
    left = handled(tmp_path)
    got = [int(line) for line in (tmp_path / "got.txt").read_text().splitlines()] + left
    for begin, last in enumerate(acknowledged, 1):
        first = begin * 1_000_000 + 1
        assert set(range(first, last + 1)) <= set(got)
        firsts = list(dict.fromkeys(n for n in got if n // 1_000_000 == begin))
        assert firsts == sorted(firsts)  # in order, but for what is handled a second time after a crash


def test_two_of_one_name_are_refused(tmp_path: Path) -> None:
    with Bus(tmp_path) as bus:
        bus.subscribe(print, Step, durable="uploader")
        with pytest.raises(PolicyRefused, match="durable='uploader' is taken by another subscription of this bus"):
            bus.subscribe(print, Step, durable="uploader")


def test_a_durable_subscription_needs_a_journal() -> None:
    with Bus() as bus, pytest.raises(PolicyRefused, match=r"this bus has none; use Bus\('runs/'\)"):
        bus.subscribe(print, Step, durable="uploader")


@pytest.mark.parametrize("policy", [{"lane": "process"}, {"overflow": "drop"}, {"durable": "no/path"}])
def test_what_does_not_go_with_it_is_refused(tmp_path: Path, policy: dict[str, Any]) -> None:
    keywords: dict[str, Any] = {"durable": "uploader", **policy}
    with Bus(tmp_path) as bus, pytest.raises(PolicyRefused, match="durable"):
        bus.subscribe(print, Step, **keywords)
