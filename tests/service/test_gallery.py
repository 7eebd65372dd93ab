"""The gallery of predictions in a real browser: photographs with what is on them, as they come."""

from __future__ import annotations

import base64
import io
import re

import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, Route, expect

from lineside.bus import Bus, Source
from lineside.demo.photos.results import LabelledPhoto
from lineside.schemas import Boxes, Classes, PredictBatchEnd, PredictStart

from . import stories
from .pages import visiting


def photo(color: str, size: tuple[int, int] = (288, 192)) -> str:
    """Return a JPEG of one color."""
    file = io.BytesIO()
    Image.new("RGB", size, color).save(file, "JPEG")
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"


def labelled(name: str, color: str, **scores: float) -> object:
    best = sorted(scores, key=scores.__getitem__, reverse=True)
    classes = Classes(names=tuple(best), scores=tuple(scores[one] for one in best), indices=tuple(range(len(best))))
    return LabelledPhoto(name=name, picture=photo(color), classes=classes).model_dump(mode="json")


def begin(source: Source) -> None:
    stories.begin(source, kind="predict")
    source.publish(PredictStart, source="Photos", batch_size=2, batches=3)


def publish(bus: Bus, source: Source, batch: int, *results: object) -> None:
    source.publish(
        PredictBatchEnd,
        epoch=0,
        batch=batch,
        batches=3,
        batch_size=len(results),
        inputs=tuple(f"{batch}-{number}.jpg" for number in range(len(results))),
        results=results,
        speed={"inference": 0.1},
    )
    bus.flush()


def titles(page: Page) -> list[str]:
    """Return what the cards are called, the newest first."""
    return page.locator(".results .input").all_inner_texts()


def color(page: Page, canvas: str) -> list[int]:
    """Return red, green and blue in the middle of a picture."""
    middle = "c => [...c.getContext('2d').getImageData(c.width / 2, c.height / 2, 1, 1).data].slice(0, 3)"
    found: list[int] = page.locator(canvas).first.evaluate(middle)
    return found


COFFEE = labelled("coffee", "brown", espresso=0.9, cup=0.04)
CAT = labelled("chelsea", "orange", **{"tiger cat": 0.1, "Egyptian cat": 0.77})
ROCKET = labelled("rocket", "blue", missile=0.5)


def test_photographs_come_one_by_one_and_those_that_are_there_stay_as_they_are(
    browser: Browser, bus: Bus, address: str
) -> None:
    source = bus.source("seen")
    begin(source)
    bus.flush()
    with visiting(browser, f"{address}/#/seen") as page:
        expect(page.locator("#connection")).to_have_attribute("data-state", "live")
        expect(page.locator(".predictions")).to_be_hidden()
        publish(bus, source, 0, COFFEE)
        expect(page.locator(".results > li")).to_have_count(1)
        page.evaluate(
            """() => {
              const list = document.querySelector(".results");
              globalThis.first = list.firstElementChild;
              globalThis.removed = 0;
              new MutationObserver((changes) => {
                for (const { removedNodes } of changes) globalThis.removed += removedNodes.length;
              }).observe(list, { childList: true, subtree: true });
            }"""
        )
        publish(bus, source, 1, CAT)
        expect(page.locator(".results > li")).to_have_count(2)
        publish(bus, source, 2, ROCKET)
        expect(page.locator(".results > li")).to_have_count(3)
        assert titles(page) == ["rocket", "chelsea", "coffee"]
        assert page.evaluate("() => document.querySelector('.results').lastElementChild === globalThis.first")
        assert page.evaluate("globalThis.removed") == 0


def test_a_card_shows_the_photograph_and_its_labels_the_best_first(browser: Browser, bus: Bus, address: str) -> None:
    source = bus.source("seen")
    begin(source)
    publish(bus, source, 0, CAT)
    with visiting(browser, f"{address}/#/seen") as page:
        expect(page.locator(".score")).to_have_text([re.compile("Egyptian cat.*77 %"), re.compile("tiger cat.*10 %")])
        expect(page.locator(".results .picture")).to_have_js_property("width", 288)
        assert color(page, ".results .picture") == pytest.approx([255, 165, 0], abs=6)
        card = page.locator(".results > li").bounding_box()
        assert card is not None
        assert card["width"] >= 200
        expect(
            page.get_by_role("list", name="Predictions").get_by_role("button", name="Enlarge chelsea")
        ).to_be_visible()


