"""Errors of a prediction service.

::

    RunnerError
    └── ServingError
        ├── RequestUnusable   (also ValueError)     a body or message that no inputs can be made of
        ├── RequestTooLarge   (also ValueError)     a body, message, picture or number of inputs over its limit
        ├── MediaTypeUnknown  (also TypeError)      a body or part of a kind that nothing decodes
        ├── ServiceOverloaded (also RuntimeError)   no room for more inputs
        ├── InputFailed       (also RuntimeError)   an input that could not be computed
        ├── NotServing        (also RuntimeError)   not started, shutting down, or its run is over
        └── RequestTimedOut   (also TimeoutError)   not decoded, or its results not there, in time
"""

from __future__ import annotations

from typing import ClassVar

from ..errors import RunnerError


def sendable(text: str) -> str:
    """Return `text` with what UTF-8 has no form for, as in names of files, written as escapes."""
    return text.encode("utf-8", "backslashreplace").decode()


class ServingError(RunnerError):
    """Something is wrong with a prediction service, or with what a client sent."""

    status: ClassVar[int] = 500
    """Of the answer that tells of it."""
    about: str | None = None
    """For which of several inputs all of them are refused, if it is that."""

    def __str__(self) -> str:
        """Return what it says, as text that can be sent: where a recipe's decode has raised it, it need not be any."""
        said = super().__str__()
        return sendable(said if self.about is None else f"{self.about}: {said}")


class RequestUnusable(ServingError, ValueError):
    """A body, or a message, that no inputs can be made of."""

    status = 400

    def __init__(self, problem: str, expected: str) -> None:
        super().__init__(f"{problem}; expected {expected}")


class RequestTooLarge(ServingError, ValueError):
    """A body, a message, a picture or a number of inputs that is over its limit."""

    status = 413

    def __init__(self, what: str, limit: str) -> None:
        super().__init__(f"{what}; at most {limit} are taken: send less at once")


class MediaTypeUnknown(ServingError, TypeError):
    """A body, or a part of one, of a kind that nothing decodes here."""

    status = 415

    def __init__(self, media_type: str, expected: str) -> None:
        super().__init__(f"nothing decodes {media_type!r:.80} here; expected {expected}")


class ServiceOverloaded(ServingError, RuntimeError):
    """There is no room for more inputs."""

    status = 503

    def __init__(self, what: str, retry_after: int) -> None:
        super().__init__(f"there is no room for more: {what}; try again in {retry_after} s")
        self.retry_after = retry_after
        """Seconds after which there should be room, as far as can be told."""


class InputFailed(ServingError, RuntimeError):
    """An input could not be computed; others of its batch may have been."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"input {name} could not be computed: {reason}; the log has its traceback")


class NotServing(ServingError, RuntimeError):
    """Nothing is computed: the service was not started, shuts down, or its run is over."""

    status = 503


class RequestTimedOut(ServingError, TimeoutError):
    """A request was not decoded, or its results were not there, in time."""

    status = 504

    def __init__(self, what: str, seconds: float) -> None:
        super().__init__(f"{what} within {seconds:g} s; send fewer inputs at once, or try later")
