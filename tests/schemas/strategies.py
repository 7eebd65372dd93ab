"""Events of any class with any values, for hypothesis."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from math import isnan
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, cast, get_args, get_origin

from annotated_types import Ge
from hypothesis import strategies as st
from pydantic import AwareDatetime, BaseModel

from lineside.schemas import Event, events

Values = st.SearchStrategy[Any]

_offsets = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
_times = st.datetimes(min_value=datetime(1970, 1, 2), timezones=st.just(UTC) | _offsets)
_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
_plain: dict[Any, Values] = {
    str: st.text(),
    bool: st.booleans(),
    int: st.integers(),
    float: st.floats(),
    Path: st.text().map(Path),
    AwareDatetime: _times,
    NoneType: st.none(),
    Any: _json,
}


def shipped(family: type[Event] = Event) -> list[type[Event]]:
    """The events of the package: other tests of the same process define more."""
    return [cls for cls in events(family) if cls.__module__.startswith("lineside.schemas.")]


def fields_of(cls: type[BaseModel]) -> st.SearchStrategy[dict[str, Any]]:
    """Fields that `cls` accepts: those with a default are there or not."""
    values = {name: _values(field.annotation, field.metadata) for name, field in cls.model_fields.items()}
    required = {name: values.pop(name) for name, field in cls.model_fields.items() if field.is_required()}
    return st.fixed_dictionaries(required, optional=values)


def event_of(cls: type[Event]) -> st.SearchStrategy[Event]:
    """Events of `cls`."""
    return fields_of(cls).map(lambda fields: cls(**fields))


def any_event() -> st.SearchStrategy[Event]:
    """Events of all classes of the package."""
    return st.sampled_from(shipped()).flatmap(event_of)


def same(left: object, right: object) -> bool:
    """Equality by which nan equals nan, and nothing equals a value of another type."""
    if type(left) is not type(right):
        return False
    if isinstance(left, BaseModel) and isinstance(right, BaseModel):
        return same(left.model_dump(), right.model_dump())
    if isinstance(left, dict):
        mine, yours = cast("dict[str, object]", left), cast("dict[str, object]", right)
        return mine.keys() == yours.keys() and all(same(value, yours[key]) for key, value in mine.items())
    if isinstance(left, tuple):
        ours, theirs = cast("tuple[object, ...]", left), cast("tuple[object, ...]", right)
        return len(ours) == len(theirs) and all(map(same, ours, theirs))
    if isinstance(left, float) and isnan(left):
        return isnan(cast("float", right))
    return left == right


def _values(annotation: Any, metadata: list[Any]) -> Values:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _values(arguments[0], [*arguments[1:]])
    if origin is Literal:
        return st.sampled_from(arguments)
    if origin in (Union, UnionType):
        return st.one_of([_values(argument, []) for argument in arguments])
    if origin is dict:
        return st.dictionaries(st.text(), _values(arguments[1], []), max_size=4)
    if origin is tuple:
        return st.lists(_values(arguments[0], []), max_size=4).map(tuple)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return st.deferred(lambda: fields_of(annotation).map(annotation.model_validate))
    if annotation is int:
        return st.integers(min_value=next((cast("int", limit.ge) for limit in metadata if isinstance(limit, Ge)), None))
    return _plain[annotation]
