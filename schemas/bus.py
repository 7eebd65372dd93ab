"""What the bus says of itself."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from .families import BusEvent
from .fields import Count, FilePath, Seconds
from .run import ErrorInfo


class SubscriberFailed(BusEvent):
    """A callback raised, after its retries. Nobody else is affected."""

    subscription: str = Field(description="Name of the subscription.")
    event: str = Field(description="Type of the event it failed on.")
    event_seq: Count = Field(description="Position of that event.")
    error: ErrorInfo = Field(description="What it raised.")
    failures: Count = Field(description="Failures in a row, this one included.")
    switched_off: bool = Field(description="Whether the subscription was switched off after too many in a row.")


class EventsMissed(BusEvent):
    """A gap: events that will not be delivered."""

    subscription: str | None = Field(description="The subscription that missed them; null: nobody gets them.")
    count: Count = Field(description="How many.")
    first: Count = Field(description="Position of the first.")
    last: Count = Field(description="Position of the last.")
    reason: Literal["overflow", "invalid"] = Field(
        description="`overflow`: it fell behind the memory window. `invalid`: the fields did not fit the event."
    )
    detail: str = Field(default="", description="More of the reason, e.g. which field did not fit.")


class JournalDegraded(BusEvent):
    """The disk refuses what is published. The run goes on; the journal keeps what it can and tries again."""

    path: FilePath | None = Field(description="The journal's file; null: a temporary one.")
    error: str = Field(description="What the disk said.")


class JournalRecovered(BusEvent):
    """The disk takes what is published again."""

    path: FilePath | None = Field(description="The journal's file; null: a temporary one.")
    duration: Seconds = Field(description="Seconds that it did not.")
    missed: Count = Field(description="Events that are not in the journal for that: they did not fit into memory.")
