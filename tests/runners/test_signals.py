from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from lineside.runners import Trainer
from lineside.schemas import TrainBatchEnd

from .support import PATIENCE, make_trainer

SCRIPT = """
import sys, threading, torch
from pathlib import Path
from lineside.bus import Bus
from lineside.runners import Trainer
from lineside.schemas import Event

def step(model, batch):
    return model(batch).mean()

with Bus() as bus:
    names = []
    bus.subscribe(lambda event: names.append(event.type), Event)
    model, batches = torch.nn.Linear(2, 1), [torch.ones(4, 2)] * 1_000_000  # the epoch does not end by itself
    trainer = Trainer(model, batches, step=step, bus=bus, epochs=None, max_seconds=60, device="cpu",
                      optimizer=lambda p: torch.optim.SGD(p, lr=0.0), directory=Path(sys.argv[1]))
    ready = lambda trainer: trainer.progress.step == 3 and print("ready", flush=True)
    trainer.add_callback("on_train_batch_end", ready)
    if "hang" in sys.argv:
        trainer.add_callback("on_train_end", lambda trainer: (print("hanging", flush=True), threading.Event().wait(60)))
    try:
        result = trainer.run()
        print(result.model_dump_json(), flush=True)
    except KeyboardInterrupt:
        print("interrupted", flush=True)
    bus.drain()
    print(" ".join(names[-4:]), flush=True)
"""


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", SCRIPT, str(folder), *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def read_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_the_run_at_the_next_step_and_it_saves_and_returns_a_result(
    tmp_path: Path, number: signal.Signals
) -> None:
    with start(tmp_path) as process:
        assert read_line(process) == "ready"
        process.send_signal(number)
        result = json.loads(read_line(process))
        assert read_line(process) == "ModelSave TrainEnd Teardown RunEnd"
        assert process.wait(PATIENCE) == 0
    assert (result["outcome"], result["reason"]) == ("stopped", f"{number.name} received")
    assert result["signal"] == number
    assert (tmp_path / "last.pt").is_file()


def test_a_second_interrupt_raises_and_the_run_still_ends(tmp_path: Path) -> None:
    with start(tmp_path, "hang") as process:
        assert read_line(process) == "ready"
        process.send_signal(signal.SIGINT)
        assert read_line(process) == "hanging"
        process.send_signal(signal.SIGINT)
        assert read_line(process) == "interrupted"
        assert read_line(process) == "ModelSave TrainEnd Teardown RunEnd"
        assert process.wait(PATIENCE) == 0


def test_the_handlers_are_given_back(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    during: list[object] = []
    trainer = make_trainer(tmp_path, epochs=1)
    trainer.add_callback("on_train_start", lambda _: during.append(signal.getsignal(signal.SIGINT)))
    trainer.run()
    assert during != [before[0]]
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_a_signal_that_is_ignored_stays_ignored(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        trainer = make_trainer(tmp_path, epochs=1)
        trainer.add_callback("on_train_start", lambda _: os.kill(os.getpid(), signal.SIGINT))
        assert trainer.run().outcome == "completed"
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_run_in_another_thread_leaves_the_handlers_alone(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT)
    trainer = make_trainer(tmp_path, epochs=1)
    seen: list[object] = []
    trainer.add_callback("on_train_start", lambda _: seen.append(signal.getsignal(signal.SIGINT)))
    over = threading.Event()
    trainer.add_callback("teardown", lambda _: over.set())
    run = trainer.start()
    assert over.wait(PATIENCE)  # not for the result: who waits for that watches for interrupts
    run.result(PATIENCE)
    thread = threading.Thread(target=make_trainer(tmp_path / "other", epochs=1).run)
    thread.start()
    thread.join(PATIENCE)
    assert seen == [before]


def test_a_signal_ends_a_pause(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path)
    timer = threading.Timer(0.05, lambda: os.kill(os.getpid(), signal.SIGTERM))

    @trainer.hook(TrainBatchEnd)
    def pause(event: TrainBatchEnd, trainer: Trainer) -> None:
        trainer.pause()
        timer.start()

    result = trainer.run()
    assert (result.reason, result.signal) == ("SIGTERM received", signal.SIGTERM)
    timer.join(PATIENCE)


EXIT_SCRIPT = SCRIPT.replace("result = trainer.run()", "run = trainer.start(); sys.stdin.readline(); sys.exit(3)")


def test_a_started_run_is_stopped_and_saved_when_the_interpreter_exits(tmp_path: Path) -> None:
    script = EXIT_SCRIPT.replace("with Bus() as bus:", "bus = Bus()\nif True:")
    command = [sys.executable, "-c", script, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert read_line(process) == "ready"
        process.communicate("\n", timeout=PATIENCE)
        assert process.returncode == 3
    assert (tmp_path / "last.pt").is_file()
