"""Scripts of what several threads and tasks do to one run at the same time, and what must be true after any of them."""

from __future__ import annotations

import asyncio
import concurrent.futures
import faulthandler
import random
import re
import sys
import threading
from collections.abc import Callable, Coroutine, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from lineside.bus import Bus
from lineside.runners import JobRefused, Run, RunEnded, StageNotReached, Trainer
from lineside.schemas import (
    Event,
    FitEpochEnd,
    ModelSave,
    OptimizerStep,
    RunEnd,
    Teardown,
    TrainBatchEnd,
    TrainBatchStart,
    TrainEnd,
    TrainEpochEnd,
    TrainEpochStart,
    ValBatchEnd,
)

from .shaking import shaken
from .support import sgd

DEADLINE = 60.0
"""Seconds after which a schedule hangs; it takes some hundredths."""

STAGES: tuple[type[Event], ...] = (
    TrainBatchStart,
    OptimizerStep,
    TrainBatchEnd,
    TrainEpochStart,
    TrainEpochEnd,
    ValBatchEnd,
    ModelSave,
    FitEpochEnd,
    TrainEnd,
    Teardown,
    RunEnd,
)
AT_THE_END = (ModelSave, TrainEnd, Teardown, RunEnd)
"""Stages that a run which nobody stops does not reach."""
Inner = Literal["nothing", "checkpoint", "evaluate", "insist", "stop", "pause and resume", "look"]
INNER: tuple[Inner, ...] = ("nothing", "checkpoint", "evaluate", "insist", "stop", "pause and resume", "look")
Kind = Literal["next", "follow", "hold", "pause", "do", "result", "cancelled"]
KINDS: tuple[Kind, ...] = ("next", "follow", "hold", "pause", "do", "result", "cancelled")
EXPECTED = (RunEnded, StageNotReached, JobRefused)
"""What may be answered to whoever asks too late, or at the wrong stage."""

INSISTENCE = 20
"""Times that an actor who insists asks again as soon as it has its answer."""

INPUTS = [torch.ones(2, 2), torch.zeros(2, 2)]
BATCHES = [(inputs, inputs[:, :1]) for inputs in INPUTS]


@dataclass(frozen=True)
class Step:
    """One thing that an actor does."""

    kind: Kind
    stage: int
    inner: Inner
    turns: int
    """Turns of the loop before a task is cancelled."""


@dataclass(frozen=True)
class Script:
    """What is done to one run: by threads, by tasks on the loop, by its hooks."""

    threads: tuple[tuple[Step, ...], ...]
    tasks: tuple[tuple[Step, ...], ...]
    hooks: tuple[Step, ...]
    epochs: int | None
    """None: the run goes on until everybody is done, and is then stopped."""
    shake: int | None = None
    """The seed of `shaken`; None: threads are switched as ever."""


def random_script(seed: int) -> Script:
    """A script of three threads and three tasks at most, and a hook or two."""
    draw = random.Random(seed)

    def step() -> Step:
        inner = draw.choice(INNER)
        kind = draw.choice(KINDS)
        if inner == "stop" and kind != "pause" and draw.random() < 0.8:  # else few runs would come far
            inner = "nothing"
        return Step(kind, draw.randrange(len(STAGES)), inner, draw.randrange(4))

    def actors(most: int) -> tuple[tuple[Step, ...], ...]:
        return tuple(tuple(step() for _ in range(draw.randrange(1, 4))) for _ in range(draw.randrange(most + 1)))

    hooks = tuple(step() for _ in range(draw.randrange(3)))
    return Script(actors(3), actors(3), hooks, draw.choice([1, 2, 3, None, None]), seed if seed % 4 else None)


class Hangs(AssertionError):
    """A schedule has not come to its end."""

    def __init__(self, script: Script, run: Run[Any]) -> None:
        super().__init__(f"hangs: {script}, {run!r}")
        self.run = run


def play(script: Script, bus: Bus, folder: Path, name: str, patience: float = DEADLINE) -> None:
    """Play `script` on a real run, and check all that must be true afterwards; `Hangs` after `patience` seconds."""
    trainer = Trainer(
        nn.Linear(2, 1),
        BATCHES,
        val=BATCHES,
        loss=nn.functional.mse_loss,
        optimizer=sgd(0.01),
        bus=bus,
        device="cpu",
        name=name,
        directory=folder,
        overwrite=True,
        epochs=script.epochs,
        max_steps=10**9,
        save=False,
    )
    with nullcontext() if script.shake is None else shaken(script.shake):
        asyncio.run(_play(script, trainer, folder, patience))


