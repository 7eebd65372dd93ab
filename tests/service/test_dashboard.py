"""The dashboard in a real browser, on a real service: what a person sees, and what they can do."""

from __future__ import annotations

import re
import socket
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from playwright.sync_api import Browser, Page, Request, expect

from lineside.bus import Bus
from lineside.bus.service import service
from lineside.schemas import (
    Event,
    TrainBatchEnd,
    ValEnd,
    ValStart,
)

from . import stories
from .pages import LINES, NARROW, PIXEL, WIDE, Sample, row, types, visiting
from .support import TOKEN, folder_of, serving, url


class Wheel:
    """What a runner of this process is steered by."""

    paused = stopping = False

    def stop(self, reason: str) -> None: ...

    def pause(self) -> None: ...

    def resume(self) -> None: ...


# -- the list --------------------------------------------------------------------------------------


def test_the_list_shows_each_run_with_its_state_and_its_last_metric(browser: Browser, bus: Bus, address: str) -> None:
    stories.trained(bus.source("good"), model="DigitsCNN")
    stories.trained(bus.source("bad"), error="out of memory")
    stories.begin(bus.source("going"))
    bus.flush()
    with visiting(browser, address) as page:
        expect(row(page, "good").locator(".state")).to_have_text("finished")
        expect(row(page, "good").locator(".metric")).to_have_text("accuracy 0.8000")
        expect(row(page, "good")).to_contain_text("DigitsCNN")
        expect(row(page, "bad").locator(".state")).to_have_text("failed")
        expect(row(page, "going").locator(".state")).to_have_text("running")


def test_a_run_that_begins_or_ends_changes_the_list_by_itself(browser: Browser, bus: Bus, address: str) -> None:
    with visiting(browser, address) as page:
        expect(page.locator("#runs-note")).to_contain_text("No runs yet")
        source = bus.source("fresh")
        stories.begin(source)
        bus.flush()
        expect(row(page, "fresh").locator(".state")).to_have_text("running")
        stories.epoch(source, 0)
        bus.flush()
        expect(row(page, "fresh").locator(".metric")).to_have_text("accuracy 0.5000")
        stories.end(source)
        bus.flush()
        expect(row(page, "fresh").locator(".state")).to_have_text("finished")


def test_a_page_that_waits_for_the_first_run_shows_it(browser: Browser, bus: Bus, address: str) -> None:
    with visiting(browser, address) as page:
        expect(page.locator("#runs-note")).to_contain_text("No runs yet")
        stories.begin(bus.source("fresh"))
        bus.flush()
        expect(page.locator("main h1")).to_have_text("fresh")


def test_two_tabs_show_the_same_list(browser: Browser, bus: Bus, address: str) -> None:
    stories.trained(bus.source("good"))
    bus.flush()
    with visiting(browser, address) as page:
        other = page.context.new_page()
        other.goto(address)
        stories.begin(bus.source("fresh"))
        bus.flush()
        for tab in (page, other):
            expect(row(tab, "fresh").locator(".state")).to_have_text("running")
        other.close()
        stories.begin(bus.source("fresher"))
        bus.flush()
        expect(row(page, "fresher").locator(".state")).to_have_text("running")


def test_the_list_is_filtered_by_what_is_typed(browser: Browser, bus: Bus, address: str) -> None:
    stories.trained(bus.source("one"), model="ResNet")
    stories.trained(bus.source("two"), model="UNet")
    bus.flush()
    with visiting(browser, address) as page:
        expect(page.locator("#count")).to_have_text("2")
        page.keyboard.press("/")
        page.keyboard.type("unet")
        expect(page.locator("#count")).to_have_text("1 of 2")
        expect(page.locator("#runs li")).to_have_count(1)
        page.keyboard.type("x")
        expect(page.locator("#runs-note")).to_have_text("No run matches.")


# -- a run -----------------------------------------------------------------------------------------


