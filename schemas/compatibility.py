"""The rule that keeps old journals and old readers working: fields are only ever added.

A changed meaning gets a new name. An added field has a default, since events written before lack it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, cast

Schema = Mapping[str, Any]

_WORDS_FOR_PEOPLE = frozenset({"title", "description", "examples", "default", "deprecated"})


def breaking_changes(before: Schema, after: Schema) -> list[str]:
    """Say in words what in `after` breaks the rule; an empty list: nothing.

    Args:
        before: `documents.union_schema` of an earlier version.
        after: The same of this version.

    New types, new optional fields, fields that became optional, and other descriptions are no breaks.
    """
    return [*_lost_types(before, after), *_changes_of_parts(_by_name(before), _by_name(after))]


def _lost_types(before: Schema, after: Schema) -> Iterator[str]:
    lost = before["discriminator"]["mapping"].keys() - after["discriminator"]["mapping"].keys()
    yield from (f"{name}: the event is gone; keep it, and add one of another name" for name in sorted(lost))


def _by_name(union: Schema) -> Schema:
    """Return the events in `union` by their names on the wire, and their parts by those of their classes.

    The class of an event may be called otherwise, and change its name.
    """
    names = {ref.rpartition("/")[2]: name for name, ref in union["discriminator"]["mapping"].items()}
    return {names.get(key, key): schema for key, schema in union["$defs"].items()}


def _changes_of_parts(before: Schema, after: Schema) -> Iterator[str]:
    for name in sorted(before.keys() & after.keys()):
        yield from _changes_of_fields(name, before[name], after[name])


def _changes_of_fields(part: str, before: Schema, after: Schema) -> Iterator[str]:
    old: Schema = before.get("properties", {})
    new: Schema = after.get("properties", {})
    if not old and _bare(before) != _bare(after):
        yield f"{part}: was {_bare(before)}, is {_bare(after)}"
    for field in old:
        if field not in new:
            yield f"{part}.{field}: the field is gone; old readers ask for it"
        else:
            yield from _changes_of_field(f"{part}.{field}", old[field], new[field])
    for field in sorted(set(after.get("required", ())) - set(before.get("required", ()))):
        yield f"{part}.{field}: the field is required; give it a default, events written before lack it"


def _changes_of_field(field: str, before: Schema, after: Schema) -> Iterator[str]:
    if _bare(before) != _bare(after):
        yield f"{field}: was {_bare(before)}, is {_bare(after)}; add a field of another name"
    if "default" in before and before["default"] != after.get("default"):
        yield f"{field}: its absence meant {before['default']!r}, means {after.get('default')!r}"


def _bare(schema: Any) -> Any:
    """Return `schema` without what is written for people and without defaults."""
    if isinstance(schema, dict):
        items = cast("dict[str, Any]", schema).items()
        return {key: _bare(value) for key, value in items if key not in _WORDS_FOR_PEOPLE}
    return [_bare(item) for item in cast("Iterable[Any]", schema)] if isinstance(schema, list) else schema
