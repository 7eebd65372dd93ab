"""What can be imported where torch is not installed, and what must not be loaded before it is needed."""

from __future__ import annotations

import textwrap

import lineside
from lineside import schemas
from lineside.schemas import Event

from .snippets import run_code


def without(*packages: str) -> str:
    """Code after which `packages` are as if they were not installed."""
    return f"""
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {packages!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Missing())
"""


WITHOUT_TORCH = without("torch", "torchmetrics", "numpy", "onnx", "onnxruntime", "sklearn")


def test_importing_lineside_loads_nothing_else() -> None:
    assert (
        run_code("import sys, lineside; print({'torch', 'pydantic', 'anyio', 'rich', 'typer'} & {*sys.modules})")
        == "set()\n"
    )


def test_importing_the_bus_loads_neither_torch_nor_a_display() -> None:
    code = "import sys; from lineside import Bus, Event; print({'torch', 'numpy', 'rich', 'typer'} & {*sys.modules})"
    assert run_code(code) == "set()\n"


def test_a_machine_without_torch_publishes_and_listens() -> None:
    code = """
    from lineside import Bus, Event, TrainBatchEnd
    from lineside.bus.subscribers import JsonLines, Progress

    class Drift(Event):
        score: float

    with Bus() as bus:
        bus.subscribe(lambda event: print(event.score), Drift)
        bus.publish(Drift, score=0.5)
    """
    assert run_code(WITHOUT_TORCH + textwrap.dedent(code)) == "0.5\n"


def test_asking_for_a_trainer_without_torch_says_what_to_install() -> None:
    code = """
    import lineside
    try:
        from lineside import Trainer
    except ImportError as error:
        print(isinstance(error, lineside.LinesideError), error.name, error)
    """
    says = run_code(WITHOUT_TORCH + textwrap.dedent(code))
    assert says.startswith("True ")
    assert "lineside.Trainer needs packages that are not installed here" in says
    assert says.endswith("pip install 'lineside[train]'\n")


def test_a_run_of_ones_own_loop_without_torch_says_what_to_install() -> None:
    code = """
    from lineside import Bus
    with Bus() as bus:
        try:
            bus.run("digits")
        except ImportError as error:
            print(type(error).__name__, error)
    """
    says = run_code(WITHOUT_TORCH + textwrap.dedent(code))
    assert says.startswith("RunsUnavailable bus.run() needs the runners (No module named 'torch")
    assert says.endswith("pip install 'lineside[train]'\n")


def test_the_command_line_without_torch_describes_the_events_and_refuses_to_train() -> None:
    code = """
    from typer.testing import CliRunner
    from lineside.commands import app
    print(CliRunner().invoke(app, ["schema", "asyncapi"]).exit_code)
    refused = CliRunner().invoke(app, ["train", "recipe.py"])
    print(refused.exit_code, refused.output.strip())
    """
    described, refused = run_code(WITHOUT_TORCH + textwrap.dedent(code)).splitlines()
    assert described == "0"
    assert refused.startswith("1 error: running a recipe needs packages that are not installed here")


def test_a_prediction_service_without_the_packages_that_serve_says_what_to_install() -> None:
    code = """
    try:
        from lineside import PredictionService
    except ImportError as error:
        print(error)
    """
    assert run_code(without("starlette") + textwrap.dedent(code)).endswith("pip install 'lineside[serve]'\n")


def test_a_star_import_gives_the_events_and_what_the_installed_packages_are_enough_for() -> None:
    code = """
    from lineside import *
    print([name in globals() for name in ("Bus", "TrainBatchEnd", "connect", "Trainer", "PredictionService")])
    """
    code = textwrap.dedent(code)
    assert run_code(code) == "[True, True, True, True, True]\n"
    assert run_code(without("torch") + code) == "[True, True, True, False, False]\n"
    assert run_code(without("starlette", "fastapi", "httpx2") + code) == "[True, True, False, True, False]\n"


def test_every_name_of_the_face_is_there() -> None:
    assert {name: getattr(lineside, name) is not None for name in lineside.__all__} == dict.fromkeys(
        lineside.__all__, True
    )
    assert {*lineside.__all__} <= {*dir(lineside)}


def test_every_event_can_be_had_from_the_face() -> None:
    classes: list[type[Event]] = [Event, *schemas.events()]
    for event in classes:
        if event.__module__.startswith("lineside.schemas"):
            assert getattr(lineside, event.__name__) is event


def test_a_name_that_does_not_exist_is_an_attribute_error() -> None:
    assert not hasattr(lineside, "Trainr")
    assert not hasattr(lineside, "_private")


def test_the_version_is_that_of_the_package() -> None:
    assert (
        lineside.__version__ == run_code("from importlib.metadata import version; print(version('lineside'))").strip()
    )
