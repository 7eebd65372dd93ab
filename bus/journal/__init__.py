"""The journal: the log on disk, in a folder that outlives the process."""

from .errors import JournalDegraded, JournalError, JournalRefused, JournalUnreadable
from .file import Durability
from .folder import Journal

__all__ = ["Durability", "Journal", "JournalDegraded", "JournalError", "JournalRefused", "JournalUnreadable"]
