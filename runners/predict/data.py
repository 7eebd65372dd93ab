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
        self._copies = [_copy(result, MAX_DEPTH) for result in results]

    def __iter__(self) -> Iterator[object]:
        return map(_listed, self._copies)

    def __reduce__(self) -> tuple[Any, ...]:  # other processes get the data
        return tuple, (list(self),)

    @property
    def nbytes(self) -> int:
        """What the bus's log counts it for."""
        return weigh(self._copies)


class _Result:
    """A result that nobody can change, to become an object: it need not be copied."""

    def __init__(self, result: Boxes | Classes | Values) -> None:
        self._result = result

    @property
    def nbytes(self) -> int:
        return 200 + 400 * len(self._result.values if isinstance(self._result, Values) else self._result.scores)

    def listed(self) -> object:
        return self._result.model_dump(mode="json")


_FROZEN = frozenset((Boxes, Classes, Values))
"""Classes of results that nobody can change; of what is derived from them, fields may."""


class _Numbers:
    """A copy of an array, to become a list."""

    def __init__(self, array: Tensor | np.ndarray[Any, Any]) -> None:
        self._array = array.detach().clone() if isinstance(array, Tensor) else array.copy()
        self.nbytes = 32 * prod(array.shape)  # of the list

    def listed(self) -> object:
        return cast("object", self._array.tolist())  # pyright: ignore[reportUnknownMemberType]


def _listed(value: object) -> object:
    """Return a copy with its arrays as lists."""
    if isinstance(value, (_Numbers, _Result)):
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


def _copy(value: object, depth: int) -> object:
    """Return `value` as JSON data, `_Numbers` and `_Result`."""
    if type(value) in _FROZEN:
        return _Result(cast("Boxes | Classes | Values", value))
    if isinstance(value, Enum):
        return _copy(value.value, depth)
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, Real):  # NumPy's numbers too
        return int(value) if isinstance(value, Integral) else float(value)
    if isinstance(value, BaseModel):
        return _model(value)
    if _is_array(value):
        return _array(value, depth)
    return _container(value, depth - 1) if depth else _described(value)


def _is_array(value: object) -> TypeGuard[_Array]:
    common = isinstance(value, (dict, list, tuple, set, frozenset))  # asked first: a protocol takes long to answer
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
