"""Runs for ``lineside top`` to show, and what its screen shows of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lineside.bus import Bus, Source
from lineside.schemas import (
    ErrorInfo,
    FitEpochEnd,
    RunEnd,
    RunStart,
    TrainBatchEnd,
    TrainEpochEnd,
    TrainEpochStart,
    TrainStart,
    ValEnd,
)
from lineside.top.screen import Screen
from lineside.top.watching import Folder, Watched

BATCHES = 4


def begin(bus: Bus, run: str, rank: int = 0, world: int = 1, epochs: int = 2) -> Source:
    source = bus.source(run, rank=rank)
    source.publish(RunStart, kind="train", model="Net", device="cpu", world_size=world)
    source.publish(TrainStart, epoch=0, epochs=epochs, batches=BATCHES, step=0)
    return source


def train(source: Source, epoch: int = 0, batches: int = BATCHES, loss: float = 0.5) -> None:
    source.publish(TrainEpochStart, epoch=epoch, epochs=2, batches=BATCHES, lr={})
    for batch in range(batches):
        step = epoch * BATCHES + batch + 1
        rest: dict[str, Any] = {"batches": BATCHES, "batch_size": 8, "losses": {}, "lr": {}}
        source.publish(TrainBatchEnd, epoch=epoch, batch=batch, step=step, loss=loss / step, **rest)


def judge(source: Source, epoch: int = 0, accuracy: float = 0.75) -> None:
    source.publish(
        TrainEpochEnd, epoch=epoch, epochs=2, batches=4, step=4, losses={}, lr={}, duration=2, samples=32, speed=16
    )
    metrics: dict[str, Any] = {"metrics": {"accuracy": accuracy}, "losses": {"loss": 0.25}, "fitness": accuracy}
    source.publish(ValEnd, epoch=epoch, batches=1, samples=4, duration=0.5, speed={}, **metrics)
    best: dict[str, Any] = {"best_fitness": accuracy, "best_epoch": epoch, "best": None, "last": None}
    source.publish(FitEpochEnd, epoch=epoch, epochs=2, duration=2.5, **metrics, **best)


def end(source: Source, outcome: str = "completed", error: ErrorInfo | None = None) -> None:
    source.publish(RunEnd, kind="train", outcome=outcome, duration=2.5, error=error)


def drawn(folder: Path, *keys: str, columns: int = 160, lines: int = 40) -> str:
    """Return what the screen shows after some looks and `keys`."""
    with Screen(Folder(folder)) as screen:
        screen.draw(columns, lines)
        screen.look()
        for key in keys:
            screen.press(key)
        screen.look()
        return screen.draw(columns, lines).plain


def watched(folder: Path) -> Watched:
    """Return the only run of a folder, with its batches read."""
    runs = Folder(folder)
    runs.look()
    runs.follow(runs.runs_now)
    (run,) = runs.runs_now
    return run


def line(text: str, word: str) -> list[str]:
    return next(line.split() for line in text.splitlines() if word in line)
