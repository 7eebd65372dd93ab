"""``lineside top`` on a real terminal, beside what writes into the folder."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from lineside.bus import Bus
from lineside.schemas import (
    ErrorInfo,
    NonFinite,
)

from .terminal import CONTROLLED, LINESIDE, Terminal, terminal
from .watched import begin, end, judge, train

Lineside = Callable[..., Any]

RECIPE = """
import sys
import torch
from torch import nn
from torch.optim import SGD
from lineside import Recipe, TrainConfig

class Steps:  # a batch for each line that is typed
    def __len__(self):
        return 3

    def __iter__(self):
        for _ in range(3):
            sys.stdin.readline()
            yield torch.ones(4, 3), torch.zeros(4, 1)

recipe = Recipe(
    model=lambda: nn.Linear(3, 1),
    train_data=Steps,
    val_data=lambda: [(torch.ones(4, 3), torch.zeros(4, 1))],
    loss=nn.functional.mse_loss,
    optimizer=lambda parameters: SGD(parameters, lr=0.01),
    train=TrainConfig(epochs=2, name="typed", device="cpu"),
)
"""


@contextmanager
def top(folder: Path, *options: object, **kinds: Any) -> Generator[Terminal]:
    with terminal(LINESIDE, "top", folder, "--interval", 0.05, *options, **kinds) as shown:
        yield shown


# -- beside what trains ------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_training_is_shown_from_before_it_begins_until_after_its_end(tmp_path: Path) -> None:
    (tmp_path / "typed.py").write_text(RECIPE)
    command = [sys.executable, "-m", "lineside", "train", "typed.py", "--plain"]
    with top(Path("runs"), cwd=tmp_path) as shown:
        shown.wait_for("waiting for runs in runs/")
        pipe = subprocess.PIPE
        with subprocess.Popen(command, stdin=pipe, stdout=subprocess.DEVNULL, text=True, cwd=tmp_path) as training:
            assert training.stdin is not None

            def typed(lines: int) -> None:
                assert training.stdin is not None
                training.stdin.write("\n" * lines)
                training.stdin.flush()

            try:
                shown.wait_for("typed", "running", "● 1 running")
                typed(1)
                shown.wait_for("1/2", "1/3")
                typed(3)
                shown.wait_for("2/2", "1/3", "fitness")
                typed(2)
                assert training.wait(60) == 0
                shown.wait_for("✓ finished", "✓ 1 finished")
            finally:
                training.kill()
        shown.type("q")
        assert shown.wait() == 0


def test_runs_come_change_and_end_while_it_shows(tmp_path: Path) -> None:
    with top(tmp_path) as shown:
        shown.wait_for("waiting for runs in")
        with Bus(tmp_path) as bus:
            first = begin(bus, "first")
            train(first, batches=1)
            shown.wait_for("first", "● running", "1/2", "1/4", "0.5000")
            train(first, epoch=1, batches=3)
            shown.wait_for("2/2", "3/4", "0.0714")
            begin(bus, "second")
            shown.wait_for("● 2 running")
            end(first, "failed", ErrorInfo(type="ValueError", message="no"))
            shown.wait_for("✗ 1 failed", "● 1 running")
        shown.wait_for("✗ 2 failed")  # the process of the second is done with it, and never said so
        assert shown.screen.text.index("second") < shown.screen.text.index("first")


def test_keys_choose_open_and_filter(tmp_path: Path) -> None:
    with Bus(tmp_path) as bus:
        old = begin(bus, "old")
        train(old)
        judge(old)
        old.publish(NonFinite, epoch=0, batch=2, step=2, losses={"box": float("nan")})
        end(old)
        begin(bus, "new")
        bus.flush()
        with top(tmp_path, lines=40) as shown:
            shown.wait_for("▌ new", "  old")
            for down, up in (("\x1b[B", "\x1b[A"), ("j", "k"), ("\x1bOB", "\x1bOA")):
                shown.type(down)
                shown.wait_for("▌ old", "  new")
                shown.type(up)
                shown.wait_for("▌ new", "  old")
            shown.type("j\r")
            shown.wait_for(
                "loss 0.1250", "accuracy 0.7500", "by epoch", "NEWEST EVENTS", "RunEnd", "STAGES", "val 0.50 s"
            )
            assert "warning epoch 1, batch 3: box nan" in shown.screen.text
            shown.type("k")
            shown.wait_for("new   ● running")
            shown.type("\x1b")
            shown.wait_for("▌ new", "  old", "a only live")
            shown.type("a")
            shown.wait_for("a all runs", "1 of 2 runs")
            assert "  old" not in shown.screen.text
            shown.type("a")
            shown.wait_for("  old", "2 runs")


# -- the terminal ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "number", "status"),
    [
        ("q", None, 0),
        ("\x03", None, 0),
        ("", signal.SIGINT, 0),
        ("", signal.SIGTERM, 128 + signal.SIGTERM),
        ("", signal.SIGHUP, 128 + signal.SIGHUP),
    ],
)
def test_the_terminal_is_left_as_it_was(tmp_path: Path, key: str, number: int | None, status: int) -> None:
    with top(tmp_path, lines=10) as shown:
        before = shown.settings
        shown.wait_for("waiting for runs")
        assert shown.screen.alternate
        assert not shown.screen.cursor
        assert shown.settings != before
        shown.type(key)
        if number is not None:
            shown.command.send_signal(number)
        assert shown.wait() == status
        assert not shown.screen.alternate
        assert shown.screen.cursor
        assert shown.settings == before
        assert shown.screen.text.strip() == ""


def test_an_error_leaves_the_terminal_as_it_was() -> None:
    program = """
