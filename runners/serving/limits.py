"""How much a prediction service takes from each client, and from all of them."""

from __future__ import annotations

from dataclasses import dataclass, fields

from ...bus.service.limits import ConnectionLimits
from ..errors import InvalidArgument


@dataclass(frozen=True, slots=True)
class PredictionLimits(ConnectionLimits):
    """Sizes are in bytes, times in seconds.

    Raises:
        InvalidArgument: one is no number, a time below 0, or a size or number below 1.
    """

    body: int = 32 << 20
    """Longest body of a request."""
    grace: float = 10.0
    """Time that requests have to be finished when the service shuts down."""
    message: int = 8 << 20
    """Longest message over a WebSocket."""
    inputs: int = 10_000
    """Inputs of one request."""
    pixels: int = 50_000_000
    """Pixels of a picture: its width times its height, which are looked at before it is decoded."""
    answer: float = 120.0
    """Time for a request, from when it was taken up to its last result, and before that for its input to be decoded.
    A WebSocket has a limit for the latter only, message by message."""
    in_flight: int = 64
    """Inputs of one WebSocket that are not answered yet; further ones are not read from it before."""
    requests: int = 2048
    """Requests and WebSockets at once."""
    queue: int = 20_000
    """Inputs that are not answered yet, of all clients together."""
    memory: int = 512 << 20
    """Size of the bodies that are being read and of the inputs that are not computed yet, of all clients together."""

    def __post_init__(self) -> None:
        """Check them: with room for nothing, clients would wait for ever."""
        for field in fields(self):
            value: object = getattr(self, field.name)
            if isinstance(field.default, float):
                fits, expected = isinstance(value, (int, float)) and value >= 0, "seconds, at least 0"
            else:
                fits, expected = isinstance(value, int) and value >= 1, "a whole number, at least 1"
            if not fits:
                raise InvalidArgument(f"{field.name}={value!r:.80}", f"expected {expected}")


DEFAULT = PredictionLimits()
