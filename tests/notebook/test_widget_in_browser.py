"""The widget's page side in a real browser, with a model like the one a notebook gives it."""

from __future__ import annotations

import math
import os
import random
import re
from collections.abc import Callable, Generator
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from lineside.bus import Bus
from lineside.bus.notebook.watch import Watch
from lineside.schemas import ErrorInfo, ExportPhase, ExportStart, FitEpochEnd, PretrainRoutineEnd, RunStart
from tests.service.browser import browser as running_browser

from .support import PATIENCE, Told

pytestmark = pytest.mark.slow

UNKNOWN = dict.fromkeys(("best", "last"))

MODEL = """
class Model {
  constructor(state) { this.values = { state, key: "k" }; this.listeners = []; this.sent = []; this.answers = true; }
  get(name) { return this.values[name]; }
  set(name, value) { this.values[name] = value; }
  save_changes() { throw new Error("the page never writes"); }
  send(content) {
    this.sent.push(content);
    if (this.answers && content.id) queueMicrotask(() => this.tell({ answer: content.id, refused: "" }));
  }
  tell(message) { this.emit("msg:custom", message); }
  emit(name, value) { for (const [other, call] of [...this.listeners]) if (other === name) call(value); }
  proxy() {
    const made = {};
    for (const name of ["get", "set", "save_changes", "send"]) made[name] = this[name].bind(this);
    made.on = (name, call) => this.listeners.push([name, call]);
    made.off = () => {};
    return made;
  }
}
window.begin = async (source, state) => {
  const url = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
  window.widget = (await import(url)).default;
  window.model = new Model(state);
  window.widget.initialize({ model: window.model.proxy() });
  window.show();
};
window.show = () => {
  const el = document.body.appendChild(document.createElement("div"));
  return (window.close = window.widget.render({ model: window.model.proxy(), el }));
};
"""


def static(name: str) -> str:
    return resources.files("lineside.bus.notebook").joinpath("static", name).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def browser() -> Generator[Browser]:
    with running_browser() as browser:
        yield browser


