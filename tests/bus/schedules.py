"""Random schedules: the moves of a `Stage` in an order and a size that a seed decides.

``python -m tests.bus.schedules SEED [COUNT]`` plays those from that seed on, and ends with 1 at the first that fails.
"""

from __future__ import annotations

import faulthandler
import gc
import logging
import random
import sys
from collections.abc import Generator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from lineside.schemas import Event

from .stage import BEHAVIOURS, Stage, small_pieces
from .support import Beat, Kind, Tick, Tock

HANGS = 120.0
"""Seconds after which a hundred schedules must have ended."""


@contextmanager
def shaken() -> Generator[None]:
    """Switch threads often, and make everything small."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with small_pieces():
            yield
    finally:
        sys.setswitchinterval(interval)


def types(chance: random.Random) -> type[Event]:
    return chance.choice((Tick, Tock, Beat))


def subscribe(stage: Stage, chance: random.Random) -> None:
    kind: Kind = chance.choices(("sync", "sync on the loop", "async"), (8, 1, 1))[0]
    overflow = chance.choices(("spill", "drop", "latest", "wait"), (3, 3, 1, 2))[0]
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
    overflow = chance.choices(("spill", "drop", "latest", "wait"), (3, 2, 1, 1))[0]
    stage.stream(types(chance), asynchronous=chance.random() < 0.1, overflow=overflow)


def publish(stage: Stage, chance: random.Random) -> None:
    for _ in range(chance.choice((1, 1, 2, 5, 20))):
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
    window, latency = chance.choice((4, 16, 16, 64)), chance.choice((0.0, 0.001, 0.02))
    with ExitStack() as stack:
        journal = stack.enter_context(TemporaryDirectory()) if chance.random() < 0.1 else None
        stage = Stage(window=window, latency=latency, patience=patience, journal=journal)
        try:
            for move in chance.choices(MOVES, WEIGHTS, k=chance.randint(3, 9)):
                move(stage, chance)
        finally:
            stage.finish(drained=chance.random() < 0.7)


def play_many(seeds: range) -> None:
    """Play one schedule for each of `seeds`."""
    with shaken():
        for seed in seeds:
            if seed % 100 == 0:
                faulthandler.dump_traceback_later(HANGS, exit=True)
            try:
                play(seed)
            except BaseException as error:
                error.add_note(f"repeat it with: python -m tests.bus.schedules {seed}")
                raise


def opened() -> list[str]:
    """Return what this process has open."""
    files: list[str] = []
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # that of this listing
            files.append(str(descriptor.readlink()))
    return files


def main(first: int, count: int = 1) -> None:
    logging.disable()  # most of what happens here would be logged
    faulthandler.dump_traceback_later(HANGS, exit=True)
    play_many(range(first, first + 1))  # what is opened once for all
    before = opened()
    play_many(range(first, first + count))
    gc.collect()  # temporary files are closed with the last who may read them
    after = opened()
    assert len(after) <= len(before), f"files are left open: {after}, before {before}"


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
