"""Waits that could never end: each is refused, and says who waits for whom; what could end is allowed."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from lineside.bus import Bus
from lineside.runners import Run, Trainer, WouldDeadlock
from lineside.schemas import Event, FitEpochEnd, RunEnd, TrainBatchEnd, TrainEpochEnd, TrainEpochStart, TrainStart
from tests.turns import begin, turn

from .support import PATIENCE, Gate, make_loader, make_trainer, start


@pytest.fixture
def trainer(tmp_path: Path) -> Trainer:
    return make_trainer(tmp_path)


@pytest.fixture
def gate(trainer: Trainer) -> Gate:
    return Gate(trainer)


async def _await(run: Run[Any]) -> None:
    await run


async def _next(run: Run[Any]) -> None:
    await run.next(TrainBatchEnd)


async def _hold(run: Run[Any]) -> None:
    async with run.hold(TrainBatchEnd):
        pass


async def _result(run: Run[Any]) -> None:
    run.result()


async def _hold_blocking(run: Run[Any]) -> None:
    with run.hold(TrainBatchEnd):
        pass


Wait = Callable[[Run[Any]], Coroutine[Any, Any, None]]
WAITS: dict[str, Wait] = {
    "await run": _await,
    "run.next(TrainBatchEnd)": _next,
    "hold(TrainBatchEnd)": _hold,
    "run.result()": _result,
    "hold(TrainBatchEnd), blocking": _hold_blocking,
}


async def by_itself(wait: Coroutine[Any, Any, None]) -> None:
    await wait


async def gathered(wait: Coroutine[Any, Any, None]) -> None:
    await asyncio.gather(wait, asyncio.sleep(0))


async def in_a_task(wait: Coroutine[Any, Any, None]) -> None:
    await asyncio.create_task(wait)


async def in_a_group(wait: Coroutine[Any, Any, None]) -> None:
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(wait)
    except* WouldDeadlock as found:
        raise found.exceptions[0] from None


async def in_a_thread(wait: Coroutine[Any, Any, None]) -> None:
    await asyncio.to_thread(asyncio.run, wait)


WAYS: list[Callable[[Coroutine[Any, Any, None]], Awaitable[None]]] = [
    by_itself,
    gathered,
    in_a_task,
    in_a_group,
    in_a_thread,
]


@pytest.mark.parametrize("attempted", WAITS)
@pytest.mark.parametrize("way", WAYS)
async def test_a_hook_cannot_wait_for_its_own_run_in_any_way(trainer: Trainer, attempted: str, way: Any) -> None:
    refused: list[str] = []

    @trainer.hook(TrainEpochEnd)
    async def report(event: Event, trainer: Trainer) -> None:
        with pytest.raises(WouldDeadlock) as caught:
            await way(WAITS[attempted](run))
        refused.append(str(caught.value))

    run = trainer.start()
    assert (await run).outcome == "completed"
    attempted = attempted.removesuffix(", blocking")
    assert len(refused) == 2
    assert refused[0].startswith(f"{attempted} would wait for ever: run {run.id} waits for the hook `")
    assert refused[0].endswith(
        f"report` at TrainEpochEnd, and `{attempted}` would wait for the run; return from the hook first"
    )


@pytest.mark.parametrize("attempted", WAITS)
@pytest.mark.parametrize("way", WAYS)
async def test_a_holder_cannot_wait_for_the_run_in_any_way(trainer: Trainer, attempted: str, way: Any) -> None:
    run = start(trainer)
    async with run.hold(TrainEpochEnd):
        expected = f"run {run.id} waits for a hold on TrainEpochEnd, and `.*` would wait for the run; leave the `with"
        with pytest.raises(WouldDeadlock, match=expected):
            await way(WAITS[attempted](run))
    assert (await run).outcome == "completed"


@pytest.mark.parametrize("timeout", [None, PATIENCE])
def test_a_plain_hook_cannot_wait_for_its_own_run(trainer: Trainer, timeout: float | None) -> None:
    refused: list[str] = []
    handed_over: list[Run[Any]] = []
    over = threading.Event()

    @trainer.hook(TrainEpochEnd, timeout=timeout)
    def report(event: Event, trainer: Trainer) -> None:
        assert over.wait(PATIENCE)
        run = handed_over[0]
        for wait in (run.result, lambda: asyncio.run(_await(run)), lambda: run.hold(TrainStart).__enter__()):
            with pytest.raises(WouldDeadlock, match="waits for the hook `.*report` at TrainEpochEnd"):
                wait()
            refused.append("refused")

    run = trainer.start()
    handed_over.append(run)
    over.set()
    assert run.result(PATIENCE).outcome == "completed"
    assert len(refused) == 6


async def test_what_a_hook_leaves_running_behind_it_may_wait(trainer: Trainer) -> None:
    left: list[asyncio.Task[None]] = []
    free = asyncio.Event()

    async def behind() -> None:
        await free.wait()
        await run.next(RunEnd)

    @trainer.hook(TrainStart)
    async def begins(event: Event, trainer: Trainer) -> None:
        left.append(asyncio.create_task(behind()))

    run = start(trainer)
    async with run.hold(TrainEpochEnd):
        free.set()
        await turn()
        await turn()
        inside = asyncio.create_task(_await(run))  # begins to wait when the block is left
    await run
    await asyncio.gather(inside, *left)


async def test_a_hook_may_wait_for_another_run(trainer: Trainer, tmp_path: Path) -> None:
    outcomes: list[str] = []

    @trainer.hook(TrainEpochEnd)
    async def trains_another(event: Event, trainer: Trainer) -> None:
        other = make_trainer(tmp_path / f"{len(outcomes)}", epochs=1_000_000, save=False).start()
        async with other.hold(TrainEpochEnd):
            other.stop("that is all")
        outcomes.append((await other).outcome)

    await trainer.start()
    assert outcomes == ["stopped"] * 2


async def test_a_thread_that_a_plain_hook_waits_for_cannot_ask_the_run_which_cannot_do_it(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, epochs=1)
    refused: list[str] = []
    loop = asyncio.get_running_loop()

    async def elsewhere() -> None:
        for ask in (run.checkpoint, lambda: run.evaluate(make_loader(8))):
            with pytest.raises(WouldDeadlock, match="in its own thread, which would have to do it") as caught:
                ask()
            refused.append(str(caught.value))

    @trainer.hook(TrainEpochEnd)
    def blocks(event: Event, trainer: Trainer) -> None:
        asyncio.run_coroutine_threadsafe(elsewhere(), loop).result(PATIENCE)

    run = trainer.start()
    await run
    assert [line.split()[0] for line in refused] == ["run.checkpoint()", "run.evaluate()"]


def test_blocking_the_loop_of_the_bus_is_refused_where_async_hooks_run_on_it(tmp_path: Path) -> None:
    with Bus() as bus:
        trainer = make_trainer(tmp_path, bus=bus, epochs=None, max_steps=10**9, save=False)
        gate = Gate(trainer)
        run = trainer.start()

        async def blocks() -> None:
            with pytest.raises(WouldDeadlock, match="its bus for async callbacks, on this event loop.*use `await run`"):
                run.result()
            with pytest.raises(WouldDeadlock, match="use `async with run.hold"), run.hold(TrainEpochEnd):
                pass
            with pytest.raises(WouldDeadlock, match="use `await` instead"):
                run.evaluate(make_loader(8)).result()
            gate.open()
            await run.evaluate(make_loader(8))

        asyncio.run_coroutine_threadsafe(blocks(), bus.loop).result(PATIENCE)
        run.stop()
        assert run.result(PATIENCE).outcome == "stopped"


async def test_a_hook_may_drain_the_bus_whose_observers_see_everything(tmp_path: Path) -> None:
    async with Bus() as bus:
        trainer = make_trainer(tmp_path, bus=bus)
        seen: list[int] = []

        @bus.on(TrainBatchEnd)
        async def note(event: TrainBatchEnd) -> None:
            seen.append(event.step)

        @trainer.hook(TrainEpochEnd)
        async def drains(event: TrainEpochEnd, trainer: Trainer) -> None:
            await bus.adrain()
            assert seen[-1] == event.step

        @trainer.hook(FitEpochEnd)
        def drains_blocking(event: Event, trainer: Trainer) -> None:
            bus.drain()

        await trainer.start()
        assert seen == [1, 2, 3, 4, 5, 6]


async def test_an_observer_may_hold_ask_and_steer(tmp_path: Path) -> None:
    async with Bus() as bus:
        trainer = make_trainer(tmp_path, bus=bus, epochs=None, max_steps=10**9, save=False)
        found: list[Any] = []

        @bus.on(TrainEpochStart, once=True)
        async def looks(event: TrainEpochStart) -> None:
            async with run.hold(TrainEpochEnd) as held:
                found.append(held.type)
                found.append((await run.evaluate(make_loader(8))).samples)
            run.stop("the observer saw enough")

        run = trainer.start()
        assert (await run).reason == "the observer saw enough"
        assert found == ["TrainEpochEnd", 8]


async def test_two_may_hold_the_same_stage_one_after_the_other(trainer: Trainer) -> None:
    run = start(trainer)
    order: list[str] = []

    async def hold(name: str) -> None:
        async with run.hold(TrainEpochEnd):
            order.append(f"{name} in")
            await asyncio.sleep(0)
            order.append(f"{name} out")

    both = [await begin(hold(name)) for name in ("first", "second")]
    await asyncio.gather(*both)
    await run
    assert order in (
        ["first in", "first out", "second in", "second out"],
        ["second in", "second out", "first in", "first out"],
    )


async def test_awaiting_a_run_inside_its_own_hook_is_refused(trainer: Trainer) -> None:
    refused: list[str] = []

    @trainer.hook(TrainEpochEnd)
    async def wait(event: Event, trainer: Trainer) -> None:
        for attempt in (run.next(), _await(run), _hold(run)):
            with pytest.raises(
                WouldDeadlock, match="waits for the hook `.*wait` at TrainEpochEnd, and `.*` would wait for the run"
            ) as caught:
                await attempt
            refused.append(str(caught.value).split()[0])

    run = trainer.start()
    await run
    assert refused == ["run.next(any", "await", "hold(TrainBatchEnd)"] * 2


def test_waiting_for_a_run_inside_its_own_sync_hook_is_refused(trainer: Trainer, gate: Gate) -> None:
    @trainer.hook(FitEpochEnd)
    def wait(event: Event, trainer: Trainer) -> None:
        with pytest.raises(WouldDeadlock, match=r"run.result\(\) would wait for ever"):
            run.result()
        with pytest.raises(WouldDeadlock, match="return from the hook"), run.hold(TrainStart):
            pass

    run = trainer.start()
    gate.open()
    run.result(PATIENCE)


async def test_awaiting_a_run_while_holding_it_is_refused(trainer: Trainer) -> None:
    run = start(trainer)
    elsewhere = await begin(_await(run))
    async with run.hold(TrainEpochStart):
        with pytest.raises(WouldDeadlock, match=r"leave the `with run.hold\(...\)` block"):
            await run
    await elsewhere


async def test_a_blocking_wait_on_the_loop_of_the_async_hooks_is_refused(trainer: Trainer, gate: Gate) -> None:
    run = trainer.start()
    with pytest.raises(WouldDeadlock, match="use `await run`"):
        run.result()
    with pytest.raises(WouldDeadlock, match=r"use `async with run.hold"), run.hold(TrainEpochEnd):
        pass
    gate.open()
    await run
    assert run.result().outcome == "completed"


async def test_running_in_the_loop_of_the_bus_is_refused(tmp_path: Path) -> None:
    async with Bus() as bus:
        trainer = make_trainer(tmp_path, bus=bus)
        with pytest.raises(WouldDeadlock, match=r"Trainer.run\(\) .* use `result = await runner.start\(\)`"):
            trainer.run()
        assert (await trainer.start()).outcome == "completed"


async def test_running_in_a_loop_that_nobody_needs_is_allowed(trainer: Trainer) -> None:
    assert trainer.run().outcome == "completed"