class Shown:
    """A page that shows a run."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.widget: Locator = page.locator(".lineside-run").first
        self.badge = self.widget.locator(".ls-state")
        self.notice = self.widget.locator(".ls-notice[role=status]")

    def begin(self, state: dict[str, Any]) -> None:
        self.page.set_content("<!doctype html><body></body>")
        self.page.add_style_tag(content=static("widget.css"))
        self.page.add_script_tag(content=MODEL)
        self.page.evaluate("([source, state]) => window.begin(source, state)", [static("widget.js"), state])
        expect(self.widget).to_be_visible()

    def tell(self, message: dict[str, Any]) -> None:
        self.page.evaluate("(message) => window.model.tell(message)", message)

    def button(self, name: str) -> Locator:
        return self.widget.get_by_role("button", name=name, exact=True)

    def sent(self) -> list[str]:
        asked: list[str] = self.page.evaluate("() => window.model.sent.map(({ ask }) => ask)")
        return asked


@pytest.fixture
def shown(browser: Browser) -> Generator[Shown]:
    page = browser.new_page(viewport={"width": 1000, "height": 760}, device_scale_factor=2)
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    yield Shown(page)
    page.close()
    assert errors == []


class Wheel:
    paused = stopping = held = False

    def stop(self, reason: str) -> None: ...

    def pause(self) -> None: ...

    def resume(self) -> None: ...


Story = Callable[[Told], None]


def training(run: Told, epochs: int = 4, batches: int = 120) -> None:
    """Four of ten epochs, with a spike, the last not finished."""
    chance = random.Random(1)
    run.begin(epochs=10)
    run.source.publish(PretrainRoutineEnd, parameters=39370, trainable=39370, batches=batches, val_batches=5)
    for epoch in range(epochs):
        losses = [2.2 * math.exp(-(epoch * batches + b) / 90) + 0.1 + chance.random() * 0.15 for b in range(batches)]
        if epoch == 1:
            losses[60] = 1.9
        run.epoch(epoch, losses, epochs=10)
        metrics = {"loss": losses[-1] + 0.05, "accuracy": 0.98 - 0.5 * math.exp(-epoch)}
        mean = {"loss": sum(losses) / batches}
        more = {"fitness": 0.9, "best_fitness": 0.9, "best_epoch": epoch, "duration": 12.0}
        run.source.publish(FitEpochEnd, epoch=epoch, epochs=10, losses=mean, metrics=metrics, **more, **UNKNOWN)
    for batch in range(40):
        run.batch(
            epochs * batches + batch + 1, 0.14 + chance.random() * 0.1, epoch=epochs, batch=batch, batches=batches
        )


def told_of(story: Story, wheel: Wheel | None = None) -> dict[str, Any]:
    """Return what is told of a run, as far as it has come: everything at once."""
    with Bus() as bus:
        run = Told(bus, "train-20261122-071522-9f3a")
        with bus.steering.within(run.id, wheel or Wheel()):
            story(run)
            held = wheel is not None and wheel.held
            seen = Watch(bus, run.id, run._begin, held=lambda: held)  # pyright: ignore[reportPrivateUsage]
            assert seen.catch_up(PATIENCE)
            message = seen.snapshot()
            seen.close()
    return message


def keep_picture(shown: Shown, name: str) -> None:
    """Keep a screenshot where one is asked for, to be looked at."""
    folder = os.environ.get("LINESIDE_PICTURES")
    if folder:
        shown.widget.screenshot(path=Path(folder) / f"{name}.png")


def test_a_training_shows_its_state_its_progress_its_numbers_and_its_curves(shown: Shown) -> None:
    shown.begin(told_of(training))
    expect(shown.badge).to_have_text("running")
    expect(shown.widget).to_contain_text("train · Net on cpu · 39,370 parameters, 120 batches an epoch")
    expect(shown.widget).to_contain_text("epoch 5 of 10 · training · batch 40 of 120")
    assert shown.widget.get_by_role("progressbar", name="Progress").get_attribute("value") == "0.4333"
    expect(shown.widget.get_by_role("listitem").filter(has_text="accuracy")).to_contain_text("0.9551")
    expect(shown.widget.locator("h3")).to_have_text(["loss", "accuracy", "learning rate"])
    loss = shown.widget.get_by_role("img").first
    assert "loss, last: each step" in (loss.get_attribute("aria-label") or "")
    box = loss.bounding_box()
    assert box
    loss.hover(position={"x": box["width"] / 2, "y": box["height"] / 2})
    expect(shown.widget.locator(".ls-place").first).to_have_text(re.compile(r"step 2\d\d"))
    shown.page.mouse.move(0, 0)
    keep_picture(shown, "widget-light")


def test_updates_change_the_elements_that_are_there_and_replace_none(shown: Shown) -> None:
    def over(run: Told) -> None:
        training(run, epochs=5)
        run.end()

    shown.begin(told_of(training))
    shown.page.evaluate(
        """() => {
          window.removed = [];
          const watch = new MutationObserver((changes) => {
            const gone = changes.flatMap(({ removedNodes }) => [...removedNodes]);
            window.removed.push(...gone.filter(({ nodeType }) => nodeType === 1).map((node) => node.outerHTML));
          });
          watch.observe(document.querySelector(".lineside-run"), { childList: true, subtree: true });
        }"""
    )
    expect(shown.widget.locator(".ls-curve").first).to_have_attribute("d", re.compile("M.*"))
    path = "() => document.querySelector('.lineside-run .ls-curve').getAttribute('d')"
    before = shown.page.evaluate(path)
    shown.tell({**told_of(lambda run: training(run, epochs=5)), "version": 1000})
    expect(shown.widget).to_contain_text("epoch 6 of 10")
    assert shown.page.evaluate("() => window.removed") == []
    assert shown.page.evaluate(path) != before
    shown.tell({**told_of(over), "version": 1001})
    expect(shown.badge).to_have_text("completed")
    expect(shown.button("Stop")).to_be_hidden()
    expect(shown.widget).to_contain_text("took 12 s")
    keep_picture(shown, "widget-completed")


def test_the_buttons_ask_and_stop_is_clicked_twice(shown: Shown) -> None:
    shown.begin(told_of(training))
    shown.button("Pause").press("Enter")
    assert shown.sent().count("pause") == 1
    wheel = Wheel()
    wheel.paused = True
    paused = told_of(training, wheel=wheel)
    shown.tell({**paused, "version": 1000})
    expect(shown.badge).to_have_text("paused")
    expect(shown.widget.locator(".ls-said")).to_have_text("The run is paused")
    keep_picture(shown, "widget-paused")
    shown.button("Resume").click()
    assert shown.sent().count("resume") == 1
    shown.button("Stop").click()
    assert "stop" not in shown.sent()
    expect(shown.widget.locator(".ls-said")).to_contain_text("Press again")
    shown.button("Really stop?").click()
    assert shown.sent().count("stop") == 1


def test_a_run_that_is_held_says_so_and_promises_no_time_and_can_be_stopped(shown: Shown) -> None:
    shown.page.clock.install()
    shown.begin(told_of(training))
    expect(shown.widget.locator(".ls-left")).to_contain_text("left")
    wheel = Wheel()
    wheel.held = True
    shown.tell({**told_of(training, wheel=wheel), "version": 1000})
    expect(shown.badge).to_have_text("held")
    expect(shown.widget.locator(".ls-left")).to_have_text("")
    expect(shown.button("Pause")).to_be_disabled()
    expect(shown.button("Stop")).to_be_enabled()
    shown.page.clock.run_for(14_000)
    expect(shown.notice).to_have_text("")  # that nothing is heard is in the nature of it
    keep_picture(shown, "widget-held")


def test_a_kernel_that_is_busy_with_a_cell_is_said_to_be(shown: Shown) -> None:
    shown.begin(told_of(training))
    shown.page.evaluate("() => { window.model.answers = false; window.model.tell({}); }")
    shown.button("Pause").click()
    expect(shown.notice).to_contain_text("The kernel is busy with a cell")
    expect(shown.notice).to_contain_text("interrupt the cell (■)")
    keep_picture(shown, "widget-busy")
    asked = shown.page.evaluate("() => window.model.sent.findLast(({ ask }) => ask === 'pause').id")
    shown.tell({"answer": asked, "refused": ""})
    expect(shown.notice).to_have_text("")


def test_a_refusal_is_said(shown: Shown) -> None:
    shown.begin(told_of(training))
    shown.page.evaluate("() => { window.model.answers = false; }")
    shown.button("Pause").click()
    asked = shown.page.evaluate("() => window.model.sent.findLast(({ ask }) => ask === 'pause').id")
    shown.tell({"answer": asked, "refused": "The run does not go on."})
    expect(shown.notice).to_have_text("The run does not go on.")


def test_a_click_that_comes_too_late_leaves_no_word_behind(shown: Shown) -> None:
    def over(run: Told) -> None:
        training(run)
        run.end()

    shown.begin(told_of(training))
    shown.page.evaluate("() => { window.model.answers = false; }")
    shown.button("Pause").click()
    asked = shown.page.evaluate("() => window.model.sent.findLast(({ ask }) => ask === 'pause').id")
    shown.tell({**told_of(over), "version": 1000, "answer": asked, "refused": "The run does not go on."})
    expect(shown.badge).to_have_text("completed")
    expect(shown.notice).to_have_text("")


def test_without_a_kernel_nothing_is_said_to_be_live_and_no_button_works(shown: Shown) -> None:
    shown.begin(told_of(training))
    expect(shown.widget.locator(".ls-left")).to_contain_text("left")
    shown.page.evaluate("() => window.model.emit('comm:close')")
    expect(shown.badge).to_have_text("not heard any more")
    expect(shown.widget.locator(".ls-left")).to_have_text("")
    expect(shown.notice).to_contain_text("No kernel answers: nothing is live any more. This is how things stood at")
    expect(shown.button("Pause")).to_be_disabled()
    expect(shown.button("Stop")).to_be_disabled()
    keep_picture(shown, "widget-dead")


def test_a_saved_page_that_is_opened_without_a_kernel_says_so(shown: Shown) -> None:
    shown.begin(told_of(training))
    shown.page.evaluate("() => { window.model.answers = false; window.model.emit('comm_live_update'); }")
    expect(shown.notice).to_contain_text("No kernel answers")


def test_a_kernel_that_says_nothing_for_long_is_asked_and_the_silence_is_told(shown: Shown) -> None:
    shown.page.clock.install()
    shown.begin(told_of(training))
    shown.page.evaluate("() => { window.model.tell({}); window.model.answers = false; }")
    shown.page.clock.run_for(14_000)
    expect(shown.notice).to_have_text(re.compile(r"Last heard 1\d s ago: the kernel is busy with a cell, or gone\."))
    shown.tell({})
    expect(shown.notice).to_have_text("")


def test_what_was_missed_is_asked_for(shown: Shown) -> None:
    first = told_of(training)
    shown.begin(first)
    loss = first["curves"]["loss"]
    end = len(loss["rows"])
    more = {"loss": {**loss, "from": end, "rows": [[10_000, 1, 1, 1]]}}
    shown.tell({"version": first["version"] + 1, "head": first["head"], "curves": more})
    assert "all" not in shown.sent()
    more = {"loss": {**loss, "from": end, "rows": [[10_000, 1, 2, 1.5]]}}
    shown.tell(
        {"version": first["version"] + 3, "head": first["head"], "curves": more}
    )  # rows before it were thinned out
    assert "all" in shown.sent()


def test_several_views_share_what_is_known_and_say_when_the_last_is_gone(shown: Shown) -> None:
    shown.begin(told_of(training))
    shown.page.evaluate("() => { window.second = window.show(); }")
    assert shown.page.locator(".lineside-run").count() == 2
    wheel = Wheel()
    wheel.stopping = True
    shown.tell({**told_of(training, wheel=wheel), "version": 1000})
    assert shown.page.locator(".ls-state").all_text_contents() == ["stopping", "stopping"]
    shown.page.evaluate("() => window.second()")
    assert shown.sent().count("views") == 1
    assert shown.page.locator(".lineside-run").count() == 1


def test_a_failed_run_says_why_and_nothing_that_an_event_says_becomes_markup(shown: Shown) -> None:
    error = ErrorInfo(type="builtins.ValueError", message="<img src=x onerror=alert(1)> is no image")

    def story(run: Told) -> None:
        training(run, epochs=1)
        run.end("failed", error=error, reason="no")

    shown.begin(told_of(story))
    expect(shown.badge).to_have_text("failed")
    expect(shown.widget).to_contain_text("ValueError: <img src=x onerror=alert(1)> is no image")
    assert shown.widget.locator("img").count() == 0
    keep_picture(shown, "widget-failed")


def test_an_export_shows_its_phases(shown: Shown) -> None:
    def story(run: Told) -> None:
        run.source.publish(RunStart, kind="export", model="Net", device="cpu")
        run.source.publish(ExportStart, format="onnx", path=Path("net.onnx"), dynamic_batch=True)
        run.source.publish(ExportPhase, format="onnx", phase="capture", duration=1.25)

    shown.begin(told_of(story))
    expect(shown.widget.locator(".ls-phases li")).to_have_text(["capture 1.3 s", "lower", "save", "verify"])
    assert shown.widget.locator(".ls-phases li[data-done]").count() == 1
    keep_picture(shown, "widget-export")


@pytest.mark.parametrize(("theme", "is_light"), [("light", True), ("dark", False)])
def test_the_notebooks_theme_decides_whatever_the_systems_is(shown: Shown, theme: str, is_light: bool) -> None:
    shown.page.emulate_media(color_scheme="dark" if is_light else "light")
    shown.begin(told_of(training))
    shown.page.evaluate(
        "(isLight) => { document.body.dataset.jpThemeLight = isLight; }",
        is_light,
    )
    surface = shown.widget.evaluate("(element) => getComputedStyle(element).backgroundColor")
    assert surface == ("rgb(255, 255, 255)" if is_light else "rgb(27, 29, 32)")
    keep_picture(shown, f"widget-theme-{theme}")


def test_a_narrow_page_is_not_wider_than_it_is(shown: Shown) -> None:
    shown.page.set_viewport_size({"width": 360, "height": 800})
    shown.begin(told_of(training))
    assert shown.page.evaluate("() => document.documentElement.scrollWidth") <= 360
    keep_picture(shown, "widget-narrow")


def test_a_number_that_has_none_beside_it_is_a_dot_and_a_chart_without_any_says_so(shown: Shown) -> None:
    values = [1.0, 0.9, math.nan, 2.0, math.nan, 0.5, *[0.4] * 60]

    def story(run: Told) -> None:
        run.begin(epochs=2)
        run.epoch(0, values, epochs=2)
        unknown = {**UNKNOWN, **dict.fromkeys(("fitness", "best_fitness", "best_epoch"))}
        metrics = {"accuracy": math.nan}
        run.source.publish(FitEpochEnd, epoch=0, epochs=2, losses={}, metrics=metrics, duration=1.0, **unknown)

    shown.begin(told_of(story))
    loss, accuracy = shown.widget.locator("figure").nth(0), shown.widget.locator("figure").nth(1)
    assert (loss.locator(".ls-dots").first.get_attribute("d") or "").count("M") == 1
    expect(loss.get_by_text("no finite value")).to_be_hidden()
    expect(accuracy.locator("h3")).to_have_text("accuracy")
    expect(accuracy.get_by_text("no finite value")).to_be_visible()
    expect(accuracy.locator(".ls-legend b")).to_have_text("nan")
    keep_picture(shown, "widget-dots")
    told = told_of(story)
    told["curves"]["val accuracy"] |= {"rows": [[66, 0.5, 0.5, 0.5]], "newest": 0.5}
    shown.tell({**told, "version": 1000})
    expect(accuracy.get_by_text("no finite value")).to_be_hidden()
    expect(accuracy.locator(".ls-legend b")).to_have_text("0.5000")
    expect(accuracy.locator(".ls-dots")).to_have_attribute("d", re.compile("M.*"))


def test_the_newest_value_is_said_also_where_many_points_are_one(shown: Shown) -> None:
    def story(run: Told) -> None:
        run.begin(epochs=1)
        for number in range(700):
            run.batch(number + 1, 1.0 * number, batch=number, batches=1000)
        run.batch(701, 5.0, batch=700, batches=1000)
        run.batch(702, 9.0, batch=701, batches=1000)

    shown.begin(told_of(story))
    expect(shown.widget.locator(".ls-legend b").first).to_have_text("9")


def test_a_run_that_its_steps_end_says_how_many_there_are(shown: Shown) -> None:
    def story(run: Told) -> None:
        run.source.publish(RunStart, kind="train", model="Net", device="cpu", config={"max_steps": 200})
        run.source.publish(PretrainRoutineEnd, parameters=1, trainable=1, batches=50, val_batches=None)
        run.batch(50, 1.0, batch=49, batches=50)

    shown.begin(told_of(story))
    expect(shown.widget).to_contain_text("epoch 1 · step 50 of 200 · training · batch 50 of 50")
    assert shown.widget.get_by_role("progressbar", name="Progress").get_attribute("value") == "0.2500"
    keep_picture(shown, "widget-steps")


def test_losses_that_no_axis_has_room_for_are_left_out(shown: Shown) -> None:
    def story(run: Told) -> None:
        run.begin()
        run.epoch(0, [1.0, 1.7e308, -1.7e308, 2.0])

    shown.begin(told_of(story))
    assert "NaN" not in shown.widget.inner_html()
    keep_picture(shown, "widget-huge")


def test_a_logarithmic_scale_shows_what_a_large_value_hides(shown: Shown) -> None:
    shown.begin(told_of(training))
    before = shown.widget.locator(".ls-curve").first.get_attribute("d")
    shown.button("log").first.click()
    assert shown.widget.locator(".ls-curve").first.get_attribute("d") != before
    keep_picture(shown, "widget-log")
