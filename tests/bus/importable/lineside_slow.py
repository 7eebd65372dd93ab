"""An event whose module takes its time to import in another process."""

from __future__ import annotations

import sys
import threading

from lineside.schemas import Event

if "pytest" not in sys.modules:  # in the other process
    threading.Event().wait(1.5)


class Slow(Event, name="workers.Slow"):
    n: int
