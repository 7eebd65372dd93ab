"""Several async consumers of one prediction, each at its own pace.

    python examples/streaming_predictions.py [FILE]

A small network learns to read handwritten digits, then reads some it has never seen. Its results go to the bus: one
consumer shows them as they come, a slow one writes them to a file, a third one counts. None waits for another.
"""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from pathlib import Path

import anyio
from torch import Tensor, nn

from lineside import Bus, PredictBatchEnd, Predictor, Run
from lineside.demo.digits import digits
from lineside.demo.recipe import recipe
from lineside.runners.predictor import PredictBatch, PredictResult
from lineside.schemas import encode


async def main(path: Path) -> None:
    model = await learn()
    images, labels = digits("held-back")
    async with Bus() as bus:
        run = Predictor(model, postprocess=read, bus=bus, batch_size=30).start(images)
        async with asyncio.TaskGroup() as consumers:
            consumers.create_task(show(run))
            consumers.create_task(write(run, path))
            counted = consumers.create_task(count(run))
        result = await run
    right = sum(found == label for found, label in zip(result.results, labels, strict=True))
    print(f"{result.inputs} digits read, {right / result.inputs:.1%} of them right; every result is in {path}")
    print("found:", ", ".join(f"{number} x {digit}" for digit, number in sorted(counted.result().items())))


async def learn() -> nn.Module:
    """Train for some seconds."""
    trainer = recipe.trainer(epochs=3, save=False)
    await trainer.start()
    return trainer.model


def read(logits: Tensor, batch: PredictBatch) -> list[int]:
    """Return the digit in each image."""
    return [int(digit) for digit in logits.argmax(dim=1)]


async def show(run: Run[PredictResult[int]]) -> None:
    """Print what was found as soon as it is."""
    async with run.stream(PredictBatchEnd) as batches:
        async for event in batches:
            print(f"batch {event.batch}:", *event.results)


async def write(run: Run[PredictResult[int]], path: Path) -> None:
    """Write every event as a line of JSON, to something slow."""
    async with run.stream(PredictBatchEnd) as batches, await anyio.open_file(path, "wb") as file:
        async for event in batches:
            await file.write(encode(event) + b"\n")
            await asyncio.sleep(0.05)


async def count(run: Run[PredictResult[int]]) -> Counter[int]:
    """Return how often each digit was found."""
    async with run.stream(PredictBatchEnd) as batches:
        return Counter([digit async for event in batches for digit in event.results])


if __name__ == "__main__":
    asyncio.run(main(Path(*sys.argv[1:2] or ["predictions.jsonl"])))
