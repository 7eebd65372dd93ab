"""Errors of the service.

::

    LinesideError
    └── BusError
        └── ServiceError
            ├── ServiceRefused  (also ValueError)   it cannot be made like that
            ├── BadRequest      (also ValueError)   a client asked for what makes no sense
            ├── OutOfReach      (also LookupError)  the run is not one of this process
            └── Crowded         (also RuntimeError) no more streams are opened
"""

from __future__ import annotations

from ..errors import BusError
from ..journal.errors import InvalidPosition, UnknownRun


class ServiceError(BusError):
    """Something is wrong with the service or its use."""


class ServiceRefused(ServiceError, ValueError):
    """A service that cannot be made like that."""


class BadRequest(ServiceError, ValueError):
    """A client asked for what makes no sense."""


class OutOfReach(ServiceError, LookupError):
    """A run that this process can see, but not steer or look into."""

    def __init__(self, run: str, what: str, *, over: bool) -> None:
        super().__init__(
            f"run {run!r} is over: {what} is for one that goes on"
            if over
            else f"run {run!r} is out of reach: {what} works where the service is mounted in the process that trains, "
            "on its bus (app.mount('/lineside', service(bus))), and while the run goes on"
        )


class Crowded(ServiceError, RuntimeError):
    """No more streams are opened."""

    def __init__(self, why: str) -> None:
        super().__init__(f"no stream can be opened: {why}; try again later")


_STATUS: dict[type[BusError], int] = {BadRequest: 400, InvalidPosition: 400, UnknownRun: 404, OutOfReach: 409}


def status_of(error: BusError) -> int:
    """Return the status of an answer that tells of `error`."""
    return next((status for cls, status in _STATUS.items() if isinstance(error, cls)), 503)
