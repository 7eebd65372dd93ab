"""Write ``docs/events.md`` from ``events.template.md`` and the event classes: ``make docs``."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterable, Sequence
from inspect import cleandoc
from pathlib import Path
from typing import Any, Literal, cast

from pydantic import AwareDatetime, BaseModel
from pydantic.fields import FieldInfo

from lineside.schemas import (
    BatchEnd,
    BatchEvent,
    BatchStart,
    BusEvent,
    ErrorInfo,
    Event,
    ExportEvent,
    OptimizerEvent,
    PredictEvent,
    RequestEvent,
    RunEvent,
    TrainEvent,
    ValEvent,
    events,
)

PAGE = Path(__file__).with_name("events.md")
TEMPLATE = Path(__file__).with_name("events.template.md")

# A family to a section, and its events in the order of a run.
SECTIONS: dict[type[Event], str] = {
    RunEvent: "Every run",
    TrainEvent: "Training",
    ValEvent: "Validation",
    PredictEvent: "Prediction",
    RequestEvent: "Requests to a prediction service",
    ExportEvent: "Export",
    BusEvent: "The bus",
}
CROSSING: tuple[type[Event], ...] = (BatchEvent, BatchStart, BatchEnd, OptimizerEvent)


def page() -> str:
    """Return the text of ``docs/events.md``."""
    return TEMPLATE.read_text(encoding="utf-8").format(
        families=_families(),
        envelope=_fields(Event.model_fields),
        sections="\n\n".join(_section(family, title) for family, title in SECTIONS.items()),
        parts=f"### ErrorInfo\n\n{_doc(ErrorInfo)}\n\n{_fields(ErrorInfo.model_fields)}",
    )


def _shipped(family: type[Event]) -> list[type[Event]]:
    return [cls for cls in events(family) if cls.__module__.startswith("lineside.schemas.")]


def _families() -> str:
    rows = [(f"`{family.__name__}`", _doc(family), _links(_shipped(family))) for family in (*SECTIONS, *CROSSING)]
    return _table(("Family", "Meaning", "Events"), rows)


def _links(classes: Iterable[type[Event]]) -> str:
    return " ".join(f"[{cls.__name__}](#{cls.__name__.lower()})" for cls in classes)


def _section(family: type[Event], title: str) -> str:
    return "\n\n".join([f"## {title}", *(_event(cls) for cls in _shipped(family))])


def _event(cls: type[Event]) -> str:
    own = {name: field for name, field in cls.model_fields.items() if name not in Event.model_fields}
    notes = f"`{cls.callback}`" + (", urgent" if cls.urgent else "")
    return "\n\n".join([f"### {cls.__name__}", f"{notes}. {_doc(cls)}", *([_fields(own)] if own else [])])


def _fields(fields: dict[str, FieldInfo]) -> str:
    rows = [
        (f"`{name}`", _type(field.annotation), _unit(field), field.description or "") for name, field in fields.items()
    ]
    return _table(("Field", "Type", "Unit", "Meaning"), rows)


def _unit(field: FieldInfo) -> str:
    extra = cast("dict[str, object] | None", field.json_schema_extra)  # events give no functions here
    return str(extra.get("unit", "")) if extra else ""


def _type(annotation: Any) -> str:
    """Return `annotation` as a reader of the page wants it, e.g. ``int | None``, ``"pt2" | "onnx"``."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Literal:
        return " | ".join(f'`"{value}"`' for value in arguments)
    if origin in (typing.Union, types.UnionType):
        return " | ".join(_type(argument) for argument in arguments)
    if origin is typing.Annotated:
        return _type(arguments[0])
    if origin in (dict, tuple):
        inner = ", ".join(_type(argument).strip("`") for argument in arguments)
        return f"`{cast('type', origin).__name__}[{inner}]`"
    names = {Any: "JSON", AwareDatetime: "datetime", type(None): "None", Ellipsis: "..."}
    return f"`{names.get(annotation) or annotation.__name__}`"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    def line(cells: Iterable[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    return "\n".join([line(head), line("---" for _ in head), *(line(row) for row in rows)])


def _doc(cls: type[BaseModel]) -> str:
    return " ".join(cleandoc(cls.__doc__ or "").split())


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
