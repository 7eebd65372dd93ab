"""Async subscribers that log a training run: one writes JSON lines, one posts to a webhook.

    python examples/logging_subscriber.py [FILE]

The training loop waits for neither. The webhook is served by this script, on a port of the system's choice.
"""

from __future__ import annotations

import json
import sys
import threading
import urllib.request
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import anyio
from anyio import to_thread

from lineside import Bus, Event, FitEpochEnd, RunEnd
from lineside.demo.recipe import recipe
from lineside.schemas import encode


async def main(path: str) -> None:
    with webhook() as url:
        async with Bus() as bus, await anyio.open_file(path, "wb") as file:

            @bus.on(Event)
            async def write(event: Event) -> None:
                await file.write(encode(event) + b"\n")

            # A post that fails is tried again, twice; one that hangs is given up. Nobody else notices.
            @bus.on(FitEpochEnd, RunEnd, timeout=10, retries=2)
            async def post(event: FitEpochEnd | RunEnd) -> None:
                await to_thread.run_sync(send, url, encode(event))

            result = await recipe.trainer(bus=bus, epochs=3, save=False).start()
            await bus.adrain()
    print(f"trained {result.epochs} epochs, accuracy {result.metrics['accuracy']:.1%}; every event is in {path}")


def send(url: str, body: bytes) -> None:
    """Post `body` as JSON."""
    request = urllib.request.Request(url, data=body, headers={"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        answer.read()


@contextmanager
def webhook() -> Generator[str]:
    """Serve a webhook on this machine that prints what it is told, and give its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/events"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class Receiver(BaseHTTPRequestHandler):
    """The other side: in real life a chat, a dashboard, a pager."""

    def do_POST(self) -> None:
        event = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        about = {name: event[name] for name in ("epoch", "final", "metrics", "outcome") if name in event}
        print(f"webhook: {event['type']} {about}", flush=True)
        self.send_response(204)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the name in the base class
        """Stay silent about requests."""


if __name__ == "__main__":
    anyio.run(main, sys.argv[1] if len(sys.argv) > 1 else "events.jsonl")