@pytest.mark.parametrize(
    "classes",
    [
        {"names": ["cup", "espresso"], "scores": [0.1, 0.9]},
        {"labels": ["cup", "espresso"], "scores": [0.1, 0.9]},
        {"names": ["espresso", "cup"], "scores": [0.9, 0.1], "indices": [967, 968]},
        [{"label": "cup", "confidence": 0.1}, {"label": "espresso", "confidence": 0.9}],
        {"found": [{"name": "cup", "score": 0.1}, {"name": "espresso", "score": 0.9}]},
    ],
)
def test_classes_with_scores_are_a_ranking_whatever_their_form(
    browser: Browser, bus: Bus, address: str, classes: object
) -> None:
    source = bus.source("seen")
    begin(source)
    publish(bus, source, 0, classes)
    with visiting(browser, f"{address}/#/seen") as page:
        expect(page.locator(".score")).to_have_text([re.compile("espresso.*90 %"), re.compile("cup.*10 %")])
        expect(page.locator(".results .input")).to_have_text("0-0.jpg")


def test_scores_that_are_no_probabilities_are_told_as_numbers(browser: Browser, bus: Bus, address: str) -> None:
    source = bus.source("seen")
    begin(source)
    publish(
        bus, source, 0, Classes(names=("cup", "espresso"), scores=(7.5, -2.0), indices=(0, 1)).model_dump(mode="json")
    )
    with visiting(browser, f"{address}/#/seen") as page:
        expect(page.locator(".score")).to_have_text([re.compile("cup.*7.5000"), re.compile("espresso.*-2")])


def test_boxes_are_drawn_on_the_picture_beside_them(browser: Browser, bus: Bus, address: str) -> None:
    source = bus.source("seen")
    begin(source)
    found = Boxes(boxes=((100, 100, 1800, 1100),), names=("cat",), scores=(0.9,), indices=(0,), width=2880, height=1920)
    publish(bus, source, 0, {"picture": photo("white"), "found": found.model_dump(mode="json")})
    with visiting(browser, f"{address}/#/seen") as page:
        expect(page.locator(".score")).to_have_text(re.compile("cat.*90 %"))
        expect(page.locator(".results .picture")).to_have_js_property("width", 288)
        at = "(c, [x, y]) => [...c.getContext('2d').getImageData(x, y, 1, 1).data].slice(0, 3)"
        drawn = page.locator(".results .picture").first
        assert drawn.evaluate(at, [180, 60]) != [255, 255, 255]  # its right edge, at a tenth of the picture's size
        assert drawn.evaluate(at, [100, 60]) == pytest.approx([255, 255, 255], abs=4)
        assert drawn.evaluate(at, [250, 60]) == pytest.approx([255, 255, 255], abs=4)


def test_other_results_with_such_names_are_told_as_they_are(browser: Browser, bus: Bus, address: str) -> None:
    source = bus.source("seen")
    begin(source)
    publish(
        bus, source, 0, {"names": ["a"], "scores": [7.5], "more": 1}, {"labels": ["a", "b"], "scores": [0.5]}, [], None
    )
    with visiting(browser, f"{address}/#/seen") as page:
        expect(page.locator(".results > li")).to_have_count(4)
        expect(page.locator(".score")).to_have_count(0)
        expect(page.locator(".results > li").last).to_contain_text("[7.5]")


def test_a_photograph_is_enlarged_and_left_with_the_keyboard(browser: Browser, bus: Bus, address: str) -> None:
    source = bus.source("seen")
    begin(source)
    publish(bus, source, 0, COFFEE, CAT)
    publish(bus, source, 1, {"digit": 3}, ROCKET)
    with visiting(browser, f"{address}/#/seen") as page:
        page.get_by_role("button", name="Enlarge rocket").focus()
        page.keyboard.press("Enter")
        large = page.get_by_role("dialog", name="rocket")
        expect(large).to_be_visible()
        page.keyboard.press("ArrowLeft")  # there is nothing newer
        expect(large).to_be_visible()
        page.keyboard.press("ArrowRight")  # past what has no picture
        large = page.get_by_role("dialog", name="chelsea")
        expect(large.locator(".score").first).to_contain_text("Egyptian cat")
        expect(large.locator("canvas")).to_have_js_property("width", 288)
        box = large.locator("canvas").bounding_box()
        assert box is not None
        assert box["width"] > 600
        page.keyboard.press("Escape")
        expect(large).to_be_hidden()
        expect(page.get_by_role("button", name="Enlarge chelsea")).to_be_focused()
        assert page.url.endswith("#/seen")