async def _play(script: Script, trainer: Trainer, folder: Path, patience: float) -> None:
    holder: list[Run[Any]] = []
    for step in script.hooks:
        _add_hook(trainer, step, holder, folder, script)
    faulthandler.dump_traceback_later(DEADLINE + 10, file=2)  # also where the loop itself is stopped
    opened = threading.Event()
    trainer.hook("RunStart")(lambda event, _: opened.wait(DEADLINE))
    run = trainer.start()
    holder.append(run)
    actors = _Actors(run, folder, script)
    deadline = asyncio.timeout(patience)
    try:
        async with deadline:
            done = [actors.in_thread(steps) for steps in script.threads]
            done += [asyncio.ensure_future(actors.on_loop(steps)) for steps in script.tasks]
            told = run.stream()
            opened.set()
            await asyncio.gather(*done)
            if script.epochs is None:
                run.stop("everybody is done")
            result = await run
    except TimeoutError:
        if not deadline.expired():
            raise
        if patience == DEADLINE:
            faulthandler.dump_traceback(file=2)
            for task in asyncio.all_tasks():
                task.print_stack(file=sys.__stderr__)
        raise Hangs(script, run) from None
    finally:
        opened.set()
        faulthandler.cancel_dump_traceback_later()
    assert result.outcome in ("completed", "stopped")
    check_events([event async for event in told])
    check_threads(run)


def _add_hook(trainer: Trainer, step: Step, holder: list[Run[Any]], folder: Path, script: Script) -> None:
    stage = STAGES[step.stage]
    calls: list[None] = []

    def again() -> bool:
        calls.append(None)
        return len(calls) <= 3  # a hook that writes a file in every batch would only be slow

    @trainer.hook(stage)
    async def on_loop(event: Event, trainer: Trainer) -> None:
        if again():
            with suppress(*EXPECTED):
                await _Actors(holder[0], folder, script).inner(step)

    @trainer.hook(stage, timeout=DEADLINE if step.turns % 2 else None)
    def in_thread(event: Event, trainer: Trainer) -> None:
        if again():
            with suppress(*EXPECTED):
                _Actors(holder[0], folder, script).inner_blocking(step)


class _Actors:
    """Carry out steps on a run."""

    def __init__(self, run: Run[Any], folder: Path, script: Script) -> None:
        self._run = run
        self._endless = script.epochs is None
        self._file = folder / f"{run.id}.pt"

    def _timeout(self, step: Step) -> float | None:
        """How long to wait for the stage: not for ever where a run that nobody stops never reaches it."""
        first = 0.002 if self._endless and STAGES[step.stage] in AT_THE_END else None
        return [first, 0.0, 0.001, first][step.turns]

    # ---- in threads

    def in_thread(self, steps: Sequence[Step]) -> asyncio.Future[None]:
        """Do `steps` in a thread of their own; the future is done when it is."""
        done: concurrent.futures.Future[None] = concurrent.futures.Future()
        done.set_running_or_notify_cancel()  # from now on nobody can cancel it

        def work() -> None:
            try:
                for step in steps:
                    with suppress(*EXPECTED):
                        self._do(step)
                done.set_result(None)
            except BaseException as error:
                done.set_exception(error)

        threading.Thread(target=work, name="actor", daemon=True).start()
        return asyncio.wrap_future(done)

    def _do(self, step: Step) -> None:
        run, stage = self._run, STAGES[step.stage]
        match step.kind:
            case "next":
                asyncio.run(_discard(run.next(stage, timeout=self._timeout(step))))
            case "follow":
                with run.hold(stage, timeout=self._timeout(step)):
                    self.inner_blocking(step)
                asyncio.run(_discard(run.next(stage, timeout=self._timeout(step))))
            case "hold":
                with run.hold(stage, timeout=self._timeout(step)):
                    self.inner_blocking(step)
            case "pause":
                run.pause()
                if step.inner == "stop":  # which ends a pause by itself
                    run.evaluate(BATCHES[:1]).result()  # now it stands
                    run.stop("an actor said so")
                    return
                try:
                    self.inner_blocking(step)
                finally:
                    run.resume()
            case "result" | "cancelled":
                run.result(0.001 * step.turns)
            case "do":
                self.inner_blocking(step)

    def inner_blocking(self, step: Step) -> None:
        run = self._run
        match step.inner:
            case "checkpoint":
                run.checkpoint(self._file).result()
            case "evaluate":
                run.evaluate(BATCHES[:1]).result()
            case "insist":
                for _ in range(INSISTENCE):
                    with suppress(JobRefused):  # it has no folder: an answer that costs no time
                        run.checkpoint().result()
            case _:
                self._at_once(step.inner)

    # ---- on the loop

    async def on_loop(self, steps: Sequence[Step]) -> None:
        """Do `steps` in the calling task."""
        for step in steps:
            with suppress(*EXPECTED):
                await self._ado(step)

    async def _ado(self, step: Step) -> None:
        run, stage = self._run, STAGES[step.stage]
        match step.kind:
            case "next":
                await run.next(stage, timeout=self._timeout(step))
            case "follow":
                await self._hold(step)
                await run.next(stage, timeout=self._timeout(step))
            case "hold":
                await self._hold(step)
            case "pause":
                run.pause()
                if step.inner == "stop":
                    await run.evaluate(BATCHES[:1])
                    run.stop("an actor said so")
                    return
                try:
                    await self.inner(step)
                finally:
                    run.resume()
            case "result":
                await _cancelled(_discard(run), step.turns)
            case "cancelled":
                await _cancelled(self._hold(step), step.turns)
            case "do":
                await self.inner(step)

    async def _hold(self, step: Step) -> None:
        async with self._run.hold(STAGES[step.stage], timeout=self._timeout(step)):
            await self.inner(step)

    async def inner(self, step: Step) -> None:
        run = self._run
        match step.inner:
            case "checkpoint":
                await run.checkpoint(self._file)
            case "evaluate":
                await run.evaluate(BATCHES[:1])
            case "insist":
                for _ in range(INSISTENCE):
                    with suppress(JobRefused):
                        await run.checkpoint()
            case _:
                self._at_once(step.inner)

    def _at_once(self, inner: Inner) -> None:
        run = self._run
        match inner:
            case "stop":
                run.stop("an actor said so")
            case "pause and resume":
                run.pause()
                run.resume()
            case "look":
                assert run.state in repr(run) or run.done() or run.state
            case _:
                pass


