"""Errors of the bus.

::

    LinesideError
    └── BusError
        ├── CallbackRefused   (also TypeError)     it cannot be called with one event
        ├── PolicyRefused     (also ValueError)    a policy that makes no sense
        ├── RunIdRefused      (also ValueError)    an id that is no run id
        ├── WouldDeadlock     (also RuntimeError)  a wait for oneself
        ├── BusClosed         (also RuntimeError)  the bus does not take readers any more
        ├── BusForked         (also RuntimeError)  the bus belongs to the parent process
        ├── DrainTimeout      (also TimeoutError)  not everything was handled in time
        ├── NextTimeout       (also TimeoutError)  no match in time
        ├── CallbackTimeout   (also TimeoutError)  a callback took too long
        ├── SidecarDied       (also ChildProcessError)  the process of a subscription ended
        └── RunsUnavailable   (also ImportError)   nothing is installed that makes runs
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ..schemas.errors import LinesideError


class BusError(LinesideError):
    """Something is wrong with the use of the bus."""


class CallbackRefused(BusError, TypeError):
    """A callback that cannot be called with one event, or not in the lane asked for."""

    def __init__(self, callback: object, reason: str) -> None:
        super().__init__(f"cannot subscribe {callback!r}: {reason}")


class PolicyRefused(BusError, ValueError):
    """Keywords of a bus or a subscription that are unknown, out of range or contradictory."""

    def __init__(self, reason: str, attempted: str = "subscribe") -> None:
        super().__init__(f"cannot {attempted}: {reason}")


class RunIdRefused(BusError, ValueError):
    """An id that could not be part of a path, an address or a file name."""

    def __init__(self, run: object) -> None:
        super().__init__(f"{run!r} is no run id: expected 1 to 64 of the characters A-Z a-z 0-9 _ -")


class WouldDeadlock(BusError, RuntimeError):
    """A wait that could only end after itself."""


class BusClosed(BusError, RuntimeError):
    """The bus is closed: it takes no new reader, and those that wait will get no more."""

    def __init__(self, what: str, run: str | None = None) -> None:
        super().__init__(f"the bus is closed{'' if run is None else f', or the run {run!r} is over'}: {what}")


class BusForked(BusError, RuntimeError):
    """A bus inherited by a forked child: its threads stayed in the parent."""

    def __init__(self) -> None:
        super().__init__(
            "this bus belongs to the parent process and its threads stayed there: "
            "make a Bus() in this process, or start the process with 'spawn'"
        )


class DrainTimeout(BusError, TimeoutError):
    """Not every subscription had handled what was published when the time was up."""

    def __init__(self, seconds: float, late: Mapping[str, int]) -> None:
        waiting = ", ".join(f"{name} ({count} positions behind)" for name, count in late.items()) or "the sequencer"
        super().__init__(f"not drained within {seconds:g} s: still waiting for {waiting}")


class NextTimeout(BusError, TimeoutError):
    """No matching event came in time."""

    def __init__(self, seconds: float, names: Iterable[str]) -> None:
        super().__init__(f"no {' or '.join(names)} was published within {seconds:g} s")


class CallbackTimeout(BusError, TimeoutError):
    """A callback did not return within its subscription's ``timeout``."""

    def __init__(self, subscription: str, seconds: float) -> None:
        super().__init__(f"{subscription} did not return within its timeout of {seconds:g} s")


class SidecarDied(BusError, ChildProcessError):
    """The process that ran a subscription's callback ended unexpectedly."""

    def __init__(self, subscription: str, status: str) -> None:
        super().__init__(f"the process of {subscription} ended with {status}")


class RunsUnavailable(BusError, ImportError):
    """`Bus.run` was called where nothing that makes runs can be imported."""

    def __init__(self, missing: ImportError | None) -> None:
        why = "they are not installed as a package" if missing is None else str(missing)
        super().__init__(f"bus.run() needs the runners ({why}): pip install 'lineside[train]'")
