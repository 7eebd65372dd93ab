"""How word travels: the log, the sequencer that numbers events, and the subscriptions that read them."""

from .bus import Bus, BusStats
from .ending import CloseReport
from .errors import (
    BusClosed,
    BusError,
    BusForked,
    CallbackRefused,
    CallbackTimeout,
    DrainTimeout,
    NextTimeout,
    PolicyRefused,
    RunIdRefused,
    RunsUnavailable,
    SidecarDied,
    WouldDeadlock,
)
from .pending import Pending
from .policy import Lane, Mark, Overflow, Policy, PolicyKeywords
from .source import Source
from .stream import Stream
from .subscription import Subscription, SubscriptionStats
from .tracking import Tracked

__all__ = [
    "Bus",
    "BusClosed",
    "BusError",
    "BusForked",
    "BusStats",
    "CallbackRefused",
    "CallbackTimeout",
    "CloseReport",
    "DrainTimeout",
    "Lane",
    "Mark",
    "NextTimeout",
    "Overflow",
    "Pending",
    "Policy",
    "PolicyKeywords",
    "PolicyRefused",
    "RunIdRefused",
    "RunsUnavailable",
    "SidecarDied",
    "Source",
    "Stream",
    "Subscription",
    "SubscriptionStats",
    "Tracked",
    "WouldDeadlock",
]
