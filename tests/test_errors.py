"""Every error of the package goes from process to process as it is."""

from __future__ import annotations

import copy
import importlib
import inspect
import pickle
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

import lineside
from lineside.runners import PredictConfig
from lineside.schemas import LinesideError, RunEnd

from .snippets import run_code


def refusal() -> ValidationError:
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(int).validate_python("three")
    return caught.value


EXAMPLES: dict[str, Any] = {
    "type": RunEnd,
    "type[Event]": RunEnd,
    "RunnerConfig": PredictConfig(),
    "Path": Path("a/b.pt"),
    "int": 3,
    "float": 0.5,
    "bytes": b"{",
    "OSError": OSError(28, "No space left on device"),
    "BaseException": ValueError("seven"),
    "Exception": ValueError("seven"),
    "ValidationError": refusal(),
    "Mapping": {"a": 1},
    "dict": {"a": 1},
    "Iterable": ("a", "b"),
    "Sequence": ("a", "b"),
    "Sized": ("a", "b"),
    "list": ["a", "b"],
    "tuple": ("a", "b"),
    "package": "torch",
}
"""An argument by the name or the annotation of the parameter, whole or up to its bracket; else it is a word."""


def errors() -> list[type[LinesideError]]:
    """The errors of all modules of the package."""
    for module in pkgutil.walk_packages(lineside.__path__, "lineside."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    return sorted({*family(LinesideError)}, key=lambda cls: (cls.__module__, cls.__name__))


def family(cls: type[LinesideError]) -> Iterator[type[LinesideError]]:
    yield cls
    for child in cls.__subclasses__():
        if child.__module__.startswith("lineside."):
            yield from family(child)


def made(cls: type[LinesideError]) -> LinesideError:
    if not any("__init__" in vars(base) for base in cls.__mro__[: cls.__mro__.index(LinesideError)]):
        return cls("what was wrong")
    parameters = list(inspect.signature(cls.__init__).parameters.values())[1:]
    named = {one.name: example(one) for one in parameters if one.kind is one.KEYWORD_ONLY}
    return cls(*(example(one) for one in parameters if one.kind is one.POSITIONAL_OR_KEYWORD), **named)


def example(parameter: inspect.Parameter) -> Any:
    annotation = str(parameter.annotation).partition(" | ")[0]
    for key in (parameter.name, annotation, annotation.partition("[")[0].rpartition(".")[2]):
        if key in EXAMPLES:
            return EXAMPLES[key]
    return "word"


@pytest.mark.parametrize("cls", errors(), ids=lambda cls: cls.__name__)
def test_an_error_is_pickled_and_copied_as_it_is(cls: type[LinesideError]) -> None:
    error = made(cls)
    error.add_note("seen in a worker")
    check(pickle.loads(pickle.dumps(error)), error)
    check(copy.copy(error), error)


def check(twin: Any, error: LinesideError) -> None:
    assert type(twin) is type(error)
    assert (str(twin), twin.args) == (str(error), error.args)
    assert twin.__notes__ == ["seen in a worker"]
    for detail in ("name", "path", "errno", "strerror", "filename"):  # what the built-in ones know
        assert getattr(twin, detail, None) == getattr(error, detail, None)


def test_a_pool_of_processes_reports_what_could_not_be_decoded() -> None:
    # In an interpreter of its own: a pool leaves a process behind that lives as long as the one that made it.
    code = """
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context
    from lineside.schemas import decode

    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        refused = pool.submit(decode, b"{").exception()
        print(type(refused).__name__, refused)
    """
    assert run_code(code).startswith("UndecodableEvent cannot decode an event: not JSON")
