"""Hooks with a time limit, and what is said of those that take long without one."""

from __future__ import annotations

import asyncio
import logging
import math
import re
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from lineside.bus import Bus
from lineside.runners import HookTimeout, InvalidHook, Trainer, stand
from lineside.schemas import Event, FitEpochEnd, RunEnd, TrainBatchEnd, TrainEpochEnd

from .support import PATIENCE, make_trainer, names, of, start


@pytest.fixture
def trainer(tmp_path: Path) -> Trainer:
    return make_trainer(tmp_path, epochs=1)


async def test_an_async_hook_that_takes_too_long_is_cancelled_and_ends_the_run(trainer: Trainer) -> None:
    cancelled = asyncio.Event()

    @trainer.hook(TrainEpochEnd, timeout=0.05)
    async def report(event: Event, trainer: Trainer) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    run = trainer.start()
    expected = rf"report did not return within its timeout of 0.05 s at TrainEpochEnd of run '{run.id}'"
    with pytest.raises(HookTimeout, match=expected) as caught:
        await run
    assert isinstance(caught.value, TimeoutError)
    await asyncio.wait_for(cancelled.wait(), PATIENCE)
    assert names(run.stream())[-2:] == ["Teardown", "RunEnd"]
    assert of(run.stream(), RunEnd)[0].error.type == "lineside.runners.errors.HookTimeout"


def test_a_plain_hook_that_takes_too_long_is_left_behind(trainer: Trainer) -> None:
    opened = threading.Event()
    ended = threading.Event()

    def report(trainer: Trainer) -> None:
        opened.wait(PATIENCE)
        ended.set()

    trainer.add_callback("on_train_epoch_end", report, timeout=0.05)
    with pytest.raises(HookTimeout, match="report did not return within its timeout"):
        trainer.run()
    assert not ended.is_set()
    opened.set()
    assert ended.wait(PATIENCE)


def test_a_hook_that_swallows_its_cancellation_does_not_hold_the_run(tmp_path: Path) -> None:
    with Bus() as bus:
        trainer = make_trainer(tmp_path, epochs=1, bus=bus)
        opened: list[asyncio.Event] = []

        @trainer.hook(TrainEpochEnd, timeout=0.05)
        async def stubborn(event: Event, trainer: Trainer) -> None:
            opened.append(asyncio.Event())
            with suppress(asyncio.CancelledError):
                await opened[0].wait()
            await opened[0].wait()

        with pytest.raises(HookTimeout):
            trainer.run()

        def release() -> None:
            for event in opened:  # none where the hook was cancelled before it began
                event.set()

        bus.loop.call_soon_threadsafe(release)


@pytest.mark.parametrize("kind", ["async", "plain", "plain that returns an awaitable"])
def test_a_hook_that_returns_in_time_steers_as_without_a_limit(trainer: Trainer, kind: str) -> None:
    calls: list[Any] = []

    def plain(event: TrainBatchEnd, trainer: Trainer) -> None:
        calls.append((event.batch, threading.current_thread().name))
        if event.batch == 1:
            trainer.stop("seen enough")

    async def asynchronous(event: TrainBatchEnd, trainer: Trainer) -> None:
        plain(event, trainer)

    def returns(event: TrainBatchEnd, trainer: Trainer) -> Any:
        return asynchronous(event, trainer)

    hook = {"async": asynchronous, "plain": plain}.get(kind, returns)
    assert trainer.hook(TrainBatchEnd, timeout=PATIENCE)(hook).timeout == PATIENCE
    result = trainer.run()
    assert (result.outcome, result.reason) == ("stopped", "seen enough")
    assert [batch for batch, _ in calls] == [0, 1]
    assert all(thread.startswith("lineside-hook") for _, thread in calls) == (kind == "plain")


@pytest.mark.parametrize("kind", ["async", "plain"])
def test_what_a_hook_with_a_limit_raises_ends_the_run_as_it_is(trainer: Trainer, kind: str) -> None:
    def plain(event: Event, trainer: Trainer) -> None:
        raise TimeoutError("the hook's own")

    async def asynchronous(event: Event, trainer: Trainer) -> None:
        plain(event, trainer)

    trainer.hook(TrainEpochEnd, timeout=PATIENCE)(plain if kind == "plain" else asynchronous)
    with pytest.raises(TimeoutError, match="the hook's own") as caught:
        trainer.run()
    assert not isinstance(caught.value, HookTimeout)


@pytest.mark.parametrize("timeout", [0, -1, math.inf, math.nan, "5", True])
def test_a_time_limit_that_is_none_is_refused(trainer: Trainer, timeout: Any) -> None:
    def report(*_: object) -> None: ...

    with pytest.raises(InvalidHook, match="report cannot be registered: timeout=.*expected seconds above 0"):
        trainer.hook(TrainEpochEnd, timeout=timeout)(report)
    with pytest.raises(InvalidHook, match="timeout="):
        trainer.add_callback("on_train_epoch_end", report, timeout=timeout)


# ---- what is said of those that take long


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> Iterator[Complaints]:
    monkeypatch.setattr(stand, "PATIENCE_SECONDS", 0.02)
    complaints = Complaints()
    logging.getLogger("lineside.runners").addHandler(complaints)
    yield complaints
    logging.getLogger("lineside.runners").removeHandler(complaints)


class Complaints(logging.Handler):
    """Lets a test wait for so many lines."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self._more = threading.Condition()

    def emit(self, record: logging.LogRecord) -> None:
        with self._more:
            self.lines.append(record.getMessage())
            self._more.notify_all()

    def wait(self, count: int) -> list[str]:
        with self._more:
            assert self._more.wait_for(lambda: len(self.lines) >= count, PATIENCE)
            return list(self.lines)


async def test_a_run_that_waits_long_for_a_hook_says_for_which_and_who_waits_for_the_run(
    trainer: Trainer, impatient: Complaints
) -> None:
    free = asyncio.Event()

    @trainer.hook(TrainEpochEnd)
    async def report(event: Event, trainer: Trainer) -> None:
        await free.wait()

    run = start(trainer)
    waiting = asyncio.ensure_future(_next(run))
    lines = await asyncio.to_thread(impatient.wait, 2)
    free.set()
    await run
    await waiting
    for line in lines:
        assert line.startswith(f"run {run.id} has been waiting for the hook `")
        assert re.search(r"report` at TrainEpochEnd for \d+ s; waiting for the run: run\.next\(FitEpochEnd\)", line)
    assert len(impatient.lines) < 20  # each time twice as long


async def _next(run: Any) -> None:
    await run.next(FitEpochEnd)


async def test_a_run_that_is_held_long_says_where(trainer: Trainer, impatient: Complaints) -> None:
    run = start(trainer)
    async with run.hold(TrainEpochEnd):
        line = (await asyncio.to_thread(impatient.wait, 1))[0]
    await run
    assert re.fullmatch(rf"run {run.id} has been waiting for a hold on TrainEpochEnd for \d+ s(; waiting.*)?", line)


async def test_a_run_that_is_paused_says_nothing(trainer: Trainer, tmp_path: Path, impatient: Complaints) -> None:
    run = start(trainer)
    async with run.hold(TrainBatchEnd):
        run.pause()
    await make_trainer(tmp_path / "another", save=False).start()
    run.resume()
    await run
    assert [line for line in impatient.lines if "a hold" not in line] == []
