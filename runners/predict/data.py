"""Results as JSON data, for the events."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from enum import Enum
from math import prod
from pathlib import PurePath
from typing import Protocol, cast, runtime_checkable

from pydantic import BaseModel
from pydantic_core import PydanticSerializationError
from torch import Tensor

MAX_VALUES = 1000
"""Largest number of values of a tensor or array that is written out; a larger one is described instead."""

MAX_DEPTH = 16
"""Deepest nesting that is written out."""


@runtime_checkable
class _Array(Protocol):
    """What NumPy's arrays and scalars, and those of its relatives, have in common."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> object: ...
    def tolist(self) -> object: ...


def as_data(value: object, depth: int = MAX_DEPTH) -> object:
    """Return `value` as JSON data that shares nothing with it.

    Models and dataclasses become objects, tensors and arrays of up to `MAX_VALUES` values become lists. A larger
    one, a tensor on a device (reading it would make the device wait) and anything else become a short description.
    """
    if isinstance(value, Enum):
        return as_data(value.value, depth)
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, (int, float)):
        return int(value) if isinstance(value, int) else float(value)  # NumPy's float64 is a float too
    if isinstance(value, (Tensor, _Array)):
        return _array(value)
    if isinstance(value, BaseModel):
        return _model(value)
    return _container(value, depth - 1) if depth else _described(value)


def _model(value: BaseModel) -> object:
    try:
        return value.model_dump(mode="json")
    except PydanticSerializationError:  # a field of a type that JSON has no form for
        return _described(value)


def _container(value: object, depth: int) -> object:
    if isinstance(value, Mapping):
        items = cast("Mapping[object, object]", value).items()
        return {str(key): as_data(item, depth) for key, item in items}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [as_data(item, depth) for item in cast("Iterable[object]", value)]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: as_data(getattr(value, field.name), depth) for field in dataclasses.fields(value)}
    return _described(value)


def _array(value: _Array) -> object:
    device = _device_of(value)
    if device is None and prod(value.shape) <= MAX_VALUES:
        return as_data(value.tolist())
    where = "" if device is None else f" on {device}"
    return f"{type(value).__qualname__} of {value.dtype}, shape {tuple(value.shape)}{where}"


def _device_of(value: object) -> str | None:
    """Return the device that reading `value` would have to wait for, if any."""
    return str(value.device) if isinstance(value, Tensor) and value.device.type != "cpu" else None


def _described(value: object) -> str:
    return str(value) if isinstance(value, PurePath) else f"{value!r:.200}"
