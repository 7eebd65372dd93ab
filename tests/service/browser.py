"""A real browser for the tests of the dashboard: one that is installed, else Debian's, else Playwright's own.

``python -m tests.service.browser`` gets it beforehand: installing one takes longer than a test may.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, expect, sync_playwright

EXPECT_MILLISECONDS = 30_000
"""What a page may take on a busy machine, where how soon is not the question."""
NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run")
APT = {"DEBIAN_FRONTEND": "noninteractive"}


def browser_path() -> str | None:
    """Return where a browser is, after installing one if need be; None: where Playwright puts its own.

    Raises:
        RuntimeError: there is none, and none could be installed.
    """
    with _alone():
        path = _installed() or _from_apt()
        if path is None:
            _from_playwright()
        return path


@contextmanager
def browser() -> Generator[Browser]:
    """Run a browser for the length of the block."""
    expect.set_options(timeout=EXPECT_MILLISECONDS)
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=browser_path(), headless=True, args=list(FLAGS))
        try:
            yield running
        finally:
            running.close()


@contextmanager
def _alone() -> Generator[None]:
    """Let one process at a time install something."""
    with (Path(tempfile.gettempdir()) / f"lineside-browser-{os.getuid()}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _installed() -> str | None:
    # Some of these names are stubs that only say where to get the real one.
    return next((path for name in NAMES if (path := shutil.which(name)) and _run(path, "--version")), None)


def _from_apt() -> str | None:
    if os.geteuid() or not shutil.which("apt-get"):
        return None
    _run("apt-get", "update", "-qq")
    _run("apt-get", "install", "-y", "-qq", "--no-install-recommends", "chromium", "fonts-dejavu-core")
    return _installed()


def _from_playwright() -> None:
    arguments = ["install", *(["--with-deps"] if not os.geteuid() and shutil.which("apt-get") else []), "chromium"]
    if not _run(sys.executable, "-m", "playwright", *arguments):
        raise RuntimeError(
            "no browser for the tests of the dashboard: install chromium, e.g. with `apt install chromium`, or let "
            f"`{sys.executable} -m playwright install chromium` say why it cannot"
        )


def _run(*command: str) -> bool:
    done = subprocess.run(command, env=os.environ | APT, capture_output=True, check=False, timeout=900)
    return done.returncode == 0


if __name__ == "__main__":
    print(browser_path() or "Playwright's own")
