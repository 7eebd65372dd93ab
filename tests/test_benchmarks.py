"""Every benchmark runs: a smoke run each, whose figures nobody reads."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

FOLDER = Path(__file__).parent.parent / "benchmarks"
NEEDS = {
    "publish": ("pyee", "blinker", "psygnal", "bubus"),
    "throughput": ("pyee", "blinker", "psygnal", "bubus"),
    "latency": ("pyee", "blinker", "psygnal", "bubus"),
    "loop": ("torch", "pyee", "bubus"),
    "flood": ("pyee", "blinker", "psygnal", "bubus"),
    "order": (),
    "journal": (),
    "replay": (),
    "exit": (),
    "imports": (),
    "service": ("fastapi", "uvicorn"),
    "dashboard": ("fastapi", "uvicorn", "playwright"),
    "notebook": ("torch", "anywidget"),
    "predict": ("torch", "PIL"),
    "predict_service": ("torch", "fastapi", "uvicorn"),
    "gpu": ("torch",),
}
REHEARSED = {"gpu": ("--device", "cpu")}
"""What a machine without the hardware needs to be told."""


def run(name: str, *flags: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(FOLDER / f"{name}.py"), *flags],
        capture_output=True,
        text=True,
        timeout=100,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


@pytest.mark.parametrize("name", NEEDS)
def test_a_benchmark_prints_its_tables_and_writes_its_record(name: str, tmp_path: Path) -> None:
    missing = [package for package in NEEDS[name] if find_spec(package) is None]
    if missing:
        pytest.skip(f"needs {', '.join(missing)}: pip install --group bench")
    record = tmp_path / "record.json"

    done = run(name, "--quick", "--json", str(record), *REHEARSED.get(name, ()))

    assert done.returncode == 0, done.stderr
    written = json.loads(record.read_text())
    assert written["benchmark"] == name
    assert all(table["rows"] for table in written["tables"])
    assert all(table["title"] in done.stdout for table in written["tables"])


def test_the_table_of_the_benchmarks_names_each_of_them() -> None:
    scripts = {path.stem for path in FOLDER.glob("*.py") if "__main__" in path.read_text()}
    named = re.findall(r"^\| `(\w+)\.py` \|", (FOLDER / "README.md").read_text(), re.MULTILINE)
    assert sorted(named) == sorted(scripts) == sorted(NEEDS)


@pytest.mark.skipif(find_spec("torch") is None, reason="needs torch")
def test_without_a_cuda_device_the_benchmark_for_one_says_so_and_is_content(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    done = run("gpu")
    assert done.returncode == 0, done.stderr
    assert "no CUDA device" in done.stdout
