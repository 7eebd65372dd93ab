"""A run as a data frame: what the bus remembers of its events, row by row."""
# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false
# The types of pandas are unfinished.

from __future__ import annotations

import asyncio
import builtins
import math
import sys
import threading
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lineside import Bus, FitEpochEnd, RunEnd, TrainBatchEnd, TrainBatchStart, Trainer
from lineside.bus.journal import Journal
from lineside.bus.notebook import BeginForgotten, FrameLibraryMissing, FrameLibraryUnknown
from lineside.bus.notebook.frame import frame
from lineside.runners import TrackedRun
from tests.runners.support import make_trainer, start

numbers = st.floats(allow_nan=False, width=32)
names = st.text("abcdef.", min_size=1, max_size=4)


def batch_end(number: int, losses: Mapping[str, float]) -> TrainBatchEnd:
    return TrainBatchEnd(
        epoch=0,
        batch=number,
        batches=None,
        batch_size=2,
        step=number,
        loss=0.5,
        losses=dict(losses),
        lr={"all": 0.1},
    )


@settings(deadline=None)  # the first example imports the library
@given(st.lists(st.dictionaries(names, numbers, max_size=4), max_size=6))
@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_every_value_is_found_in_its_row_under_its_name(library: Any, losses: list[dict[str, float]]) -> None:
    events = [batch_end(number, parts) for number, parts in enumerate(losses)]
    made = cast("Any", frame(events, library))
    rows: list[dict[str, Any]] = made.to_dict("records") if library == "pandas" else made.to_dicts()
    assert len(rows) == len(events)
    for row, event in zip(rows, events, strict=True):
        found = {name.removeprefix("losses."): value for name, value in row.items() if name.startswith("losses.")}
        there = {name: value for name, value in found.items() if value is not None and not math.isnan(value)}
        assert there == event.losses
        assert (row["loss"], row["lr.all"], row["step"], row["batch_size"]) == (0.5, 0.1, event.step, 2)
        assert row["time"] == event.time


def test_the_columns_are_the_fields_in_their_order_and_times_are_utc() -> None:
    made = frame([batch_end(0, {"box": 1.0}), batch_end(1, {"box": 2.0, "obj": 3.0})])
    own = list(made.columns)[7:]
    assert own == [
        "epoch",
        "batch",
        "batches",
        "batch_size",
        "step",
        "loss",
        "losses.box",
        "losses.obj",
        "lr.all",
        "seconds",
    ]
    assert str(made["time"].dtype) == "datetime64[us, UTC]"


def test_a_frame_is_of_what_came_until_now_while_the_run_goes_on_and_after_its_end() -> None:
    trainer = make_trainer(Path("none"), epochs=2, save=False)
    inside: list[tuple[int, int]] = []
    started = threading.Event()

    @trainer.hook(TrainBatchEnd)
    def look(event: TrainBatchEnd, _: Trainer) -> None:
        assert started.wait(60)
        inside.append((event.step, len(run.frame(TrainBatchEnd))))

    run = trainer.start()
    started.set()
    result = run.result(60)
    assert [rows for _, rows in inside] == list(range(1, result.step + 1))
    seen = list(run.stream(TrainBatchEnd))
    whole = run.frame(TrainBatchEnd)
    assert list(whole["seq"]) == [event.seq for event in seen]
    assert list(whole["loss"]) == [event.loss for event in seen]
    assert list(run.frame()["type"]) == ["FitEpochEnd"] * 2
    assert set(run.frame(TrainBatchEnd, "RunEnd")["type"]) == {"TrainBatchEnd", "RunEnd"}


def test_a_frame_of_nothing_has_the_columns() -> None:
    run = TrackedRun(bus := Bus(), "nothing")
    made = run.frame(TrainBatchEnd)
    assert len(made) == 0
    assert "loss" in made.columns
    bus.close()


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_a_frame_of_nothing_has_the_types_of_one_with_rows(library: Any) -> None:
    filled = cast("Any", frame([batch_end(0, {"box": 1.0})], library))
    empty = cast("Any", frame([], library, [TrainBatchEnd]))
    kinds: list[dict[str, str]] = [
        {name: str(made[name].dtype) for name in made.columns if made[name].dtype != object} for made in (filled, empty)
    ]
    shared = [name for name in kinds[0] if name in kinds[1] and name != "batches"]  # it is None in the row
    assert {"time", "rank", "epoch", "step", "loss", "seconds", "elapsed"} <= {*shared}
    assert empty["run"].dtype == filled["run"].dtype  # in pandas 2 that of any object
    assert [kinds[1][name] for name in shared] == [kinds[0][name] for name in shared]
    ends = cast("Any", frame([], library, [FitEpochEnd]))
    assert str(ends["fitness"].dtype).lower() == "float64"
    assert str(ends["final"].dtype).lower() in ("bool", "boolean")
    if library == "pandas":
        assert list(empty["time"].dt.date) == []


