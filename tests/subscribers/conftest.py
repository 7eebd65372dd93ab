from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lineside.schemas import (
    ErrorInfo,
    Event,
    EventsMissed,
    ExportEnd,
    ExportPhase,
    ExportStart,
    FitEpochEnd,
    NonFinite,
    PredictBatchEnd,
    PredictEnd,
    PredictStart,
    PretrainRoutineEnd,
    RunEnd,
    RunStart,
    SubscriberFailed,
    TrainBatchEnd,
    TrainEpochEnd,
    TrainStart,
    ValBatchEnd,
    ValEnd,
    ValStart,
)

LR = {"all": 0.01}


def training(epochs: int = 2) -> Iterator[Event]:
    yield RunStart(run="t", kind="train", model="Net", device="cpu")
    yield PretrainRoutineEnd(run="t", parameters=1234, trainable=1234, batches=2, val_batches=1)
    yield TrainStart(run="t", epoch=0, epochs=epochs, batches=2, step=0, elapsed=1.0)
    for epoch in range(epochs):
        yield from _epoch(epoch, epochs)
    yield _fit(epochs - 1, epochs, final=True)
    yield RunEnd(run="t", kind="train", outcome="completed", duration=12.34)


def _epoch(epoch: int, epochs: int) -> Iterator[Event]:
    for batch in range(2):
        yield TrainBatchEnd(
            run="t",
            epoch=epoch,
            batch=batch,
            batches=2,
            batch_size=8,
            step=2 * epoch + batch + 1,
            loss=0.5,
            losses={"loss": 0.5},
            lr=LR,
            elapsed=1.0 + 2 * epoch + batch + 1,
        )
    yield TrainEpochEnd(
        run="t",
        epoch=epoch,
        epochs=epochs,
        batches=2,
        step=2 * epoch + 2,
        losses={"loss": 0.5},
        lr=LR,
        duration=2,
        samples=16,
        speed=8,
    )
    yield ValStart(run="t", epoch=epoch, batches=1)
    yield ValBatchEnd(run="t", epoch=epoch, batch=0, batches=1, batch_size=8, losses={})
    yield _val_end("t", epoch)
    yield _fit(epoch, epochs)


def _fit(epoch: int, epochs: int, final: bool = False) -> FitEpochEnd:
    return FitEpochEnd(
        run="t",
        epoch=epoch,
        epochs=epochs,
        final=final,
        losses={} if final else {"loss": 0.5},
        metrics={"accuracy": 0.9 + epoch / 100},
        fitness=0.9 + epoch / 100,
        best_fitness=0.9 + epoch / 100,
        best_epoch=epoch,
        best=Path("best.pt"),
        last=Path("last.pt"),
        duration=2.5,
    )


def _val_end(run: str, epoch: int = 0) -> ValEnd:
    metrics = {"accuracy": 0.9 + epoch / 100}
    return ValEnd(
        run=run,
        epoch=epoch,
        batches=1,
        samples=8,
        metrics=metrics,
        losses={"loss": 0.25},
        fitness=0.9,
        duration=0.5,
        speed={},
    )


def validation() -> Iterator[Event]:
    yield RunStart(run="v", kind="val", model="Net", device="cpu")
    yield ValStart(run="v", epoch=0, batches=1)
    yield ValBatchEnd(run="v", epoch=0, batch=0, batches=1, batch_size=8, losses={})
    yield _val_end("v")
    yield RunEnd(run="v", kind="val", outcome="completed", duration=0.6)


def export() -> Iterator[Event]:
    path = Path("net.onnx")
    yield RunStart(run="x", kind="export", model="Net", device="cpu")
    yield ExportStart(run="x", format="onnx", path=path, dynamic_batch=True)
    yield ExportPhase(run="x", format="onnx", phase="capture", duration=1.5)
    yield ExportPhase(run="x", format="onnx", phase="lower", duration=0.5)
    yield ExportEnd(run="x", format="onnx", path=path, bytes=312_000, max_error=6e-6, tolerance=1e-4, duration=2.5)
    yield RunEnd(run="x", kind="export", outcome="completed", duration=2.6)


def prediction() -> Iterator[Event]:
    yield RunStart(run="p", kind="predict", model="Net", device="cpu")
    yield PredictStart(run="p", source="list", batch_size=2, batches=None)
    yield PredictBatchEnd(
        run="p",
        epoch=0,
        batch=0,
        batches=None,
        batch_size=2,
        inputs=("0", "1"),
        results=({"digit": 7}, {"digit": 3}),
        speed={},
    )
    yield PredictEnd(run="p", inputs=2, batches=1, duration=0.1, speed={})
    yield RunEnd(run="p", kind="predict", outcome="stopped", reason="nobody reads", duration=0.2)


def trouble() -> Iterator[Event]:
    error = ErrorInfo(type="OSError", message="refused")
    yield NonFinite(run="t", epoch=1, batch=4, step=10, losses={"loss": float("nan")})
    yield SubscriberFailed(
        subscription="webhook", event="ValEnd", event_seq=3, error=error, failures=10, switched_off=True
    )
    yield EventsMissed(subscription="slow", count=20, first=1, last=20, reason="overflow")
    yield RunEnd(run="t", kind="train", outcome="failed", error=error, duration=1)


STORIES: dict[str, Callable[[], Iterator[Event]]] = {
    "train": training,
    "val": validation,
    "export": export,
    "predict": prediction,
    "trouble": trouble,
}


@pytest.fixture
def story() -> Callable[[str], list[Event]]:
    """Return what gives the events of a run by its kind, the same each time."""
    told: dict[str, list[Event]] = {}

    def tell(kind: str) -> list[Event]:
        return told.setdefault(kind, list(STORIES[kind]()))

    return tell
