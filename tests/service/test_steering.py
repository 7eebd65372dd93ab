"""Steering a real training run from outside: over HTTP, and with the buttons of its page."""

from __future__ import annotations

import re
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from playwright.sync_api import Browser, ConsoleMessage, Page, Route, expect

from lineside.bus import Bus
from lineside.bus.service import service
from lineside.runners import TrainResult
from lineside.schemas import Event, TrainBatchEnd
from tests.runners.support import make_loader, make_trainer

from .support import PATIENCE, QUICK, TOKEN, plain_client, serving, url

SOON = 30_000


class Slow:
    """Batches that take as long as those of a small network on a real device."""

    def __init__(self) -> None:
        self._batches = make_loader()
        self._clock = threading.Event()

    def __iter__(self) -> Iterator[Any]:
        for batch in self._batches:
            self._clock.wait(0.005)
            yield batch

    def __len__(self) -> int:
        return len(self._batches)


class Live:
    """A process that trains and serves what it does, the service mounted in an app of its own."""

    def __init__(self, folder: Path, bus: Bus, address: str) -> None:
        self.folder = folder
        self.bus = bus
        self.address = address
        self.trainer = make_trainer(folder / "first", bus=bus, train=Slow(), epochs=100_000, validate=False, save=False)
        self.steps: list[int] = []
        bus.subscribe(self._note, TrainBatchEnd, lane="thread")
        self._results: list[TrainResult] = []
        self._thread = threading.Thread(target=lambda: self._results.append(self.trainer.run()))
        self._thread.start()
        self.goes_on()

    @property
    def run(self) -> str:
        return self.trainer.run_id

    def _note(self, event: TrainBatchEnd) -> None:
        if event.run == self.run:
            self.steps.append(event.step)

    def goes_on(self) -> None:
        """Wait until it has done some steps more."""
        enough, done = threading.Event(), 0

        def count(event: Event) -> None:
            nonlocal done
            done += event.run == self.run
            if done > 5:
                enough.set()

        with self.bus.subscribe(count, TrainBatchEnd, lane="thread"):
            assert enough.wait(PATIENCE)
        self.bus.flush()

    def stands_still(self) -> None:
        """See that while others train, this one does nothing but end the batch that it may be in."""
        self.bus.drain(PATIENCE)
        before = len(self.steps)
        for name in ("second", "third"):
            trained = make_trainer(self.folder / name, bus=self.bus).run()
            assert trained.step == 6
        self.bus.drain(PATIENCE)
        assert len(self.steps) - before <= 1

    def result(self) -> TrainResult:
        """Wait for its end."""
        self._thread.join(PATIENCE)
        (result,) = self._results
        return result

    def end(self) -> None:
        wheel = self.bus.steering.get(self.run)
        if wheel is not None:
            wheel.stop("the test is over")
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()


@pytest.fixture
def live(tmp_path: Path) -> Generator[Live]:
    with Bus(tmp_path / "runs") as bus, mounted(bus) as address:
        live = Live(tmp_path, bus, address)
        try:
            yield live
        finally:
            live.end()


@contextmanager
def mounted(bus: Bus) -> Generator[str]:
    """Serve an app on whose bus somebody trains."""
    mine = service(bus, token=TOKEN, limits=QUICK)
    app: Any = FastAPI()
    app.hub = mine.hub
    app.mount("/lineside", mine)
    with serving(app) as server:
        yield f"{url(server)}/lineside"


# -- over HTTP -------------------------------------------------------------------------------------


def test_a_pause_holds_the_loop_a_resume_lets_it_go_on_and_a_stop_ends_it(live: Live) -> None:
    with plain_client(live.address) as http:

        def ask(what: str, **body: str) -> None:
            assert http.post(f"/runs/{live.run}/{what}", json=body).status_code == 202

        def going() -> Any:
            return http.get(f"/runs/{live.run}/observing").json()["steering"]

        assert going() == "running"
        ask("pause")
        assert going() == "paused"
        live.stands_still()
        ask("resume")
        assert going() == "running"
        live.goes_on()
        ask("stop", reason="good enough")
        result = live.result()
        assert (result.outcome, result.reason) == ("stopped", "good enough")
        live.bus.flush()
        summary = http.get(f"/runs/{live.run}").json()
        assert (summary["state"], summary["outcome"], summary["reason"]) == ("finished", "stopped", "good enough")
        assert going() is None
        late = http.post(f"/runs/{live.run}/pause")
        assert (late.status_code, "is over" in late.json()["error"]) == (409, True)


