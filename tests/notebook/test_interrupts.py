"""Interrupting a kernel, or a script, that waits for a run ends the run as stopped, and saved."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from lineside import Bus, Predictor, RunEnd
from lineside.runners import PredictStream
from tests.runners.support import make_trainer

from .kernels import SETUP, Kernel

pytestmark = pytest.mark.slow

WAITS = {
    "await run": "CancelledError",
    "async for event in run.stream(TrainEpochEnd): await asyncio.sleep(0)": "CancelledError",
    "await run.next(RunEnd)": "CancelledError",
    "async with run.hold(RunEnd): pass": "CancelledError",
    "for event in run.stream(RunEnd): pass": "KeyboardInterrupt",
    "await asyncio.sleep(0)\nfor event in run.stream(RunEnd): pass": "KeyboardInterrupt",
    "await asyncio.gather(run, asyncio.sleep(100))": "CancelledError",
    "async with asyncio.timeout(90): await asyncio.wait_for(run.next(RunEnd), 80)": "CancelledError",
    "async for event in run.stream(TrainBatchEnd): await asyncio.sleep(100)": "CancelledError",
    "async with run.hold(TrainBatchEnd): await asyncio.sleep(100)": "CancelledError",
}


@pytest.fixture(autouse=True)
def handler_of_python() -> Generator[None]:
    """Begin with Python's own handler: what another test left for a thread to end cannot be taken back there."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


BUSY = "while True: await asyncio.sleep(0.01)"
"""A cell that is at something else. One that only sleeps the kernel interrupts when its loop happens to wake."""


def interrupted(lab: Kernel, code: str, cell: str | None = None) -> str:
    """Interrupt a cell once it waits; return the error that ended it."""
    request = lab.start(f"say_when_waiting()\n{code}", cell)
    lab.wait_for(request, "waiting")
    lab.interrupt()
    answer = lab.answer(request)
    assert answer.status == "error"
    return answer.error


@pytest.mark.parametrize("code", WAITS)
def test_an_interrupt_while_a_cell_waits_for_the_run_stops_it_with_a_checkpoint(lab: Kernel, code: str) -> None:
    lab.ok("import tempfile; folder = tempfile.mkdtemp(); before = threading.enumerate()")
    lab.ok("run = make_trainer(save=True, directory=folder).start(); event = await run.next(TrainBatchEnd)")
    assert interrupted(lab, code) == WAITS[code]
    assert (
        lab.ok("result = await run; print(run.state, result.reason, result.outcome)") == "stopped interrupted stopped"
    )
    resumed = "again = await make_trainer(max_steps=1, resume=folder).start()\n"
    told = lab.ok(resumed + "print(again.run == run.id, again.attempt, again.step == result.step > 0)")
    assert told == "True 2 True"
    left = "[t for t in threading.enumerate() if t not in before and run.id in t.name]"
    lab.ok(f"for thread in {left}: thread.join(30)")  # its result is there a moment before it ends
    assert lab.ok(f"print({left})") == "[]"


PREDICTION = """
import itertools
from lineside import Predictor

async def later():
    for number in itertools.count():
        await asyncio.sleep(0)
        yield number

def say(number):
    if number == 20:
        print("waiting", flush=True)

async def work_on(result):
    say(20)
    while True:
        await asyncio.sleep(0.01)

def work_on_it(result):
    say(20)
    while True:
        time.sleep(0.01)

ends = []
bus_p = Bus()
bus_p.subscribe(ends.append, RunEnd)
predictor = Predictor(nn.Identity(), preprocess=torch.tensor, bus=bus_p, batch_size=2, device="cpu", overlap={overlap})
stream = predictor.stream({source})
"""
READS = {
    "for one in stream: say(int(one))": "KeyboardInterrupt",
    "async for one in stream: say(int(one)); await asyncio.sleep(0)": "CancelledError",
    "async for one in stream: await work_on(one)": "CancelledError",
    "for one in stream: work_on_it(one)": "KeyboardInterrupt",
}