def test_a_photograph_that_is_enlarged_stays_while_others_come(browser: Browser, bus: Bus, address: str) -> None:
    source = bus.source("seen")
    begin(source)
    publish(bus, source, 0, COFFEE)
    with visiting(browser, f"{address}/#/seen") as page:
        page.get_by_role("button", name="Enlarge coffee").click()
        large = page.get_by_role("dialog", name="coffee")
        expect(large).to_be_visible()
        publish(bus, source, 1, CAT)
        expect(page.locator(".results > li")).to_have_count(2)
        expect(large).to_be_visible()
        page.keyboard.press("ArrowLeft")
        expect(page.get_by_role("dialog", name="chelsea")).to_be_visible()
        page.mouse.click(5, 5)  # what lies behind it
        expect(page.get_by_role("dialog")).to_have_count(0)


def test_of_many_predictions_the_newest_are_kept(browser: Browser, bus: Bus, address: str) -> None:
    source = bus.source("many")
    begin(source)
    bus.flush()
    with visiting(browser, f"{address}/#/many") as page:
        expect(page.locator("#connection")).to_have_attribute("data-state", "live")
        for batch in range(3):
            publish(bus, source, batch, *({"digit": batch} for _ in range(10)))
        expect(page.locator(".results > li")).to_have_count(30)
        for batch in range(3, 5):
            publish(bus, source, batch, *({"digit": batch} for _ in range(10)))
        expect(page.locator(".predictions .about")).to_have_text("36 of 50 that came")
        expect(page.locator(".results > li")).to_have_count(36)
        assert titles(page)[0] == "4-9.jpg"
        assert titles(page)[-1] == "1-4.jpg"


LATE = """
const ask = window.fetch;
const late = new Promise((go) => { window.letStreamsGo = go; });
window.fetch = async (address, ...rest) => {
  const answer = await ask(address, ...rest);
  if (!String(address).includes("after=now")) return answer;
  const held = new TransformStream({ transform: (piece, out) => late.then(() => out.enqueue(piece)) });
  return new Response(answer.body.pipeThrough(held), answer);
};
"""


def test_what_the_stream_brings_after_the_past_had_it_is_shown_once(browser: Browser, bus: Bus, address: str) -> None:
    source = bus.source("both")
    begin(source)
    bus.flush()

    def ask_late(route: Route) -> None:
        publish(bus, source, 0, *({"digit": 0} for _ in range(10)))
        route.continue_()

    with visiting(browser, f"{address}/#/nobody") as page:  # else it might show the run before it is listened to
        page.add_init_script(LATE)
        page.reload()
        expect(page.locator("main h1")).to_have_text("No such run")
        page.route("**/events?tail=*", ask_late)
        page.goto(f"{address}/#/both")
        expect(page.locator(".results > li")).to_have_count(10)
        page.evaluate("letStreamsGo()")
        publish(bus, source, 1, {"digit": 1})
        expect(page.locator(".results .input").first).to_have_text("1-0.jpg")
        expect(page.locator(".results > li")).to_have_count(11)


def test_the_gallery_keeps_its_distance_from_the_events(browser: Browser, bus: Bus, address: str) -> None:
    source = bus.source("seen")
    begin(source)
    publish(bus, source, 0, COFFEE)
    stories.end(source, kind="predict")  # so that nothing comes between them
    bus.flush()
    for width in (1280, 800, 400):
        with visiting(browser, f"{address}/#/seen", {"width": width, "height": 900}) as page:
            expect(page.locator(".gallery .picture")).to_be_visible()
            expect(page.locator(".events li")).to_have_count(3)
            gallery, feed = (page.locator(place).bounding_box() for place in (".gallery", ".feed"))
            assert gallery is not None
            assert feed is not None
            assert feed["y"] - gallery["y"] - gallery["height"] >= 10


def test_a_photograph_that_cannot_be_read_says_so(browser: Browser, bus: Bus, address: str) -> None:
    source = bus.source("bad")
    begin(source)
    broken = f"data:image/jpeg;base64,{base64.b64encode(b'not a photograph').decode()}"
    publish(bus, source, 0, {"name": "broken", "picture": broken}, COFFEE)
    with visiting(browser, f"{address}/#/bad") as page:
        expect(page.locator(".results > li").last).to_contain_text("unreadable picture")
        expect(page.locator(".results canvas")).to_have_count(1)
