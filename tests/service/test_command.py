"""``lineside serve``, as a process of its own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

import lineside
from lineside.bus import Bus
from tests.snippets import interpret, run_code

from .support import PATIENCE, Note, begin, end


@contextmanager
def command(*arguments: str, config: Path) -> Generator[tuple[subprocess.Popen[str], str]]:
    """Run ``lineside serve`` and give the link that it prints."""
    env = {**os.environ, "XDG_CONFIG_HOME": str(config)}
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "lineside", "serve", "--port", "0", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=env,
    )
    with process:
        assert process.stdout is not None
        link = re.search(r"http://\S+", process.stdout.readline())
        assert link is not None
        try:
            yield process, link[0]
        finally:
            process.kill()


@pytest.mark.slow
async def test_it_prints_the_link_that_lets_in_and_ends_with_a_signal_while_streams_are_open(tmp_path: Path) -> None:
    with Bus(tmp_path / "runs") as bus:
        source = bus.source("run")
        begin(source)
        source.publish(Note, n=1)
        end(source)
    with command(str(tmp_path / "runs"), config=tmp_path) as (process, link):
        assert link.startswith("http://127.0.0.1:")
        async with lineside.connect(link) as remote:
            assert [event.n async for event in remote.stream(Note, run="run")] == [1]
            stream = remote.stream(run="run", after="now")
            opened = remote.get("/runs/run/events", [], {"accept": "text/event-stream"})
            async with opened as response:
                assert response.status_code == 200
                process.send_signal(signal.SIGINT)
                told = [block async for block in response.aiter_text()]
                assert "event: bye" in told[-1]
            await stream.aclose()
        process.wait(PATIENCE)
    with command(str(tmp_path / "runs"), config=tmp_path) as (_, again):
        assert again.partition("token=")[2] == link.partition("token=")[2] != ""
    with command(str(tmp_path / "runs"), "--no-token", config=tmp_path) as (_, open_):
        assert "token" not in open_


def test_a_missing_folder_is_said_to_be_missing(tmp_path: Path) -> None:
    done = interpret("-m", "lineside", "serve", str(tmp_path / "none"))
    assert (done.returncode, "there is no folder" in done.stderr) == (1, True)


def test_nothing_of_the_service_is_loaded_before_it_is_asked_for() -> None:
    code = """
    import sys, lineside
    from lineside import Bus, Event
    import lineside.commands
    print({"fastapi", "starlette", "uvicorn", "httpx2", "websockets"} & {*sys.modules})
    from lineside import connect
    print({"fastapi", "starlette", "uvicorn", "websockets"} & {*sys.modules})
    """
    assert run_code(code) == "set()\nset()\n"


def test_without_its_packages_the_service_says_what_to_install() -> None:
    code = """
    import sys

    class Missing:
        def find_spec(self, name, path=None, target=None):
            if name.partition(".")[0] in {"fastapi", "httpx2"}:
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    sys.meta_path.insert(0, Missing())
    import lineside
    for name in ("service", "connect"):
        try:
            getattr(lineside, name)
        except ImportError as error:
            print(str(error).rpartition(": ")[2])
    """
    assert run_code(code) == "pip install 'lineside[serve]'\npip install 'lineside[client]'\n"
