"""Results of predictions, as data: what a reader of `PredictBatchEnd` needs no torch for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod
from operator import gt
from typing import Annotated, Self

from pydantic import Field, model_validator

from .fields import Count
from .part import Part

XYXY = Annotated[tuple[float, float, float, float], Field(json_schema_extra={"unit": "px"})]
"""A box: left, top, right and bottom edge, in pixels from the top left corner of the picture."""


class Classes(Part):
    """The likeliest classes of an input, best first.

    ``classes.name`` and ``classes.score`` are those of the best; ``for name, score in classes.pairs()`` has all. It has
    a class or more, unless an input can be of none.

    Raises:
        ValidationError: names, scores and indices are not equally many, or the best is not first.
    """

    names: tuple[str, ...] = Field(description="Names of the classes, the likeliest first.")
    scores: tuple[float, ...] = Field(description="Their scores: probabilities, unless the model gives others.")
    indices: tuple[Count, ...] = Field(description="Their positions among the outputs of the model.")

    @model_validator(mode="after")
    def _matches(self) -> Self:
        _check_lengths(names=self.names, scores=self.scores, indices=self.indices)
        if any(map(gt, self.scores[1:], self.scores)):
            raise ValueError(f"the best is to come first, got scores {self.scores!r:.80}")
        return self

    @property
    def name(self) -> str:
        """The name of the likeliest class; empty where there is none."""
        return self.names[0] if self.names else ""

    @property
    def score(self) -> float:
        """The score of the likeliest class; 0 where there is none."""
        return self.scores[0] if self.scores else 0.0

    @property
    def index(self) -> int | None:
        """The position of the likeliest class among the outputs; None where there is none."""
        return self.indices[0] if self.indices else None

    def pairs(self) -> Iterator[tuple[str, float]]:
        """Iterate over names and scores, the best first."""
        return zip(self.names, self.scores, strict=True)

    def __str__(self) -> str:
        return ", ".join(f"{name} {score:.2f}" for name, score in self.pairs()) or "no class"


class Boxes(Part):
    """What was found in a picture, and where.

    Raises:
        ValidationError: boxes, names, scores and indices are not equally many.
    """

    boxes: tuple[XYXY, ...] = Field(description="Where: left, top, right, bottom, in pixels of the picture.")
    names: tuple[str, ...] = Field(description="What: the name of the class of each.")
    scores: tuple[float, ...] = Field(description="How sure the model is of each.")
    indices: tuple[Count, ...] = Field(description="The class of each, as the model counts them.")
    width: Count | None = Field(default=None, description="Width of the picture in pixels; null where it is not known.")
    height: Count | None = Field(default=None, description="Height of the picture in pixels.")

    @model_validator(mode="after")
    def _matches(self) -> Self:
        _check_lengths(boxes=self.boxes, names=self.names, scores=self.scores, indices=self.indices)
        return self

    def __len__(self) -> int:
        return len(self.boxes)

    def found(self) -> Iterator[tuple[str, float, tuple[float, float, float, float]]]:
        """Iterate over name, score and box of each, in the model's order."""
        return zip(self.names, self.scores, self.boxes, strict=True)

    def __str__(self) -> str:
        return ", ".join(f"{name} {score:.2f}" for name, score, _ in self.found()) or "nothing"


class Values(Part):
    """The numbers of an output.

    Raises:
        ValidationError: there are not as many values as the shape says.
    """

    shape: tuple[Count, ...] = Field(description="Length of each dimension; of a single number there is none.")
    values: tuple[float, ...] = Field(description="The numbers, those of the last dimension beside each other.")

    @model_validator(mode="after")
    def _matches(self) -> Self:
        if len(self.values) != prod(self.shape):
            raise ValueError(f"a shape of {self.shape} has {prod(self.shape)} values, got {len(self.values)}")
        return self

    @property
    def value(self) -> float:
        """The number, where there is but one.

        Raises:
            ValueError: there are none, or several.
        """
        if len(self.values) != 1:
            raise ValueError(f"there are {len(self.values)} values, not one; see `values`, or `nested()`")
        return self.values[0]

    def nested(self) -> object:
        """Return the numbers as nested lists, one level for each dimension; a single number as it is."""
        return _nested(self.values, self.shape)

    def __str__(self) -> str:
        shown = ", ".join(f"{value:.4g}" for value in self.values[:8])
        return f"[{shown}{', …' if len(self.values) > 8 else ''}]"


def _check_lengths(**fields: Sequence[object]) -> None:
    if len({len(values) for values in fields.values()}) > 1:
        found = ", ".join(f"{len(values)} {name}" for name, values in fields.items())
        raise ValueError(f"expected one of each, got {found}")


def _nested(values: tuple[float, ...], shape: tuple[int, ...]) -> object:
    if not shape:
        return values[0]
    step = prod(shape[1:])
    return [_nested(values[at * step : (at + 1) * step], shape[1:]) for at in range(shape[0])]
