"""The field types that events share: immutable containers, counters and units."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field

K = TypeVar("K")
V = TypeVar("V")


class FrozenDict(dict[K, V]):
    """A dict that refuses every change, because one payload is shared by all its readers.

    It stays a ``dict`` so that it compares, pickles and serialises like one.
    """

    __slots__ = ()

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        raise TypeError("event payloads are immutable and shared by all subscribers; copy it first: dict(value)")

    __setitem__ = __delitem__ = clear = pop = popitem = setdefault = update = __ior__ = _refuse  # type: ignore[assignment]

    def __reduce__(self) -> tuple[Any, ...]:
        return FrozenDict, (dict(self),)


def _freeze_json(value: Any) -> Any:
    """Return `value` with every dict and list in it immutable, and every number one that JSON can hold."""
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        return value if isfinite(value) else _NON_FINITE[str(value)]
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise ValueError(f"the keys of a JSON object are strings, got {list(value)!r:.80}")
        return FrozenDict({key: _freeze_json(item) for key, item in value.items()})
    if isinstance(value, (list, tuple)):
        return tuple(_freeze_json(item) for item in value)
    raise ValueError(f"not a JSON value: {value!r:.80} of type {type(value).__qualname__}")


def _freeze_object(value: Any) -> Any:
    if not isinstance(value, Mapping):
        raise ValueError(f"expected an object (a dict), got {value!r:.80}")
    return _freeze_json(value)


_NON_FINITE = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}

Scalars = Annotated[dict[str, float], AfterValidator(FrozenDict)]
"""Numbers by name, e.g. ``{"loss": 0.31, "accuracy": 0.97}``; nan and infinity are values like any other."""

Json = Annotated[Any, BeforeValidator(_freeze_json)]
"""Any JSON value, frozen: objects are immutable dicts, arrays are tuples, nan is the string ``"NaN"``."""

JsonObject = Annotated[dict[str, Any], BeforeValidator(_freeze_object), AfterValidator(FrozenDict)]
"""A JSON object of any shape, frozen like `Json`."""

Count = Annotated[int, Field(ge=0)]
Seconds = Annotated[float, Field(description="Duration in seconds.", json_schema_extra={"unit": "s"})]
FilePath = Annotated[Path, Field(description="Path on the machine of the publisher.")]
