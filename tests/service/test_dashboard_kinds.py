"""Runs of several kinds on the dashboard: what is said of each, and what only of some."""

from __future__ import annotations

from typing import Any

from playwright.sync_api import Browser, expect

from lineside.bus import Bus
from lineside.schemas import FitEpochEnd, RunEnd, RunStart, TrainEpochEnd, ValEnd

from . import stories
from .pages import row, visiting


def test_what_validation_found_is_told_apart_from_the_training_and_all_of_it_is_told(
    browser: Browser, bus: Bus, address: str
) -> None:
    source = bus.source("parts")
    stories.begin(source)
    trained: dict[str, Any] = {"losses": {"box": 0.5}, "epoch": 0, "epochs": 4, "duration": 1.0}
    judged: dict[str, Any] = {"batches": 2, "samples": 16, "duration": 0.1, "speed": {}, "fitness": None, "epoch": 0}
    source.publish(TrainEpochEnd, **trained, batches=2, step=2, lr={}, samples=16, speed=16.0)
    source.publish(ValEnd, metrics={}, losses={"box": 0.25}, **judged)
    unknown = dict.fromkeys(("fitness", "best_fitness", "best_epoch", "best", "last"))
    source.publish(FitEpochEnd, **trained, metrics={"box": 0.25}, **unknown)
    alone = bus.source("alone")
    alone.publish(RunStart, kind="val", model="Net", device="")
    alone.publish(ValEnd, metrics={}, losses={"loss": 0.125}, **judged)
    bus.flush()
    with visiting(browser, f"{address}/#/parts") as page:
        expect(page.locator(".tile dt", has_text="box")).to_have_text(["val box"])
        said = page.locator(".events .said")
        expect(said.filter(has_text="val box 0.2500")).to_have_count(1)
        expect(said.filter(has_text="box 0.2500 · 16 samples")).to_have_count(1)
    with visiting(browser, f"{address}/#/alone") as page:
        expect(page.locator(".events .said").last).to_have_text("Net")  # on a device that nobody named
        expect(page.locator(".tile", has_text="loss")).to_have_text(["loss0.1250"])


def test_the_list_tells_a_run_that_was_stopped_from_one_that_came_to_its_end(
    browser: Browser, bus: Bus, address: str
) -> None:
    source = bus.source("halted")
    stories.begin(source)
    source.publish(RunEnd, kind="train", outcome="stopped", reason="enough", duration=1.5)
    stories.trained(bus.source("good"))
    bus.flush()
    with visiting(browser, address) as page:
        expect(row(page, "halted").locator(".state")).to_have_text("stopped")
        expect(row(page, "good").locator(".state")).to_have_text("finished")
