"""Runs for the dashboard to show, published as their runners would."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from lineside.bus import Source
from lineside.schemas import (
    ErrorInfo,
    FitEpochEnd,
    ModelSave,
    PredictBatchEnd,
    PredictEnd,
    PredictStart,
    RunEnd,
    RunStart,
    TrainBatchEnd,
    TrainBatchStart,
    TrainEpochEnd,
    TrainEpochStart,
    TrainStart,
    ValEnd,
    ValStart,
)

EPOCHS = 4
BATCHES = 10


def begin(source: Source, *, kind: str = "train", model: str = "Net", epochs: int = EPOCHS, ranks: int = 1) -> None:
    """Begin a run."""
    source.publish(RunStart, kind=kind, model=model, device="cpu", world_size=ranks, host="here", pid=1)
    if kind == "train":
        source.publish(TrainStart, epoch=0, epochs=epochs, batches=BATCHES, step=0)


def step(source: Source, step: int, *, epochs: int = EPOCHS, seconds: float = 0.01, loss: float | None = None) -> None:
    """Do a step, the first of which is 1, with the epoch's begin before it where there is one."""
    epoch, batch = divmod(step - 1, BATCHES)
    if batch == 0:
        source.publish(TrainEpochStart, epoch=epoch, epochs=epochs, batches=BATCHES, lr={"all": 0.1})
    place = {"epoch": epoch, "batch": batch, "batches": BATCHES, "batch_size": 8}
    source.publish(TrainBatchStart, **place, data_seconds=0.001)
    loss = 2 * math.exp(-step / 20) if loss is None else loss
    source.publish(
        TrainBatchEnd, **place, step=step, loss=loss, losses={"loss": loss}, lr={"all": 0.1}, seconds=seconds
    )


def epoch(source: Source, epoch: int, *, epochs: int = EPOCHS, seconds: float = 0.01) -> None:
    """Do a whole epoch."""
    for number in range(epoch * BATCHES + 1, (epoch + 1) * BATCHES + 1):
        step(source, number, epochs=epochs, seconds=seconds)
    close_epoch(source, epoch, epochs=epochs, seconds=seconds)


def close_epoch(source: Source, epoch: int, *, epochs: int = EPOCHS, seconds: float = 0.01) -> None:
    """Validate and save at the end of an epoch."""
    duration = seconds * BATCHES
    source.publish(
        TrainEpochEnd,
        epoch=epoch,
        epochs=epochs,
        batches=BATCHES,
        step=(epoch + 1) * BATCHES,
        losses={"loss": 1.0},
        lr={"all": 0.1},
        duration=duration,
        samples=BATCHES * 8,
        speed=BATCHES * 8 / duration,
    )
    if source.rank:
        return
    metrics, fitness = {"accuracy": 0.5 + epoch / 10}, 0.5 + epoch / 10
    source.publish(ValStart, epoch=epoch, batches=2)
    source.publish(
        ValEnd,
        epoch=epoch,
        batches=2,
        samples=16,
        metrics=metrics,
        losses={"loss": 1.1},
        fitness=fitness,
        duration=0.1,
        speed={"inference": 0.1},
    )
    source.publish(
        ModelSave,
        epoch=epoch,
        step=(epoch + 1) * BATCHES,
        path="last.pt",
        best="best.pt",
        fitness=fitness,
        bytes=1000,
        duration=0.01,
    )
    source.publish(
        FitEpochEnd,
        epoch=epoch,
        epochs=epochs,
        losses={"loss": 1.0},
        metrics=metrics,
        fitness=fitness,
        best_fitness=fitness,
        best_epoch=epoch,
        best="best.pt",
        last="last.pt",
        duration=duration + 0.2,
    )


def close_training(source: Source, *, best: int) -> None:
    """Evaluate the weights of the best epoch, as a trainer does at the end."""
    found: dict[str, Any] = {"metrics": {"accuracy": 0.9}, "losses": {"loss": 0.1}, "fitness": 0.9}
    source.publish(ValStart, epoch=best, batches=2)
    source.publish(ValEnd, epoch=best, batches=2, samples=16, duration=0.1, speed={}, **found)
    saved: dict[str, Any] = {"best_fitness": 0.9, "best_epoch": best, "best": "best.pt", "last": "last.pt"}
    source.publish(FitEpochEnd, epoch=best, epochs=EPOCHS, final=True, duration=0.1, **found, **saved)


def end(source: Source, *, kind: str = "train", error: str = "") -> None:
    """End a run, with an error or without."""
    failure = ErrorInfo(type="ValueError", message=error, traceback=f"Traceback …\nValueError: {error}")
    outcome = "failed" if error else "completed"
    source.publish(RunEnd, kind=kind, outcome=outcome, error=failure if error else None, duration=1.5)


def trained(source: Source, *, model: str = "Net", error: str = "") -> None:
    """Train from begin to end."""
    begin(source, model=model)
    for number in range(EPOCHS):
        epoch(source, number)
    end(source, error=error)


def predicted(source: Source, results: Sequence[object]) -> None:
    """Predict one batch."""
    inputs = tuple(f"input {number}" for number in range(len(results)))
    begin(source, kind="predict")
    source.publish(PredictStart, source="a list", batch_size=len(results), batches=1)
    source.publish(
        PredictBatchEnd,
        epoch=0,
        batch=0,
        batches=1,
        batch_size=len(results),
        inputs=inputs,
        results=tuple(results),
        speed={"inference": 0.1},
    )
    source.publish(PredictEnd, inputs=len(inputs), batches=1, duration=0.5, speed={"inference": 0.1})
    end(source, kind="predict")
