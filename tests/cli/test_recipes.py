from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lineside import LinesideError, Recipe
from lineside.commands.recipes import load_recipe

Write = Callable[[str], Path]

GOOD = """
from torch import nn
from lineside import Recipe

def model() -> nn.Module:
    return nn.Linear(2, 2)
"""


@pytest.fixture
def write(tmp_path: Path) -> Iterator[Write]:
    """Return what writes a recipe; forget afterwards what loading it left in the interpreter."""
    path, modules = list(sys.path), set(sys.modules)

    def write(text: str, name: str = "my_recipe.py") -> Path:
        file = tmp_path / name
        file.write_text(text)
        return file

    yield write
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        if getattr(sys.modules[name], "__file__", None) and str(tmp_path) in str(sys.modules[name].__file__):
            del sys.modules[name]


def test_a_file_that_builds_a_recipe_gives_it(write: Write) -> None:
    recipe = load_recipe(write(GOOD + "any_name = Recipe(model=model)"))
    assert isinstance(recipe, Recipe)
    assert type(recipe.model()).__name__ == "Linear"


def test_two_names_of_one_recipe_are_one(write: Write) -> None:
    assert load_recipe(write(GOOD + "a = b = Recipe(model=model)"))


def test_modules_beside_the_recipe_can_be_imported(write: Write, tmp_path: Path) -> None:
    (tmp_path / "beside_the_recipe.py").write_text(GOOD)
    assert load_recipe(write("from beside_the_recipe import model, Recipe\nrecipe = Recipe(model=model)"))


def test_a_recipe_named_like_a_package_does_not_replace_it(tmp_path: Path, write: Write) -> None:
    import json

    path = write(GOOD + "recipe = Recipe(model=model)").rename(tmp_path / "json.py")
    assert load_recipe(path)
    assert sys.modules["json"] is json


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(LinesideError, match=r"absent.py does not exist; expected a Python file") as caught:
        load_recipe(tmp_path / "absent.py")
    assert isinstance(caught.value, FileNotFoundError)


def test_a_folder_is_no_recipe(tmp_path: Path) -> None:
    with pytest.raises(LinesideError, match="is a folder"):
        load_recipe(tmp_path)


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("model: x")
    with pytest.raises(LinesideError, match=r"does not end in .py"):
        load_recipe(path)


def test_a_syntax_error_is_shown_with_its_line(write: Write) -> None:
    with pytest.raises(LinesideError, match=r"my_recipe.py, line 2: SyntaxError: "):
        load_recipe(write("x = 1\ndef broken(:\n"))


def test_an_error_at_import_is_shown_with_the_line_of_the_recipe(write: Write) -> None:
    with pytest.raises(LinesideError, match=r"my_recipe.py, line 3: ZeroDivisionError: division by zero") as caught:
        load_recipe(write("def f():\n    pass\n1 / 0\n"))
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_an_invalid_setting_in_the_recipe_is_shown_with_its_line(write: Write) -> None:
    with pytest.raises(LinesideError, match=r"line 2: InvalidConfig: .*\n.*epochs"):
        load_recipe(write("from lineside import TrainConfig\nTrainConfig(epochs=0)\n"))


def test_a_file_without_a_recipe_says_how_to_build_one(write: Write) -> None:
    with pytest.raises(LinesideError, match=r"builds no recipe; expected one at its top, e.g. `recipe = Recipe"):
        load_recipe(write(GOOD))


def test_two_recipes_are_ambiguous(write: Write) -> None:
    with pytest.raises(LinesideError, match=r"builds 2 recipes \(big, small\)"):
        load_recipe(write(GOOD + "big = Recipe(model=model)\nsmall = Recipe(model=model)"))
