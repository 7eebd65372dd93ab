from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import psutil
import pytest

from lineside.bus import Bus

from .support import IMPORTABLE, PATIENCE


@pytest.fixture
def bus() -> Iterator[Bus]:
    with Bus() as bus:
        yield bus


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:  # pyright: ignore[reportUnusedFunction]
    """What a test leaves running would be found by another."""
    before = set(threading.enumerate())
    yield
    left = [thread for thread in threading.enumerate() if thread not in before and thread.name.startswith("lineside")]
    for thread in left:
        thread.join(PATIENCE)
    assert not [thread for thread in left if thread.is_alive()]


@pytest.fixture
def workers(monkeypatch: pytest.MonkeyPatch, log: Path) -> Any:
    """The module of callbacks, importable here and in the other process."""
    monkeypatch.setattr(sys, "path", [str(IMPORTABLE), *sys.path])
    return import_module("lineside_workers")


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "log"
    monkeypatch.setenv("WORKER_LOG", str(path))
    return path


@pytest.fixture
def processes() -> Callable[[], set[psutil.Process]]:
    """Return what finds the processes that the test has begun; multiprocessing may keep some of an earlier one."""
    process = psutil.Process()
    before = set(process.children())
    return lambda: set(process.children()) - before


@pytest.fixture
def nothing_is_left_of_processes(processes: Callable[[], set[psutil.Process]]) -> Iterator[None]:
    process = psutil.Process()
    before = process.num_fds()
    yield
    assert not processes()  # a zombie would be one
    deadline = time.monotonic() + PATIENCE  # a lane that was left behind closes its pipes once its process is gone
    while process.num_fds() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert process.num_fds() <= before
