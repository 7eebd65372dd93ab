"""Events of the requests to a prediction service."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from .event import Event
from .fields import Count, Seconds

Transport = Literal["http", "ws", "local"]
RequestOutcome = Literal["completed", "cancelled", "failed", "refused"]


class RequestEvent(Event, family=True, urgent=False):
    """A client's request to a prediction service. These travel together, some milliseconds apart."""

    request: str = Field(description="Id of the request: the client's own, or one that the service made.")
    transport: Transport = Field(
        description="How the client asked: over HTTP, over a WebSocket, or from within the program."
    )


class RequestStart(RequestEvent):
    """A request was taken up. Its inputs are computed as `<request>/<index>`, in batches with those of others."""

    inputs: Count = Field(description="Inputs it came with; 0 over a WebSocket, where they come one by one.")


class RequestEnd(RequestEvent):
    """A request is over. Of one that was refused there is no `RequestStart`."""

    outcome: RequestOutcome = Field(
        description="`cancelled`: the client went away. `failed`: the time was up, or the service ended."
    )
    reason: str | None = Field(default=None, description="Why it failed or was refused.")
    inputs: Count = Field(description="Inputs it came with.")
    results: Count = Field(description="Results that were sent, errors of single inputs left out.")
    errors: Count = Field(description="Errors of single inputs that were sent.")
    duration: Seconds = Field(description="Seconds since it was taken up.")
    waited: Seconds | None = Field(
        default=None, description="Seconds that the first of its inputs waited for its batch; null: it was in none."
    )
