"""The demo with photographs: one prediction, read as it comes, with one subscriber that shows it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import anyio

from lineside.bus import Bus
from lineside.demo.afterwards import counts, program
from lineside.demo.photos.data import Photos
from lineside.demo.photos.display import PhotosProgress, PhotosSummary
from lineside.demo.photos.recipe import recipe
from lineside.demo.photos.results import LabelledPhoto
from lineside.runners import Predictor
from lineside.schemas import PredictBatchEnd, PredictEnd

PAUSE_SECONDS = 0.4
"""What the reader does with each photograph: it looks at it. The predictor waits for it."""


def show_photos(folder: Path | None, plain: bool, journal: Path) -> None:
    """Name what is on the photographs in `folder`, or on those that ship, and keep the events in the folder `journal`.

    Raises:
        SourceUnusable: there is no such folder, or there are no photographs in it.
    """
    with Bus(journal) as bus:
        bus.subscribe(PhotosProgress(plain=plain), lane="process", name="display")
        costs: list[tuple[int, float]] = []
        ends: list[PredictEnd] = []

        @bus.on(PredictBatchEnd)
        def note(batch: PredictBatchEnd) -> None:
            costs.append((batch.batch_size, bus.stats().seconds))

        bus.on(PredictEnd)(ends.append)
        anyio.run(look_at_all, recipe.predictor(bus=bus), folder or Photos.shipped())
        counted = counts(bus)  # what waits until all events have been seen
        bus.publish(
            PhotosSummary,
            photos=ends[-1].inputs,
            speed=ends[-1].speed,
            bus_seconds=_lasting(costs),
            dashboard=f"{program()} serve {journal}",
            **counted,
        )
        bus.drain()  # the summary is to be seen too


async def look_at_all(predictor: Predictor[LabelledPhoto], photos: Iterable[object] | Path) -> None:
    """Read the results as they come."""
    async with predictor.stream(photos) as results:
        async for _ in results:
            await anyio.sleep(PAUSE_SECONDS)


def _lasting(costs: list[tuple[int, float]]) -> float:
    """Return the seconds a photograph, without those of the first batch, in which every event class is built once."""
    (size, first), *rest = costs
    return (rest[-1][1] - first) / sum(size for size, _ in rest) if rest else first / size
