"""How much a prediction service takes from each client, and from all of them."""

from __future__ import annotations

from dataclasses import dataclass

from ...bus.service.limits import ConnectionLimits


@dataclass(frozen=True, slots=True)
class PredictionLimits(ConnectionLimits):
    """Sizes are in bytes, times in seconds."""

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
    """Time for a request, from when it was taken up to its last result. A WebSocket has no such limit."""
    in_flight: int = 64
    """Inputs of one WebSocket that are not answered yet; further ones are not read from it before."""
    requests: int = 2048
    """Requests and WebSockets at once."""
    queue: int = 20_000
    """Inputs that are not answered yet, of all clients together."""
    memory: int = 512 << 20
    """Size of the bodies that are being read and of the inputs that are not computed yet, of all clients together."""


DEFAULT = PredictionLimits()
