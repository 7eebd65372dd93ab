"""How `gpu.py` finds out that somebody waits for a CUDA device."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any, Literal
from unittest.mock import patch

import torch


class Watch:
    """Looks for waits for the device, in any thread: ``warn`` counts them, ``error`` refuses them.

    torch's sync debug mode sees waits for copies and for streams. Who waits for the whole device, or for an event
    that is not there yet, is counted in both modes.
    """

    def __init__(self, mode: Literal["warn", "error"]) -> None:
        self.waits = 0
        self._mode = mode
        self._undo = ExitStack()

    def begin(self) -> None:
        caught = self._undo.enter_context(warnings.catch_warnings(record=True))
        warnings.simplefilter("always")
        self._undo.callback(self._count, caught)
        self._undo.enter_context(patch.object(torch.cuda, "synchronize", self._device_synchronize()))
        self._undo.enter_context(patch.object(torch.cuda.Event, "synchronize", self._event_synchronize()))
        self._undo.callback(torch.cuda.set_sync_debug_mode, "default")
        torch.cuda.set_sync_debug_mode(self._mode)

    def end(self) -> None:
        """Look no longer; ending twice is fine."""
        self._undo.close()

    def _count(self, caught: Sequence[warnings.WarningMessage]) -> None:
        self.waits += sum("called a synchronizing" in str(warning.message) for warning in caught)

    def _device_synchronize(self) -> Any:
        original = torch.cuda.synchronize

        def synchronize(device: Any = None) -> None:
            self.waits += 1
            original(device)

        return synchronize

    def _event_synchronize(self) -> Any:
        original = torch.cuda.Event.synchronize

        def synchronize(event: torch.cuda.Event) -> None:
            self.waits += not event.query()
            original(event)

        return synchronize
