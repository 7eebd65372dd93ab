from __future__ import annotations

import math
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from lineside.schemas import Boxes, Classes, Part, Values

number = st.floats(allow_nan=False)
names = st.text(max_size=5)


@st.composite
def some_classes(draw: st.DrawFn) -> Classes:
    scores = sorted(draw(st.lists(number, max_size=5)), reverse=True)
    count = len(scores)
    indices = draw(st.lists(st.integers(0, 10**6), min_size=count, max_size=count))
    return Classes(names=tuple(draw(names) for _ in scores), scores=tuple(scores), indices=tuple(indices))


@st.composite
def some_boxes(draw: st.DrawFn) -> Boxes:
    found = draw(st.lists(st.tuples(st.tuples(number, number, number, number), names, number, st.integers(0, 99))))
    where, what, sure, indices = zip(*found, strict=True) if found else ((), (), (), ())
    return Boxes(boxes=where, names=what, scores=sure, indices=indices, width=draw(st.none() | st.integers(0, 9999)))


@st.composite
def some_values(draw: st.DrawFn) -> Values:
    shape = tuple(draw(st.lists(st.integers(0, 3), max_size=3)))
    count = math.prod(shape)
    return Values(shape=shape, values=tuple(draw(st.lists(number, min_size=count, max_size=count))))


@given(some_classes() | some_boxes() | some_values())
def test_a_result_is_written_and_read_again_as_it_was(result: Part) -> None:
    assert type(result).model_validate_json(result.model_dump_json()) == result
    assert type(result).model_validate(result.model_dump(mode="json")) == result
    assert pickle.loads(pickle.dumps(result)) == result
    assert hash(result) == hash(pickle.loads(pickle.dumps(result)))


def test_nan_and_infinity_are_values_too() -> None:
    written = Values(shape=(3,), values=(math.nan, math.inf, -math.inf)).model_dump_json()
    nan, *infinite = Values.model_validate_json(written).values
    assert math.isnan(nan)
    assert infinite == [math.inf, -math.inf]


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda: Classes(names=("a",), scores=(), indices=(0,)), "expected one of each, got 1 names, 0 scores"),
        (lambda: Classes(names=("a", "b"), scores=(0.1, 0.9), indices=(0, 1)), "the best is to come first"),
        (lambda: Boxes(boxes=((0, 0, 1, 1),), names=(), scores=(), indices=()), "expected one of each, got 1 boxes"),
        (lambda: Values(shape=(2, 2), values=(1.0,)), r"a shape of \(2, 2\) has 4 values, got 1"),
    ],
)
def test_what_does_not_fit_together_is_refused(make: Any, problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        make()


def test_results_say_what_they_are() -> None:
    best = Classes(names=("espresso", "cup"), scores=(0.78, 0.1), indices=(967, 968))
    assert (best.name, best.score, best.index, str(best)) == ("espresso", 0.78, 967, "espresso 0.78, cup 0.10")
    assert list(best.pairs()) == [("espresso", 0.78), ("cup", 0.1)]
    none = Classes(names=(), scores=(), indices=())
    assert (none.name, none.score, none.index, str(none)) == ("", 0.0, None, "no class")
    box = Boxes(boxes=((1, 2, 3, 4),), names=("cat",), scores=(0.9,), indices=(1,))
    assert (list(box.found()), str(box)) == ([("cat", 0.9, (1.0, 2.0, 3.0, 4.0))], "cat 0.90")
    assert str(Values(shape=(9,), values=(1.0,) * 9)) == "[1, 1, 1, 1, 1, 1, 1, 1, …]"
    with pytest.raises(ValueError, match="there are 0 values, not one"):
        print(Values(shape=(0,), values=()).value)
    assert Values(shape=(2, 0), values=()).nested() == [[], []]
