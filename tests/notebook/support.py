"""Runs to be displayed."""

from __future__ import annotations

from typing import Any

from lineside.bus import Bus, Mark
from lineside.bus.notebook import Shown
from lineside.schemas import RunEnd, RunStart, TrainBatchEnd, TrainEpochEnd, TrainEpochStart, TrainStart

PATIENCE = 60.0
"""Seconds after which a wait that should have ended has failed."""


class Told(Shown):
    """A run whose events are published by hand."""

    def __init__(self, bus: Bus, id: str = "train-1") -> None:  # noqa: A002
        self.id = id
        self._bus = bus
        self._begin: Mark = bus.mark()
        self.source = bus.source(id)

    def begin(self, epochs: int = 3) -> None:
        self.source.publish(RunStart, kind="train", model="Net", device="cpu")
        self.source.publish(TrainStart, epoch=0, epochs=epochs, batches=4, step=0)

    def epoch(self, number: int, losses: list[float], epochs: int = 3) -> None:
        step = number * len(losses)
        size = {"epochs": epochs, "batches": len(losses)}
        self.source.publish(TrainEpochStart, epoch=number, lr={"all": 0.1}, **size)
        for batch, loss in enumerate(losses):
            self.batch(step + batch + 1, loss, epoch=number, batch=batch, batches=len(losses))
        self.source.publish(
            TrainEpochEnd,
            epoch=number,
            **size,
            step=step + len(losses),
            losses={"loss": sum(losses) / len(losses)},
            lr={"all": 0.1},
            duration=1.0,
            samples=8,
            speed=8.0,
        )

    def batch(self, step: int, loss: float, *, epoch: int = 0, batch: int = 0, batches: int | None = None) -> None:
        place = {"epoch": epoch, "batch": batch, "batches": batches, "batch_size": 2}
        self.source.publish(TrainBatchEnd, **place, step=step, loss=loss, losses={"loss": loss}, lr={"all": 0.1})

    def end(self, outcome: str = "completed", **more: Any) -> None:
        self.source.publish(RunEnd, kind="train", outcome=outcome, duration=12.0, **more)


def text_of(run: Any) -> str:
    """Return the line that `run` is shown as where there is no notebook."""
    bundle: dict[str, str] = run._repr_mimebundle_()
    assert bundle.keys() == {"text/plain"}
    return bundle["text/plain"]