def test_a_run_shows_its_curves_stages_and_events(browser: Browser, bus: Bus, address: str) -> None:
    stories.trained(bus.source("good"))
    bus.flush()
    with visiting(browser, f"{address}/#/good") as page:
        expect(page.locator(".chart h3")).to_have_text(["loss", "accuracy", "learning rate", "step time"])
        expect(page.locator(".chart").first.locator(LINES)).to_have_count(2)
        expect(page.locator(".lanes li")).to_have_count(3)
        expect(page.locator(".stage canvas")).to_have_attribute("aria-label", re.compile("train .*, val .*, save "))
        expect(page.locator(".progress .where")).to_have_text("epoch 4 of 4")
        expect(page.locator(".events .type").first).to_have_text("RunEnd")
        assert types(page)[-1] == "RunStart"
        times = page.locator(".chart", has=page.get_by_role("heading", name="step time")).get_by_role("img")
        expect(times).to_have_attribute("aria-label", re.compile("last: 10 ms$"))


def test_what_happens_is_seen_step_by_step(browser: Browser, bus: Bus, address: str) -> None:
    source = bus.source("going")
    stories.begin(source, epochs=100)
    bus.flush()
    with visiting(browser, f"{address}/#/going") as page:
        expect(page.locator("#connection")).to_have_attribute("data-state", "live")
        expect(page.locator(".events li")).to_have_count(2)
        page.select_option("#scope", "everything")
        for number in range(1, 12):
            stories.step(source, number, epochs=100, loss=float(number))
            page.locator(".tile", has_text="loss").locator("b", has_text=re.compile(f"^{number}$")).wait_for()
        expect(page.locator(".progress .where")).to_have_text("epoch 2 of 100 · training · batch 1 of 10")


def test_a_curve_whose_newest_value_is_not_finite_says_so(browser: Browser, bus: Bus, address: str) -> None:
    source = bus.source("lost")
    stories.begin(source, epochs=300)
    for number in range(1, 2502):  # more than the page has points for: the last but one are one
        stories.step(source, number, epochs=300, loss=0.5)
    judged: dict[str, Any] = {"batches": 2, "samples": 16, "duration": 0.1, "speed": {}, "losses": {}}
    for epoch, accuracy in enumerate((0.75, float("nan"))):
        source.publish(ValEnd, epoch=epoch, metrics={"accuracy": accuracy}, fitness=accuracy, **judged)
    stories.step(source, 2502, epochs=300, loss=float("nan"))
    bus.flush()
    with visiting(browser, f"{address}/#/lost") as page:
        for title in ("loss", "accuracy"):
            chart = page.locator(".chart", has=page.get_by_role("heading", name=title, exact=True))
            expect(chart.get_by_role("img")).to_have_attribute("aria-label", re.compile(f"^{title} .*last: .*nan$"))
            expect(chart.locator(".legend b")).to_have_text("nan")
        loss = page.locator(".chart").first.locator(".legend b")
        stories.step(source, 2503, epochs=300, loss=0.25)
        expect(loss).to_have_text(re.compile(r"0\.\d+"))
        stories.step(source, 2504, epochs=300, loss=float("inf"))
        expect(loss).to_have_text("∞")


def test_curves_can_be_logarithmic_smoothed_over_time_and_laid_over_each_other(
    browser: Browser, bus: Bus, address: str
) -> None:
    for name in ("one", "two", "three"):
        stories.trained(bus.source(name))
    bus.flush()
    with visiting(browser, f"{address}/#/one") as page:
        loss = page.locator(".chart").first
        expect(loss.locator(LINES)).to_have_text([re.compile("^train "), re.compile("^val ")])
        page.keyboard.press("l")
        expect(page.locator("#log")).to_have_attribute("aria-pressed", "true")
        page.locator("#smoothing").fill("0.9")
        page.select_option("#over", "time")
        row(page, "two").locator("a").focus()
        page.keyboard.press("o")
        row(page, "three").locator("a").focus()
        page.keyboard.press("o")
        expect(loss.locator(LINES)).to_have_count(6)
        page.reload()  # what was chosen is kept
        expect(loss.locator(LINES)).to_have_count(6)
        expect(page.locator("#log")).to_have_attribute("aria-pressed", "true")
        expect(page.locator("#smoothing")).to_have_value("0.9")
        expect(page.locator("#over")).to_have_value("time")
        row(page, "two").locator(".overlay").click()
        expect(loss.locator(LINES)).to_have_count(4)