@pytest.mark.parametrize("overlap", [True, False])
@pytest.mark.parametrize("code", READS)
def test_an_interrupt_of_a_cell_that_reads_predictions_stops_their_run(lab: Kernel, code: str, overlap: bool) -> None:
    for source in ("itertools.count()", "later()") if "async" in code else ("itertools.count()",):
        lab.ok(PREDICTION.format(overlap=overlap, source=source))
        request = lab.start(code)
        lab.wait_for(request, "waiting")
        lab.interrupt()
        assert lab.answer(request).error == READS[code]
        assert lab.ok("result = await stream.run; print(result.outcome, result.reason)") == "stopped interrupted"
        assert (
            lab.ok("await bus_p.aclose(); print([(e.outcome, e.reason) for e in ends])")
            == "[('stopped', 'interrupted')]"
        )
        lab.ok("for thread in threading.enumerate(): 'lineside-predict' in thread.name and thread.join(30)")
        assert lab.ok("print([t for t in ours() if 'predict' in t])") == "[]"


def test_an_interrupt_of_a_cell_that_does_something_else_leaves_the_run_alone(lab: Kernel) -> None:
    lab.ok("run = make_trainer().start(); bus_else = Bus()")
    assert interrupted(lab, BUSY) == "CancelledError"
    assert interrupted(lab, "for event in bus_else.stream(RunEnd): pass") == "KeyboardInterrupt"
    lab.ok("event = await run.next(TrainBatchEnd)")
    assert lab.ok("print(run.state); run.stop(); await run; bus_else.close()") == "running"


def test_an_interrupt_of_another_cell_does_not_mean_the_task_that_waits_in_the_background(lab: Kernel) -> None:
    lab.ok("run = make_trainer().start(); behind = asyncio.create_task(run.next(RunEnd)); await asyncio.sleep(0)")
    assert interrupted(lab, f"task = asyncio.create_task(run.next(RunEnd))\n{BUSY}") == "CancelledError"
    assert lab.ok("event = await run.next(TrainBatchEnd); print(run.state, behind.done())") == "running False"
    told = lab.ok("run.stop('enough'); await run; print((await behind).reason, (await task).reason)")
    assert told == "enough enough"


@pytest.mark.parametrize("how", ["asyncio.timeout", "task.cancel", "asyncio.wait_for"])
def test_a_mere_cancellation_does_not_stop_the_run(lab: Kernel, how: str) -> None:
    waits = {
        "asyncio.timeout": "async with asyncio.timeout(0.05): await run",
        "asyncio.wait_for": "await asyncio.wait_for(run.next(RunEnd), 0.05)",
        "task.cancel": "t = asyncio.create_task(run.next(RunEnd)); await asyncio.sleep(0); t.cancel(); await t",
    }
    lab.ok("run = make_trainer().start()")
    answer = lab.run(waits[how])
    assert answer.error in ("TimeoutError", "CancelledError")
    assert lab.ok("event = await run.next(TrainBatchEnd); print(run.state); run.stop(); await run") == "running"


def test_an_interrupt_within_a_loop_of_ones_own_ends_it_as_stopped(lab: Kernel) -> None:
    loop = """
ends = []
bus_l = Bus()
subscription = bus_l.subscribe(ends.append, RunEnd)
told = False
with bus_l.run("mine") as mine:
    while not mine.stopping:
        for x, y in mine.track(Batches()):
            told = told or {tell} or True
            mine.log(loss=1.0)
            {pause}
"""
    tells = ("print('waiting', flush=True)", "say_when_waiting()")
    for tell, pause in zip(tells, ("pass", "await asyncio.sleep(0.01)"), strict=True):
        request = lab.start(loop.format(tell=tell, pause=pause))
        lab.wait_for(request, "waiting")
        lab.interrupt()
        lab.answer(request)
        assert lab.ok("bus_l.close(); print([end.outcome for end in ends])") == "['stopped']"


