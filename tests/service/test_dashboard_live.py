"""A run that goes on, on the dashboard in a real browser: how far it is, and where its past meets what comes."""

from __future__ import annotations

import re
from itertools import count
from typing import Any

import pytest
from playwright.sync_api import Browser, Locator, Page, Route, expect

from lineside.bus import Bus
from lineside.schemas import PretrainRoutineEnd, RunStart, TrainBatchEnd, TrainEpochStart, TrainStart, ValBatchEnd

from . import stories
from .pages import visiting

# -- how far it is ---------------------------------------------------------------------------------


def test_time_left_is_told_from_the_epochs_before(browser: Browser, bus: Bus, address: str) -> None:
    source = bus.source("going")
    stories.begin(source, epochs=100)
    stories.epoch(source, 0, epochs=100, seconds=6.0)
    bus.flush()
    with visiting(browser, f"{address}/#/going") as page:
        expect(page.locator(".progress .left")).to_have_text(re.compile(r"1 h \d+ min left"))


def test_a_run_that_steps_end_is_as_far_as_its_steps(browser: Browser, bus: Bus, address: str) -> None:
    source = bus.source("going")
    source.publish(RunStart, kind="train", model="Net", device="cpu", config={"epochs": 500, "max_steps": 20})
    source.publish(PretrainRoutineEnd, parameters=1, trainable=1, batches=stories.BATCHES, val_batches=None)
    source.publish(TrainStart, epoch=0, epochs=500, batches=stories.BATCHES, step=0)
    for number in range(1, 16):
        stories.step(source, number, epochs=500)
    bus.flush()
    with visiting(browser, f"{address}/#/going") as page:
        expect(page.locator(".progress .where")).to_contain_text("epoch 2 of 500")
        expect(page.get_by_role("progressbar", name="Progress")).to_have_js_property("value", 0.75)
        stories.step(source, 16, epochs=500)
        expect(page.get_by_role("progressbar", name="Progress")).to_have_js_property("value", 0.8)


def test_a_run_that_its_time_ends_is_as_far_as_that(browser: Browser, bus: Bus, address: str) -> None:
    source = bus.source("going")
    source.publish(RunStart, kind="train", model="Net", device="cpu", config={"max_seconds": 3600})
    source.publish(PretrainRoutineEnd, parameters=1, trainable=1, batches=stories.BATCHES, val_batches=None)
    source.publish(TrainStart, epoch=0, epochs=None, batches=stories.BATCHES, step=0)
    stories.step(source, 2)
    bus.flush()
    with visiting(browser, f"{address}/#/going") as page:
        expect(page.locator(".progress .left")).to_have_text(re.compile(r"^(1 h 00 min|59 min \d\d s) left$"))


def test_what_a_loop_of_ones_own_calls_its_settings_limits_nothing_and_an_epoch_is_not_the_run(
    browser: Browser, bus: Bus, address: str
) -> None:
    source = bus.source("own")
    source.publish(RunStart, kind="train", model="own", device="", config={"max_steps": 500})
    source.publish(TrainStart, epoch=0, epochs=None, batches=stories.BATCHES, step=0)
    source.publish(TrainEpochStart, epoch=0, epochs=None, batches=stories.BATCHES, lr={})
    size: dict[str, Any] = {"epoch": 0, "batches": stories.BATCHES, "batch_size": 8, "lr": {}}
    for batch in range(5):
        nothing = float("nan")
        source.publish(TrainBatchEnd, **size, batch=batch, step=batch + 1, loss=nothing, losses={"reward": 1.0})
    bus.flush()
    with visiting(browser, f"{address}/#/own") as page:
        expect(page.locator(".progress .where")).to_contain_text("batch 5 of 10")
        expect(page.locator(".progress .left")).to_have_text("")
        expect(page.get_by_role("progressbar", name="Progress")).not_to_have_attribute("value", re.compile(""))
        # Nor has it a loss, which would be lost.
        expect(page.locator(".chart h3")).to_have_text(["reward", "step time"])
        expect(page.locator(".tile", has_text="loss")).to_have_count(0)


