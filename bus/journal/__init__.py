"""The journal: the log on disk, in a folder that outlives the process."""

from .errors import (
    InvalidPosition,
    InvalidRetention,
    InvalidSpeed,
    JournalDegraded,
    JournalError,
    JournalRefused,
    JournalUnreadable,
    PruneFailed,
    UnknownRun,
)
from .file import Check, Durability, Origin, Span
from .folder import Journal
from .replaying import replay
from .runs import RunSummary, State
from .tail import Gap, Tail, Told

__all__ = [
    "Check",
    "Durability",
    "Gap",
    "InvalidPosition",
    "InvalidRetention",
    "InvalidSpeed",
    "Journal",
    "JournalDegraded",
    "JournalError",
    "JournalRefused",
    "JournalUnreadable",
    "Origin",
    "PruneFailed",
    "RunSummary",
    "Span",
    "State",
    "Tail",
    "Told",
    "UnknownRun",
    "replay",
]
