"""How much a service gives to each client."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """What every service limits. Sizes are in bytes, times in seconds."""

    stalled: float = 30.0
    """Time after which a client that does not read is let go."""
    grace: float = 1.0
    """Time that streams have to say goodbye when the service shuts down."""
    body: int = 64 << 10
    """Longest body of a request."""
    head: int = 128 << 10
    """Longest head of a request: the position in a journal of many files is long. So much may also frame a body, beyond
    some bytes for each of its own."""
    request: float = 30.0
    """Time that a client has for a request, from its connection or its first byte on."""


@dataclass(frozen=True, slots=True)
class Limits(ConnectionLimits):
    """Those of the service of a journal. Sizes are in bytes, times in seconds."""

    poll: float = 0.04
    """Time between two looks into the journal, for all streams of a run together."""
    fan_out: float = 0.0001
    """More of that time for each of them: with many clients, more events travel in a chunk."""
    summaries: float = 0.2
    """Time between two looks at the list of runs, for all that follow it together."""
    heartbeat: float = 15.0
    """Time between two comments in a stream, so that whoever is in between does not take it for dead."""
    window: int = 2 << 20
    """What is kept of a run's newest events; streams that fall behind it are read from the journal again."""
    piece: int = 64 << 10
    """Most that is handed to a connection at once, if no single event is larger."""
    streams: int = 4096
    """Open streams."""


DEFAULT = Limits()