def test_a_loop_of_ones_own_without_a_number_of_epochs_says_in_which_it_is_and_a_run_that_is_over_in_which_it_was(
    browser: Browser, bus: Bus, address: str
) -> None:
    with bus.run(id="own") as run:
        for _ in run.track(range(4)):
            pass
        batches = run.track(range(4))
        next(batches)
        bus.flush()
        with visiting(browser, f"{address}/#/own") as page:
            expect(page.locator(".progress .where")).to_have_text("epoch 2 · training")
            next(batches)
            bus.flush()
            expect(page.locator(".progress .where")).to_have_text("epoch 2 · training · batch 1 of 4")
    source = bus.source("failed")
    stories.begin(source)
    stories.step(source, 1)
    stories.end(source, error="no")
    bus.flush()
    with visiting(browser, f"{address}/#/failed") as page:
        expect(page.locator(".progress .where")).to_have_text("epoch 1 of 4")
    halted = bus.source("halted")
    stories.begin(halted, kind="val")
    halted.publish(ValBatchEnd, epoch=0, batch=1, batches=8, batch_size=8, losses={})
    stories.end(halted, kind="val", error="no")
    bus.flush()
    with visiting(browser, f"{address}/#/halted") as page:
        expect(page.locator(".progress .where")).to_have_text("batch 2 of 8")


def test_a_speed_in_steps_counts_those_of_the_optimizer_and_a_validation_has_batches(
    browser: Browser, bus: Bus, address: str
) -> None:
    sources = {kind: bus.source(kind) for kind in ("train", "val")}
    for kind, source in sources.items():
        stories.begin(source, kind=kind)
    bus.flush()
    for kind, pace in (("train", "steps/s"), ("val", "batches/s")):
        with visiting(browser, f"{address}/#/{kind}") as page:
            expect(page.locator("#connection")).to_have_attribute("data-state", "live")
            speed = page.locator(".tile", has_text=re.compile("^samples")).locator("small")
            for number in count():
                place: dict[str, Any] = {"epoch": 0, "batch": number, "batches": None, "batch_size": 8}
                if kind == "val":
                    sources[kind].publish(ValBatchEnd, **place, losses={})
                else:
                    sources[kind].publish(TrainBatchEnd, **place, step=1, loss=0.5, losses={}, lr={})
                bus.flush()
                if speed.count() and speed.inner_text().endswith(pace):
                    break
            if kind == "train":  # the window of gradients that makes a step is not complete
                expect(speed).to_have_text("0.0 steps/s")


# -- the past, and what comes ------------------------------------------------------------------------


def drawn(page: Page, title: str) -> Locator:
    return page.locator(".chart", has=page.get_by_role("heading", name=title, exact=True)).get_by_role("img")


def test_what_comes_while_the_events_are_asked_for_is_drawn_though_the_curves_were_there_before(
    browser: Browser, bus: Bus, address: str
) -> None:
    source = bus.source("going")
    stories.begin(source)
    stories.epoch(source, 0)
    bus.flush()

    with visiting(browser, f"{address}/#/nobody") as page:
        expect(page.locator("main h1")).to_have_text("No such run")

        def ask_late(route: Route) -> None:
            expect(drawn(page, "loss")).to_have_attribute("aria-label", re.compile("^loss at 10 points"))
            stories.epoch(source, 1)
            bus.flush()
            route.continue_()

        page.route("**/events?tail=*", ask_late)
        page.goto(f"{address}/#/going")
        expect(page.locator(".progress .where")).to_contain_text("epoch 3 of 4")
        expect(drawn(page, "loss")).to_have_attribute("aria-label", re.compile("^loss at 20 points"))
        expect(drawn(page, "accuracy")).to_have_attribute("aria-label", re.compile("^accuracy at 2 points"))


def test_what_a_loop_of_ones_own_found_after_an_epoch_is_drawn_as_are_its_losses_of_that_name(
    browser: Browser, bus: Bus, address: str
) -> None:
    with bus.run(id="own") as run:

        def epoch(accuracy: float) -> None:
            for batch in run.track(range(4)):
                run.log(loss=batch, accuracy=0.1)
            run.log(accuracy=accuracy, f1=accuracy, loss=accuracy)

        epoch(0.25)
        epoch(0.5)
        bus.flush()
        with visiting(browser, f"{address}/#/own") as page:
            expect(drawn(page, "f1")).to_have_attribute("aria-label", re.compile("^f1 at 1 point"))
            epoch(0.75)
            bus.flush()
            expect(drawn(page, "f1")).to_have_attribute("aria-label", re.compile("^f1 at 2 points"))
            expect(page.locator(".chart h3")).to_have_text(["loss", "accuracy", "f1", "step time"])
            for shared in ("loss", "accuracy"):
                chart = page.locator(".chart", has=page.get_by_role("heading", name=shared, exact=True))
                expect(chart.locator(".legend")).to_contain_text("train")
                expect(chart.locator(".legend")).to_contain_text("val")