def test_what_is_zoomed_into_is_asked_for_more_closely(browser: Browser, bus: Bus, address: str) -> None:
    source = bus.source("long")
    stories.begin(source, epochs=500)
    for number in range(1, 3001):
        stories.step(source, number, epochs=500, loss=9.0 if number == 1501 else 1.0)
    stories.end(source)
    bus.flush()
    with visiting(browser, f"{address}/#/long") as page:
        plot = page.locator(".chart .u-over").first
        box = plot.bounding_box()
        assert box is not None
        middle, height = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        page.mouse.move(middle - 20, height)
        page.mouse.down()
        page.mouse.move(middle + 20, height, steps=3)
        with page.expect_response(re.compile("from=14[0-9]+&to=15[0-9]+")) as closer:
            page.mouse.up()
        points = closer.value.json()["series"]["loss"]
        assert points["step"] == list(range(points["step"][0], points["step"][-1] + 1))
        assert max(points["value"]) == 9.0
        with page.expect_response(lambda answer: "series=" in answer.url and "from=" not in answer.url):
            plot.dblclick()
        page.select_option("#over", "time")
        page.mouse.move(middle, height)  # from there on it is flat but for rounding
        page.mouse.down()
        page.mouse.move(middle + 100, height, steps=3)
        with page.expect_response(re.compile("from=[0-9]+&to=[0-9]+")) as closer:
            page.mouse.up()
        steps = closer.value.json()["series"]["loss"]["step"]
        assert 1 < steps[0] < steps[-1] < 3000


def test_values_that_differ_by_next_to_nothing_are_drawn_all_the_same(browser: Browser, bus: Bus, address: str) -> None:
    apart = [0.0, 1e-16, 1.5e-9, 4e-9, 8e-8, 9e-7, 8e-6, 2e-5]
    source = bus.source("still")
    stories.begin(source)
    for epoch in range(3):
        stories.step(source, epoch + 1)
        metrics = {f"apart by {by}": 1.0 + (epoch % 2) * by for by in apart}
        source.publish(ValStart, epoch=epoch, batches=1)
        source.publish(
            ValEnd, epoch=epoch, batches=1, samples=8, metrics=metrics, losses={}, fitness=1.0, duration=0.1, speed={}
        )
    bus.flush()
    with visiting(browser, f"{address}/#/still") as page:  # which looks that nothing is thrown
        for by in apart:
            expect(page.get_by_role("img", name=f"apart by {by} at 3 points")).to_be_visible()


def test_steps_that_a_later_attempt_does_again_are_drawn_once(browser: Browser, bus: Bus, address: str) -> None:
    first = bus.source("again")
    stories.begin(first)
    stories.epoch(first, 0)
    bus.flush()
    with visiting(browser, f"{address}/#/again") as page:
        expect(page.locator(".chart h3").first).to_be_visible()
        for number in range(11, 16):
            stories.step(first, number, loss=5.0)
        second = bus.source("again", attempt=2)
        stories.begin(second)
        stories.step(second, 11, loss=0.25)
        expect(page.locator(".tile", has_text="loss").first.locator("b")).to_have_text("0.2500")
        expect(page.locator(".facts")).to_contain_text("attempt 2")
        plot = page.locator(".chart").first.get_by_role("img")
        expect(plot).to_have_attribute("aria-label", re.compile("^loss at 11 points"))


def test_a_failed_run_says_why(browser: Browser, bus: Bus, address: str) -> None:
    stories.trained(bus.source("bad"), error="<b>out of</b> memory")
    bus.flush()
    with visiting(browser, f"{address}/#/bad") as page:
        expect(page.locator(".chip")).to_have_text("failed")
        expect(page.locator(".trouble > p")).to_have_text("ValueError: <b>out of</b> memory")
        page.locator(".trouble summary").click()
        expect(page.locator(".trouble pre")).to_contain_text("Traceback")


