from __future__ import annotations

import pytest

from .support import PATIENCE


@pytest.fixture
def long_goodbye(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever is stopped with the service has all the time to hear of it."""
    monkeypatch.setattr("lineside.runners.serving.service.GOODBYE_SECONDS", PATIENCE)