@pytest.mark.parametrize("validates_last", [True, False], ids=["last epoch validated", "last epoch not validated"])
def test_the_final_evaluation_of_the_best_epoch_is_no_further_point_of_a_curve(
    browser: Browser, bus: Bus, address: str, *, validates_last: bool
) -> None:
    source = bus.source("going")
    stories.begin(source, epochs=4)
    for epoch in range(3):
        stories.epoch(source, epoch, epochs=4)
    bus.flush()
    with visiting(browser, f"{address}/#/going") as page:
        expect(drawn(page, "accuracy")).to_have_attribute("aria-label", "accuracy at 3 points, last: 0.7000")
        for step in range(31, 41):
            stories.step(source, step, epochs=4)
        if validates_last:
            stories.close_epoch(source, 3, epochs=4)
        points = "4 points, last: 0.8000" if validates_last else "3 points, last: 0.7000"
        expect(drawn(page, "loss")).to_have_attribute("aria-label", re.compile("^loss at 40 points"))
        expect(drawn(page, "accuracy")).to_have_attribute("aria-label", f"accuracy at {points}")
        stories.close_training(source, best=2)
        expect(page.locator(".tile", has_text="accuracy")).to_contain_text("0.9000")
        expect(page.locator(".events .type").first).to_have_text("FitEpochEnd")
        expect(drawn(page, "accuracy")).to_have_attribute("aria-label", f"accuracy at {points}")
        stories.end(source)
        expect(page.locator(".events .type").first).to_have_text("RunEnd")
        expect(drawn(page, "accuracy")).to_have_attribute("aria-label", f"accuracy at {points}")


def test_a_loop_of_ones_own_that_logs_nothing_of_its_batches_has_no_loss_once_an_epoch_is_over(
    browser: Browser, bus: Bus, address: str
) -> None:
    with bus.run(id="own") as run:

        def epoch() -> None:
            for _ in run.track(range(4)):
                run.log(lr=0.1)

        epoch()
        bus.flush()
        with visiting(browser, f"{address}/#/own") as page:
            for _ in range(2):
                epoch()
                bus.flush()
                expect(page.locator(".chart h3")).to_have_text(["learning rate", "step time"])
                expect(page.locator(".tile", has_text="loss")).to_have_count(0)
                page.reload()


def test_a_loss_that_a_loop_of_ones_own_finds_after_an_epoch_only_is_drawn_alone(
    browser: Browser, bus: Bus, address: str
) -> None:
    with bus.run(id="own") as run:
        for _ in range(2):
            for _ in run.track(range(4)):
                run.log(reward=1.0)
            run.log(loss=0.5)
    bus.flush()
    with visiting(browser, f"{address}/#/own") as page:
        expect(drawn(page, "loss")).to_have_attribute("aria-label", "loss at 2 points, last: 0.5000")
        expect(page.locator(".tile", has_text="loss")).to_have_text(["val loss0.5000"])


def test_a_stage_that_ended_before_the_stages_were_answered_ends_none_that_began_since(
    browser: Browser, bus: Bus, address: str
) -> None:
    source = bus.source("going")
    stories.begin(source)
    stories.step(source, 1)
    bus.flush()

    with visiting(browser, f"{address}/#/nobody") as page:
        expect(page.locator("main h1")).to_have_text("No such run")

        def ask_late(route: Route) -> None:
            expect(page.locator(".events li")).to_have_count(3)
            stories.close_epoch(source, 0)
            stories.step(source, stories.BATCHES + 1)
            bus.flush()
            expect(page.locator(".events .type").first).to_have_text("TrainEpochStart")
            expect(page.locator(".events .said").first).to_contain_text("epoch 2/4")
            route.continue_()

        page.route("**/timeline", ask_late)
        page.goto(f"{address}/#/going")
        canvas = page.locator(".stage canvas")
        expect(canvas).to_be_visible()
        size = canvas.bounding_box()
        assert size is not None
        canvas.hover(position={"x": size["width"] - 2, "y": 12})
        expect(page.locator(".stage .tip")).to_have_text(re.compile("^train · epoch 2 · .* so far"))


def test_a_page_whose_past_cannot_be_read_says_so_and_follows_nothing(browser: Browser, bus: Bus, address: str) -> None:
    stories.begin(bus.source("going"))
    bus.flush()
    with visiting(browser, f"{address}/#/nobody") as page:
        expect(page.locator("main h1")).to_have_text("No such run")
        page.route("**/events?tail=*", lambda route: route.fulfill(status=500, json={"error": "the disk is gone"}))
        with page.expect_event("requestfailed", lambda request: request.url.endswith("/runs/going/events?after=now")):
            page.goto(f"{address}/#/going")
        expect(page.locator("main")).to_contain_text("the disk is gone")
        expect(page.locator("#connection")).to_have_text("live")
