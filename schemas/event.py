"""`Event`, the base of all payloads, and the registry that finds a class by its names."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from inspect import get_annotations
from typing import Annotated, Any, ClassVar, Literal, cast

from pydantic import AfterValidator, AwareDatetime, Field

from .errors import DuplicateEvent, EventRefused, NotAnEvent, UnknownEventName
from .fields import Seconds
from .part import Part

_by_type: dict[str, type[Event]] = {}
_by_callback: dict[str, type[Event]] = {}

_TYPE = "Name of the event, e.g. `TrainBatchEnd`; decoding picks the class by it."


def _refuse_family(name: str) -> Callable[[str], str]:
    def refuse(_: str) -> str:
        raise ValueError(f"{name} is a family of events to subscribe to; make one of its members instead")

    return refuse


def _type_of_family(name: str) -> Any:
    return Annotated[str, AfterValidator(_refuse_family(name)), Field(description=_TYPE, validate_default=True)]


class Event(Part):
    """A frozen payload saying that a stage was reached.

    Subclass it to define an event of your own; the class name is its name on the wire::

        class Drift(Event):
            score: float

    Class keywords: ``name`` (another wire name), ``callback`` (another callback name than ``on_`` and the name in
    snake case), ``family=True`` (a group of events to subscribe to, never an event itself), ``urgent`` (whether it
    wakes its readers at once; inherited).

    The fields of this base are the envelope. The bus fills them in when it numbers the event.

    Raises:
        EventRefused: on definition of a class with a field called ``type``, ``family``, ``callback`` or ``urgent``, or
            with one that `Part` refuses.
        DuplicateEvent: on definition of a class whose name or callback name another event has.
    """

    urgent: ClassVar[bool] = True
    """Wakes its readers at once. Events of a batch do not: they travel together, some milliseconds apart."""
    callback: ClassVar[str] = ""
    """The name `add_callback` knows this event by, e.g. ``on_train_batch_end``."""
    family: ClassVar[bool] = True
    """Whether this class is a group of events rather than an event."""

    type: Annotated[str, AfterValidator(_refuse_family("Event"))] = Field(
        default="", description=_TYPE, validate_default=True
    )
    run: str = Field(default="", description="Id of the run it belongs to; empty outside a run.")
    attempt: int = Field(default=1, description="Attempt of the run, from 1; a resumed run keeps its id and counts on.")
    rank: int = Field(default=0, description="Rank of the publishing process in a distributed run.")
    seq: int = Field(
        default=0, description="Position in the publisher's log, from 1 and without holes; 0 before numbering."
    )
    time: AwareDatetime = Field(
        default_factory=lambda: datetime.now(UTC),
        validate_default=False,
        description="UTC wall clock when it was published: a label; order is by `seq`.",
    )
    elapsed: Annotated[Seconds, Field(description="Seconds since the run began, on a monotonic clock.")] = 0.0

    def __init_subclass__(
        cls,
        *,
        name: str | None = None,
        callback: str | None = None,
        family: bool = False,
        urgent: bool | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init_subclass__(**kwargs)
        wire = cls.__name__ if name is None else name
        _check_names(cls, wire)
        cls.family = family
        if urgent is not None:
            cls.urgent = urgent
        cls.callback = callback or f"on_{_snake(wire)}"
        # Before pydantic collects the fields: a class accepts and writes its own name only, a family none.
        if family:
            _set_type(cls, _type_of_family(cls.__name__), "")
        elif wire:
            _set_type(cls, Annotated[Literal[wire], Field(description=_TYPE)], wire)

    @classmethod
    def __pydantic_init_subclass__(cls, *, name: str | None = None, **keywords: Any) -> None:
        super().__pydantic_init_subclass__(**keywords)
        if name != "":
            _register(name or cls.__name__, cls)


_by_type["Event"] = Event


def _check_names(cls: type[Event], wire: str) -> None:
    """Refuse what the body of `cls` would hide or be hidden by; only a class without a name has a type of its own."""
    names = get_annotations(cls).keys() | vars(cls).keys()
    if wire:
        for name in sorted({"type", "family", "callback", "urgent"} & names):
            problem = f"{name!r} cannot be a field, every event class has an attribute of that name"
            instead = "or, if you meant that one, use the keywords of the class: class Drift(Event, urgent=False)"
            raise EventRefused(cls, problem, f"call the field otherwise, {instead}")
    elif "type" not in names:
        raise EventRefused(cls, "its name is empty", "leave name= away to have it named by the class")


def _set_type(cls: type[Event], annotation: Any, default: str) -> None:
    cls.__annotations__ = {**get_annotations(cls), "type": annotation}
    cls.type = default


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


def _register(name: str, cls: type[Event]) -> None:
    for key in (name, cls.callback):
        for taken in (_by_type.get(key), _by_callback.get(key)):
            if taken is not None and not _same_definition(taken, cls):
                raise DuplicateEvent(key, taken, f"{cls.__module__}.{cls.__qualname__}")
    if name in _by_type:
        _by_callback.pop(_by_type[name].callback, None)
    _by_type[name] = cls
    _by_callback[cls.callback] = cls


def _same_definition(earlier: type[Event], later: type[Event]) -> bool:
    # The same definition run again (a notebook cell, a reloaded module) replaces the earlier one.
    return (earlier.__module__, earlier.__qualname__) == (later.__module__, later.__qualname__)


def events(family: type[Event] = Event) -> tuple[type[Event], ...]:
    """Return the event classes of `family` (families themselves left out), in the order of definition."""
    known = tuple(_by_type.values())  # other threads may be defining more
    return tuple(cls for cls in known if issubclass(cls, family) and not cls.family)


def find_event(name: str | type[Event]) -> type[Event]:
    """Return the class that `name` means: a class, a type name or a callback name.

    ``find_event("TrainBatchEnd")`` and ``find_event("on_train_batch_end")`` are the same.

    Raises:
        UnknownEventName: no event has that name; the message lists the closest.
        NotAnEvent: `name` is neither a string nor an event class.
    """
    wanted = cast("object", name)  # users may give anything
    if isinstance(wanted, str):
        found = _by_type.get(wanted) or _by_callback.get(wanted)
        if found is None:
            raise UnknownEventName(wanted, [*_by_type, *_by_callback])
        return found
    if isinstance(wanted, type) and issubclass(wanted, Event):
        return wanted
    raise NotAnEvent(name, "an event class, a type name or a callback name")


def wire_name(cls: type[Event]) -> str:
    """Return the value of ``type`` in the events of `cls`; of a family or an `UnknownEvent`, nothing."""
    name = cls.model_fields["type"].default
    return name if isinstance(name, str) else ""


def find_wire_type(name: str) -> type[Event] | None:
    """Return the event class whose name on the wire is `name`; a family has none."""
    found = _by_type.get(name)
    return None if found is None or found.family else found


def find_events(names: Iterable[str | type[Event]]) -> tuple[type[Event], ...]:
    """Return the classes that `names` mean; none at all means every event."""
    return tuple(find_event(name) for name in names) or (Event,)
