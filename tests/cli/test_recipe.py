from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.optim import SGD

from lineside import ExportConfig, LinesideError, Recipe, TrainConfig

BATCHES = [(torch.ones(4, 3), torch.ones(4, 1))]

recipe = Recipe(
    model=lambda: nn.Linear(3, 1),
    train_data=lambda: BATCHES,
    val_data=lambda: BATCHES,
    example_inputs=lambda: torch.ones(2, 3),
    loss=nn.functional.mse_loss,
    optimizer=lambda parameters: SGD(parameters, lr=0.1),
    train=TrainConfig(epochs=2, seed=7, device="cpu"),
)


def test_settings_replace_those_of_the_recipe_for_one_runner(tmp_path: Path) -> None:
    trainer = recipe.trainer(epochs=1, directory=tmp_path)
    assert (trainer.config.epochs, trainer.config.seed) == (1, 7)
    assert recipe.train.epochs == 2


def test_every_runner_gets_a_module_of_its_own_and_with_a_seed_the_same_weights() -> None:
    one, other = recipe.trainer().model, recipe.trainer().model
    assert one is not other
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_what_was_trained_is_validated_and_exported(tmp_path: Path) -> None:
    trained = recipe.trainer(directory=tmp_path / "run").run()
    assert trained.best is not None
    validated = recipe.validator(trained.best, device="cpu").run()
    assert validated.losses["loss"] == pytest.approx(trained.metrics["loss"])
    exported = recipe.exporter(tmp_path / "run", path=tmp_path / "model.pt2").run()
    assert exported.path == tmp_path / "model.pt2"


def test_a_path_takes_the_place_of_the_recipes_and_says_the_format() -> None:
    strict = replace(recipe, export=ExportConfig(path=Path("model.pt2"), format="pt2", tolerance=1e-6))
    config = strict.export_to("other.onnx")
    assert (config.path, config.file_format, config.tolerance) == (Path("other.onnx"), "onnx", 1e-6)
    assert strict.export_to(None) == strict.export


def test_what_is_for_onnx_only_is_left_out_of_another_format() -> None:
    modern = replace(recipe, export=ExportConfig(path=Path("model.onnx"), opset=20, tolerance=1e-6))
    config = modern.export_to("model.pt2")
    assert (config.file_format, config.opset, config.tolerance) == ("pt2", None, 1e-6)
    assert modern.export_to("other.onnx").opset == 20


@pytest.mark.parametrize(
    ("incomplete", "part"),
    [(replace(recipe, train_data=None), "train_data"), (replace(recipe, optimizer=None), "optimizer")],
)
def test_a_part_that_training_needs_is_named_when_it_is_missing(incomplete: Recipe, part: str) -> None:
    with pytest.raises(LinesideError, match=f"this recipe has no {part}, which training needs"):
        incomplete.trainer()


def test_weights_of_another_module_are_refused(tmp_path: Path) -> None:
    recipe.trainer(directory=tmp_path, epochs=1).run()
    with pytest.raises(LinesideError, match="does not fit"):
        replace(recipe, model=lambda: nn.Linear(4, 1)).trained(tmp_path)
