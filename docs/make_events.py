"""Write ``docs/events.md`` from the event classes: ``python docs/make_events.py``."""

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
    RunEvent,
    TrainEvent,
    ValEvent,
    events,
)

PAGE = Path(__file__).with_name("events.md")

# A family to a section, and its events in the order of a run.
SECTIONS: dict[type[Event], str] = {
    RunEvent: "Every run",
    TrainEvent: "Training",
    ValEvent: "Validation",
    PredictEvent: "Prediction",
    ExportEvent: "Export",
    BusEvent: "The bus",
}
CROSSING: tuple[type[Event], ...] = (BatchEvent, BatchStart, BatchEnd, OptimizerEvent)

TEMPLATE = """\
<!-- Written by docs/make_events.py. Change the classes or that file, then run it. -->

# Events

An event is a frozen pydantic model that says a stage was reached. It is shared by all its readers and holds values,
never the live trainer. All of them are in `lineside.schemas`.

## Finding one

A subscription takes classes, families, type names or callback names: `TrainBatchEnd`, `TrainEvent`, `"TrainBatchEnd"`
and `"on_train_batch_end"`. A family stands for all its events, `Event` for every event:

{families}

## The order of a run

The order is a contract. `T` is a training batch, `V` a validation.

```
train    RunStart PretrainRoutineStart PretrainRoutineEnd TrainStart
         ( TrainEpochStart T* TrainEpochEnd V ModelSave FitEpochEnd )*
         V FitEpochEnd(final) TrainEnd Teardown RunEnd
val      RunStart V RunEnd
predict  RunStart PredictStart ( PredictBatchStart PredictPostprocessEnd PredictBatchEnd )* PredictEnd RunEnd
export   RunStart ExportStart ExportPhase* ExportEnd RunEnd

T        TrainBatchStart [ OptimizerStep ( ParamsUpdate | OptimizerSkip ) BeforeZeroGrad ] TrainBatchEnd
V        ValStart ( ValBatchStart ValBatchEnd )* ValEnd
```

* The optimizer's events are in the batches that complete an accumulation window.
* `V` is missing from epochs that are not validated, `ModelSave` from those that are not saved. The final `V` and
  `FitEpochEnd(final)` evaluate the best weights, and are missing where there was no validation.
* A start without its end is normal: an error, a stop, an abandoned stream. `Teardown` comes however training ended,
  `RunEnd` however any run ended; it says `completed`, `stopped` or `failed`, and why.
* `NonFinite` comes when a loss turned out to be nan or infinite. `SubscriberFailed` and `EventsMissed` can come
  anywhere.

## The envelope

Every event has these fields. The bus fills them in.

{envelope}

Order is by `seq`, never by clock. Events of a batch travel together, some milliseconds apart; the others wake their
readers at once (*urgent*).

{sections}

## Parts of events

{parts}

## Defining your own

Subclass `Event`, or the family it belongs to. Nothing needs to be registered:

```python
from lineside.schemas import BatchEvent, Event, Scalars


class Drift(Event):
    \"\"\"The inputs no longer look like those of training.\"\"\"

    score: float
    by_feature: Scalars


class Throughput(BatchEvent, callback="on_throughput"):
    samples_per_second: float
```

It is found as `Drift`, `"Drift"` and `"on_drift"`, and is published, filtered, stored and sent like any other.

* The name on the wire is the class name; `class Drift(Event, name="acme.Drift")` gives another. Two classes with one
  name are refused; running the same definition again, as notebooks do, replaces the first.
* `callback="..."` gives another callback name, `urgent=False` lets it travel with the events of a batch, `family=True`
  makes a family of it.
* Take `Scalars` and `JsonObject` for dicts and `tuple[...]` for lists: they cannot be changed by one reader under the
  eyes of another.

## On the wire

`encode(event)` writes one JSON object on one line, `decode(data)` reads it back, equal in every field:

```python
from lineside.schemas import ValStart, decode, encode

event = ValStart(epoch=3, batches=None)
assert decode(encode(event)) == event
```

* `type` picks the class. Of a type that is not known here comes an `UnknownEvent` with the fields as they came, and it
  is written again as it was read. What is no event raises `UndecodableEvent`.
* nan and infinity are the strings `"NaN"`, `"Infinity"` and `"-Infinity"`. `time` is ISO 8601, a path is a string.
* JSON is nested 100 levels deep at most. A lone surrogate, as in the name of a file that is not UTF-8, has no place in
  JSON: it is written as its escape (`\\udcff`), the one value that comes back different.

`lineside schema json DIR` writes a JSON Schema for each event and `events.json` for any of them, `lineside schema
asyncapi` an AsyncAPI 3.0 document; `--import MODULE` adds events of your own. Lengths of time and sizes have an
annotation `unit`.

## Compatibility

Fields are only ever added, each with a default. A changed meaning gets a new name. Hence old journals can be read by
new versions, and old readers pass over the fields they do not know.

A test holds the events to that: it compares them with the schemas of the last release in
`tests/schemas/snapshots/events.json`. A release writes them anew:

```
lineside schema json - > tests/schemas/snapshots/events.json
```

`lineside.schemas.compatibility.breaking_changes(before, after)` does the comparing; hold events of your own to it too.
"""


def page() -> str:
    """Return the text of ``docs/events.md``."""
    return TEMPLATE.format(
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
