"""Ten thousand random schedules on real threads, and the proof that these checks can fail.

``LINESIDE_SEED`` repeats a run, ``LINESIDE_SCHEDULES`` sets how many schedules there are.
"""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lineside.schemas import Event

from .stage import BEHAVIOURS, Stage, small_pieces
from .support import Beat, Kind, Tick, Tock

SCHEDULES = int(os.environ.get("LINESIDE_SCHEDULES", "10000"))
SEED = int(os.environ.get("LINESIDE_SEED", str(random.randrange(1 << 32))))
PARTS = 10


@pytest.fixture(autouse=True)
def _shaken() -> Iterator[None]:  # pyright: ignore[reportUnusedFunction]
    """Switch threads often, and make everything small."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    with small_pieces():
        yield
    sys.setswitchinterval(interval)


def types(chance: random.Random) -> type[Event]:
    return chance.choice((Tick, Tock, Beat))


def subscribe(stage: Stage, chance: random.Random) -> None:
    kind: Kind = chance.choices(("sync", "sync on the loop", "async"), (8, 1, 1))[0]
    overflow = chance.choices(("drop", "latest", "wait"), (4, 1, 2))[0]
    policy: dict[str, object] = {"overflow": overflow}
    if overflow == "wait" and chance.random() < 0.5:
        policy["backlog"] = chance.randint(1, 4)
    if chance.random() < 0.3:
        policy |= chance.choice(
            ({"where": lambda event: event.n % 3 != 1}, {"every": 2}, {"once": True}, {"since": "start"})  # pyright: ignore[reportUnknownLambdaType, reportUnknownMemberType]
        )
    # A publisher waits for nobody that is held up, or for whom the loop that it shares is held up.
    gated = kind == "sync" and overflow != "wait" and chance.random() < 0.3
    stage.subscribe(kind, types(chance), chance.choice(BEHAVIOURS), gated=gated, **policy)


def stream(stage: Stage, chance: random.Random) -> None:
    overflow = chance.choices(("drop", "latest", "wait"), (4, 1, 1))[0]
    stage.stream(types(chance), asynchronous=chance.random() < 0.1, overflow=overflow)


def publish(stage: Stage, chance: random.Random) -> None:
    for _ in range(chance.choice((1, 1, 2, 5, 30))):
        stage.publish(chance.choice((Tick, Tick, Tock)), as_instance=chance.random() < 0.2)


def cancel(stage: Stage, chance: random.Random) -> None:
    if stage.readers:
        stage.cancel(chance.choice(stage.readers))


def misfit(stage: Stage, _: random.Random) -> None:
    stage.publish_misfit()


def late(stage: Stage, _: random.Random) -> None:
    stage.publish_late()


def storm(stage: Stage, chance: random.Random) -> None:
    stage.storm(chance.randint(1, 2), chance.randint(1, 20))


def drain(stage: Stage, _: random.Random) -> None:
    stage.drain()


MOVES = (publish, subscribe, stream, cancel, storm, misfit, late, drain)
WEIGHTS = (8, 3, 1, 1, 1, 0.3, 0.3, 1)


def play(seed: int, *, patience: float = 20.0) -> None:
    """Play one schedule."""
    chance = random.Random(seed)
    stage = Stage(
        window=chance.choice((4, 16, 16, 64)), latency=chance.choice((0.0, 0.001, 0.02)), patience=patience
    )
    try:
        for move in chance.choices(MOVES, WEIGHTS, k=chance.randint(3, 12)):
            move(stage, chance)
    finally:
        stage.finish(drained=chance.random() < 0.7)


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
def test_the_rules_hold_in_random_schedules(part: int) -> None:
    play(SEED)  # what is opened once for all
    before = descriptors()
    for seed in range(SEED + part * SCHEDULES // PARTS, SEED + (part + 1) * SCHEDULES // PARTS):
        try:
            play(seed)
        except BaseException as error:
            error.add_note(f"in the schedule of LINESIDE_SEED={seed} LINESIDE_SCHEDULES={PARTS}")
            raise
    assert descriptors() <= before
