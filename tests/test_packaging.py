"""What is shipped: the wheel built from the source distribution, as an index would serve it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build sdist and wheel, the wheel from the sdist, and return their folder."""
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


@pytest.fixture(scope="module")
def wheel(dist: Path) -> Path:
    return next(dist.glob("*.whl"))


def names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_the_wheel_holds_every_module_of_the_three_rooms_and_the_face(wheel: Path) -> None:
    rooms = {
        f"lineside/{path.relative_to(ROOT)}" for room in ("bus", "runners", "schemas") for path in modules(ROOT / room)
    }
    face = {str(path.relative_to(ROOT / "src")) for path in modules(ROOT / "src" / "lineside")}
    assert {"lineside/bus/bus.py", "lineside/runners/trainer.py", "lineside/schemas/event.py"} <= rooms | face
    assert rooms | face | {"lineside/py.typed"} <= names(wheel)


def modules(folder: Path) -> list[Path]:
    """Return the Python files in `folder`, not following the links in it."""
    return [Path(top, name) for top, _, files in os.walk(folder) for name in files if name.endswith(".py")]


def test_the_wheel_installs_no_other_name(wheel: Path) -> None:
    assert {name.split("/")[0] for name in names(wheel)} == {"lineside", f"lineside-{version()}.dist-info"}


def version() -> str:
    project: dict[str, str] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return project["version"]


def test_the_wheel_asks_for_ranges_not_for_pins(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        metadata = archive.read(f"lineside-{version()}.dist-info/METADATA").decode()
    assert 'Requires-Dist: torch>=2.8; extra == "train"' in metadata
    assert "==" not in "".join(
        line.partition(";")[0] for line in metadata.splitlines() if line.startswith("Requires-Dist")
    )
    assert "License-Expression: Apache-2.0" in metadata


def test_the_source_distribution_holds_what_the_tests_need(dist: Path) -> None:
    with tarfile.open(next(dist.glob("*.tar.gz"))) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    assert {"tests/test_packaging.py", "examples/watching.ipynb", "LICENSE", "CHANGELOG.md", "constraints.txt"} <= held
    assert not [name for name in held if name.endswith(".pyc")]


def test_the_wheel_works_where_it_is_installed(wheel: Path, tmp_path: Path) -> None:
    """Unpacked beside the dependencies of this environment, and nothing of the checkout in sight."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    code = "import lineside, lineside.bus, lineside.commands; print(lineside.__file__, lineside.__version__)"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        cwd=tmp_path,
        timeout=60,
        check=False,
    )
    assert done.stdout.split() == [str(tmp_path / "lineside" / "__init__.py"), version()], done.stderr


def test_every_dependency_is_pinned_for_the_tests() -> None:
    pinned = {normal(line) for line in (ROOT / "constraints.txt").read_text().splitlines()}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    asked = [
        *project["project"]["dependencies"],
        *(one for extra in project["project"]["optional-dependencies"].values() for one in extra),
        *(one for group in project["dependency-groups"].values() for one in group),
    ]
    assert {normal(one) for one in asked} - {"lineside"} <= pinned
    assert "torch==2.13.0" in (ROOT / "constraints.txt").read_text().splitlines()


def normal(requirement: str) -> str:
    """Return the name in `requirement` as the index spells it."""
    name = re.match(r"[\w.-]*", requirement)
    assert name is not None
    return re.sub(r"[-_.]+", "-", name[0]).lower()
