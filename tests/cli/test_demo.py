from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from rich.console import Console

from lineside.bus.journal import Journal
from lineside.demo.digits import digits
from lineside.demo.display import Answer, DemoDrawing, DemoProgress, DemoSummary
from lineside.demo.pictures import Gallery, Picture
from lineside.schemas import Event, PredictBatchEnd, PredictEnd, PredictStart, RunEnd, RunStart

SEVEN = bytes(16 if row == 0 or column == 5 else 0 for row in range(8) for column in range(8))
ANSWERS = (Answer(SEVEN, 7), Answer(SEVEN, 7))

STORY: list[Event] = [
    RunStart(run="p", kind="predict", model="DigitsCNN", device="cpu"),
    PredictStart(run="p", source="Tensor", batch_size=2, batches=1),
    PredictBatchEnd(
        run="p",
        epoch=0,
        batch=0,
        batches=1,
        batch_size=2,
        inputs=("0", "1"),
        results=({"digit": 7, "confidence": 0.98}, {"digit": 1, "confidence": 0.61}),
        speed={},
    ),
    PredictEnd(run="p", inputs=2, batches=1, duration=0.1, speed={}),
    RunEnd(run="p", kind="predict", outcome="completed", duration=0.2),
    DemoSummary(
        val_accuracy=0.99,
        held_back_accuracy=0.985,
        events=1000,
        missed=0,
        steps=100,
        step_seconds=0.01,
        bus_seconds=2e-5,
        files=("best.pt",),
        dashboard="lineside serve runs",
    ),
]


def drawn(console: Console, shown: io.StringIO) -> str:
    display = DemoDrawing(ANSWERS, console=console)
    for event in STORY:
        display.show(event)
    return shown.getvalue()


def test_predictions_are_drawn_as_pictures_with_what_is_read_and_how_surely() -> None:
    terminal = io.StringIO()
    shown = drawn(Console(file=terminal, force_terminal=True, width=80, color_system="truecolor"), terminal)
    assert "▀" in shown
    assert "7  98%" in shown
    assert "number 1 shows 7, read as 1 (61% sure)" in shown
    assert "accuracy 99.0% in validation, 98.5% on the digits held back" in shown
    assert "the bus's own thread took 20 µs a training step of 10 ms (0.2%)" in shown
    assert "lineside serve runs   shows all of it in a browser" in shown


def test_without_colors_the_ink_is_shaded() -> None:
    page = io.StringIO()
    Console(file=page, width=80, color_system=None).print(Gallery([Picture(SEVEN, "7  98%", "green")]))
    assert [line.strip() for line in page.getvalue().splitlines()] == ["▒▒▒▒▒█▒▒", "█", "█", "█", "7  98%"]


@pytest.mark.parametrize(("width", "pictures"), [(20, 1), (80, 7), (120, 11)])
def test_as_many_pictures_stand_side_by_side_as_fit(width: int, pictures: int) -> None:
    page = io.StringIO()
    Console(file=page, width=width, color_system=None).print(Gallery([Picture(SEVEN, "7", "green")] * 20))
    assert page.getvalue().splitlines()[-1].count("7") == pictures


def test_plain_lines_name_the_mistakes_only(capsys: pytest.CaptureFixture[str]) -> None:
    progress = DemoProgress(ANSWERS, plain=True)
    for event in STORY:
        progress(event)
    assert capsys.readouterr().out.splitlines()[1] == "mistaken number 1 shows 7, read as 1 (61% sure)"


def test_the_splits_are_the_same_every_time() -> None:
    assert {split: len(digits(split).labels) for split in ("train", "val", "held-back")} == {
        "train": 1257,
        "val": 270,
        "held-back": 270,
    }
    assert [int(label) for label in digits("held-back").labels[:8]] == [7, 3, 4, 4, 2, 4, 4, 9]


@pytest.mark.slow
def test_the_demo_trains_validates_exports_and_predicts(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "lineside", "demo"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=115,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.replace("\n", "").isprintable()
    kinds = [line.split()[0] for line in done.stdout.splitlines() if ", run " in line]
    assert kinds == ["train", "val", "export", "export", "predict"]
    accuracy = re.search(r"accuracy (\d+\.\d)% in validation, (\d+\.\d)% on the digits held back", done.stdout)
    assert accuracy is not None
    assert float(accuracy[1]) >= 97.0
    assert float(accuracy[2]) >= 96.0
    assert "none missed" in done.stdout
    assert re.search(r"lineside serve runs   shows all of it in a browser\n", done.stdout)
    runs = Journal(tmp_path / "runs").runs()
    assert sorted(str(run.kind) for run in runs) == ["export", "export", "predict", "train", "val"]
    assert {run.state for run in runs} == {"finished"}
    (folder,) = (path for path in (tmp_path / "runs").iterdir() if path.is_dir())
    assert {"best.pt", "last.pt", "digits.pt2", "digits.onnx"} <= {path.name for path in folder.iterdir()}


@pytest.mark.slow
def test_a_served_demo_is_shown_until_it_is_interrupted(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "lineside", "demo", "--epochs", "1", "--plain", "--serve"]
    env = {**os.environ, "XDG_CONFIG_HOME": str(tmp_path)}  # where the token goes
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=env, cwd=tmp_path) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        address = re.search(r"http://127\.0\.0\.1:\d+/", first)
        assert address is not None, first
        for line in process.stdout:
            if line.startswith("The dashboard stays"):
                break
        with urllib.request.urlopen(f"{address[0]}healthz") as answer:
            assert answer.status == 200
        process.send_signal(2)
        _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")


@pytest.mark.slow
def test_a_stopped_demo_ends_with_130(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "lineside", "demo", "--epochs", "1000"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("epoch"):
                break
        process.send_signal(2)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "")
    assert "SIGINT received" in out
    assert "export" not in out
