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

from lineside.bus import Bus, Source
from lineside.bus.journal import Durability, Journal, Origin
from lineside.bus.journal.claim import Claim
from lineside.bus.journal.file import JournalWriter, Lines
from lineside.schemas import (
    BatchEnd,
    ErrorInfo,
    Event,
    FitEpochEnd,
    NonFinite,
    PredictBatchEnd,
    RunEnd,
    RunStart,
    TrainBatchEnd,
    TrainEpochEnd,
    TrainEpochStart,
    TrainStart,
    ValBatchEnd,
    ValEnd,
)
from lineside.top.curves import Curve, chart, sparkline
from lineside.top.sampling import WHOLE, Reader
from lineside.top.screen import Screen
from lineside.top.watching import Folder

from .terminal import CONTROLLED, LINESIDE, Terminal, terminal

Lineside = Callable[..., Any]
BATCHES = 4

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


def begin(bus: Bus, run: str, rank: int = 0, world: int = 1, epochs: int = 2) -> Source:
    source = bus.source(run, rank=rank)
    source.publish(RunStart, kind="train", model="Net", device="cpu", world_size=world)
    source.publish(TrainStart, epoch=0, epochs=epochs, batches=BATCHES, step=0)
    return source


def train(source: Source, epoch: int = 0, batches: int = BATCHES, loss: float = 0.5) -> None:
    source.publish(TrainEpochStart, epoch=epoch, epochs=2, batches=BATCHES, lr={})
    for batch in range(batches):
        step = epoch * BATCHES + batch + 1
        rest: dict[str, Any] = {"batches": BATCHES, "batch_size": 8, "losses": {}, "lr": {}}
        source.publish(TrainBatchEnd, epoch=epoch, batch=batch, step=step, loss=loss / step, **rest)


def judge(source: Source, epoch: int = 0, accuracy: float = 0.75) -> None:
    source.publish(
        TrainEpochEnd, epoch=epoch, epochs=2, batches=4, step=4, losses={}, lr={}, duration=2, samples=32, speed=16
    )
    metrics: dict[str, Any] = {"metrics": {"accuracy": accuracy}, "losses": {"loss": 0.25}, "fitness": accuracy}
    source.publish(ValEnd, epoch=epoch, batches=1, samples=4, duration=0.5, speed={}, **metrics)
    best: dict[str, Any] = {"best_fitness": accuracy, "best_epoch": epoch, "best": None, "last": None}
    source.publish(FitEpochEnd, epoch=epoch, epochs=2, duration=2.5, **metrics, **best)


def end(source: Source, outcome: str = "completed", error: ErrorInfo | None = None) -> None:
    source.publish(RunEnd, kind="train", outcome=outcome, duration=2.5, error=error)


@contextmanager
def top(folder: Path, *options: object, **kinds: Any) -> Generator[Terminal]:
    with terminal(LINESIDE, "top", folder, "--interval", 0.05, *options, **kinds) as shown:
        yield shown


def drawn(folder: Path, *keys: str, columns: int = 160, lines: int = 40) -> str:
    """Return what the screen shows after some looks and `keys`."""
    with Screen(Folder(folder)) as screen:
        screen.draw(columns, lines)
        screen.look()
        for key in keys:
            screen.press(key)
        screen.look()
        return screen.draw(columns, lines).plain


def line(text: str, word: str) -> list[str]:
    return next(line.split() for line in text.splitlines() if word in line)


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
    assert "there is no such folder" in done.err


# -- what it says ------------------------------------------------------------------------------------


def test_the_ranks_of_a_run_are_one_row(tmp_path: Path) -> None:
    with Bus(tmp_path) as first, Bus(tmp_path) as second:
        for rank, bus in enumerate((first, second)):
            train(begin(bus, "both", rank, world=2), batches=2 + rank)
            bus.flush()
        shown = drawn(tmp_path)
        assert shown.count("both") == 1
        assert line(shown, "both")[:5] == ["▌", "both", "●", "running", "train"]
        assert "train \N{MULTIPLICATION SIGN}2" in shown
        assert "2/4" in shown  # of rank 0
        assert "TrainBatchEnd rank 1" in drawn(tmp_path, "enter")


