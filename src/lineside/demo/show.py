"""The demo: five runs after one another, on one bus, with one subscriber that shows them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import anyio
import torch

from lineside.bus import Bus
from lineside.demo.afterwards import counts, program
from lineside.demo.digits import digits
from lineside.demo.display import Answer, DemoProgress, DemoSummary
from lineside.demo.recipe import Reading, recipe
from lineside.runners import Predictor, RunResult
from lineside.schemas import TrainEpochEnd

BATCH = 9
"""Digits predicted at once; 80 columns have room for seven of them, 100 for all."""
PAUSE_SECONDS = 0.05
"""What the reader of the predictions does with each batch: it looks at the pictures. The predictor waits for it."""


def show(epochs: int, plain: bool, journal: Path, check: Callable[[RunResult], None]) -> None:
    """Run the demo, and keep its events in the folder `journal`.

    `check` is called with the result of every run and may raise to end it there.
    """
    torch.set_num_threads(1)  # a network so small is quicker on one, and where cores are few much quicker
    with Bus(journal) as bus:
        bus.subscribe(DemoProgress(answers(), plain=plain), lane="process", name="display")
        trained: list[TrainEpochEnd] = []
        costs: list[float] = []

        @bus.on(TrainEpochEnd)
        def note(epoch: TrainEpochEnd) -> None:
            trained.append(epoch)
            costs.append(bus.stats().seconds)

        result = recipe.trainer(bus=bus, epochs=epochs).run()
        check(result)
        assert result.best is not None  # a completed run with validation has one

        check(recipe.validator(result.best, bus=bus).run())
        files = [result.best, *(result.best.with_name(name) for name in ("digits.pt2", "digits.onnx"))]
        for file in files[1:]:
            check(recipe.exporter(result.best, bus=bus, path=file).run())
        right = anyio.run(count_right, recipe.predictor(result.best, bus=bus, batch_size=BATCH))

        steps = sum(epoch.batches for epoch in trained)
        bus.publish(
            DemoSummary,
            val_accuracy=result.metrics["accuracy"],
            held_back_accuracy=right / len(digits("held-back").labels),
            steps=steps,
            step_seconds=sum(epoch.duration for epoch in trained) / steps,
            bus_seconds=_lasting(costs, [epoch.batches for epoch in trained]),
            files=tuple(str(file) for file in files),
            dashboard=f"{program()} serve {journal}",
            **counts(bus),
        )
        bus.drain()  # the summary is to be seen too


def _lasting(costs: list[float], batches: list[int]) -> float:
    """Return the seconds a batch, without those of the first epoch, in which every event class is built once."""
    return costs[0] / batches[0] if len(costs) == 1 else (costs[-1] - costs[0]) / sum(batches[1:])


async def count_right(predictor: Predictor[Reading]) -> int:
    """Read the predictions as they come, and return how many are right."""
    held_back, right, number = digits("held-back"), 0, 0
    async with predictor.stream(held_back.images) as readings:
        async for reading in readings:
            right += reading["digit"] == held_back.labels[number]
            number += 1
            if number % BATCH == 0:
                await anyio.sleep(PAUSE_SECONDS)
    return right


def answers() -> tuple[Answer, ...]:
    """Return the digits held back, for the display: events name the pictures, they do not hold them."""
    held_back = digits("held-back")
    pictures = (held_back.images * 16).byte().numpy()
    return tuple(
        Answer(picture.tobytes(), int(label)) for picture, label in zip(pictures, held_back.labels, strict=True)
    )
