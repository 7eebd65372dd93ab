"""`Part`, the base of events and of what they hold beyond plain values."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, cast, get_args

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler
from pydantic.dataclasses import is_pydantic_dataclass
from pydantic.fields import FieldInfo
from pydantic_core import CoreSchema

from .errors import EventRefused
from .fields import FrozenDict, Json


class Part(BaseModel):
    """A frozen model that can be a field of an event, and is written and read again without loss.

    Subclass it for what belongs together::

        class Box(Part):
            left: float
            right: float

        class Found(Event):
            boxes: tuple[Box, ...]

    Raises:
        EventRefused: on definition of a class that holds a model of another kind, or a part that takes further fields
            (``extra="allow"``), in which values would be lost on the wire.
    """

    # Not `class Part(BaseModel, frozen=True)`: type checkers would ask every subclass to repeat it.
    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        ser_json_inf_nan="strings",
        serialize_by_alias=True,
        validate_by_name=True,  # also what is sent to another process as it was given, under the names of its fields
        protected_namespaces=(),
        defer_build=True,
    )
    if not TYPE_CHECKING:  # who would take it for an argument of the constructor
        __pydantic_extra__: dict[str, Json]

    @classmethod
    def __pydantic_init_subclass__(cls, **keywords: Any) -> None:
        super().__pydantic_init_subclass__(**keywords)
        _check_fields(cls)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        _check_fields(cls)  # once more, at the first use: of what was defined after this class
        return handler(source)

    @property
    def model_extra(self) -> dict[str, Any] | None:
        """The fields beyond those of the class, as JSON values; None where the class takes none."""
        return None if self.__pydantic_extra__ is None else FrozenDict(self.__pydantic_extra__)


def _check_fields(cls: type[Part]) -> None:
    for name, field in cls.__pydantic_fields__.items():
        for model in _models_in(field.annotation):
            _check(cls, name, model)
        if field.validate_default is None and _can_be_changed(field):
            field.validate_default = True  # validation freezes it


def _models_in(annotation: object) -> Iterator[type]:
    """Return the classes in `annotation` that bring a configuration of their own."""
    if isinstance(annotation, type):
        cls = cast("type[object]", annotation)
        if issubclass(cls, BaseModel) or is_pydantic_dataclass(cls):
            yield cls
    for argument in get_args(annotation):
        yield from _models_in(argument)


def _check(cls: type[Part], field: str, model: type) -> None:
    if not issubclass(model, Part):
        problem = f"its field {field!r} holds a {model.__qualname__}, which any reader could change and which loses nan"
        raise EventRefused(cls, problem, f"derive {model.__qualname__} from lineside.schemas.Part")
    if model.model_config.get("extra") == "allow":
        problem = (
            f"its field {field!r} holds a {model.__qualname__}, whose further fields would be lost when it is read"
        )
        raise EventRefused(cls, problem, "hold them in a field of type JsonObject instead of extra='allow'")


def _can_be_changed(field: FieldInfo) -> bool:
    """Return whether an event could get a default that is no value of its own, e.g. a plain dict."""
    return field.default_factory not in (None, FrozenDict) or isinstance(field.default, (dict, list, set, tuple))
