"""``lineside predict serve``, as a process of its own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import httpx2 as httpx
import pytest

from lineside.bus.journal import Journal
from lineside.schemas import RequestEnd, RunEnd
from tests.snippets import interpret

from .support import PATIENCE, inputs, lines, results

RECIPE = """
import torch
from torch import nn
from lineside import Recipe

class Double(nn.Module):
    def forward(self, values):
        return values * 2

recipe = Recipe(model=Double, postprocess=lambda outputs, batch: [float(one) for one in outputs])
"""

HANG = """
import threading

def hang(data, media_type):
    print("it hangs")
    threading.Event().wait()

"""


@contextmanager
def started(folder: Path, recipe: str, *arguments: str) -> Generator[subprocess.Popen[str]]:
    """Run it."""
    (folder / "recipe.py").write_text(recipe)
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "lineside", "predict", "serve", "recipe.py", "--port", "0", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=folder,
        env={**os.environ, "XDG_CONFIG_HOME": str(folder)},
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


@contextmanager
def command(folder: Path, *arguments: str, recipe: str = RECIPE) -> Generator[tuple[subprocess.Popen[str], str, str]]:
    """Run it and give the process, its address and its token."""
    with started(folder, recipe, *arguments) as process:
        assert process.stdout is not None
        said = [process.stdout.readline() for _ in range(2)]
        address = re.search(r"(http://\S+)/predict;", said[0])
        token = re.search(r"Bearer (\S+)'", said[1])
        assert address is not None, said
        link = f"{address[1]}/docs?token={token[1]}" if token else f"{address[1]}/docs"
        assert f"; {link} says how." in said[0]
        yield process, address[1], token[1] if token else ""


@pytest.mark.slow
@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGINT])
def test_it_computes_what_is_sent_with_the_token_and_a_signal_ends_its_run(
    tmp_path: Path, ending: signal.Signals
) -> None:
    with command(tmp_path, "--set", "batch_size=8", "--limit", "body=1000") as (process, address, token):
        with httpx.Client(base_url=address, trust_env=False, timeout=PATIENCE) as client:
            assert client.post("/predict", json=inputs(1)).status_code == 401
            client.headers["authorization"] = f"Bearer {token}"
            assert results(lines(client.post("/predict", json=inputs(1, 2)))) == [2.0, 4.0]
            about = client.get("/").json()
            assert (about["batch_size"], about["limits"]["body"]) == (8, 1000)
            assert client.post("/predict", json=inputs(*range(1000))).status_code == 413
        process.send_signal(ending)
        assert process.wait(PATIENCE) == 128 + ending
    kept = list(Journal(tmp_path / "runs").events(RequestEnd, RunEnd))
    assert [event.type for event in kept] == ["RequestEnd", "RunEnd"]
    assert isinstance(kept[-1], RunEnd)
    assert (kept[-1].outcome, kept[-1].reason) == ("stopped", "the service was shut down")


@pytest.mark.slow
def test_a_signal_ends_it_while_a_picture_hangs_in_the_decode_of_the_recipe(tmp_path: Path) -> None:
    hanging = RECIPE.replace("recipe = Recipe(", HANG + "recipe = Recipe(decode=hang, ")
    kind = {"content-type": "image/png"}
    with command(tmp_path, "--no-token", recipe=hanging) as (process, address, _), ThreadPoolExecutor(1) as pool:
        send = partial(httpx.post, content=b"any", headers=kind, timeout=PATIENCE, trust_env=False)
        asked = pool.submit(send, f"{address}/predict")
        assert process.stdout is not None
        assert any("it hangs" in line for line in iter(process.stdout.readline, ""))
        process.send_signal(signal.SIGTERM)
        assert asked.result(PATIENCE).status_code == 503
        assert process.wait(PATIENCE) == 128 + signal.SIGTERM


@pytest.mark.slow
def test_without_a_token_everybody_is_let_in_and_nothing_is_kept_if_not_asked_for(tmp_path: Path) -> None:
    with command(tmp_path, "--no-token", "--no-journal", "--log", "log.jsonl") as (process, address, token):
        assert token == ""
        with httpx.Client(base_url=address, trust_env=False, timeout=PATIENCE) as client:
            assert results(lines(client.post("/predict", json=inputs(1)))) == [2.0]
        process.send_signal(signal.SIGTERM)
        process.wait(PATIENCE)
    assert not (tmp_path / "runs").exists()
    assert '"RequestEnd"' in (tmp_path / "log.jsonl").read_text()


@pytest.mark.slow
def test_what_clients_get_wrong_they_are_told_and_the_terminal_is_not(tmp_path: Path) -> None:
    kind = "multipart/form-data; boundary=x"
    with command(tmp_path, "--no-token", "--no-journal") as (process, address, _):
        with httpx.Client(base_url=address, trust_env=False, timeout=PATIENCE) as client:
            for body in (b"--x\r\nContent[Disposition: form-data\r\n\r\n", b"--y", b"--x\r\n\r\n\r\n--x--"):
                assert client.post("/predict", content=body, headers={"content-type": kind}).status_code == 400
        process.send_signal(signal.SIGTERM)
        assert process.stdout is not None
        assert process.stdout.read() == ""


@pytest.mark.slow
def test_the_link_that_it_prints_shows_a_browser_what_can_be_asked(tmp_path: Path) -> None:
    with command(tmp_path, "--no-journal") as (process, address, token):
        assert process.args  # it runs
        with httpx.Client(trust_env=False, timeout=PATIENCE, headers={"accept": "text/html"}) as browser:
            door = browser.get(f"{address}/docs")
            assert (door.status_code, "or <code>lineside predict serve</code>" in door.text) == (401, True)
            page = browser.get(f"{address}/docs?token={token}", follow_redirects=True)
            assert (page.status_code, "POST /predict" in page.text) == (200, True)


@pytest.mark.slow
@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_that_comes_while_the_run_begins_ends_it_like_any_other(
    tmp_path: Path, ending: signal.Signals
) -> None:
    recipe = RECIPE.replace(
        "    def forward",
        """    def train(self, mode=True):
        if not mode:
            import pathlib, time
            print("it begins", flush=True)
            while not pathlib.Path("go on").exists():
                time.sleep(0.01)
        return super().train(mode)

    def forward""",
    )
    with started(tmp_path, recipe) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "it begins\n"
        process.send_signal(ending)
        (tmp_path / "go on").touch()
        assert process.wait(PATIENCE) == 128 + ending
        assert process.stdout.read() == ""
    (end,) = Journal(tmp_path / "runs").events(RunEnd)
    assert (end.outcome, end.reason) == ("stopped", "the service was shut down")


@pytest.mark.slow
def test_a_model_that_cannot_be_made_is_told_in_one_line(tmp_path: Path) -> None:
    recipe = RECIPE.replace("model=Double", "model=lambda: 1 / 0")
    with started(tmp_path, recipe, "--no-journal") as process:
        assert process.stdout is not None
        assert process.stdout.read() == "error: recipe.py, line 10: ZeroDivisionError: division by zero\n"
        assert process.wait(PATIENCE) == 1


def test_predict_with_a_recipe_is_still_a_command_of_its_own(tmp_path: Path) -> None:
    for arguments in (["predict", "none.py"], ["predict", "serve", "none.py"]):
        done = interpret("-m", "lineside", *arguments)
        assert (done.returncode, "none.py does not exist" in done.stderr) == (1, True), done.stderr
    shown = interpret("-m", "lineside", "predict", "serve", "--help").stdout
    assert "Usage: lineside predict serve" in shown
    assert "serve" not in interpret("-m", "lineside", "predict", "--help").stdout.partition("Options")[0]


def test_nothing_of_the_service_is_loaded_with_the_runners() -> None:
    code = "import sys, lineside.runners; print({'fastapi', 'starlette', 'uvicorn', 'PIL'} & {*sys.modules})"
    assert interpret("-c", code).stdout == "set()\n"
