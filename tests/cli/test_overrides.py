from __future__ import annotations

import pytest
import typer

from lineside import LinesideError, TrainConfig
from lineside.commands.overrides import limited, literal, override
from lineside.runners.serving import PredictionLimits


@pytest.mark.parametrize(
    ("value", "means"),
    [
        ("5", 5),
        ("1e-3", 0.001),
        ("true", True),
        ("False", False),
        ("null", None),
        ("None", None),
        ("[1, 2]", [1, 2]),
        ('"5"', "5"),
        ("bf16", "bf16"),
        ("runs/a=b", "runs/a=b"),
        ("", ""),
    ],
)
def test_a_value_is_json_or_one_of_pythons_words_or_text(value: str, means: object) -> None:
    assert literal(value) == means


def test_settings_are_replaced_and_the_others_kept() -> None:
    config = override(TrainConfig(epochs=3, seed=1), ["epochs=5", "clip_norm = 1.0", "directory=runs/x"])
    assert (config.epochs, config.clip_norm, config.seed) == (5, 1.0, 1)
    assert str(config.directory) == "runs/x"


def test_the_last_of_two_settings_counts() -> None:
    assert override(TrainConfig(), ["epochs=5", "epochs=6"]).epochs == 6


def test_nothing_to_set_changes_nothing() -> None:
    assert override(TrainConfig(epochs=3), []) == TrainConfig(epochs=3)


def test_an_unknown_setting_is_refused_with_the_closest_names() -> None:
    with pytest.raises(LinesideError, match="TrainConfig has no such setting; did you mean epochs") as caught:
        override(TrainConfig(), ["epoch=5"])
    assert isinstance(caught.value, LookupError)


def test_a_setting_like_no_other_is_refused_with_all_names() -> None:
    with pytest.raises(LinesideError, match=r"there are .*epochs, max_steps"):
        override(TrainConfig(), ["zzz=5"])


def test_a_value_that_cannot_be_is_refused_with_its_reason() -> None:
    with pytest.raises(LinesideError, match="epochs: Input should be greater than or equal to 1, got 0"):
        override(TrainConfig(), ["epochs=0"])


@pytest.mark.parametrize("assignment", ["epochs", "=5", " =5"])
def test_what_is_no_assignment_is_wrong_usage(assignment: str) -> None:
    with pytest.raises(typer.BadParameter, match="expected key=value"):
        override(TrainConfig(), [assignment])


def test_limits_of_a_service_are_replaced_likewise() -> None:
    limits = limited(PredictionLimits(), ["body=1000", "answer=0.5"])
    assert (limits.body, limits.answer, limits.queue) == (1000, 0.5, PredictionLimits().queue)
    with pytest.raises(LinesideError, match="--limit bodi: PredictionLimits has no such setting; did you mean body"):
        limited(limits, ["bodi=1"])
    with pytest.raises(LinesideError, match="body=0; expected a whole number, at least 1"):
        limited(limits, ["body=0"])
    with pytest.raises(typer.BadParameter, match="expected key=value"):
        limited(limits, ["body"])