from rich.console import Console
from lineside.top.terminal import Terminal
with Terminal(Console()) as terminal:
    terminal.draw("here")
    terminal.wait(60)
    raise ValueError("broken")
"""
    with terminal(CONTROLLED + program) as shown:
        before = shown.settings
        shown.wait_for("here")
        shown.type("x")
        assert shown.wait() == 1
        assert "ValueError: broken" in shown.screen.text
        assert not shown.screen.alternate
        assert shown.screen.cursor
        assert shown.settings == before


def test_it_stands_still_and_goes_on_as_a_shell_asks_for(tmp_path: Path) -> None:
    with top(tmp_path) as shown:
        before = shown.settings
        shown.wait_for("waiting for runs")
        shown.type("\x1a")
        shown.wait_for_stop()
        assert not shown.screen.alternate
        assert shown.settings == before
        shown.command.send_signal(signal.SIGCONT)
        shown.wait_for("waiting for runs")
        shown.type("q")
        assert shown.wait() == 0
        assert shown.settings == before


def test_the_columns_follow_the_width(tmp_path: Path) -> None:
    with Bus(tmp_path) as bus:
        train(begin(bus, "run-of-a-long-name"))
        bus.flush()
        with top(tmp_path, columns=180) as shown:
            shown.wait_for("run-of-a-long-name", "HEARD", "MODEL", "STEPS/S")
            shown.resize(80, 24)
            shown.wait_for("run-of…name", "STATE", "EPOCH", "BATCH", "LEFT", "LOSS", "TREND", "q leave")
            assert "HEARD" not in shown.screen.text
            shown.resize(40, 8)
            shown.wait_for("STATE", "● running", "q leave")
            shown.resize(180, 24)
            shown.wait_for("run-of-a-long-name", "HEARD")


def test_without_a_keyboard_it_shows_until_it_is_ended(tmp_path: Path) -> None:
    with top(tmp_path, keys=False) as shown:
        shown.wait_for("waiting for runs")
        assert "leave" not in shown.screen.text
        with Bus(tmp_path) as bus:
            begin(bus, "first")
            shown.wait_for("first")
        shown.command.terminate()
        assert shown.wait() == 128 + signal.SIGTERM
        assert not shown.screen.alternate


# -- once --------------------------------------------------------------------------------------------


def test_once_is_a_table_of_plain_words(lineside: Lineside, tmp_path: Path) -> None:
    with Bus(tmp_path) as bus:
        run = begin(bus, "digits")
        train(run)
        judge(run)
        end(run)
    for options in (["--once"], []):  # standard output is no terminal
        done = lineside("top", tmp_path, *options)
        assert (done.code, done.err) == (0, "")
        head, row = (line.split() for line in done.out.splitlines())
        assert dict(zip(head, row, strict=True)) | {"elapsed": "", "heard": ""} == {
            "run": "digits",
            "state": "finished",
            "kind": "train",
            "model": "Net",
            "epoch": "1/2",
            "batch": "4/4",
            "speed": "-",
            "steps/s": "-",
            "left": "-",
            "loss": "0.1250",
            "best": "accuracy=0.7500",
            "elapsed": "",
            "heard": "",
        }
        assert row[-2] == "2.50s"
        assert done.out.replace("\n", "").isprintable()


def test_once_on_a_terminal_is_the_same(tmp_path: Path) -> None:
    with Bus(tmp_path) as bus:
        end(begin(bus, "digits"))
    with terminal(LINESIDE, "top", tmp_path, "--once", columns=160) as shown:
        assert shown.wait() == 0
        assert shown.screen.line("digits").split()[:3] == ["digits", "finished", "train"]


def test_once_an_empty_folder_is_a_head_and_an_absent_one_an_error(lineside: Lineside, tmp_path: Path) -> None:
    assert lineside("top", tmp_path, "--once").out.split()[:3] == ["run", "state", "kind"]
    done = lineside("top", tmp_path / "absent", "--once")
    assert (done.code, done.out) == (1, "")
    assert "cannot read a journal from" in done.err
    assert "there is no such folder" in done.err
