"""The dashboard in a real browser: how soon a long run is open, its newest events are read, and news is seen.

    python benchmarks/dashboard.py [--quick] [--json FILE] [--rounds 3] [--events 1000000]

A long run and one of 1,000 events are opened by the link in the list of runs, each time by a service that has read
nothing yet. `open` is when the curves, the stages and the latest events are drawn, `everything` when the feed shows
the last event after it was asked for every type. `news` is from a publish in the training process to its loss on the
page. Needs Chromium: the system's, or ``playwright install chromium``.
"""

from __future__ import annotations

import re
import shutil
import socket
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median

from harness import Report, Spread, Table, arguments, interleave
from playwright.sync_api import Browser, Page, sync_playwright

from lineside.bus import Bus, Source
from lineside.bus.service import Server, service
from lineside.schemas import RunStart, TrainBatchEnd, TrainEpochEnd, TrainEpochStart, TrainStart

SHORT = 1000
EPOCH = 10_000
"""Batches of an epoch of the long run."""
PARTS = (".chart canvas", ".events li", ".lanes li")
NEWS = 20


def begin(source: Source, batches: int) -> None:
    source.publish(RunStart, kind="train", model="Net", device="cpu", world_size=1, host="here", pid=1)
    source.publish(TrainStart, epoch=0, epochs=-(-batches // EPOCH), batches=EPOCH, step=0)


def batch(source: Source, number: int, loss: float) -> None:
    source.publish(
        TrainBatchEnd,
        epoch=number // EPOCH,
        batch=number,
        batches=None,
        batch_size=8,
        step=number + 1,
        loss=loss,
        losses={"loss": loss},
        lr={"all": 0.1},
        seconds=0.001,
    )


def close_epoch(source: Source, epoch: int) -> None:
    facts = {"epoch": epoch, "epochs": epoch + 2, "losses": {"loss": 0.1}, "lr": {"all": 0.1}, "duration": 10.0}
    samples = 8 * EPOCH
    source.publish(TrainEpochEnd, **facts, batches=EPOCH, step=(epoch + 1) * EPOCH, samples=samples, speed=samples / 10)


def long_run(bus: Bus, name: str, batches: int) -> None:
    source = bus.source(name)
    begin(source, batches)
    for number in range(batches):
        if number % EPOCH == 0:
            epoch = number // EPOCH
            source.publish(TrainEpochStart, epoch=epoch, epochs=epoch + 2, batches=EPOCH, lr={"all": 0.1})
        batch(source, number, 1 / (number + 1))
        if number % EPOCH == EPOCH - 1 or number == batches - 1:
            close_epoch(source, number // EPOCH)
    bus.flush()


@contextmanager
def opened(browser: Browser, folder: Path, path: str = "") -> Generator[Page]:
    """Serve `folder` from a process of its own and open a page of it."""
    context = get_context("spawn")
    port, sent = context.Pipe(duplex=False)
    server = context.Process(target=serve, args=(folder, sent), daemon=True)
    server.start()
    try:
        with browser.new_context() as visit:
            page = visit.new_page()
            page.set_default_timeout(60_000)
            page.goto(f"http://127.0.0.1:{port.recv()}{path}")
            yield page
    finally:
        server.terminate()
        server.join()


def serve(folder: Path, port: Connection) -> None:
    listening = socket.create_server(("127.0.0.1", 0))
    port.send(listening.getsockname()[1])
    Server(service(folder, token=None)).run([listening])


def open_run(browser: Browser, folder: Path, name: str, last: int) -> tuple[float, float]:
    """Return the seconds until the run is open, and until its last event is read."""
    with opened(browser, folder) as page:
        link = page.locator(f"#runs li[data-run='{name}'] a")
        link.wait_for()
        begun = time.perf_counter()
        link.click()
        for part in PARTS:
            page.locator(part).first.wait_for()
        open_ = time.perf_counter() - begun
        begun = time.perf_counter()
        page.select_option("#scope", "everything")
        page.locator(".events .said", has_text=f"batch {last}").wait_for()
        return open_, time.perf_counter() - begun


def news(browser: Browser, bus: Bus, folder: Path) -> float:
    """Return the median of the seconds from a publish to what the page shows of it."""
    source = bus.source(f"news-{time.monotonic_ns()}")
    begin(source, EPOCH)
    bus.flush()
    waits: list[float] = []
    with opened(browser, folder, f"/#/{source.run}") as page:
        page.locator("#connection[data-state='live']").wait_for()
        page.locator(".events li").first.wait_for()
        tile = page.locator(".tile", has_text="loss")
        for number in range(NEWS):
            begun = time.perf_counter()
            batch(source, number, float(number))
            tile.locator("b", has_text=re.compile(f"^{number}$")).wait_for()
            waits.append(time.perf_counter() - begun)
    return median(waits)


@contextmanager
def chromium() -> Generator[Browser]:
    with sync_playwright() as playwright:
        path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        try:
            yield browser
        finally:
            browser.close()


def main() -> None:
    options = arguments(__doc__ or "", events={"type": int, "default": 1_000_000})
    report = Report("dashboard", options)
    events, rounds = (20_000, 1) if options.quick else (options.events, options.rounds or 3)
    with tempfile.TemporaryDirectory() as name, chromium() as browser:
        folder = Path(name)
        with Bus(folder) as bus:
            sizes = {"short": SHORT, "long": events}
            for run, batches in sizes.items():
                long_run(bus, run, batches)
            found = interleave(
                {run: partial(open_run, browser, folder, run, batches) for run, batches in sizes.items()}, rounds
            )
            table = Table("opening a run", {"events": "{:,}", "open, s": "{:.2f}", "everything, s": "{:.2f}"})
            for run, batches in sizes.items():
                table.add(batches, *map(Spread.of, zip(*found[run], strict=True)))
            report.show(table)
            seen = Table("news", {"events seen": "{}", "s after the publish, median": "{:.3f}"})
            seen.add(NEWS, Spread.of([news(browser, bus, folder) for _ in range(rounds)]))
            report.show(seen)
    report.finish()


if __name__ == "__main__":
    main()