async def _discard(awaitable: Any) -> None:
    await awaitable


async def _cancelled(coroutine: Coroutine[Any, Any, None], turns: int) -> None:
    task = asyncio.ensure_future(coroutine)
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    with suppress(asyncio.CancelledError, *EXPECTED):
        await task


# ---- what must be true afterwards

_LETTERS = {
    "RunStart": "R", "PretrainRoutineStart": "P", "PretrainRoutineEnd": "Q", "TrainStart": "S",
    "TrainEpochStart": "E", "TrainBatchStart": "B", "OptimizerStep": "O", "ParamsUpdate": "U",
    "BeforeZeroGrad": "Z", "TrainBatchEnd": "b", "TrainEpochEnd": "e", "ValStart": "V",
    "ValBatchStart": "v", "ValBatchEnd": "w", "ValEnd": "W", "FitEpochEnd": "F",
    "TrainEnd": "T", "Teardown": "D", "RunEnd": "X",
}  # fmt: skip
_WHOLE = "E(BOUZb)*e(V(vw)*W)F"
_BROKEN_OFF = "E(BOUZb)*(e(V(vw)*W?)?)?"
_ORDER = re.compile(f"RPQS({_WHOLE})*({_BROKEN_OFF})?TDX")
_ASIDE = re.compile("(V(vw)*W?)*")


def check_events(events: Sequence[Any]) -> None:
    """`events` of a run are in the order that is promised, none twice, none left out, ``RunEnd`` last."""
    aside = [event for event in events if getattr(event, "aside", False)]
    own = [event for event in events if not getattr(event, "aside", False) and event.type != "ModelSave"]
    order = "".join(_LETTERS[event.type] for event in own)
    assert _ORDER.fullmatch(order), order
    assert _ASIDE.fullmatch("".join(_LETTERS[event.type] for event in aside))
    assert [event.seq for event in events] == sorted({event.seq for event in events})
    steps = [event.step for event in own if isinstance(event, TrainBatchEnd)]
    assert steps == list(range(1, len(steps) + 1))
    batches = [(event.epoch, event.batch) for event in own if isinstance(event, TrainBatchEnd)]
    assert batches == [divmod(step, len(BATCHES)) for step in range(len(steps))]


def check_threads(run: Run[Any], but: Callable[[str], bool] = lambda _: False) -> None:
    """No thread of the run or its hooks is left."""
    for thread in threading.enumerate():
        if thread.name.startswith((f"lineside-{run.id}", "lineside-hook", "actor")) and not but(thread.name):
            thread.join(DEADLINE)
            assert not thread.is_alive(), thread
