"""The feed of events on the dashboard, in a real browser: which it shows, live and of what was before."""

from __future__ import annotations

from typing import Any

from playwright.sync_api import Browser, expect

from lineside.bus import Bus
from lineside.schemas import BeforeZeroGrad, RequestEnd, RequestStart, events, wire_name

from . import stories
from .pages import PIXEL, Sample, types, visiting


def test_the_feed_is_filtered_by_type_and_by_text(browser: Browser, bus: Bus, address: str) -> None:
    stories.trained(bus.source("good"))
    bus.flush()
    with visiting(browser, f"{address}/#/good") as page:
        expect(page.locator(".events .type").first).to_have_text("RunEnd")
        assert "TrainBatchEnd" not in types(page)
        page.select_option("#scope", "TrainBatchEnd")
        expect(page.locator(".events li")).to_have_count(stories.EPOCHS * stories.BATCHES)
        page.select_option("#scope", "milestones")
        page.locator("#feed-text").fill("epoch 2/4")
        expect(page.locator(".events li")).to_have_count(3)
        assert types(page) == ["FitEpochEnd", "TrainEpochEnd", "TrainEpochStart"]
        page.locator(".events summary").first.click()
        expect(page.locator(".events pre")).to_contain_text('"best_fitness": 0.6')


def test_the_feed_holds_some_hundred_rows_of_however_many_events(browser: Browser, bus: Bus, address: str) -> None:
    source = bus.source("long")
    stories.begin(source)
    bus.flush()
    with visiting(browser, f"{address}/#/long") as page:
        page.select_option("#scope", "everything")
        expect(page.locator(".events li")).to_have_count(2)
        for number in range(3000):
            source.publish(BeforeZeroGrad, epoch=0, batch=number, batches=None, batch_size=1, step=number)
        stories.end(source)
        expect(page.locator(".events .type").first).to_have_text("RunEnd")
        expect(page.locator(".events li")).to_have_count(250)


def test_the_feed_of_a_long_run_shows_its_end(browser: Browser, bus: Bus, address: str) -> None:
    source = bus.source("long")
    stories.begin(source, epochs=120)
    for number in range(120):
        stories.epoch(source, number, epochs=120)
    stories.end(source)
    bus.flush()
    with visiting(browser, f"{address}/#/long") as page:
        expect(page.locator(".events .said").nth(1)).to_contain_text("epoch 120/120")
        page.select_option("#scope", "everything")
        expect(page.locator(".events .type").nth(6)).to_have_text("TrainBatchEnd")
        page.select_option("#scope", "TrainBatchEnd")
        expect(page.locator(".events li")).to_have_count(250)
        assert page.locator(".events .said").first.inner_text().startswith("batch 10/10")


def test_a_users_own_events_of_a_long_run_are_there_whenever_it_is_opened(
    browser: Browser, bus: Bus, address: str
) -> None:
    source = bus.source("long")
    stories.begin(source, epochs=200)
    for number in range(1, 1201):
        stories.step(source, number, epochs=200)
        if number in (300, 900):
            source.publish(Sample, picture=PIXEL, said=f"at step {number}")
    bus.flush()
    with visiting(browser, f"{address}/#/long") as page:
        expect(page.locator(".events .said", has_text="said at step")).to_have_count(2)
        expect(page.locator(".results .picture")).to_have_count(2)
        assert types(page)[0] == "TrainEpochStart"  # in their order
        page.select_option("#scope", "tests.service.Sample")
        expect(page.locator(".events li")).to_have_count(2)
        source.publish(Sample, picture=PIXEL, said="live")
        expect(page.locator(".events li")).to_have_count(3)


def test_requests_leave_the_milestones_their_room(browser: Browser, bus: Bus, address: str) -> None:
    source = bus.source("serving")
    stories.begin(source, kind="predict")
    bus.flush()
    with visiting(browser, f"{address}/#/serving") as page:
        expect(page.locator(".events li")).to_have_count(1)
        for number in range(300):
            request: dict[str, Any] = {"request": f"client-{number}", "transport": "http", "inputs": 1}
            source.publish(RequestStart, **request)
            rest: dict[str, Any] = {"outcome": "completed", "results": 1, "errors": 0, "duration": 0.01, "waited": 0.0}
            source.publish(RequestEnd, **request, **rest)
        source.publish(Sample, picture="", said="last")
        expect(page.locator(".events .type").first).to_have_text("tests.service.Sample")
        assert types(page) == ["tests.service.Sample", "RunStart"]
        page.select_option("#scope", "RequestEnd")
        expect(page.locator(".events li")).to_have_count(250)


def test_every_type_of_ours_comes_with_a_batch_or_is_a_milestone(browser: Browser, address: str) -> None:
    with visiting(browser, address) as page:
        lists: dict[str, list[str]] = page.evaluate("import('./wording.js')")
    batch, milestones = lists["BATCH_TYPES"], lists["MILESTONE_TYPES"]
    ours = [wire_name(cls) for cls in events() if cls.__module__.startswith("lineside.schemas")]
    assert sorted([*batch, *milestones, "PredictBatchEnd"]) == sorted(ours)


def test_nothing_that_an_event_says_becomes_markup(browser: Browser, bus: Bus, address: str) -> None:
    evil = "<img src=x onerror='document.title=1'>"
    source = bus.source("evil")
    stories.begin(source, model=evil)
    source.publish(Sample, picture=f"data:image/svg+xml;base64,{evil}", said=evil)
    bus.flush()
    with visiting(browser, f"{address}/#/evil") as page:
        expect(page.locator(".facts")).to_contain_text(evil)
        expect(page.locator(".events .said").first).to_contain_text(evil)
        assert page.locator("img").count() == 0
