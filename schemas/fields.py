"""The field types that events share: immutable containers, counters and units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar, cast

from pydantic import AfterValidator, BeforeValidator, Field

K = TypeVar("K")
V = TypeVar("V")


class FrozenDict(dict[K, V]):
    """A dict that refuses every change, because one payload is shared by all its readers.

    It stays a ``dict`` so that it compares, pickles and serialises like one. It hashes where its values do.
    """

    __slots__ = ()

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        raise TypeError("event payloads are immutable and shared by all subscribers; copy it first: dict(value)")

    __setitem__ = __delitem__ = clear = pop = popitem = __ior__ = _refuse
    setdefault = update = _refuse  # pyright: ignore[reportAssignmentType]  # overloads that cannot be met by refusing

    # dict has none, because it changes.
    def __hash__(self) -> int:  # type: ignore[override]  # pyright: ignore[reportIncompatibleVariableOverride]
        return hash(frozenset(self.items()))

    def __reduce__(self) -> tuple[Any, ...]:
        return FrozenDict, (dict(self),)


def _freeze_json(value: object, depth: int = 0) -> object:
    """Return `value` with every dict and list in it immutable, and every number one that JSON can hold."""
    if depth > _DEEPEST:
        raise ValueError(f"nested more than {_DEEPEST} levels deep, or containing itself; readers refuse such JSON")
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        return value if isfinite(value) else _NON_FINITE[str(value)]
    if isinstance(value, Mapping):
        items = cast("Mapping[object, object]", value)
        if not all(isinstance(key, str) for key in items):
            raise ValueError(f"the keys of a JSON object are strings, got {list(items)!r:.80}")
        return FrozenDict({key: _freeze_json(item, depth + 1) for key, item in items.items()})
    if isinstance(value, (list, tuple)):
        return tuple(_freeze_json(item, depth + 1) for item in cast("Sequence[object]", value))
    raise ValueError(f"not a JSON value: {value!r:.80} of type {type(value).__qualname__}")


def _freeze_value(value: object) -> object:
    return _freeze_json(value)  # a validator of two parameters would be handed pydantic's context


def _freeze_object(value: object) -> object:
    frozen = _freeze_json(value)
    if not isinstance(frozen, dict):
        raise ValueError(f"expected an object (a dict), got {value!r:.80}")
    return cast("object", frozen)


_DEEPEST = 100
_NON_FINITE = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}

Scalars = Annotated[dict[str, float], AfterValidator(FrozenDict)]
"""Numbers by name, e.g. ``{"loss": 0.31, "accuracy": 0.97}``; nan and infinity are values like any other."""

Milliseconds = Annotated[Scalars, Field(json_schema_extra={"unit": "ms"})]
"""Durations in milliseconds by name."""

Json = Annotated[Any, BeforeValidator(_freeze_value)]
"""Any JSON value, frozen: objects are immutable dicts, arrays are tuples, nan is the string ``"NaN"``."""

JsonObject = Annotated[dict[str, Any], BeforeValidator(_freeze_object), AfterValidator(FrozenDict)]
"""A JSON object of any shape, frozen like `Json`."""

Count = Annotated[int, Field(ge=0)]
"""How many, or a position: a whole number from 0."""

Bytes = Annotated[Count, Field(json_schema_extra={"unit": "B"})]
"""A size in bytes."""

Seconds = Annotated[float, Field(description="Duration in seconds.", json_schema_extra={"unit": "s"})]
"""A duration in seconds."""

FilePath = Annotated[Path, Field(description="Path on the machine of the publisher.")]
"""A path on the machine of the publisher; a string on the wire."""
