"""Streams over a real connection: nothing is lost, nothing comes twice, whatever happens to the connection."""

from __future__ import annotations

import asyncio
import json
import random
import socket
import threading
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from fastapi import FastAPI, Request, Response
from starlette.middleware.base import RequestResponseEndpoint
from starlette.types import Message
from websockets.asyncio.client import connect as websocket
from websockets.exceptions import ConnectionClosed, InvalidStatus

from lineside import connect
from lineside.bus import Bus
from lineside.bus.journal import Origin, Tail, Told
from lineside.bus.service import Server, service
from lineside.bus.service.feed import RunFeed, covers, parse, text, together, unseen
from lineside.bus.service.frames import Batch, Item

from .support import BEARER, PATIENCE, QUICK, SSE, TOKEN, Note, batch, client, following, served, serving, until, url


@pytest.fixture
def bus(tmp_path: Path) -> Generator[Bus]:
    with Bus(tmp_path) as bus:
        yield bus


async def publish(bus: Bus, first: int, last: int, run: str = "run") -> None:
    source = bus.source(run)
    for n in range(first, last + 1):
        source.publish(Note, n=n)
    await bus.aflush()


async def test_a_stream_gives_history_then_what_comes(bus: Bus) -> None:
    await publish(bus, 1, 2500)
    with served(bus) as address:
        async with client(address) as http, following(http, "/runs/run/events") as stream:
            await stream.until(2500)
            await publish(bus, 2501, 2600)
            await stream.until(2600)
            assert stream.numbers == list(range(1, 2601))
            assert stream.response.headers["content-type"].startswith("text/event-stream")


async def test_a_client_that_is_cut_off_at_any_place_goes_on_with_nothing_lost_or_repeated(bus: Bus) -> None:
    chance = random.Random(3)
    numbers: list[int] = []
    position = ""
    with served(bus) as address:
        await publish(bus, 1, 1)
        async with client(address) as http:
            for turn in range(20):
                await publish(bus, 2 + turn * 50, 1 + (turn + 1) * 50)
                async with following(http, "/runs/run/events", **{"last-event-id": position}) as stream:
                    read = await stream.until(chance.randint(1, 50))
                    taken = read[: chance.randint(1, len(read))]  # what came after it is lost with the connection
                numbers += [block.data["n"] for block in taken]
                position = taken[-1].id
            async with following(http, "/runs/run/events", **{"last-event-id": position}) as stream:
                await stream.until(1001 - len(numbers))
                numbers += stream.numbers
    assert numbers == list(range(1, 1002))


async def test_last_event_id_counts_more_than_after_and_after_now_begins_at_the_end(bus: Bus) -> None:
    await publish(bus, 1, 10)
    with served(bus) as address:
        async with client(address) as http:
            async with following(http, "/runs/run/events?after=now") as stream:
                await stream.more()
                opened = stream.read[0]
                assert (opened.event, opened.data) == ("", None)
            await publish(bus, 11, 12)  # nobody is connected
            async with following(http, "/runs/run/events?after=now", **{"last-event-id": opened.id}) as stream:
                await stream.until(2)
                assert stream.numbers == [11, 12]


