"""``--set key=value`` and the like: settings that are replaced for one run."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import fields, replace
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, TypeVar

import typer

from lineside.schemas import LinesideError

if TYPE_CHECKING:
    from lineside.runners import RunnerConfig
    from lineside.runners.serving import PredictionLimits

C = TypeVar("C", bound="RunnerConfig")


class UnknownSetting(LinesideError, LookupError):
    """A configuration has no setting of that name."""

    def __init__(self, option: str, name: str, kind: type, known: Collection[str]) -> None:
        close = get_close_matches(name, known, n=3)
        hint = f"did you mean {' or '.join(close)}?" if close else f"there are {', '.join(known)}"
        super().__init__(f"{option} {name}: {kind.__name__} has no such setting; {hint}")


def override(config: C, assignments: Sequence[str]) -> C:
    """Return `config` with the settings of `assignments`, each ``key=value``, checked like a new one.

    Raises:
        BadParameter: an assignment has no ``=``.
        UnknownSetting: there is no such setting.
        InvalidConfig: a setting cannot have that value.
    """
    return config.with_(**_settings("--set", assignments, type(config), type(config).model_fields))


def limited(limits: PredictionLimits, assignments: Sequence[str]) -> PredictionLimits:
    """Return `limits` with those of `assignments`, each ``key=value``.

    Raises:
        BadParameter: an assignment has no ``=``.
        UnknownSetting: there is no such limit.
        InvalidArgument: a limit cannot have that value.
    """
    known = [field.name for field in fields(limits)]
    return replace(limits, **_settings("--limit", assignments, type(limits), known))


def _settings(option: str, assignments: Sequence[str], kind: type, known: Collection[str]) -> dict[str, Any]:
    settings = dict(_parse(option, assignment) for assignment in assignments)
    for name in settings:
        if name not in known:
            raise UnknownSetting(option, name, kind, known)
    return settings


def _parse(option: str, assignment: str) -> tuple[str, object]:
    name, equals, value = assignment.partition("=")
    if not equals or not name.strip():
        raise typer.BadParameter(f"expected key=value, got {assignment!r}", param_hint=option)
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
