"""Results together with the frames they were found in.

    python examples/returning_frames.py

A callback at the end of every batch pairs the results with the frames they came from. The predictor waits for the
callback, and whoever reads the stream gets the pairs.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

from torch import Tensor

from lineside import Predictor
from lineside.demo.digits import digits
from lineside.demo.recipe import recipe
from lineside.runners.predictor import PredictBatch


def main() -> None:
    trainer = recipe.trainer(epochs=3, save=False)
    trainer.run()

    predictor: Predictor[Any] = Predictor(trainer.model, postprocess=read, batch_size=8)
    predictor.add_callback("on_predict_batch_end", with_frames)
    with predictor.stream(camera()) as stream:
        for digit, frame in islice(stream, 3):  # three will do: leaving the block releases the predictor
            print(f"a {digit}, found in")
            draw(frame)


def with_frames(predictor: Predictor[Any]) -> None:
    """Put a pair of result and frame in the place of each result."""
    _, image, _, _ = predictor.batch
    predictor.results = zip(predictor.results, image, strict=True)


def read(logits: Tensor, batch: PredictBatch) -> list[int]:
    """Return the digit in each frame."""
    return [int(digit) for digit in logits.argmax(dim=1)]


def camera() -> Iterator[Tensor]:
    """Give one frame after the other: pictures of digits that were held back from training."""
    yield from digits("held-back").images


def draw(frame: Tensor) -> None:
    """Print a frame of shape (1, height, width)."""
    for row in frame[0]:
        print("    ", *("·░▒▓█"[int(4 * ink)] for ink in row))


if __name__ == "__main__":
    main()