@pytest.mark.parametrize("way", ["events", "ws"])
async def test_a_stream_from_now_answers_once_it_knows_its_place_so_that_the_past_read_then_leaves_no_gap(
    bus: Bus, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    await publish(bus, 1, 1)
    looking, look_on = threading.Event(), threading.Event()
    begin = RunFeed.begin

    def slow(feed: RunFeed) -> None:
        looking.set()
        assert look_on.wait(PATIENCE)
        begin(feed)

    monkeypatch.setattr(RunFeed, "begin", slow)
    opened = asyncio.Event()

    async def first() -> str:
        """Open the stream, and return the first event on it."""
        place = f"/runs/run/{way}?after=now"
        if way == "ws":
            async with websocket(address.replace("http", "ws") + place, additional_headers=BEARER) as socket:
                opened.set()
                await socket.recv()
                return str(json.loads(await socket.recv())["data"]["n"])
        async with following(http, place) as stream:
            opened.set()
            return str((await stream.until(1))[0].data["n"])

    with served(bus, replace(QUICK, heartbeat=60)) as address:
        async with client(address) as http, asyncio.timeout(PATIENCE):
            told = asyncio.create_task(first())
            assert await asyncio.to_thread(looking.wait, PATIENCE)
            await http.get("/healthz")  # what was answered before has arrived
            assert not opened.is_set()
            look_on.set()
            await opened.wait()
            await publish(bus, 2, 2)
            assert await told == "2"


async def test_a_stream_from_now_that_cannot_learn_its_place_is_refused_and_tells_nothing_of_the_past(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    await publish(bus, 1, 1)
    begin = RunFeed.begin
    failing = 3

    def fail(feed: RunFeed) -> None:
        nonlocal failing
        failing -= 1
        if failing >= 0:
            raise OSError("the disk is gone")
        begin(feed)

    monkeypatch.setattr(RunFeed, "begin", fail)
    with served(bus) as address:
        async with client(address) as http:
            refused = await http.get("/runs/run/events?after=now", headers=SSE)
        assert (refused.status_code, "cannot read its journal" in refused.json()["error"]) == (503, True)
        with pytest.raises(InvalidStatus) as socket_refused:
            async with websocket(address.replace("http", "ws") + "/runs/run/ws?after=now", additional_headers=BEARER):
                pass
        assert socket_refused.value.response.status_code == 503
        async with connect(address, token=TOKEN) as remote, asyncio.timeout(PATIENCE):
            stream = remote.stream(Note, run="run", after="now")
            next_one = asyncio.create_task(anext(stream))
            await until(lambda: stream.position != "now")
            await publish(bus, 2, 2)
            assert (await next_one).n == 2
            assert failing == -1


async def test_behind_a_middleware_that_waits_for_an_answer_a_client_that_leaves_early_fails_nothing(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    await publish(bus, 1, 1)
    looking, look_on = threading.Event(), threading.Event()
    begin = RunFeed.begin

    def slow(feed: RunFeed) -> None:
        looking.set()
        assert look_on.wait(PATIENCE)
        begin(feed)

    monkeypatch.setattr(RunFeed, "begin", slow)
    app, outer = service(bus), FastAPI()
    outer.mount("/lineside", app)

    @outer.middleware("http")
    async def pass_on(request: Request, call_next: RequestResponseEndpoint) -> Response:
        return await call_next(request)

    said = iter([{"type": "http.request", "body": b"", "more_body": False}])
    told: list[Message] = []

    async def receive() -> Message:
        if (message := next(said, None)) is not None:
            return message
        assert await asyncio.to_thread(looking.wait, PATIENCE)
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        told.append(message)

    scope = {
        "type": "http",
        "method": "GET",
        "path": "/lineside/runs/run/events",
        "root_path": "",
        "query_string": b"after=now",
        "headers": [(b"host", b"localhost"), (b"accept", b"text/event-stream")],
    }
    await outer(scope, receive, send)
    assert (told[0]["status"], app.hub.streams) == (499, 0)
    look_on.set()
    await until(lambda: app.hub.idle)


async def test_who_never_reads_what_it_asked_for_before_a_stream_is_let_go(bus: Bus) -> None:
    source = bus.source("run")
    for n in range(5000):
        source.publish(Note, n=n, text="x" * 2000)
    await bus.aflush()
    app = service(bus, token=TOKEN, limits=replace(QUICK, stalled=3.0))
    with serving(app) as server:
        silent = deaf(server, "/runs/run/events?limit=5000", then="/runs/run/events")
        await until(lambda: app.hub.streams == 1)
        await until(lambda: app.hub.streams == 0)
        silent.close()


async def test_filters_choose_types_families_and_ranks(bus: Bus) -> None:
    await publish(bus, 1, 3)
    batch(bus.source("run"), 1)
    batch(bus.source("run", rank=1), 2)
    await publish(bus, 4, 4)
    with served(bus) as address:
        async with client(address) as http:
            for query, expected in {
                "type=TrainBatchEnd": ["TrainBatchEnd"] * 2,
                "family=BatchEnd&rank=1": ["TrainBatchEnd"],
                "type=tests.service.Note&rank=0": ["tests.service.Note"] * 4,
                "not_type=tests.service.Note": ["TrainBatchEnd"] * 2,
                "family=BatchEvent&type=tests.service.Note&not_type=TrainBatchEnd": ["tests.service.Note"] * 4,
                "family=BatchEvent&type=tests.service.Note": ["tests.service.Note"] * 3
                + ["TrainBatchEnd"] * 2
                + ["tests.service.Note"],
            }.items():
                async with following(http, f"/runs/run/events?{query}") as stream:
                    assert [block.event for block in await stream.until(len(expected))] == expected
                for some in ("", "&tail=10"):
                    page = (await http.get(f"/runs/run/events?{query}{some}")).json()
                    assert [event["type"] for event in page["events"]] == expected


async def test_a_filtered_stream_gets_what_fits_live_too(bus: Bus) -> None:
    await publish(bus, 1, 1)
    with served(bus) as address:
        async with client(address) as http, following(http, "/runs/run/events?type=TrainBatchEnd&after=now") as stream:
            await stream.more()
            await publish(bus, 2, 20)
            batch(bus.source("run"), 1)
            assert [block.event for block in await stream.until(1)] == ["TrainBatchEnd"]


async def test_heartbeats_come_while_nothing_happens(bus: Bus) -> None:
    await publish(bus, 1, 1)
    with served(bus) as address:
        async with client(address) as http, following(http, "/runs/run/events") as stream:
            await stream.until(1)
            silent = len(stream.read)
            while len(stream.read) < silent + 2:
                await asyncio.wait_for(stream.more(), PATIENCE)
            assert {*stream.read[silent:]} == {("", "", None)}


async def test_pages_follow_one_another(bus: Bus) -> None:
    await publish(bus, 1, 25)
    numbers: list[int] = []
    with served(bus) as address:
        async with client(address) as http:
            more, position = True, ""
            while more:
                query = {"limit": "10", "after": position}
                page = (await http.get("/runs/run/events", params=query)).json()
                numbers += [event["n"] for event in page["events"]]
                more, position = page["more"], page["position"]
            await publish(bus, 26, 26)
            query = {"after": position}
            numbers += [e["n"] for e in (await http.get("/runs/run/events", params=query)).json()["events"]]
    assert numbers == list(range(1, 27))


async def test_a_websocket_is_told_the_same(bus: Bus) -> None:
    await publish(bus, 1, 3)
    with served(bus) as address:
        async with websocket(address.replace("http", "ws") + "/runs/run/ws", additional_headers=BEARER) as socket:
            async with asyncio.timeout(PATIENCE):
                opened, *told = [json.loads(await socket.recv()) for _ in range(4)]
                assert (opened["event"], opened["data"]) == ("open", None)
                assert [message["data"]["n"] for message in told] == [1, 2, 3]
                assert {message["event"] for message in told} == {"tests.service.Note"}
                await publish(bus, 4, 4)
                assert json.loads(await socket.recv())["data"]["n"] == 4
        after = told[1]["id"]
        address = address.replace("http", "ws") + f"/runs/run/ws?after={after}"
        async with websocket(address, additional_headers=BEARER) as socket, asyncio.timeout(PATIENCE):
            assert [json.loads(await socket.recv())["data"] for _ in range(2)][1]["n"] == 3


async def test_damage_is_told_as_a_gap(tmp_path: Path) -> None:
    import sqlite3

    with Bus(tmp_path) as bus:
        for n in range(1, 4):
            await publish(bus, n, n)  # a commit each
        path = bus.journal
    assert path is not None
    with sqlite3.connect(path) as damaged:
        damaged.execute("UPDATE chunks SET bodies = zeroblob(10) WHERE first = 2")
    damaged.close()
    with served(tmp_path) as address:
        async with client(address) as http, following(http, "/runs/run/events") as stream:
            assert [block.event for block in await stream.until(3)] == [
                "tests.service.Note",
                "gap",
                "tests.service.Note",
            ]
            assert stream.events[1].data == {"file": path.name, "first": 2, "last": 2}


async def test_at_shutdown_every_stream_says_bye_and_ends(bus: Bus) -> None:
    await publish(bus, 1, 1)
    with serving(service(bus, token=TOKEN, limits=replace(QUICK, grace=PATIENCE))) as server:
        async with (
            client(url(server)) as http,
            following(http, "/runs/run/events") as one,
            following(http, "/runs/run/events?after=now") as other,
            following(http, "/events-of-runs") as runs,
            websocket(url(server).replace("http", "ws") + "/runs/run/ws", additional_headers=BEARER) as socket,
        ):
            await one.until(1)
            await other.more()
            await runs.until(1)
            server.should_exit = True
            for stream in (one, other, runs):
                assert (await stream.rest())[-1].event == "bye"
            events: list[str] = []
            async with asyncio.timeout(PATIENCE):
                while "bye" not in events:
                    events.append(json.loads(await socket.recv())["event"])
                with pytest.raises(ConnectionClosed) as closed:
                    await socket.recv()
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code in (1001, 1012)  # ours, or that of the server if it was quicker
            assert events[-1] == "bye"


@pytest.fixture
def endless(bus: Bus) -> Generator[threading.Event]:
    """Publish long notes until told otherwise."""
    enough = threading.Event()

    def work() -> None:
        source, n = bus.source("run"), 0
        while not enough.wait(0.001):
            n += 1
            source.publish(Note, n=n, text="x" * 20_000)

    thread = threading.Thread(target=work)
    thread.start()
    yield enough
    enough.set()
    thread.join(PATIENCE)


def deaf(server: Server, path: str = "/runs/run/events", upgrade: str = "", then: str = "") -> socket.socket:
    """Return a client that asks and never reads; `then`: that asks for a page, and then for a stream."""
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    made.connect(("127.0.0.1", server.config.port))
    head = ["Host: localhost", f"Authorization: Bearer {TOKEN}", *([upgrade] if upgrade else [])]
    asked = [f"GET {path} HTTP/1.1", *head, *([] if then else ["Accept: text/event-stream"]), "", ""]
    if then:
        asked[-1:] = [f"GET {then} HTTP/1.1", *head, "Accept: text/event-stream", "", ""]
    made.sendall("\r\n".join(asked).encode())
    return made


UPGRADE = (
    "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
)


@pytest.mark.parametrize("path", ["/runs/run/events", "/runs/run/ws"])
async def test_who_never_reads_is_let_go_and_the_others_notice_nothing(
    bus: Bus, endless: threading.Event, path: str
) -> None:
    app = service(bus, token=TOKEN, limits=QUICK)
    await until(lambda: bus.position > 3)
    with serving(app) as server:
        silent = [deaf(server, path, UPGRADE if path.endswith("ws") else "") for _ in range(10)]
        await until(lambda: app.hub.streams == 10)
        async with client(url(server)) as http, following(http, "/runs/run/events") as stream:
            async with asyncio.timeout(PATIENCE):
                while app.hub.streams > 1:  # while this one reads, the deaf ones go
                    await stream.more()
            enough = len(stream.events) + 50
            await stream.until(enough)
            assert stream.numbers == list(range(1, len(stream.numbers) + 1))
        for made in silent:
            made.close()


async def test_shutdown_waits_for_nobody_who_never_reads(bus: Bus, endless: threading.Event) -> None:
    app = service(bus, token=TOKEN, limits=replace(QUICK, stalled=3600.0))
    await until(lambda: bus.position > 3)
    with serving(app) as server:
        silent = [deaf(server) for _ in range(3)]
        await until(lambda: app.hub.streams == 3)
    for made in silent:  # the block above ended
        made.close()


async def test_a_slow_reader_falls_behind_the_window_and_gets_everything_from_the_journal(bus: Bus) -> None:
    await publish(bus, 1, 1)
    limits = replace(QUICK, window=2000, stalled=PATIENCE)
    with served(bus, limits) as address:
        async with client(address) as http, following(http, "/runs/run/events") as stream:
            await stream.until(1)
            for first in range(2, 20_000, 1000):  # more than buffers hold, and nothing is read meanwhile
                await publish(bus, first, first + 999)
            await stream.until(20_001)
            assert stream.numbers == list(range(1, 20_002))


async def test_two_processes_of_one_run_are_merged_and_resumed(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    with Bus(tmp_path) as one, Bus(tmp_path) as other:
        buses = {0: one.source("run"), 1: other.source("run", rank=1)}
        with served(tmp_path) as address:
            async with client(address) as http:
                position = ""
                for turn in range(10):
                    for n in range(turn * 10, turn * 10 + 10):
                        buses[n % 2].publish(Note, n=n)
                    await one.aflush()
                    await other.aflush()
                    async with following(http, "/runs/run/events", **{"last-event-id": position}) as stream:
                        taken = (await stream.until(10))[:7] if turn < 9 else await stream.until(100 - len(seen))
                        position = taken[-1].id
                    seen += [(block.data["rank"], block.data["n"]) for block in taken]
    assert sorted(n for _, n in seen) == list(range(100))
    assert [n for rank, n in seen if rank] == list(range(1, 100, 2))


async def test_nobody_following_leaves_nothing_running(tmp_path: Path) -> None:
    with Bus(tmp_path) as bus:  # closed: while it has the file open, SQLite closes no other descriptor of it
        await publish(bus, 1, 10)
    app = service(tmp_path, token=TOKEN, limits=QUICK)
    process = psutil.Process()
    with serving(app) as server:
        async with client(url(server)) as http:
            await http.get("/runs")
        before = process.num_fds()
        for _ in range(3):
            async with (
                client(url(server)) as http,
                following(http, "/runs/run/events") as stream,
                following(http, "/events-of-runs") as runs,
            ):
                await stream.until(10)
                await runs.until(1)
            await until(lambda: app.hub.idle)
        await until(lambda: process.num_fds() <= before)


async def test_a_journal_that_is_read_for_who_has_left_is_closed_after_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    armed, begun, go = threading.Event(), threading.Event(), threading.Event()
    did: list[str] = []
    read, close = Tail.read, Tail.close

    def slowly(tail: Tail, limit: int = 500) -> list[Told]:
        if armed.is_set():
            begun.set()
            assert go.wait(PATIENCE)
        told = read(tail, limit)
        did.append("read")
        return told

    def closed(tail: Tail) -> None:
        did.append("closed")
        close(tail)

    monkeypatch.setattr(Tail, "read", slowly)
    monkeypatch.setattr(Tail, "close", closed)
    with Bus(tmp_path) as bus:
        await publish(bus, 1, 10)
    app = service(tmp_path, token=TOKEN, limits=QUICK)
    with serving(app) as server:
        async with client(url(server)) as http:
            async with following(http, "/runs/run/events") as stream:
                await stream.until(10)
                armed.set()
                await until(begun.is_set)
                did.clear()
            await until(lambda: app.hub.idle)
            for _ in range(5):  # turns of the server's loop
                await http.get("/health")
            go.set()
            await until(lambda: "closed" in did)
            await until(lambda: "read" in did)
    assert did == ["read", "closed"]


async def test_the_list_of_runs_is_told_as_it_changes(bus: Bus) -> None:
    await publish(bus, 1, 1, "one")
    with served(bus) as address:
        async with client(address) as http, following(http, "/events-of-runs") as stream:
            assert [block.data["run"] for block in await stream.until(1)] == ["one"]
            await publish(bus, 1, 5, "other")
            while "other" not in {block.data["run"] for block in stream.events}:
                await stream.until(len(stream.events) + 1)
            newest = [block.data for block in stream.events if block.data["run"] == "other"][-1]
            assert newest["events"] >= 1


async def test_the_list_of_runs_is_told_at_once_where_nothing_changes(bus: Bus) -> None:
    await publish(bus, 1, 1)
    with served(bus, replace(QUICK, heartbeat=3600.0)) as address:
        async with client(address) as http, asyncio.timeout(PATIENCE), following(http, "/events-of-runs") as stream:
            assert [block.data["run"] for block in await stream.until(1)] == ["run"]


async def test_too_many_streams_are_refused_with_a_reason(bus: Bus) -> None:
    await publish(bus, 1, 1)
    with served(bus, replace(QUICK, streams=1)) as address:
        async with client(address) as http, following(http, "/runs/run/events") as stream:
            await stream.until(1)
            refused = await http.get("/runs/run/events", headers={"accept": "text/event-stream"})
            assert (refused.status_code, "1 streams are open" in refused.json()["error"]) == (503, True)


def test_positions_of_two_readers_are_joined_without_loss() -> None:
    """One reader may have gone through two files in another order than the other."""
    items = [Item(f"a.{a}-b.{b}", "Note", b"", told=_told(a, b)) for a, b in ((6, 7), (6, 8), (6, 9), (7, 9))]
    batch = Batch(items, parse("a.7-b.9"))
    mine = parse("a.5-b.8")
    left = unseen(batch, mine)
    assert [item.id for item in left.items] == ["a.6-b.8", "a.6-b.9", "a.7-b.9"]
    assert covers(left.end, together(mine, batch.end))
    assert parse(text(mine)) == mine


def _told(a: int, b: int) -> Told:
    return Told(f"a.{a}-b.{b}", "", 0, "Note", Origin("run", 1, 0), b"")


async def test_a_feed_survives_a_journal_that_cannot_be_read(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its streams end with a word, so that clients come again."""
    await publish(bus, 1, 1)
    app = service(bus, token=TOKEN, limits=QUICK)
    with serving(app) as server:
        async with client(url(server)) as http, following(http, "/runs/run/events?after=now") as stream:
            await stream.more()

            def fail(self: Tail, limit: int = 0) -> None:
                raise OSError("the disk is gone")

            monkeypatch.setattr(Tail, "read", fail)
            assert (await stream.rest())[-1].event == "bye"
            monkeypatch.undo()
        async with client(url(server)) as http, following(http, "/runs/run/events") as stream:
            await stream.until(1)


def test_a_run_feed_is_shared(tmp_path: Path) -> None:
    with Bus(tmp_path) as bus:
        app = service(bus, token=TOKEN)

        async def ask() -> tuple[RunFeed, RunFeed]:
            return app.hub.run("a"), app.hub.run("a")

        one, other = asyncio.run(ask())
        assert one is other


async def test_a_forgotten_follower_is_told_of_by_its_connection(bus: Bus) -> None:
    """Who goes away while nothing is sent is noticed all the same."""
    await publish(bus, 1, 1)
    app = service(bus, token=TOKEN, limits=replace(QUICK, heartbeat=3600.0))
    with serving(app) as server:
        async with client(url(server)) as http, following(http, "/runs/run/events") as stream:
            await stream.until(1)
            assert app.hub.streams == 1
        await until(lambda: app.hub.streams == 0)
