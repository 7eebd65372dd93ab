from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from lineside.bus import Bus
from lineside.bus.service import service

from .browser import browser as running_browser
from .support import folder_of, serving, url


@pytest.fixture(scope="module")
def browser() -> Generator[Browser]:
    with running_browser() as browser:
        yield browser


@pytest.fixture
def bus(tmp_path: Path) -> Generator[Bus]:
    with Bus(tmp_path / "runs") as bus:
        yield bus


@pytest.fixture
def address(bus: Bus) -> Generator[str]:
    """Of a service beside the process: it reads the folder."""
    with serving(service(folder_of(bus), token=None)) as server:
        yield url(server)