async def test_it_can_be_made_on_the_loop_that_the_bus_needs() -> None:
    async with Bus() as bus:
        run = start(make_trainer(Path("none"), epochs=1, save=False, bus=bus))
        await run.next(FitEpochEnd)
        assert len(run.frame(FitEpochEnd)) == 1
        await run
        await asyncio.sleep(0)
    assert len(run.frame(FitEpochEnd)) == 1  # the bus is closed


def test_a_begin_that_is_forgotten_is_said_with_what_to_do() -> None:
    with Bus(window=64) as bus:
        run = make_trainer(Path("none"), epochs=20, save=False, bus=bus).start()
        run.result(60)
        with pytest.warns(BeginForgotten, match=r"first \d+ events .* Bus\('runs/'\)"):
            made = run.frame(TrainBatchEnd)
    assert 0 < len(made) < 64


def test_the_own_bus_of_a_runner_remembers_more_where_there_is_a_handle_to_look_back_with() -> None:
    trainer = make_trainer(Path("none"), epochs=1, save=False)

    @trainer.hook(RunEnd)
    def publish_many(event: RunEnd, trainer: Trainer) -> None:
        for number in range(10_000):
            trainer.bus.publish(batch_end(number, {}))

    run = trainer.start()
    run.result(60)
    assert len(run.frame(TrainBatchStart)) > 0  # which would warn if the begin were forgotten
    trainer.run()
    assert trainer.bus.stats().memory < 10_000


def test_a_journal_remembers_what_memory_forgot(tmp_path: Path) -> None:
    with Bus(tmp_path, window=64) as bus:
        runs = [make_trainer(Path("none"), epochs=20, save=False, bus=bus).start() for _ in range(2)]
        results = [run.result(60) for run in runs]
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            made = [run.frame(TrainBatchEnd) for run in runs]
        for run, result, table in zip(runs, results, made, strict=True):
            assert list(table["step"]) == list(range(1, result.step + 1))
            assert set(table["run"]) == {run.id}
    pd.testing.assert_frame_equal(runs[0].frame(TrainBatchEnd), made[0])  # from a closed bus
    pd.testing.assert_frame_equal(Journal(tmp_path).frame(TrainBatchEnd, run=runs[0].id), made[0])
    assert len(Journal(tmp_path).frame()) == 40


def test_events_that_nobody_had_asked_for_are_built_for_the_frame_alone() -> None:
    with Bus() as bus:
        source = bus.source("mine")
        source.publish(TrainBatchStart, epoch=0, batch=0, batches=1, batch_size=4)
        source.publish(TrainBatchStart, epoch="no number", batch=0, batches=1, batch_size=4)
        bus.source("other").publish(TrainBatchStart, epoch=7, batch=0, batches=1, batch_size=4)
        events, missing = bus.remembered(TrainBatchStart, RunEnd, run="mine")
        assert ([event.seq for event in events], missing) == ([1], 0)


@pytest.mark.parametrize(
    ("library", "missing"), [(None, "pandas or polars"), ("pandas", "pandas"), ("polars", "polars")]
)
def test_without_the_library_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, library: Any, missing: str
) -> None:
    for name in ("pandas", "polars"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(FrameLibraryMissing, match=rf"{missing}.* pip install 'lineside\[notebook\]'"):
        frame([], library)


def test_without_pandas_it_is_a_frame_of_polars(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    made: object = frame([batch_end(0, {})])
    assert type(made).__module__.startswith("polars")
    assert builtins.len(cast("Any", made)) == 1


def test_a_library_that_nobody_knows_is_refused() -> None:
    with pytest.raises(FrameLibraryUnknown, match="'arrow'.*'pandas', 'polars'"):
        frame([], cast("Any", "arrow"))
