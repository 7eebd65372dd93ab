from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from lineside.bus.journal import Journal
from lineside.schemas import RunEnd, RunStart, decode

Lineside = Callable[..., Any]


class Done(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


def test_the_version_is_printed(lineside: Lineside) -> None:
    done = lineside("--version")
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("lineside 0.")


@pytest.mark.parametrize("arguments", [["no-such-command"], ["train"], ["demo", "--epochs", "0"], ["train", "--what"]])
def test_wrong_usage_ends_with_2(lineside: Lineside, arguments: list[str]) -> None:
    done = lineside(*arguments)
    assert done.code == 2
    assert "Usage: lineside" in done.err


@pytest.mark.slow
def test_train_val_predict_and_export_work_on_one_recipe(lineside: Lineside, recipe: Path) -> None:
    trained = lineside("train", recipe, "--set", "epochs=3")
    assert (trained.code, trained.err) == (0, "")
    assert trained.out.startswith("train    Linear on cpu, run tiny\n")
    assert "epoch    3/3  loss " in trained.out

    validated = lineside("val", recipe, "--weights", "runs/tiny")
    assert validated.code == 0
    assert "4 samples" in validated.out

    predicted = lineside("predict", recipe, "--weights", "runs/tiny", "--log", "predict.jsonl")
    assert predicted.code == 0
    lines = [line for line in predicted.out.splitlines() if "\t" in line]
    assert [line.split("\t")[0] for line in lines] == ["0", "1", "2", "3", "4"]
    events = [decode(line) for line in Path("predict.jsonl").read_bytes().splitlines()]
    assert isinstance(events[0], RunStart)
    assert events[-1].type == "RunEnd"

    exported = lineside("export", recipe, "--weights", "runs/tiny")
    assert exported.code == 0
    assert "tiny.pt2" in exported.out
    value = torch.export.load("tiny.pt2").module()(torch.ones(1, 3))
    assert round(float(value.detach()), 3) == float(lines[0].split("\t")[1])

    starts = list(Journal("runs").events(RunStart))
    assert [start.kind for start in starts] == ["train", "val", "predict", "export"]  # all of them left their events
    assert len(list(Journal("runs").events(RunEnd))) == 4


def test_a_command_keeps_its_events_where_it_is_told_or_not_at_all(lineside: Lineside, recipe: Path) -> None:
    assert lineside("val", recipe, "--no-journal").code == 0
    assert not Path("runs").exists()
    assert lineside("val", recipe, "--journal", "kept").code == 0
    assert len(list(Journal("kept").events(RunEnd))) == 1
    Path("file").write_text("")
    refused = lineside("val", recipe, "--journal", "file")
    assert refused.code == 2
    assert "cannot keep a journal in 'file'" in " ".join(refused.err.split())
    assert "--no-journal" in refused.err


def test_a_setting_that_does_not_exist_ends_with_one_message(lineside: Lineside, recipe: Path) -> None:
    done = lineside("train", recipe, "--set", "epoch=3")
    assert done == (1, "", "error: --set epoch: TrainConfig has no such setting; did you mean epochs?\n")


def test_a_value_that_cannot_be_ends_with_one_message(lineside: Lineside, recipe: Path) -> None:
    done = lineside("train", recipe, "--set", "epochs=-1")
    assert done.code == 1
    assert "epochs: Input should be greater than or equal to 1, got -1" in done.err
    assert "Traceback" not in done.err


def test_a_missing_recipe_ends_with_one_message(lineside: Lineside, tmp_path: Path) -> None:
    done = lineside("train", tmp_path / "absent.py")
    assert done.code == 1
    assert done.err.startswith("error: ")
    assert "does not exist" in done.err


def test_weights_that_do_not_exist_end_with_one_message(lineside: Lineside, recipe: Path) -> None:
    done = lineside("val", recipe, "--weights", "runs/none")
    assert (done.code, done.out) == (1, "")
    assert "there is no checkpoint at runs/none" in done.err


@pytest.mark.parametrize(
    ("command", "lacks"),
    [("train", "train_data"), ("val", "val_data"), ("predict", "predict_data"), ("export", "example_inputs")],
)
def test_a_recipe_without_what_is_needed_says_what_it_lacks(
    lineside: Lineside, recipe: Path, command: str, lacks: str
) -> None:
    recipe.write_text(recipe.read_text().replace(f"    {lacks}=", f"    # {lacks}="))
    done = lineside(command, recipe)
    assert done.code == 1
    assert f"error: this recipe has no {lacks}" in done.err


def test_exporting_without_a_path_anywhere_says_so(lineside: Lineside, recipe: Path) -> None:
    recipe.write_text(recipe.read_text().replace("    export=", "    # export="))
    done = lineside("export", recipe)
    assert done.code == 1
    assert "this recipe has no export, which export without a path needs" in done.err


@pytest.mark.slow
def test_a_run_that_would_overwrite_another_ends_with_one_message(lineside: Lineside, recipe: Path) -> None:
    assert lineside("train", recipe).code == 0
    again = lineside("train", recipe)
    assert again.code == 1
    assert again.err.startswith("error: runs/tiny/last.pt exists and belongs to another run")
    assert "Traceback" not in again.err


def test_a_run_that_fails_is_shown_as_failed_and_ends_with_one_message(lineside: Lineside, recipe: Path) -> None:
    recipe.write_text(recipe.read_text().replace("loss=nn.functional.mse_loss", "loss=lambda *_: 'no tensor'"))
    done = lineside("train", recipe)
    assert done.code == 1
    assert "train    failed in" in done.out
    assert done.err.startswith("error: loss is 'no tensor' of type str; expected a scalar tensor")
    assert "Traceback" not in done.err


FAILING = "lambda: (torch.ones(3) if number < 3000 else 1 / 0 for number in range(3001))"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("data", "error"),
    [("lambda: torch.ones(3000, 3)", ""), (FAILING, "ZeroDivisionError: division by zero")],
    ids=["ends", "fails"],
)
def test_all_results_are_shown_however_slowly_they_are_read(recipe: Path, data: str, error: str) -> None:
    made = recipe.read_text().replace("lambda: torch.ones(5, 3)", data).replace("batch_size=2", "batch_size=20")
    recipe.write_text(made.replace("[round(float(value), 3)", "['-' * 60"))
    command = [sys.executable, "-m", "lineside", "predict", str(recipe)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        numbers: list[str] = []
        for line in process.stdout:
            time.sleep(0.002)  # some seconds in all, more than a bus that is closed waits for its subscribers
            numbers += line.split("\t")[:-1]
        err = process.stderr.read()
    assert numbers == [str(number) for number in range(3000)]
    assert err.strip().rpartition("\n")[2] == error


SIGNALS = [(signal.SIGINT, 130), (signal.SIGTERM, 143)]


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), SIGNALS)
def test_a_signal_stops_training_which_saves(recipe: Path, number: signal.Signals, code: int) -> None:
    done = stop(number, "train", recipe, "--set", "epochs=1000000", after="epoch")
    assert (done.code, done.err) == (code, "")
    assert "stopped in" in done.out
    assert f"{number.name} received" in done.out
    assert Path("runs/tiny/last.pt").exists()


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), SIGNALS)
def test_a_signal_stops_a_prediction_which_is_told_to_its_end(recipe: Path, number: signal.Signals, code: int) -> None:
    endless = "lambda: (torch.ones(3) for _ in iter(int, 1))"
    recipe.write_text(recipe.read_text().replace("lambda: torch.ones(5, 3)", endless))
    done = stop(number, "predict", recipe, "--log", "log.jsonl", after="0\t")
    assert (done.code, done.err) == (code, "")
    assert "predict  stopped in" in done.out
    *_, told, end = (decode(line) for line in Path("log.jsonl").read_bytes().splitlines())
    assert told.type == "PredictEnd"
    assert isinstance(end, RunEnd)
    assert (end.outcome, end.reason) == ("stopped", f"{number.name} received")


def stop(number: signal.Signals, *arguments: object, after: str) -> Done:
    """Run a command in a process of its own and send a signal once it has written a line that begins with `after`."""
    command = [sys.executable, "-m", "lineside", *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        next(line for line in process.stdout if line.startswith(after))
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    return Done(process.returncode, out, err)