def test_whoever_waited_leaves_the_handler_of_interrupts_as_it_was(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT)
    run = make_trainer(tmp_path).start()
    events = iter(run.stream(RunEnd))
    next(events)
    assert signal.getsignal(signal.SIGINT) == before
    run.result(60)
    assert signal.getsignal(signal.SIGINT) == before
    with Bus() as bus, bus.run() as mine:
        assert signal.getsignal(signal.SIGINT) != before
        for _ in mine.track([1]):
            make_trainer(tmp_path / "within").start().result(60)
        assert signal.getsignal(signal.SIGINT) != before
    assert signal.getsignal(signal.SIGINT) == before


@pytest.mark.parametrize("overlap", [True, False])
def test_whoever_has_read_predictions_leaves_the_handler_of_interrupts_as_it_was(overlap: bool) -> None:
    before = signal.getsignal(signal.SIGINT)
    predictor = Predictor(nn.Identity(), preprocess=torch.tensor, batch_size=2, device="cpu", overlap=overlap)

    def begun() -> PredictStream[Tensor]:
        stream = predictor.stream(range(10))
        next(stream)
        assert signal.getsignal(signal.SIGINT) != before
        return stream

    read = begun()
    assert len(list(read)) == 9
    assert signal.getsignal(signal.SIGINT) == before
    closed = begun()
    closed.close()
    assert signal.getsignal(signal.SIGINT) == before
    begun()  # and forgotten
    gc.collect()
    assert signal.getsignal(signal.SIGINT) == before


def test_a_handler_that_was_put_in_place_meanwhile_stays(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT)
    with Bus() as bus:
        try:
            with bus.run():
                signal.signal(signal.SIGINT, signal.SIG_IGN)
            assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
        finally:
            signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("overlap", ["True", "False"])
@pytest.mark.parametrize("reading", ["for one in stream: say(int(one))", "for one in stream: work_on_it(one)"])
def test_ctrl_c_in_a_script_that_reads_predictions_stops_their_run(reading: str, overlap: str) -> None:
    code = f"""
{SETUP}
{PREDICTION.format(overlap=overlap, source="itertools.count()")}
try:
    {reading}
except KeyboardInterrupt:
    result = stream.run.result()
    print(result.outcome, result.reason, list(stream)[:0], flush=True)
bus_p.close()
print([(e.outcome, e.reason) for e in ends])
stream.close()
assert signal.getsignal(signal.SIGINT) == signal.default_int_handler
"""
    with subprocess.Popen(
        [sys.executable, "-c", "import signal\n" + code], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == "waiting"
        os.kill(process.pid, signal.SIGINT)
        said = process.stdout.read().splitlines()
        assert (said[-2:], process.wait(60)) == (["stopped interrupted []", "[('stopped', 'interrupted')]"], 0)


SCRIPT = """
import asyncio, sys, time
sys.path.insert(0, {tests!r})
{setup}
async def awaited():
    run = make_trainer(save=True, directory={folder!r}).start()
    await run.next(TrainBatchEnd)
    say_when_waiting()
    await run

def plain():
    run = make_trainer(save=True, directory={folder!r}).start()
    next(iter(run.stream(TrainBatchEnd)))
    say_when_waiting()
    run.result()

try:
    {call}
except KeyboardInterrupt:
    print("interrupted", flush=True)
    raise
"""


@pytest.mark.parametrize("call", ["asyncio.run(awaited())", "plain()"])
def test_ctrl_c_in_a_script_that_waits_for_the_run_saves_it(tmp_path: Path, call: str) -> None:
    code = SCRIPT.format(tests=str(Path(__file__).parent), setup=SETUP, folder=str(tmp_path / "run"), call=call)
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == "waiting"
        os.kill(process.pid, signal.SIGINT)
        assert process.stdout.read().strip() == "interrupted"
        assert process.wait(60) in (130, -signal.SIGINT, 1)
    assert (tmp_path / "run" / "last.pt").exists()