def test_ranks_that_hold_up_the_others_are_named(browser: Browser, bus: Bus, address: str) -> None:
    ranks = [bus.source("many", rank=rank) for rank in range(3)]
    for source in ranks:
        stories.begin(source, ranks=3)
        stories.epoch(source, 0, seconds=0.03 if source.rank == 1 else 0.02)
    bus.flush()
    with visiting(browser, f"{address}/#/many") as page:
        expect(page.locator(".ranks-list li")).to_have_text(
            [re.compile("rank 0.*20 ms"), re.compile("rank 1.*30 ms"), re.compile("rank 2.*20 ms")]
        )
        expect(page.locator(".verdict")).to_contain_text("Rank 1 takes 50 % longer")
        expect(page.locator(".ranks-list [data-slow=true]")).to_have_count(1)
        expect(page.locator(".tile", has_text="samples")).to_contain_text("1,200/s")  # of all of them


def test_predictions_and_pictures_are_shown_as_they_come(browser: Browser, bus: Bus, address: str) -> None:
    grid = [[float(x * y) for x in range(8)] for y in range(8)]
    stories.predicted(bus.source("seen"), [{"digit": 3, "confidence": 0.75, "image": grid}, "plain"])
    bus.flush()
    with visiting(browser, f"{address}/#/seen") as page:
        expect(page.locator(".results li")).to_have_count(2)
        expect(page.locator(".results li", has_text="digit")).to_contain_text("0.7500")
        expect(page.locator(".results .picture")).to_have_count(1)
        assert page.locator(".results .picture").evaluate("canvas => canvas.width") == 8
        bus.source("seen").publish(Sample, picture=PIXEL)  # a type that only its publisher knows
        expect(page.locator(".results .picture")).to_have_count(2)
        expect(page.locator(".events .type").first).to_have_text("tests.service.Sample")


def test_the_cost_of_observing_is_shown_where_the_bus_is_in_reach(browser: Browser, tmp_path: Path) -> None:
    seen: list[Event] = []
    with Bus(tmp_path) as bus, serving(service(bus, token=None)) as server, bus.steering.within("mine", Wheel()):
        bus.subscribe(seen.append, name="my logger", lane="thread")
        source = bus.source("mine")
        stories.begin(source)
        stories.epoch(source, 0)
        bus.flush()
        with visiting(browser, f"{url(server)}/#/mine") as page:
            expect(page.locator(".observing tbody")).to_contain_text("my logger")
            expect(page.locator(".observing .about")).to_contain_text("µs a step")


def test_a_run_that_is_not_there_is_an_answer_and_no_blank_page(browser: Browser, bus: Bus, address: str) -> None:
    stories.trained(bus.source("good"))
    bus.flush()
    with visiting(browser, f"{address}/#/nobody") as page:
        expect(page.locator("main h1")).to_have_text("No such run")
        page.get_by_role("link", name="All runs").click()
        expect(row(page, "good")).to_be_visible()


# -- connections -----------------------------------------------------------------------------------


def test_a_restart_of_the_service_is_survived_without_a_reload(browser: Browser, bus: Bus) -> None:
    source = bus.source("going")
    stories.begin(source, epochs=100)
    bus.flush()
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    folder = folder_of(bus)
    with ExitStack() as first:
        address = url(first.enter_context(serving(service(folder, token=None), port=port)))
        with visiting(browser, f"{address}/#/going") as page:
            expect(page.locator(".events li")).to_have_count(2)
            page.select_option("#scope", "everything")
            page.evaluate("window.mark = 1")
            first.close()
            for restart in range(1, 4):
                expect(page.locator("#connection")).to_have_text("reconnecting …")
                stories.step(source, 2 * restart, epochs=100)  # while nobody serves
                bus.flush()
                with serving(service(folder, token=None), port=port):
                    expect(page.locator("#connection")).to_have_text("live")
                    stories.step(source, 2 * restart + 1, epochs=100)  # and while somebody does
                    expect(page.locator(".events .type", has_text="TrainBatchEnd")).to_have_count(2 * restart)
            said = page.locator(".events .said", has_text=re.compile("^batch .* loss")).all_inner_texts()
            assert [int(line.split("/")[0].split()[1]) for line in said] == [7, 6, 5, 4, 3, 2]
            assert page.evaluate("window.mark") == 1


