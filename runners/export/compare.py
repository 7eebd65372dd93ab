"""How far two outputs of a module lie apart."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import cast

import torch
from torch import Tensor


def tensors(outputs: object) -> list[Tensor]:
    """Return the tensors of a module's outputs in order, out of tuples, lists and mappings.

    Numbers count as tensors of no dimension; ``None`` holds nothing, as in an ONNX file.
    """
    return list(_leaves(outputs))


def _leaves(value: object) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value.detach().cpu()
    elif isinstance(value, (bool, int, float)):
        yield torch.tensor(value)
    elif isinstance(value, Mapping):
        yield from _all_leaves(cast("Mapping[object, object]", value).values())
    elif isinstance(value, (list, tuple)):
        yield from _all_leaves(cast("Sequence[object]", value))
    elif value is not None:
        raise TypeError(
            f"an exported module returns tensors, in tuples, lists or dicts; got {type(value).__qualname__}"
        )


def _all_leaves(values: Iterable[object]) -> Iterator[Tensor]:
    for value in values:
        yield from _leaves(value)


def max_error(expected: Sequence[Tensor], actual: Sequence[Tensor]) -> float:
    """Return the largest absolute difference of any two elements; nan where one is nan or the difference is.

    Equal infinities do not differ.

    Raises:
        ValueError: the number of tensors or a shape differs.
    """
    shapes, found = [tuple(t.shape) for t in expected], [tuple(t.shape) for t in actual]
    if shapes != found:
        raise ValueError(f"its outputs have the shapes {found}, the module's {shapes}")
    return max((_difference(a, b) for a, b in zip(expected, actual, strict=True)), default=0.0)


def _difference(a: Tensor, b: Tensor) -> float:
    if a.numel() == 0:
        return 0.0
    exact = torch.complex128 if a.is_complex() else torch.float64
    a, b = a.to(exact), b.to(exact)
    return float(torch.where(a == b, 0.0, (a - b).abs()).max())
