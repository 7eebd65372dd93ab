"""How a subscription is served: the keywords of `Bus.on`, `Bus.subscribe` and `Bus.stream`."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from datetime import timedelta
from enum import StrEnum
from typing import Annotated, Any, Literal, TypedDict

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, ValidationError

from ..schemas import Event
from .callables import gave_generator, is_async, is_generator, why_no_predicate, why_not_callable
from .errors import CallbackRefused, PolicyRefused


class Lane(StrEnum):
    """Where a callback runs."""

    LOOP = "loop"
    """On the bus's event loop: the default for ``async def``."""
    THREAD = "thread"
    """In a thread of its own: the default for plain functions."""
    PROCESS = "process"
    """In a process of its own, out of the interpreter lock of the training loop: for callbacks that compute."""


class Overflow(StrEnum):
    """What happens to a subscription that falls behind the memory window."""

    SPILL = "spill"
    """It reads the rest back from disk, from the journal or a temporary file, and misses nothing."""
    DROP = "drop"
    """It misses events, and is told how many and which (`EventsMissed`)."""
    LATEST = "latest"
    """It gets only the newest unread event of each type: for displays."""
    WAIT = "wait"
    """The publisher waits for it: for those who would rather stop the run than miss an event."""


TRIES = 5
"""How often a durable subscription tries an event before it sets it aside, unless ``retries=`` says otherwise."""

Where = Callable[[Any], bool]


class Mark:
    """A place in the log, behind everything that was published before it was made: see `Bus.mark`."""

    __slots__ = ("position",)

    def __init__(self) -> None:
        self.position = 0
        """Known once the sequencer has come to it; whatever it does later for the maker of the mark is behind it."""


Ago = Annotated[timedelta, Field(strict=True, ge=timedelta(0))]


class Policy(BaseModel, frozen=True):
    """The checked keywords of a subscription. `PolicyKeywords` has the same for type checkers."""

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)

    name: str | None = Field(default=None, min_length=1, description="Name in logs, stats and `SubscriberFailed`.")
    lane: Lane | None = Field(default=None, description="Where the callback runs.")
    where: Where | None = Field(default=None, description="Only events for which this is true.")
    every: int = Field(default=1, ge=1, description="Only every n-th event.")
    once: bool = Field(default=False, description="Only the first event.")
    run: str | None = Field(default=None, description="Only events of this run.")
    since: Literal["now", "start"] | NonNegativeInt | Ago | Mark = Field(
        "now",
        description="Where to begin: now, at the oldest event that can still be read, after a position, some time ago "
        "or at a mark. Positions that can no longer be read count as missed, of whatever type they were.",
    )
    overflow: Overflow = Field(default=Overflow.SPILL, description="What happens when it falls behind.")
    backlog: int | None = Field(default=None, ge=1, description="With `wait`: unread events that stop the publisher.")
    latency: float | None = Field(
        None,
        ge=0,
        allow_inf_nan=False,
        description="Longest wait for events of a batch, in seconds; 0 wakes at every event.",
    )
    durable: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z0-9_-]{1,64}$",
        description="Name under which its position is kept with the journal, so that it goes on there after a crash.",
    )
    timeout: float | None = Field(default=None, gt=0, allow_inf_nan=False, description="Seconds a callback may take.")
    retries: int = Field(default=0, ge=0, description="How often a failed call is tried again, with growing pauses.")
    max_failures: int = Field(default=10, ge=1, description="Failures in a row after which it is switched off.")


class PolicyKeywords(TypedDict, total=False):
    """The keywords of `Policy`, for type checkers and editors."""

    name: str
    lane: Literal["loop", "thread", "process"] | Lane
    where: Callable[[Any], bool]
    every: int
    once: bool
    run: str | None
    since: Literal["now", "start"] | int | timedelta | Mark
    overflow: Literal["spill", "drop", "latest", "wait"] | Overflow
    backlog: int
    latency: float
    durable: str
    timeout: float
    retries: int
    max_failures: int


def check_policy(keywords: PolicyKeywords) -> Policy:
    """Return the policy that `keywords` describe.

    Raises:
        PolicyRefused: a keyword is unknown or its value impossible.
    """
    try:
        policy = Policy.model_validate(keywords)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"][:1]))
        if first["type"] == "extra_forbidden":
            raise PolicyRefused(f"unknown keyword {name!r}; known are {', '.join(Policy.model_fields)}") from None
        raise PolicyRefused(f"{name}={first['input']!r}: {first['msg']}") from None
    if policy.where is not None and (problem := why_no_predicate(policy.where)):
        raise PolicyRefused(f"where={policy.where!r:.80}: {problem}; expected a plain function of one event")
    if policy.backlog is not None and policy.overflow is not Overflow.WAIT:
        raise PolicyRefused("backlog= goes with overflow='wait'")
    if policy.durable is not None:
        return _durable(policy)
    return policy


def _durable(policy: Policy) -> Policy:
    """Return the policy of a durable subscription, which tries each event several times before it sets it aside."""
    if policy.overflow is not Overflow.SPILL or policy.lane is Lane.PROCESS:
        raise PolicyRefused("durable= goes with overflow='spill', and not with lane='process'")
    retries = policy.retries if "retries" in policy.model_fields_set else TRIES - 1
    return policy.model_copy(update={"retries": retries, "name": policy.name or policy.durable})


def refuse_generator(callback: object, answer: object) -> None:
    """Refuse the `answer` of a call of `callback` that is a generator, e.g. of a function that calls one.

    Raises:
        CallbackRefused: it is.
    """
    if gave_generator(answer):
        raise CallbackRefused(callback, "it returned a generator, of which nothing runs; iterate over it there")


def check_callback(callback: object) -> Callable[[Event], Any]:
    """Return `callback` if it can be called with one event.

    Raises:
        CallbackRefused: it is not callable, takes another number of arguments, or is a generator function.
    """
    if not callable(callback):
        raise CallbackRefused(callback, "it is not callable; expected a function that takes one event")
    if inspect.isclass(callback):
        raise CallbackRefused(callback, "it is a class; subscribe an instance of it, or a function")
    if is_generator(callback):
        raise CallbackRefused(callback, "it has a `yield`, so that a call would run nothing of it; write it without")
    if problem := why_not_callable(callback, 1):
        raise CallbackRefused(callback, f"it is called with one event, but {problem}")
    return callback


def choose_lane(callback: Callable[..., Any], policy: Policy) -> Lane:
    """Return the lane of `callback`, and refuse one that it cannot run in."""
    asynchronous = is_async(callback)
    if policy.lane is None:
        return Lane.LOOP if asynchronous else Lane.THREAD
    if asynchronous and policy.lane is Lane.THREAD:
        raise CallbackRefused(callback, "lane='thread' is for plain functions; an async one runs in lane='loop'")
    return policy.lane