def test_without_the_token_the_page_is_not_shown_and_with_its_link_it_is(browser: Browser, bus: Bus) -> None:
    stories.trained(bus.source("good"))
    bus.flush()
    with serving(service(folder_of(bus), token=TOKEN)) as server:
        with browser.new_context() as context:
            page = context.new_page()
            answer = page.goto(url(server))
            assert answer is not None
            assert answer.status == 401
            expect(page.locator("body")).to_contain_text("Open the link that lineside serve printed")
        with visiting(browser, f"{url(server)}/?token={TOKEN}") as page:
            expect(row(page, "good").locator(".state")).to_have_text("finished")
            assert TOKEN not in page.url
            assert TOKEN not in page.evaluate("document.cookie")


def test_it_works_below_a_path_of_an_app_of_yours(browser: Browser, bus: Bus) -> None:
    stories.trained(bus.source("good"))
    bus.flush()
    mine = service(folder_of(bus), token=None)
    app: Any = FastAPI()
    app.hub = mine.hub
    app.mount("/deep/lineside", mine)
    with serving(app) as server, visiting(browser, f"{url(server)}/deep/lineside/#/good") as page:
        expect(page.locator(".chart h3").first).to_have_text("loss")
        expect(page.locator("#connection")).to_have_attribute("data-state", "live")
        expect(row(page, "good").locator(".state")).to_have_text("finished")


# -- hands and eyes --------------------------------------------------------------------------------


def test_everything_is_reached_from_the_keyboard(browser: Browser, bus: Bus, address: str) -> None:
    for name in ("one", "two", "three"):
        stories.trained(bus.source(name))
        bus.flush()
    with visiting(browser, address) as page:
        expect(page.locator("main h1")).to_have_text("three")  # the newest, where there is room
        page.keyboard.press("Tab")
        expect(page.locator("#skip")).to_be_focused()
        for place in ("#home", "#keys", "#theme", "#search"):
            page.keyboard.press("Tab")
            expect(page.locator(place)).to_be_focused()
        page.keyboard.press("ArrowDown")
        expect(row(page, "three").locator("a")).to_be_focused()
        page.keyboard.press("ArrowDown")
        expect(row(page, "two").locator("a")).to_be_focused()
        assert row(page, "two").locator("a").evaluate("link => getComputedStyle(link).outlineStyle") == "solid"
        page.keyboard.press("End")
        expect(row(page, "one").locator("a")).to_be_focused()
        page.keyboard.press("Enter")
        expect(page.locator("main h1")).to_have_text("one")
        page.keyboard.press("ArrowUp")
        expect(row(page, "two").locator("a")).to_be_focused()
        expect(page.locator(".chart h3").first).to_be_visible()
        page.keyboard.press("f")
        expect(page.locator("#feed-text")).to_be_focused()
        expect(page.locator(".stage canvas")).to_be_visible()  # what is hidden takes no focus
        page.locator(".stage canvas").focus()
        page.keyboard.press("+")
        expect(page.get_by_role("button", name="show all")).to_be_visible()
        page.keyboard.press("0")
        expect(page.get_by_role("button", name="show all")).to_be_hidden()
        page.keyboard.press("?")
        expect(page.locator("#help")).to_be_visible()
        page.keyboard.press("Escape")
        expect(page.locator("#help")).to_be_hidden()
        page.keyboard.press("Escape")
        expect(page.locator("main")).to_contain_text("Choose a run")


def test_the_theme_follows_the_system_until_one_is_chosen_and_that_is_kept(
    browser: Browser, bus: Bus, address: str
) -> None:
    def background(page: Page) -> str:
        return str(page.evaluate("getComputedStyle(document.body).backgroundColor"))

    light, dark = "rgb(247, 247, 245)", "rgb(19, 20, 22)"
    with visiting(browser, address, color_scheme="dark") as page:
        expect(page.locator("#theme")).to_have_text("Theme: system")
        assert background(page) == dark
        page.locator("#theme").click()
        assert background(page) == light
        page.reload()
        expect(page.locator("#theme")).to_have_text("Theme: light")
        assert background(page) == light
        page.locator("#theme").click()
        assert background(page) == dark


