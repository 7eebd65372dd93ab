"""``lineside schema``."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.snippets import interpret

from .strategies import shipped


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current directory, from which modules can be imported."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def schema(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command where no events are known but those of the package."""
    return interpret("-m", "lineside", "schema", *arguments)


def test_json_writes_the_schemas_into_a_directory(here: Path) -> None:
    result = schema("json", "out")
    assert result.returncode == 0
    assert {f"{cls.__name__}.json" for cls in shipped()} | {"events.json"} <= {
        path.name for path in Path("out").iterdir()
    }
    assert "schemas in out" in result.stdout


def test_json_prints_the_union_where_the_directory_is_a_dash(here: Path) -> None:
    result = schema("json", "-")
    assert json.loads(result.stdout)["$id"] == "urn:lineside:events"
    assert list(here.iterdir()) == []


def test_asyncapi_prints_the_document_or_writes_it(here: Path) -> None:
    printed = schema("asyncapi")
    assert json.loads(printed.stdout)["asyncapi"] == "3.0.0"
    result = schema("asyncapi", "api.json")
    assert "api.json" in result.stdout
    assert Path("api.json").read_text() == printed.stdout == schema("asyncapi", "-").stdout


def test_events_of_the_users_own_are_described_when_their_module_is_named(here: Path) -> None:
    (here / "signalbox.py").write_text(
        "from lineside.schemas import Event\nclass LeverPulled(Event):\n    lever: int\n"
    )
    for command in (["json", "-"], ["asyncapi", "-"]):
        result = schema(*command, "--import", "signalbox")
        assert "LeverPulled" in result.stdout


def test_a_module_that_cannot_be_imported_is_named(here: Path) -> None:
    result = schema("json", "out", "--import", "no_such_module")
    assert result.returncode == 2
    assert "no_such_module" in result.stderr
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["json", "taken"], "cannot write taken: taken/RunEnd.json exists and is not a schema"),
        (["json", "taken/RunEnd.json"], "cannot write taken/RunEnd.json: File exists"),
        (["asyncapi", "nowhere/api.json"], "cannot write nowhere/api.json: No such file or directory"),
    ],
)
def test_what_cannot_be_written_is_said_in_a_sentence(here: Path, arguments: list[str], complaint: str) -> None:
    Path("taken").mkdir()
    Path("taken/RunEnd.json").write_text("mine")
    result = schema(*arguments)
    assert result.returncode == 1
    assert complaint in result.stderr
    assert "Traceback" not in result.stdout + result.stderr
    assert Path("taken/RunEnd.json").read_text() == "mine"
