"""``lineside runs|events|replay|journal``: what they print, and how they end."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from lineside.bus import Bus
from lineside.bus.journal import Journal
from lineside.schemas import (
    Event,
    FitEpochEnd,
    RunEnd,
    RunStart,
    TrainEpochStart,
    ValEnd,
    decode,
)

Lineside = Callable[..., Any]


class Note(Event, name="tests.cli.Note"):
    text: str


def publish(folder: Path, run: str = "digits", outcome: str | None = "completed") -> Path:
    """Return the file of a small run."""
    with Bus(folder) as bus:
        source = bus.source(run)
        source.publish(RunStart, kind="train", model="Net", device="cpu")
        source.publish(TrainEpochStart, epoch=0, epochs=2, batches=None, lr={})
        metrics: dict[str, Any] = {"metrics": {"accuracy": 0.75}, "losses": {"loss": 0.5}, "fitness": 0.75}
        source.publish(ValEnd, epoch=0, batches=1, samples=4, duration=0.5, speed={}, **metrics)
        best: dict[str, Any] = {"best_fitness": 0.75, "best_epoch": 0, "best": None, "last": None}
        source.publish(FitEpochEnd, epoch=0, epochs=2, duration=1.0, **metrics, **best)
        source.publish(Note, text="two\nlines " + "and more " * 20)
        if outcome:
            source.publish(RunEnd, kind="train", outcome=outcome, duration=2.5)
        path = bus.journal
    assert path is not None
    return path


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of a journal, the one that the commands read if nothing is said."""
    monkeypatch.chdir(tmp_path)
    publish(tmp_path / "runs")
    return tmp_path / "runs"


def test_runs_are_listed_in_plain_columns(lineside: Lineside, folder: Path) -> None:
    publish(folder, "later", outcome=None)
    done = lineside("runs")
    assert (done.code, done.err) == (0, "")
    head, *rows = [line.split() for line in done.out.splitlines()]
    assert head == ["run", "kind", "state", "epoch", "fitness", "events", "seconds", "updated"]
    assert [row[:6] for row in rows] == [
        ["later", "train", "failed", "1/2", "0.75", "5"],
        ["digits", "train", "finished", "1/2", "0.75", "6"],
    ]
    assert lineside("runs", folder).out == done.out


def test_runs_are_listed_as_json(lineside: Lineside, folder: Path) -> None:
    (line,) = lineside("runs", "--json").out.splitlines()
    assert json.loads(line)["metrics"] == {"accuracy": 0.75}


def test_on_a_terminal_runs_are_a_table(folder: Path) -> None:
    leader, follower = pty.openpty()
    command = [sys.executable, "-m", "lineside", "runs", str(folder)]
    env = {**os.environ, "TERM": "xterm", "COLUMNS": "120"}
    with subprocess.Popen(command, stdout=follower, env=env) as listing:
        os.close(follower)
        assert listing.wait() == 0
    shown = os.read(leader, 65536).decode()
    os.close(leader)
    assert "─" in shown
    assert "\x1b[32mfinished" in shown


def test_an_empty_folder_has_no_runs_and_an_absent_one_is_an_error(lineside: Lineside, tmp_path: Path) -> None:
    assert " ".join(lineside("runs", tmp_path).out.split()) == "run kind state epoch fitness events seconds updated"
    done = lineside("runs", tmp_path / "absent")
    assert (done.code, done.out) == (1, "")
    assert "there is no such folder; name the one that Bus('...') was given" in done.err


def test_events_are_lines(lineside: Lineside, folder: Path) -> None:
    done = lineside("events", "digits")
    assert (done.code, done.err) == (0, "")
    lines = done.out.splitlines()
    assert [line.split()[2] for line in lines] == [
        "RunStart",
        "TrainEpochStart",
        "ValEnd",
        "FitEpochEnd",
        "tests.cli.Note",
        "RunEnd",
    ]
    assert "metrics={accuracy: 0.75}" in lines[2]
    assert lines[4].endswith("text=two lines and more and more and more and more and more and …")


def test_events_are_json_as_they_are_kept(lineside: Lineside, folder: Path) -> None:
    done = lineside("events", "digits", "--folder", folder, "--json")
    assert [decode(line) for line in done.out.splitlines()] == list(Journal(folder).events())


@pytest.mark.parametrize(
    ("types", "names"),
    [
        (["ValEnd"], ["ValEnd"]),
        (["on_val_end", "RunEvent"], ["RunStart", "ValEnd", "RunEnd"]),
        (["TrainEvent"], ["TrainEpochStart", "FitEpochEnd"]),
    ],
)
def test_types_and_families_can_be_chosen(lineside: Lineside, folder: Path, types: list[str], names: list[str]) -> None:
    done = lineside("events", "digits", *(word for name in types for word in ("--type", name)))
    assert [line.split()[2] for line in done.out.splitlines()] == names


def test_a_type_that_only_the_journal_knows_can_be_chosen(folder: Path) -> None:
    command = [sys.executable, "-m", "lineside", "events", "digits", "--type", "tests.cli.Note", "--json"]
    done = subprocess.run(command, capture_output=True, check=True)  # a process that knows no such class
    assert [decode(line).type for line in done.stdout.splitlines()] == ["tests.cli.Note"]


def test_a_type_and_a_run_that_nobody_knows_are_errors(lineside: Lineside, folder: Path) -> None:
    done = lineside("events", "digits", "--type", "ValEnde")
    assert done.code == 1
    assert "ValEnd" in done.err
    done = lineside("events", "digit")
    assert done == (1, "", "error: no run 'digit' in 'runs'; did you mean digits?\n")