@pytest.mark.parametrize("viewport", [WIDE, NARROW], ids=["1280", "400"])
def test_nothing_sticks_out_at_either_width(browser: Browser, bus: Bus, address: str, viewport: Any) -> None:
    stories.trained(bus.source("a-run-with-quite-a-long-name-20261122"), error="word" * 60)
    bus.flush()
    with visiting(browser, address, viewport) as page:
        row(page, "a-run-with-quite-a-long-name-20261122").locator("a").click()
        expect(page.locator(".chart h3").first).to_be_visible()
        out = """() => [document.documentElement, document.querySelector("main")]
            .map(element => element.scrollWidth - element.clientWidth)"""
        assert page.evaluate(out) == [0, 0]
        if viewport == NARROW:
            expect(page.locator("#search")).to_be_hidden()
            page.get_by_role("link", name="All runs").click()
            expect(page.locator("#search")).to_be_visible()
            assert page.evaluate("document.documentElement.scrollWidth") == NARROW["width"]


@pytest.mark.parametrize("viewport", [WIDE, NARROW], ids=["1280", "400"])
def test_long_names_stay_in_their_places(browser: Browser, bus: Bus, address: str, viewport: Any) -> None:
    source = bus.source("named")
    stories.begin(source)
    stories.step(source, 1)
    names = [f"metrics/{'long' * 20}", "metrics/mAP50-95_of_small_objects_at_night", "top-5 accuracy of the teacher"]
    rest: dict[str, Any] = {"losses": {}, "fitness": None, "batches": 1, "samples": 4, "duration": 0.5, "speed": {}}
    source.publish(ValEnd, epoch=0, metrics=dict.fromkeys(names, 0.5), **rest)
    bus.flush()
    with visiting(browser, f"{address}/#/named", viewport) as page:
        expect(page.locator(".chart h3")).to_have_text(["loss", *names, "learning rate", "step time"])
        expect(page.locator(".tile dt", has_text=names[2])).to_be_visible()
        out = """places => [...document.querySelectorAll(places)].filter(text => {
            const range = document.createRange();
            range.selectNodeContents(text);
            const clipped = getComputedStyle(text).overflow === "hidden" ? text : range;
            return clipped.getBoundingClientRect().right > text.parentElement.getBoundingClientRect().right + 1;
        }).map(text => text.textContent)"""
        assert page.evaluate(out, ".tile dt, .chart h3") == []


# -- size ------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_run_of_a_million_events_is_opened_by_what_there_is_room_for(browser: Browser, bus: Bus) -> None:
    source = bus.source("long")
    stories.begin(source, epochs=100)
    place: dict[str, Any] = {"epoch": 0, "batches": None, "batch_size": 8, "losses": {}, "lr": {"all": 0.1}}
    for number in range(1_000_000):
        if number % 10_000 == 0:
            stories.close_epoch(source, number // 10_000, epochs=100)
        source.publish(TrainBatchEnd, **place, batch=number, step=number + 1, loss=1 / (number + 1), seconds=0.001)
    bus.flush()
    with serving(service(folder_of(bus), token=None)) as server, visiting(browser, url(server), NARROW) as page:
        answers: list[Request] = []
        page.on("requestfinished", lambda answer: answers.append(answer))
        expect(row(page, "long")).to_be_visible()
        row(page, "long").locator("a").click()
        for part in (".chart canvas", ".events li", ".lanes li"):
            page.locator(part).first.wait_for()
        page.select_option("#scope", "everything")
        page.locator(".events .said", has_text="batch 1000000 ").wait_for()
        read = sum(answer.sizes()["responseBodySize"] for answer in answers)
        assert 10_000 < read < 1_000_000  # bytes; the events are a thousand times as many
