"""``docs/runners.md`` says what the code says; its snippets and those of ``docs/notebooks.md`` run as written."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
from pydantic.fields import FieldInfo

from lineside import runners
from lineside.runners import ExportConfig, PredictConfig, RunnerConfig, RunnerError, TrainConfig, ValConfig
from lineside.schemas import BusEvent, RunEvent, events

from .snippets import as_program, run

PAGE = Path(__file__).parent.parent / "docs" / "runners.md"
TEXT = PAGE.read_text(encoding="utf-8")
ERRORS = re.findall(r"^\| ([— ]*)`(\w+)`(?: \(`(\w+)`\))? \|", TEXT.partition("## Errors")[2], re.MULTILINE)


@pytest.mark.slow
@pytest.mark.parametrize("page", [PAGE, PAGE.with_name("notebooks.md")], ids=lambda page: page.stem)
def test_the_snippets_of_the_page_run_one_after_the_other(tmp_path: Path, page: Path) -> None:
    program = as_program(page.read_text(encoding="utf-8"))
    assert program.strip(), "no snippet was found"
    run(program, tmp_path, page.name)


@pytest.mark.parametrize("config", [RunnerConfig, TrainConfig, ValConfig, PredictConfig, ExportConfig])
def test_the_settings_are_those_of_the_code(config: type[RunnerConfig]) -> None:
    expected = table(config)
    assert expected in TEXT, f"docs/runners.md is not up to date: the settings of {config.__name__} are\n\n{expected}\n"


def table(config: type[RunnerConfig]) -> str:
    """Return the settings of `config` that are its own, as the page has them."""
    common = {} if config is RunnerConfig else RunnerConfig.model_fields
    rows = ["| Setting | Default | Meaning |", "| --- | --- | --- |"]
    for name, field in config.model_fields.items():
        if name not in common or field.description != common[name].description:
            default = "required" if field.is_required() else f"`{field.default!r}`"
            rows.append(f"| `{name}` | {default} | {field.description}{choices(field)} |")
    return "\n".join(rows)


def choices(field: FieldInfo) -> str:
    parts: list[Any] = [field.annotation, *get_args(field.annotation)]
    found = [repr(value) for part in parts if get_origin(part) is Literal for value in get_args(part)]
    return f" One of `{'`, `'.join(found)}`." if found else ""


def test_every_error_of_the_runners_is_there_with_its_base_and_its_builtin() -> None:
    assert dict(rows()) == {error.__name__: described(error) for error in family(RunnerError)}


def test_every_error_can_be_imported_from_where_the_page_says() -> None:
    errors = [error for error in family(RunnerError) if error.__name__ not in runners.__all__]
    assert [error for error in errors if f"`{error.__module__}`" not in TEXT] == []


def rows() -> Iterator[tuple[str, tuple[str, str]]]:
    bases = ["LinesideError", "RunnerError"]
    for indent, name, builtin in ERRORS:
        level = 0 if name == "RunnerError" else 1 + indent.count("—")
        yield name, (bases[level], builtin)
        bases[level + 1 :] = [name]


def family(error: type[RunnerError]) -> Iterator[type[RunnerError]]:
    yield error
    for child in error.__subclasses__():
        if child.__module__.startswith("lineside."):
            yield from family(child)


def described(error: type[RunnerError]) -> tuple[str, str]:
    base, *others = error.__bases__
    builtin = (next(cls.__name__ for cls in other.__mro__ if cls.__module__ == "builtins") for other in others)
    return base.__name__, "".join(builtin)


def test_every_callback_of_the_original_has_its_counterpart() -> None:
    new = {"on_optimizer_skip", "on_non_finite", "on_export_phase", "on_request_start", "on_request_end"}
    shipped = [cls for cls in events() if cls.__module__.startswith("lineside.schemas.")]
    names = {cls.callback for cls in shipped if not issubclass(cls, (RunEvent, BusEvent))}
    section = TEXT.partition("### Coming from callbacks")[2].partition("\n## ")[0]
    assert {name for name in names - new if f"`{name}`" not in section} == set()
