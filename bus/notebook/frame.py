"""Frames: events as a table of pandas or polars."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from enum import Enum
from importlib.util import find_spec
from pathlib import Path, PurePath
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias, Union, cast, get_args, get_origin, overload

from pydantic import AwareDatetime

from ...schemas import Event
from .errors import FrameLibraryMissing, FrameLibraryUnknown

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl

Library = Literal["pandas", "polars"]
LIBRARIES: tuple[Library, ...] = ("pandas", "polars")
"""In the order of preference."""

EPOCH, MICROSECOND = datetime(1970, 1, 1, tzinfo=UTC), timedelta(microseconds=1)
_SIMPLE = frozenset({float, int, str, bool, type(None)})

Way: TypeAlias = tuple[str, ...]
"""The way to a value: a field of the event, then the keys within it."""


@overload
def frame(events: Iterable[Event], library: Literal["polars"], types: Iterable[type[Event]] = ()) -> pl.DataFrame: ...
@overload
def frame(
    events: Iterable[Event], library: Literal["pandas"] | None = None, types: Iterable[type[Event]] = ()
) -> pd.DataFrame: ...
@overload
def frame(
    events: Iterable[Event], library: Library | None = None, types: Iterable[type[Event]] = ()
) -> pd.DataFrame | pl.DataFrame: ...
def frame(
    events: Iterable[Event], library: Library | None = None, types: Iterable[type[Event]] = ()
) -> pd.DataFrame | pl.DataFrame:
    """Return `events` as a data frame: a row each, in their order.

    The columns are the fields in the order of the event's class; what is within a field becomes a column of its own, of
    the name ``losses.box``. Where an event has no such field the cell is empty. Times are UTC.

    Args:
        events: Of one type or several.
        library: Whose frame it is. Default: pandas where it is installed, else polars.
        types: Whose fields are the columns of a frame without rows.

    Raises:
        FrameLibraryMissing: the library, or any of them, is not installed.
        FrameLibraryUnknown: there are no frames of that library.
    """
    library = chosen(library)
    made = _pandas if library == "pandas" else _polars
    return made(columns) if (columns := flattened(events)) else made(_specimens(types)).head(0)


def chosen(library: Library | None) -> Library:
    """Return the library to use.

    Raises:
        FrameLibraryMissing: the library, or any of them, is not installed.
        FrameLibraryUnknown: there are no frames of that library.
    """
    if library is not None and library not in LIBRARIES:
        raise FrameLibraryUnknown(library, LIBRARIES)
    for name in LIBRARIES if library is None else (library,):
        if _installed(name):
            return name
    raise FrameLibraryMissing(library)


def _installed(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ValueError:  # it is imported, and does not say from where
        return True


def flattened(events: Iterable[Event]) -> dict[str, list[object]]:
    """Return the columns of a table of `events`, by name; None where an event has no value."""
    columns: dict[Way, list[object]] = {}
    fields: dict[str, None] = {}
    count = 0
    for event in events:
        values: dict[str, object] = event.model_dump()
        fields.update(dict.fromkeys(values))
        _collect(columns, (), values, count)
        count += 1
    for column in columns.values():
        column.extend([None] * (count - len(column)))
    return _named(columns, {field: place for place, field in enumerate(fields)})


def _specimens(types: Iterable[type[Event]]) -> dict[str, list[object]]:
    """Return the columns of a table of one row, of which a frame without rows has the types.

    Each field of `types` has a value of its type there, where that is a simple one.
    """
    fields = {name: field.annotation for cls in types for name, field in cls.model_fields.items()}
    return {name: [_specimen(annotation)] for name, annotation in fields.items()}


def _specimen(annotation: object) -> object:
    for base, value in _SPECIMENS.items():
        if annotation is base:
            return value
    if get_origin(annotation) is Literal:
        return get_args(annotation)[0]
    if get_origin(annotation) is Annotated:
        return _specimen(get_args(annotation)[0])
    parts = [part for part in get_args(annotation) if part is not NoneType]
    return _specimen(parts[0]) if get_origin(annotation) in (Union, UnionType) and len(parts) == 1 else None


_SPECIMENS: dict[object, object] = {
    bool: False,
    int: 0,
    float: 0.0,
    str: "",
    Path: "",
    datetime: EPOCH,
    AwareDatetime: EPOCH,
}


def _collect(columns: dict[Way, list[object]], path: Way, values: Mapping[str, object], row: int) -> None:
    """Write `values` into that row of the columns, each below what is there or not."""
    for key, value in values.items():
        if value.__class__ not in _SIMPLE:
            if isinstance(value, Mapping):
                _collect(columns, (*path, key), cast("Mapping[str, object]", value), row)
                continue
            value = _plain(value)
        column = columns.get((*path, key))
        if column is None:
            column = columns[(*path, key)] = []
        if len(column) < row:
            column.extend([None] * (row - len(column)))
        column.append(value)


def _plain(value: object) -> object:
    """Return `value` as something that both libraries have a type for, where there is one."""
    if isinstance(value, datetime) and value.tzinfo is not None:
        return value.astimezone(UTC)
    if isinstance(value, Enum):
        return value.value
    return str(value) if isinstance(value, PurePath) else value


def _named(columns: dict[Way, list[object]], places: Mapping[str, int]) -> dict[str, list[object]]:
    """Return `columns` in the order of their fields, under names that are all different."""
    empty = {path for path, column in columns.items() if all(value is None for value in column)}
    opened = {path[:-1] for path in columns if len(path) > 1}
    named: dict[str, list[object]] = {}
    for path in sorted(columns, key=lambda path: places[path[0]]):
        if path in empty and path in opened:  # what is nothing here and has parts elsewhere
            continue
        name = ".".join(path)
        while name in named:
            name += "_"
        named[name] = columns[path]
    return named


def _pandas(columns: Mapping[str, list[object]]) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(
        {name: times if (times := _times(column)) is not None else column for name, column in columns.items()}
    )


def _times(column: list[object]) -> pd.DatetimeIndex | None:
    """Return a column that has times only, all of them UTC, as such; anything else: None."""
    import pandas as pd

    times = [value for value in column if isinstance(value, datetime) and value.tzinfo is UTC]
    if not times or len(times) < len(column):
        return None
    return pd.to_datetime(  # pyright: ignore[reportUnknownMemberType]
        [(time - EPOCH) // MICROSECOND for time in times], unit="us", utc=True
    ).as_unit("us")


def _polars(columns: Mapping[str, list[object]]) -> pl.DataFrame:
    import polars as pl

    def series(name: str, column: list[object]) -> pl.Series:
        try:
            return pl.Series(name, column)
        except (TypeError, ValueError, OverflowError, pl.exceptions.PolarsError):  # values of several kinds
            return pl.Series(name, column, dtype=pl.Object)

    return pl.DataFrame([series(name, column) for name, column in columns.items()])
