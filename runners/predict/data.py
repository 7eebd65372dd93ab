"""Results as JSON data, for the events."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from enum import Enum
from math import prod
from numbers import Integral, Real
from pathlib import PurePath
from typing import Any, Protocol, TypeGuard, cast, runtime_checkable

import numpy as np
import torch
from pydantic import BaseModel
from pydantic_core import PydanticSerializationError
from torch import Tensor

from ...bus.log import weigh
from ...schemas.results import Boxes, Classes, Values

MAX_VALUES = 1000
"""Largest number of values of a tensor or array that is written out; a larger one is described instead."""

MAX_DEPTH = 16
"""Deepest nesting that is written out."""


class ResultsData:
    """The results of a batch as JSON data that shares nothing with them; its lists are made when it is iterated.

    Models and dataclasses become objects, tensors and arrays of up to `MAX_VALUES` values become lists. A larger
    one, a tensor on a device (reading it would make the device wait) and anything else become a short description.

    What may change is copied by the predictor's thread. To make lists of numbers takes many times as long: that is
    left to the thread that builds the event, if anybody reads it.
    """

    def __init__(self, results: Iterable[object]) -> None:
        self._copies = [one if type(one) in _UNCHANGING else _copy_or_say(one) for one in results]

    def __iter__(self) -> Iterator[object]:
        return map(_listed, self._copies)

    def __reduce__(self) -> tuple[Any, ...]:  # other processes get the data
        return tuple, (list(self),)

    @property
    def nbytes(self) -> int:
        """What the bus's log counts it for."""
        return sum(map(_weigh, self._copies))


_RESULTS = frozenset((Boxes, Classes, Values))
_UNCHANGING = _RESULTS | {int, float, bool, str, type(None)}
"""Types whose values nobody can change, so that none need be copied; those of what is derived from them may be."""


def _weigh(copy: object) -> int:
    """Estimate the bytes of what will be listed."""
    if type(copy) in _RESULTS:
        return 200 + 400 * len(copy.values if isinstance(copy, Values) else cast("Boxes | Classes", copy).scores)
    if isinstance(copy, dict):
        items = cast("dict[str, object]", copy)
        return weigh([*items]) + sum(map(_weigh, items.values()))
    return sum(map(_weigh, cast("list[object]", copy))) if isinstance(copy, list) else weigh(copy)


class _Numbers:
    """A copy of an array, to become a list."""

    def __init__(self, array: Tensor | np.ndarray[Any, Any]) -> None:
        self._array = array.detach().clone() if isinstance(array, Tensor) else array.copy()
        self.nbytes = 32 * prod(array.shape)  # of the list

    def listed(self) -> object:
        return cast("object", self._array.tolist())  # pyright: ignore[reportUnknownMemberType]


def _listed(value: object) -> object:
    """Return a copy with its arrays as lists."""
    if type(value) in _RESULTS:
        return cast("Boxes | Classes | Values", value).model_dump(mode="json")
    if isinstance(value, _Numbers):
        return value.listed()
    if isinstance(value, dict):
        return {key: _listed(item) for key, item in cast("dict[str, object]", value).items()}
    if isinstance(value, list):
        return [_listed(item) for item in cast("list[object]", value)]
    return value


@runtime_checkable
class _Array(Protocol):
    """What NumPy's arrays and scalars, and those of its relatives, have in common."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> object: ...
    def tolist(self) -> object: ...


def _copy_or_say(result: object) -> object:
    """Return a copy, or say that there can be none: what nobody but the events needs must not end the run."""
    try:
        return _copy(result, MAX_DEPTH)
    except Exception as error:  # of the user's own code: a property, a `tolist`, a `__repr__`
        return f"{type(result).__qualname__} that cannot be written out: {type(error).__name__}"


def _copy(value: object, depth: int) -> object:
    """Return `value` as JSON data, `_Numbers` and results of ours."""
    if type(value) in _UNCHANGING:
        return value
    if isinstance(value, Enum):
        return _copy(value.value, depth)
    if isinstance(value, str):
        return value
    if isinstance(value, Real):  # NumPy's numbers too
        return int(value) if isinstance(value, Integral) else float(value)
    if isinstance(value, BaseModel):
        return _model(value)
    if _is_array(value):
        return _array(value, depth)
    return _container(value, depth - 1) if depth else _described(value)


def _is_array(value: object) -> TypeGuard[_Array]:
    # Asked first: a protocol takes long to answer, and a class has what its instances have.
    common = isinstance(value, (dict, list, tuple, set, frozenset, type))
    return not common and isinstance(value, (Tensor, _Array))


def _array(value: _Array, depth: int) -> object:
    where = _out_of_reach(value)
    if where or prod(value.shape) > MAX_VALUES:
        return f"{type(value).__qualname__} of {value.dtype}, shape {tuple(value.shape)}{where}"
    return _Numbers(value) if _lists_numbers(value) else _copy(value.tolist(), depth)


def _lists_numbers(value: _Array) -> TypeGuard[Tensor | np.ndarray[Any, Any]]:
    """Return whether the list of `value` has nothing in it but Python's numbers."""
    if isinstance(value, Tensor):
        return not value.is_complex()
    dtype: Any = value.dtype
    return isinstance(value, np.ndarray) and dtype.kind in "biuf" and dtype.itemsize <= np.dtype(float).itemsize


def _out_of_reach(value: object) -> str:
    """Say why the values of `value` cannot be listed, or not without making a device wait; empty: they can."""
    if isinstance(value, Tensor) and value.device.type != "cpu":
        return f" on {value.device}"
    if isinstance(value, Tensor) and value.is_quantized:
        return ", quantized"
    return f", {value.layout}" if isinstance(value, Tensor) and value.layout is not torch.strided else ""


def _model(value: BaseModel) -> object:
    try:
        return value.model_dump(mode="json")
    except PydanticSerializationError:  # a field of a type that JSON has no form for
        return _described(value)


def _container(value: object, depth: int) -> object:
    if isinstance(value, Mapping):
        items = cast("Mapping[object, object]", value).items()
        return {str(key): _copy(item, depth) for key, item in items}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_copy(item, depth) for item in cast("Iterable[object]", value)]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _copy(getattr(value, field.name), depth) for field in dataclasses.fields(value)}
    return _described(value)


def _described(value: object) -> str:
    return str(value) if isinstance(value, PurePath) else f"{value!r:.200}"
