"""The display of a run in a real kernel, spoken to as a frontend does."""

from __future__ import annotations

import re
from functools import partial
from typing import Any

import pytest

from .kernels import VIEW, Kernel

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

SETUP = """
bus_w = Bus()

def start():
    return make_trainer(bus=bus_w).start()

def readers():
    bus_w.drain()  # who has just left is not counted any more
    return len(bus_w.stats().subscriptions)
"""

OWN_LOOP = """
def batches():
    while True:
        yield [1]

with bus_w.run("own") as own:
    display(own)
    for batch in own.track(batches()):
        own.log(loss=0.5)
"""

WITHOUT_WIDGETS = """
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "anywidget":
            raise ModuleNotFoundError(f"No module named {name!r}", name="anywidget")

sys.meta_path.insert(0, missing := Missing())
for name in [*sys.modules]:
    if name.partition(".")[0] == "anywidget" or name == "lineside.bus.notebook.widget":
        del sys.modules[name]
"""


@pytest.fixture(scope="module")
def here(lab: Kernel) -> Kernel:
    lab.ok(SETUP)
    return lab


def test_a_training_is_shown_live_and_paused_resumed_and_stopped_from_the_page(here: Kernel) -> None:
    shown = here.shown("run = start()\nrun")
    assert re.fullmatch(r"<Run train-\S+ \w+, (epoch .*, )?as of \d\d:\d\d:\d\d>", shown["text/plain"])
    comm = shown[VIEW]["model_id"]
    first = here.until(comm, lambda told: told.get("head", {}).get("numbers"))
    assert first["head"]["state"] == "running"
    here.ask(comm, ask="pause", id="a-1")
    assert here.until(comm, lambda told: told.get("answer") == "a-1")["refused"] == ""
    assert here.ok("print(run.state)") == "paused"
    again = here.shown("run")
    assert again[VIEW]["model_id"] == comm
    assert " paused, " in again["text/plain"]
    assert here.ok("print(readers())") == "1"
    here.ask(comm, ask="resume", id="a-2")
    here.until(comm, lambda told: told.get("head", {}).get("state") == "running")
    here.ask(comm, ask="stop", id="a-3")
    here.until(comm, lambda told: told.get("head", {}).get("state") == "stopped")
    assert here.ok("print((await run).reason)") == "stopped from the notebook"
    assert here.ok("print(readers())") == "0"
    over = here.shown("run")
    assert over[VIEW]["model_id"] == comm
    assert " stopped, stopped from the notebook, " in over["text/plain"]


def test_what_happens_while_a_cell_blocks_is_shown_while_it_blocks(here: Kernel) -> None:
    here.start(OWN_LOOP)
    comm = here.opened()
    steps = [0]
    for _ in range(3):  # the cell never ends by itself
        told = here.until(comm, lambda told: told.get("curves", {}).get("loss", {}).get("rows"))
        steps.append(told["head"]["batch"])
    assert steps == sorted(set(steps))
    here.interrupt()
    told = here.until(comm, lambda told: told.get("head", {}).get("state") == "stopped")
    assert told["head"]["reason"] == "interrupted"


def in_state(state: str, told: dict[str, Any]) -> bool:
    return bool(told.get("head", {}).get("state") == state)


@pytest.fixture
def subshell(here: Kernel) -> str:
    opened = here.subshell()
    if opened is None:
        pytest.skip("the clicks of a kernel without subshells wait for the end of the cell")
    return opened


def test_a_loop_is_paused_resumed_and_stopped_from_the_page_while_its_cell_runs(here: Kernel, subshell: str) -> None:
    cell = here.start(OWN_LOOP)
    comm = here.opened()
    here.until(comm, lambda told: told.get("head", {}).get("batch"))
    head = {}
    for what, state in (("pause", "paused"), ("resume", "running"), ("stop", "stopped")):
        here.ask(comm, subshell, ask=what)
        head = here.until(comm, partial(in_state, state))["head"]
    assert head["reason"] == "stopped from the notebook"
    assert here.outcome(cell) == "ok"


def test_a_click_is_heard_while_a_cell_computes(here: Kernel, subshell: str) -> None:
    comm = here.shown("run = start()\nrun")[VIEW]["model_id"]
    cell = here.start("while run.state == 'running': pass\nrun.resume()")  # ends by the click alone
    here.ask(comm, subshell, ask="pause", id="c-1")
    assert here.until(comm, lambda told: told.get("answer") == "c-1")["refused"] == ""
    assert here.outcome(cell) == "ok"
    here.ok("run.stop(); await run")


def test_while_no_page_shows_it_nothing_is_sent_and_then_everything(here: Kernel) -> None:
    comm = here.shown("run = start()\nrun")[VIEW]["model_id"]
    here.until(comm, lambda told: told.get("head"))
    here.ask(comm, ask="views", frontend="a", open=True)
    here.ask(comm, ask="views", frontend="b", open=True)
    here.ask(comm, ask="views", frontend="a", open=False)
    here.until(comm, lambda told: told.get("head"))
    here.ask(comm, ask="views", frontend="b", open=False)
    here.ok("run.stop(); await run")
    here.ok("run._widget.wait(60)")
    here.ask(comm, ask="state", id="b-1")
    assert here.until(comm, lambda told: True) == {"answer": "b-1", "refused": ""}
    here.ask(comm, ask="views", frontend="b", open=True)
    told = here.until(comm, lambda told: True)
    assert told["head"]["state"] == "stopped"
    assert told["curves"]["loss"]["from"] == 0


def test_closing_the_widget_ends_the_reading_and_the_next_display_begins_anew(here: Kernel) -> None:
    comm = here.shown("run = start()\nrun")[VIEW]["model_id"]
    assert here.ok("print(readers())") == "1"
    here.ok("from ipywidgets import Widget; Widget.close_all()")
    assert here.ok("print(readers())") == "0"
    shown = here.shown("run")
    assert shown[VIEW]["model_id"] != comm
    assert here.ok("print(readers())") == "1"
    here.ok("run.stop(); await run")


def test_without_the_widget_packages_a_run_is_text_that_says_what_to_install(here: Kernel) -> None:
    here.ok(WITHOUT_WIDGETS)
    shown = here.shown("run = start()\nrun")
    assert shown.keys() == {"text/plain"}
    assert shown["text/plain"].startswith("<Run train-")
    assert shown["text/plain"].endswith("\npip install 'lineside[notebook]' shows it live")
    here.ok("run.stop(); await run; sys.meta_path.remove(missing)")