def test_a_live_run_is_followed_to_its_end(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "lineside", "events", "live", "--folder", str(tmp_path), "--follow", "--json"]
    with Bus(tmp_path) as bus:
        source = bus.source("live")
        source.publish(RunStart, kind="train", model="Net", device="cpu")
        bus.flush()
        with subprocess.Popen(command, stdout=subprocess.PIPE) as follower:
            assert follower.stdout is not None
            assert decode(follower.stdout.readline()).type == "RunStart"
            for n in range(3):
                source.publish(Note, text=str(n))
                event = decode(follower.stdout.readline())
                assert isinstance(event, Note)
                assert event.text == str(n)
            source.publish(RunEnd, kind="train", outcome="completed", duration=1.0)
            assert decode(follower.stdout.readline()).type == "RunEnd"
            assert follower.wait() == 0
            assert follower.stdout.read() == b""


def test_a_replay_shows_the_run_as_it_was_shown(lineside: Lineside, folder: Path) -> None:
    done = lineside("replay", "digits", "--speed", "inf", "--plain")
    assert (done.code, done.err) == (0, "")
    lines = done.out.splitlines()
    assert lines[0] == "train    Net on cpu, run digits"
    assert lines[1].startswith("epoch    1/2  loss 0.5")
    refused = lineside("replay", "digits", "--speed", "0")
    assert (refused.code, refused.out) == (1, "")
    assert "expected more than 0" in refused.err


def test_a_check_says_what_is_damaged(lineside: Lineside, folder: Path) -> None:
    (path,) = Journal(folder).files()
    assert lineside("journal", "check") == (0, f"{path.name}: 6 events\n", "")
    data = bytearray(path.read_bytes())
    data[data.index(b'"accuracy":0.75') + 3] ^= 1
    path.write_bytes(data)
    (folder / "other.sqlite").write_text("no database at all, and longer than a header of one hundred bytes" * 3)
    done = lineside("journal", "check", folder)
    assert done.code == 1
    first, second = sorted(done.out.splitlines())
    assert first == f"{path.name}: 5 events, 3 lost to damage"
    assert second.startswith("other.sqlite: cannot read")


def test_an_export_has_every_event_that_can_be_read(lineside: Lineside, folder: Path) -> None:
    publish(folder, "other")
    events = list(Journal(folder).events())
    done = lineside("journal", "export")
    assert (done.code, done.err) == (0, "")
    assert [decode(line) for line in done.out.splitlines()] == events
    assert (
        lineside("journal", "export", folder, "--run", "other", "-o", "other.jsonl").out == "6 events in other.jsonl\n"
    )
    written = Path("other.jsonl").read_bytes().splitlines()
    assert [decode(line) for line in written] == [event for event in events if event.run == "other"]
    assert lineside("journal", "export", folder, "--run", "absent").code == 1
    assert "cannot write absent/x" in lineside("journal", "export", "-o", "absent/x").err


def test_an_export_says_what_it_lacks(lineside: Lineside, folder: Path) -> None:
    (path,) = Journal(folder).files()
    data = bytearray(path.read_bytes())
    data[data.index(b'"accuracy":0.75') + 3] ^= 1
    path.write_bytes(data)
    done = lineside("journal", "export")
    assert len(done.out.splitlines()) == 5
    assert done.err == f"{path.name}: nothing can be told of 3 to 3\n"


def test_pruning_removes_the_oldest_runs(lineside: Lineside, folder: Path) -> None:
    (old,) = Journal(folder).files()
    new = publish(folder, "new")
    dry = lineside("journal", "prune", folder, "--max-runs", "1", "--dry-run")
    assert dry == (0, f"{old}\n", "1 files would be removed\n")
    assert len(Journal(folder).files()) == 2
    assert lineside("journal", "prune", folder, "--max-age", "2h", "--max-size", "10 MB").out == ""
    assert lineside("journal", "prune", folder, "--max-runs", "1") == (0, f"{old}\n", "1 files were removed\n")
    assert Journal(folder).files() == [new]


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ([], "expected a limit"),
        (["--max-age", "soon"], "a whole number and one of s, m, h, d, w"),
        (["--max-size", "3"], "one of B, kB"),
    ],
)
def test_limits_that_are_none_are_refused(lineside: Lineside, folder: Path, limits: list[str], words: str) -> None:
    done = lineside("journal", "prune", folder, *limits)
    assert done.code == 2
    assert words in " ".join(done.err.replace("│", " ").split())
    assert len(Journal(folder).files()) == 1


def test_limits_may_be_given_as_one_would_write_them() -> None:
    from lineside.commands.journal import _AGES, _SIZES, _quantity  # pyright: ignore[reportPrivateUsage]

    assert _quantity("--max-age", "90m", _AGES) == timedelta(minutes=90)
    assert _quantity("--max-size", " 2 GiB ", _SIZES) == 2 << 30


def test_who_stops_reading_gets_no_traceback(folder: Path) -> None:
    with Bus(folder) as bus:
        for _ in range(20_000):
            bus.source("long").publish(Note, text="words " * 10)
    listing = subprocess.Popen(
        [sys.executable, "-m", "lineside", "events", "long"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert listing.stdout is not None
    assert listing.stderr is not None
    listing.stdout.readline()
    listing.stdout.close()
    assert listing.stderr.read() == b""
    listing.stderr.close()
    listing.wait()