def test_a_validation_and_a_prediction_have_their_batches(tmp_path: Path) -> None:
    with Bus(tmp_path) as bus:
        kinds: list[tuple[str, type[BatchEnd], dict[str, Any]]] = [
            ("val", ValBatchEnd, {"losses": {"loss": 0.25}}),
            ("predict", PredictBatchEnd, {"inputs": ("0",), "results": (1,), "speed": {}}),
        ]
        for kind, event, rest in kinds:
            source = bus.source(kind)
            source.publish(RunStart, kind=kind, model="Net", device="cpu")
            source.publish(event, epoch=0, batch=0, batches=4, batch_size=2, **rest)
        bus.flush()
        shown = drawn(tmp_path)
    assert "25%" in line(shown, "  val ")
    assert "0.2500" in line(shown, "  val ")
    assert {"25%", "1/4"} <= set(line(shown, " predict "))


def test_speed_and_time_left_are_measured_by_the_clock_of_the_run(tmp_path: Path) -> None:
    rest: dict[str, Any] = {"run": "slow", "batches": 100, "losses": {}, "lr": {}, "loss": 1.0, "batch_size": 8}
    told: list[Event] = [
        RunStart(run="slow", kind="train", model="Net", device="cpu"),
        TrainStart(run="slow", epoch=0, epochs=2, batches=100, step=0, elapsed=2.0),
        TrainEpochStart(run="slow", epoch=0, epochs=2, batches=100, lr={}, elapsed=2.0),
        *(TrainBatchEnd(epoch=0, batch=n, step=n + 1, elapsed=2 + (n + 1) / 10, **rest) for n in range(50)),
    ]
    path = tmp_path / "slow.sqlite"
    claim = Claim(path)  # its writer is alive
    writer = JournalWriter.create(path, Durability.PROCESS, {})
    count = len(told)
    bodies = [event.model_dump_json().encode() for event in told]
    names = [event.type for event in told]
    writer.commit(Lines([*range(1, count + 1)], names, [Origin("slow", 1, 0)] * count, bodies), 1)
    shown = drawn(tmp_path, columns=180)
    assert {"80/s", "10", "0:15", "1/2", "50/100"} <= set(line(shown, "slow"))
    writer.close()
    claim.release()


def test_a_failed_run_says_why(tmp_path: Path) -> None:
    with Bus(tmp_path) as bus:
        end(begin(bus, "lost"), "failed", ErrorInfo(type="torch.OutOfMemoryError", message="no\nmemory"))
    assert "OutOfMemoryError: no memory" in drawn(tmp_path, "enter")


def test_a_resumed_run_is_one_row_whose_curve_goes_on(tmp_path: Path) -> None:
    for attempt in (1, 2):
        with Bus(tmp_path) as bus:
            source = bus.source("run", attempt=attempt)
            source.publish(RunStart, kind="train", model="Net", device="cpu")
            train(source, epoch=attempt - 1, loss=float(attempt))
    folder = Folder(tmp_path)
    folder.look()
    folder.follow(folder.runs_now)
    (run,) = folder.runs_now
    assert run.follower.curve.steps == [1, 2, 3, 4, 5, 6, 7, 8]


def test_more_runs_than_lines_scroll_with_the_chosen_one(tmp_path: Path) -> None:
    with Bus(tmp_path) as bus:
        for number in range(30):
            begin(bus, f"run-{number:02}")
        bus.flush()
        shown = drawn(tmp_path, "last", lines=14)
        assert "▌ run-00" in shown
        assert "▌ run-29" in drawn(tmp_path, "last", "first", lines=14)
        assert shown.count("run-") == 10


def test_a_run_that_is_open_stays_when_it_ends(tmp_path: Path) -> None:
    with Bus(tmp_path) as bus, Screen(Folder(tmp_path)) as screen:
        source = begin(bus, "first")
        begin(bus, "second")
        bus.flush()
        screen.look()
        for key in ("a", "last", "enter"):
            screen.press(key)
        assert "first   ● running" in screen.draw(120, 30).plain
        end(source)
        bus.flush()
        screen.look()
        assert "first   ✓ finished" in screen.draw(120, 30).plain
        screen.press("escape")
        assert "first" not in screen.draw(120, 30).plain.replace(str(tmp_path), "")


