"""The proof that the schedules can hang: each part of the steering is broken on purpose, and that is found out."""
# pyright: reportPrivateUsage=false, reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from lineside.bus import Bus
from lineside.runners import HookInterrupted, Run
from lineside.runners.control import Control
from lineside.runners.hold import Hold, Holds

from .interleavings import DEADLINE, Hangs, play, random_script

SCHEDULES = 300
"""In so many schedules each fault must show."""
PATIENCE = 2.0
"""Seconds after which a schedule hangs."""


def let_a_stopped_loop_stand() -> Any:
    def stop(control: Control, reason: str, signal: int | None = None) -> None:
        control.reason = control.reason or reason
        control.requested = True

    return mock.patch.object(Control, "stop", stop)


def let_a_resumed_loop_stand() -> Any:
    def resume(control: Control) -> None:
        control._paused = False

    return mock.patch.object(Control, "resume", resume)


def forget_at_the_end_what_was_asked() -> Any:
    return mock.patch.object(Control, "_fail_jobs", return_value=None)


def keep_the_end_to_oneself() -> Any:
    return mock.patch.object(Holds, "_tell", return_value=None)


def leave_the_hook_of_a_hold_that_timed_out() -> Any:
    release = Hold._release

    def broken(hold: Hold[Any]) -> None:
        if hold._member is not None:
            release(hold)

    return mock.patch.object(Hold, "_release", broken)


FAULTS: list[Callable[[], AbstractContextManager[Any]]] = [
    let_a_stopped_loop_stand,
    let_a_resumed_loop_stand,
    forget_at_the_end_what_was_asked,
    keep_the_end_to_oneself,
    leave_the_hook_of_a_hold_that_timed_out,
]


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS, ids=[fault.__name__ for fault in FAULTS])
def test_a_fault_in_the_steering_makes_a_schedule_hang(
    fault: Callable[[], AbstractContextManager[Any]], tmp_path: Path
) -> None:
    with Bus() as bus:
        with fault():
            run = first_that_hangs(bus, tmp_path)
        assert run is not None
        repair(run)


def first_that_hangs(bus: Bus, folder: Path) -> Run[Any] | None:
    for seed in range(SCHEDULES):
        try:
            # Not shaken: these faults show without, and sooner.
            play(replace(random_script(seed), shake=None), bus, folder, f"schedule-{seed}", patience=PATIENCE)
        except Hangs as hangs:
            return hangs.run
    return None


def repair(run: Run[Any]) -> None:
    """Do what the fault left undone: else its threads would wait for ever."""
    holds = run._holds
    for hold in list(holds._waiting):
        hold._release()
    run.stop("it hangs")
    with suppress(HookInterrupted):  # the schedule's loop is closed
        run.result(DEADLINE)
    holds.control.end()
    holds.end()
