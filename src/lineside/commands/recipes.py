"""Loading the recipe out of the Python file that builds it."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

from lineside.extras import needed_for
from lineside.schemas import LinesideError

with needed_for("running a recipe"):
    from lineside.runners import Recipe


class RecipeError(LinesideError):
    """A recipe that cannot be used."""


class RecipeNotFound(RecipeError, FileNotFoundError):
    """There is no such file."""

    def __init__(self, path: Path) -> None:
        what = "is a folder" if path.is_dir() else "does not exist"
        super().__init__(f"{path} {what}; expected a Python file that builds a lineside.Recipe")


class RecipeUnreadable(RecipeError, ValueError):
    """The file is not Python, or raises when it is run."""

    def __init__(self, path: Path, error: BaseException) -> None:
        where = _line_of(path, error)
        place = f"{path}, line {where}" if where else str(path)
        super().__init__(f"{place}: {type(error).__name__}: {_message(error)}")


class RecipeAmbiguous(RecipeError, LookupError):
    """The file builds no recipe, or more than one."""

    def __init__(self, path: Path, names: Sequence[str]) -> None:
        if names:
            problem = f"builds {len(names)} recipes ({', '.join(names)}); expected one: put each into a file of its own"
        else:
            problem = "builds no recipe; expected one at its top, e.g. `recipe = Recipe(model=..., train_data=...)`"
        super().__init__(f"{path} {problem}")


def load_recipe(path: Path) -> Recipe:
    """Run the file and return the recipe that it builds.

    The file's folder is searched for imports first, as for a script, and the file is importable under its own
    name, so that what it defines can be pickled for the workers of a loader.

    Raises:
        RecipeNotFound: there is no such file.
        RecipeUnreadable: it is not Python, or raises.
        RecipeAmbiguous: it has no recipe at its top level, or several.
    """
    if not path.is_file():
        raise RecipeNotFound(path)
    module = _run(path.resolve(), path)
    found = {id(value): name for name, value in vars(module).items() if isinstance(value, Recipe)}
    if len(found) != 1:
        raise RecipeAmbiguous(path, sorted(found.values()))
    recipe: Recipe = getattr(module, *found.values())
    return recipe


def _run(path: Path, shown: Path) -> ModuleType:
    name = path.stem if path.stem not in sys.modules else f"recipe_{path.stem}"
    spec = spec_from_file_location(name, path, submodule_search_locations=None)
    if spec is None or spec.loader is None:
        raise RecipeUnreadable(shown, ValueError("the name does not end in .py"))
    module = module_from_spec(spec)
    sys.path.insert(0, str(path.parent))
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise RecipeUnreadable(shown, error) from error
    return module


def _line_of(path: Path, error: BaseException) -> int | None:
    """Return the line of the recipe that `error` came through, the innermost."""
    if isinstance(error, SyntaxError):
        return error.lineno
    file = str(path.resolve())
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    return lines[-1] if lines else None


def _message(error: BaseException) -> str:
    return error.msg if isinstance(error, SyntaxError) else str(error)
