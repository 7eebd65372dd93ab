"""``--set key=value``: settings of a recipe that are replaced for one run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, TypeVar

import typer

from lineside.schemas import LinesideError

if TYPE_CHECKING:
    from lineside.runners import RunnerConfig

C = TypeVar("C", bound="RunnerConfig")


class UnknownSetting(LinesideError, LookupError):
    """A configuration has no setting of that name."""

    def __init__(self, name: str, config: RunnerConfig) -> None:
        known = list(type(config).model_fields)
        close = get_close_matches(name, known, n=3)
        hint = f"did you mean {' or '.join(close)}?" if close else f"there are {', '.join(known)}"
        super().__init__(f"--set {name}: {type(config).__name__} has no such setting; {hint}")


def override(config: C, assignments: Sequence[str]) -> C:
    """Return `config` with the settings of `assignments`, each ``key=value``, checked like a new one.

    Raises:
        BadParameter: an assignment has no ``=``.
        UnknownSetting: there is no such setting.
        InvalidConfig: a setting cannot have that value.
    """
    settings = dict(_parse(assignment) for assignment in assignments)
    for name in settings:
        if name not in type(config).model_fields:
            raise UnknownSetting(name, config)
    return config.with_(**settings)


def _parse(assignment: str) -> tuple[str, object]:
    name, equals, value = assignment.partition("=")
    if not equals or not name.strip():
        raise typer.BadParameter(f"expected key=value, got {assignment!r}", param_hint="--set")
    return name.strip(), literal(value.strip())


def literal(value: str) -> object:
    """Return what `value` means: JSON, or one of Python's ``True``, ``False``, ``None``, else the text itself."""
    words: dict[str, object] = {"True": True, "False": False, "None": None}
    if value in words:
        return words[value]
    try:
        return json.loads(value)
    except ValueError:
        return value