def test_what_runs_say_cannot_command_the_terminal(tmp_path: Path, lineside: Lineside) -> None:
    with Bus(tmp_path) as bus:
        source = bus.source("sly")
        source.publish(RunStart, kind="train", model="\x1b[2JNet", device="\x1b]0;title\x07")
        end(source, "failed", ErrorInfo(type="Error", message="\x1b[31mred\x9b"))
    for keys in ([], ["enter"]):
        assert drawn(tmp_path, *keys).replace("\n", "").isprintable()
    assert lineside("top", tmp_path).out.replace("\n", "").isprintable()


def test_a_file_is_no_folder(lineside: Lineside, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert lineside("top", tmp_path / "file").code == 2


def test_what_a_file_is_damaged_by_is_said_on_the_screen(tmp_path: Path) -> None:
    with Bus(tmp_path) as bus:
        begin(bus, "sound")
    (tmp_path / "broken.sqlite").write_bytes(b"no journal at all" * 100)
    assert "broken.sqlite" in drawn(tmp_path).splitlines()[-1]


# -- how much it reads -------------------------------------------------------------------------------


def test_of_a_long_run_samples_are_read_and_then_only_what_is_new(tmp_path: Path) -> None:
    with Bus(tmp_path) as bus:
        source = begin(bus, "long", epochs=1)
        for step in range(1, 4 * WHOLE):
            rest: dict[str, Any] = {"batches": None, "batch_size": 8, "losses": {}, "lr": {}}
            source.publish(TrainBatchEnd, epoch=0, batch=step - 1, step=step, loss=1.0, **rest)
        bus.flush()
        (path,) = Journal(tmp_path).files()
        reader = Reader(path, ("long",), {"TrainBatchEnd"}, places=8)
        found = reader.read()
        assert len(found) < WHOLE // 2
        assert found[-1][1].seq == 4 * WHOLE + 1
        assert found[0][1].seq < 1000
        assert reader.read() == []
        source.publish(TrainStart, epoch=0, epochs=1, batches=None, step=0)
        train(source, batches=3)
        bus.flush()
        assert len(reader.read()) == 3


def test_runs_that_are_over_are_not_read_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with Bus(tmp_path) as bus:
        train(begin(bus, "over"))
    folder = Folder(tmp_path)
    folder.look()
    folder.follow(folder.runs_now)
    (path,) = folder.files()
    path.write_bytes(b"whoever reads it now finds nothing")
    (before,) = folder.runs_now
    folder.look()
    folder.follow(folder.runs_now)
    assert folder.runs_now == [before]
    assert before.follower.batch is not None
    assert caplog.text == ""


# -- curves ------------------------------------------------------------------------------------------


def test_a_curve_keeps_its_begin_and_its_end_however_long_it_gets() -> None:
    curve = Curve(most=16)
    for step in range(1000):
        curve.add(step, float(step))
    curve.add(1000, float("nan"))
    assert len(curve.steps) <= 16
    assert curve.steps[0] == 0
    assert curve.values[0] < 100
    assert curve.values[-1] > 900
    assert curve.values == sorted(curve.values)
    curve.cut(500)
    assert curve.steps[-1] < 500


def test_a_sparkline_goes_from_the_smallest_to_the_largest() -> None:
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7], 8) == "▁▂▃▄▅▆▇█"
    assert sparkline([1, 3, 7, 9], 2) == "▁█"
    assert sparkline([5, 5], 8) == "▄▄"
    assert sparkline([], 8) == ""


def test_a_chart_has_its_range_its_steps_and_a_line_without_gaps() -> None:
    from rich.text import Text

    curve = Curve(most=64)
    for step, value in ((1, 8.0), (5, 4.0), (9, 0.0)):
        curve.add(step, value)
    title, *rows, steps = [row.plain for row in chart(Text("loss"), curve, 29, 6, "")]
    assert title.strip() == "loss"
    assert steps.split() == ["1", "9"]
    assert [row.split("│")[0].strip() for row in rows] == ["8.0000", "", "", "0.0000"]
    dots = [row.split("│")[1] for row in rows]
    for column in range(20):
        assert any(ord(row[column]) > 0x2800 for row in dots)
    assert {len(row) for row in rows} == {29}
