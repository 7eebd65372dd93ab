"""The curves that are drawn: of bounded size, with every extreme."""

from __future__ import annotations

import math
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from lineside.bus.notebook.series import Series, drawable, short


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True), max_size=400), st.integers(2, 20))
def test_a_curve_of_any_length_keeps_its_extremes_and_its_size(values: list[float], limit: int) -> None:
    curve = Series(limit)
    for x, value in enumerate(values):
        curve.add(x, value)
    rows = curve.rows()
    assert len(rows) <= limit
    assert [row[0] for row in rows] == sorted({row[0] for row in rows})
    finite = [value for value in values if drawable(value)]
    assert min((low for _, low, _, _ in rows if low is not None), default=None) == (
        short(min(finite)) if finite else None
    )
    assert max((high for *_, high, _ in rows if high is not None), default=None) == (
        short(max(finite)) if finite else None
    )
    assert all(low <= mean <= high for _, low, high, mean in rows if low is not None and high is not None and mean)


def test_a_single_spike_among_a_million_points_is_seen() -> None:
    curve = Series(600)
    for x in range(1_000_000):
        curve.add(x, 100.0 if x == 1_777 else 0.5)
    spikes = [row for row in curve.rows() if row[2] == 100.0]
    assert len(spikes) == 1
    assert abs(spikes[0][0] - 1_777) <= 1_000_000 / 300


def test_the_newest_value_of_a_curve_is_told_whatever_its_row_stands_for() -> None:
    curve = Series(8)
    for x in range(20):
        curve.add(x, float(x))
        assert curve.newest == x
    curve.add(20, math.nan)
    assert curve.newest is not None
    assert math.isnan(curve.newest)
    curve.cut(0)
    assert curve.newest is None


def test_rows_that_were_sent_do_not_change_within_a_generation() -> None:
    curve = Series(8)
    sent: list[Any] = []
    generation = 0
    for x in range(100):
        curve.add(x, float(x % 7))
        if curve.generation != generation:
            generation, sent = curve.generation, []
        assert curve.rows()[: len(sent)] == sent
        sent = curve.rows()[:-1]


def test_what_a_resumed_run_does_again_is_drawn_once() -> None:
    curve = Series()
    for x in (1, 2, 3, 4):
        curve.add(x, 1.0)
    curve.cut(3)
    curve.add(3, 5.0)
    assert [row[0] for row in curve.rows()] == [1, 2, 3]
    assert curve.generation == 1
