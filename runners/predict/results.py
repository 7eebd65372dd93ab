"""Postprocessing that makes typed results: `Predictor(model, postprocess=classes(names))` is a `Predictor[Classes]`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeGuard, cast, get_args

import torch
from torch import Tensor

from ...schemas.results import Boxes, Classes, Values
from ..errors import InvalidArgument
from .batches import PredictBatch
from .errors import OutputUnusable

Scores = Literal["softmax", "sigmoid", "given"]

Names = Sequence[str] | Mapping[int, str]

_PARTS = {"boxes", "labels", "scores"}


def classes(
    names: Names | None = None, *, top: int = 5, scores: Scores = "softmax"
) -> Callable[[Any, PredictBatch], list[Classes]]:
    """Return a postprocessing for outputs of shape (batch, classes): the `top` likeliest classes of each input.

    Args:
        names: The names of the classes. Default, and where one is missing: their numbers.
        top: How many classes a result has, or all where there are fewer.
        scores: What makes probabilities of the outputs; ``given``: they are some already.

    Raises:
        InvalidArgument: `top` is no positive number, or `scores` none of those.

    Raises (when it is called):
        OutputUnusable: the outputs are not one tensor of shape (batch, classes).
    """
    if scores not in get_args(Scores):
        raise InvalidArgument(f"scores={scores!r}", f"expected one of {', '.join(map(repr, get_args(Scores)))}")
    _check_positive("top", top)
    name_of = _naming(names)

    def postprocess(outputs: Any, batch: PredictBatch) -> list[Classes]:
        if not isinstance(outputs, Tensor) or outputs.dim() != 2:
            raise OutputUnusable(outputs, "a tensor of shape (batch, classes)")
        found = _probabilities(outputs, scores).topk(min(top, outputs.shape[1]))
        rows = zip(_listed(found.values), _listed(found.indices), strict=True)
        return [Classes(names=tuple(map(name_of, at)), scores=tuple(likely), indices=tuple(at)) for likely, at in rows]

    return postprocess


def boxes(names: Names | None = None, *, least: float = 0.5) -> Callable[[Any, PredictBatch], list[Boxes]]:
    """Return a postprocessing for outputs in the form of torchvision's detection models.

    That is for each picture a mapping with ``boxes`` (n, 4: left, top, right, bottom), ``labels`` (n) and ``scores``
    (n). The boxes are in pixels of what the model was given; width and height are those of the input, as far as it is a
    picture: a Pillow image, an array (height, width[, channels]), or a tensor ([channels, ]height, width).

    Args:
        names: The names of the classes, by the numbers that the model uses. Default: these numbers.
        least: Score below which a box is left out.

    Raises (when it is called):
        OutputUnusable: the outputs are of another form.
    """
    name_of = _naming(names)

    def one(output: Mapping[str, Tensor], picture: object) -> Boxes:
        sure = output["scores"] >= least
        where, what, how = (_listed(output[key][sure]) for key in ("boxes", "labels", "scores"))
        width, height = _size(picture)
        return Boxes(
            boxes=tuple(map(tuple, where)),
            names=tuple(map(name_of, what)),
            scores=tuple(how),
            indices=tuple(what),
            width=width,
            height=height,
        )

    def postprocess(outputs: Any, batch: PredictBatch) -> list[Boxes]:
        if not _are_detections(outputs):
            raise OutputUnusable(outputs, "boxes (n, 4), labels (n) and scores (n) in a mapping for each picture")
        return [one(output, picture) for output, picture in zip(outputs, batch.images, strict=False)]

    return postprocess


def values(*, most: int = 10_000) -> Callable[[Any, PredictBatch], list[Values]]:
    """Return a postprocessing for outputs of shape (batch, ...): the numbers of each input, for whatever they mean.

    Args:
        most: Largest number of values of an input; results are kept in events, where tensors of any size do not belong.

    Raises:
        InvalidArgument: `most` is no positive number.

    Raises (when it is called):
        OutputUnusable: the outputs are not one tensor of shape (batch, ...), or have more values than that.
    """
    _check_positive("most", most)

    def postprocess(outputs: Any, batch: PredictBatch) -> list[Values]:
        if not isinstance(outputs, Tensor) or outputs.dim() == 0 or outputs.is_complex():
            raise OutputUnusable(outputs)
        shape = tuple(outputs.shape[1:])
        flat = outputs.flatten(1) if shape else outputs[:, None]
        if flat.shape[1] > most:
            raise OutputUnusable(
                outputs, f"a tensor of shape (batch, ...) with at most {most} values of an input (see most=)"
            )
        return [Values(shape=shape, values=tuple(row)) for row in _listed(flat.to(torch.float64))]

    return postprocess


def _check_positive(name: str, number: int) -> None:
    if number < 1:
        raise InvalidArgument(f"{name}={number!r}", "expected at least 1")


def _naming(names: Names | None) -> Callable[[int], str]:
    known = names if isinstance(names, Mapping) else dict(enumerate(names or ()))
    return lambda index: known.get(index, str(index))


def _probabilities(outputs: Tensor, scores: Scores) -> Tensor:
    given = outputs.float()
    if scores == "softmax":
        return given.softmax(1)
    return given.sigmoid() if scores == "sigmoid" else given


def _listed(tensor: Tensor) -> list[Any]:
    rows = cast("object", tensor.tolist())  # pyright: ignore[reportUnknownMemberType]
    return cast("list[Any]", rows)


def _are_detections(outputs: object) -> TypeGuard[Sequence[Mapping[str, Tensor]]]:
    return isinstance(outputs, (list, tuple)) and all(map(_is_detection, cast("Sequence[object]", outputs)))


def _is_detection(output: object) -> bool:
    return isinstance(output, Mapping) and cast("Mapping[object, object]", output).keys() >= _PARTS


def _size(picture: object) -> tuple[int | None, int | None]:
    """Return width and height of an input."""
    shape = getattr(picture, "shape", None)
    if shape is None:  # a Pillow image
        size = getattr(picture, "size", None)
        return cast("tuple[int, int]", size) if isinstance(size, tuple) else (None, None)
    if len(shape) not in (2, 3):
        return None, None
    height, width = shape[-2:] if isinstance(picture, Tensor) else shape[:2]
    return int(width), int(height)