def test_a_paused_run_can_be_stopped(live: Live) -> None:
    with plain_client(live.address) as http:
        http.post(f"/runs/{live.run}/pause")
        live.stands_still()
        http.post(f"/runs/{live.run}/stop")
        assert live.result().outcome == "stopped"


# -- with the buttons ------------------------------------------------------------------------------


@contextmanager
def visiting(browser: Browser, live: Live, expected: str = "\n") -> Generator[Page]:
    """Open the page of the run for the length of the block; it may throw nothing, and log no other error."""
    wrong: list[str] = []
    with browser.new_context(viewport={"width": 1280, "height": 900}) as context:
        page = context.new_page()
        page.set_default_timeout(SOON)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda said: _note(wrong, said, expected))
        page.goto(f"{live.address}/?token={TOKEN}#/{live.run}")
        yield page
        assert not wrong


def _note(wrong: list[str], said: ConsoleMessage, expected: str) -> None:
    if said.type == "error" and expected not in said.text:
        wrong.append(said.text)


def test_the_buttons_pause_resume_and_stop_a_run(browser: Browser, live: Live) -> None:
    with visiting(browser, live) as page:
        chip, pause = page.locator(".chip"), page.get_by_role("button", name=re.compile("^(Pause|Resume)$"))
        expect(chip).to_have_text("running")
        pause.click()
        expect(chip).to_have_text("paused")
        expect(page.locator(".trouble")).to_contain_text("stands still")
        live.stands_still()
        page.reload()
        expect(chip).to_have_text("paused")
        pause.focus()
        page.keyboard.press("Enter")
        expect(chip).to_have_text("running")
        expect(pause).to_have_text("Pause")
        expect(pause).to_be_focused()
        live.goes_on()
        stop = page.get_by_role("button", name="Stop …")
        page.keyboard.press("Tab")
        expect(stop).to_be_focused()
        page.keyboard.press("Enter")
        expect(page.get_by_role("dialog")).to_contain_text("Stop this run?")
        page.keyboard.press("Escape")
        expect(page.get_by_role("dialog")).to_be_hidden()
        expect(page.locator("main h1")).to_have_text(live.run)
        expect(stop).to_be_focused()
        live.goes_on()
        stop.click()
        page.get_by_role("button", name="Stop the run").click()
        expect(chip).to_have_text("stopped")
        expect(page.locator(".trouble")).to_have_text("Stopped: stopped from the dashboard")
        expect(stop).to_be_hidden()
        assert live.result().outcome == "stopped"


def test_a_pause_from_elsewhere_is_shown(browser: Browser, live: Live) -> None:
    with visiting(browser, live) as page:
        expect(page.locator(".chip")).to_have_text("running")
        wheel = live.bus.steering.get(live.run)
        assert wheel is not None
        wheel.pause()
        expect(page.locator(".chip")).to_have_text("paused")
        expect(page.get_by_role("button", name="Resume")).to_be_visible()


def test_a_run_that_is_gone_says_so_when_a_button_is_pressed(browser: Browser, live: Live) -> None:
    def late(route: Route) -> None:
        live.end()  # while the wish is on its way
        live.bus.flush()
        route.continue_()

    with visiting(browser, live, expected="409") as page:
        page.route("**/pause", late)
        page.get_by_role("button", name="Pause").click()
        expect(page.get_by_role("alert")).to_have_text(
            f"Could not pause: run '{live.run}' is over: pause is for one that goes on"
        )
        expect(page.locator(".chip")).to_have_text("stopped")
        expect(page.get_by_role("button", name="Pause")).to_be_hidden()


def test_there_are_no_buttons_where_nobody_can_steer(browser: Browser, live: Live) -> None:
    mine = service(live.bus, token=None, limits=QUICK)  # who lets everybody in lets nobody steer
    beside = service(live.folder / "runs", token=None, limits=QUICK)
    for app in (mine, beside):
        with serving(app) as server:
            live.address = url(server)
            with visiting(browser, live) as page:
                expect(page.locator(".observing")).to_contain_text("journal" if app is mine else "Known only where")
                expect(page.get_by_role("group", name="Steer the run")).to_be_hidden()
