"""The process lane of a script: what it can run, and what becomes of it when the script is killed or forked."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from .support import IMPORTABLE, PATIENCE, lines, run_script

pytestmark = pytest.mark.usefixtures("nothing_is_left_of_processes")


def test_a_callback_of_a_script_is_refused_with_what_to_do() -> None:
    done = run_script(
        """
        from lineside.bus import Bus, CallbackRefused

        def mine(event): ...

        class Mine:
            def __call__(self, event): ...
            def write(self, event): ...

        with Bus() as bus:
            for callback in (mine, Mine(), Mine().write):
                try:
                    bus.subscribe(callback, lane="process")
                except CallbackRefused as refusal:
                    print(refusal)
        """
    )
    assert done.stdout.count("put it into a module and pass it, or its name 'package.module:function'") == 3


def test_events_that_a_script_defines_arrive_as_unknown_events_with_all_fields(log: Path) -> None:
    run_script(
        """
        from lineside.bus import Bus
        from lineside.schemas import Event

        class Drift(Event):
            n: int

        with Bus(close_timeout=60) as bus:
            bus.subscribe("lineside_workers:note", lane="process")
            bus.source("run-1").publish(Drift, n=1)
            bus.source("run-1").publish(Drift(n=2))
        """,
        env={"PYTHONPATH": str(IMPORTABLE)},
    )
    assert [line.split()[:4] for line in lines(log)] == [["Drift", "run-1", "1", "1"], ["Drift", "run-1", "2", "2"]]


@pytest.mark.parametrize("timeout", [None, PATIENCE])  # with a time limit, each event is reported
def test_what_was_handed_over_is_handled_when_the_publisher_is_killed(log: Path, timeout: float | None) -> None:
    os.mkfifo(log)
    script = f"""
        import sys
        from lineside.bus import Bus
        from lineside_workers import Job, Survivor

        bus = Bus()
        for n in range(100):
            bus.publish(Job, n=n)
        bus.subscribe(Survivor(), Job, lane="process", since="start"{"" if timeout is None else f", timeout={timeout}"})
        sys.stdin.read()
        """
    command = [sys.executable, "-c", "\n".join(line[8:] for line in script.splitlines())]
    environment = {**os.environ, "PYTHONPATH": str(IMPORTABLE)}
    with (
        subprocess.Popen(command, stdin=subprocess.PIPE, env=environment) as publisher,
        log.open(encoding="utf-8") as told,
    ):
        assert told.readline() == "begun\n"
        publisher.kill()
        publisher.wait(PATIENCE)
        assert told.read().splitlines() == [*map(str, range(100)), "closed"]  # to the end: the process has ended


def test_a_forked_worker_of_the_publisher_does_not_keep_the_process_from_ending_well(log: Path) -> None:
    run_script(
        """
        import os, signal, warnings
        from lineside.bus import Bus
        from lineside_workers import Counter, Job

        with Bus() as bus:
            bus.subscribe(Counter(0), Job, lane="process")
            bus.publish(Job, n=1)
            bus.drain()
            child = os.fork()  # holds copies of the pipes
            if child == 0:
                signal.pause()
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        """,
        env={"PYTHONPATH": str(IMPORTABLE)},
    )
    assert lines(log) == ["1", "closed"]
