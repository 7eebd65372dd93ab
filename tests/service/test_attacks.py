"""What strangers may send: requests of every shape the documents allow and forbid, and bytes that are none at all."""

from __future__ import annotations

import asyncio
import json
import logging
import random
import socket
import struct
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import schemathesis
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from starlette.types import Message, Receive, Scope, Send
from websockets.asyncio.client import connect as websocket
from websockets.exceptions import InvalidStatus

from lineside.bus import Bus
from lineside.bus.journal import Tail
from lineside.bus.service import service
from lineside.bus.service.app import Service

from . import stories
from .support import BEARER, PATIENCE, QUICK, SSE, TOKEN, Note, begin, client, following, serving, until, url

CASES = 2000
ASKING = BEARER | {"host": "localhost"}
WORDS = ["run", "dead", "none", "now", "", "0", "1", "-1", "NaN", "inf", "TrainBatchEnd", "ValEvent", "loss", "rank"]
"""What means something to the service: letters drawn by chance seldom do."""


class Wheel:
    """What a run is steered by."""

    stopping = paused = False

    def stop(self, reason: str) -> None: ...

    def pause(self) -> None: ...

    def resume(self) -> None: ...


class Ended:
    """An app whose streams end: after a few pieces the client is gone, as it would be with its connection."""

    PIECES = 3

    def __init__(self, app: Service) -> None:
        self.service = app
        self.streams = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        pieces, over, heard = 0, True, False
        gone = asyncio.Event()

        async def hear() -> Message:
            nonlocal heard
            if not heard:
                message = await receive()
                heard = not message.get("more_body", False)
                return message
            await gone.wait()
            return {"type": "http.disconnect"}

        async def tell(message: Message) -> None:
            nonlocal pieces, over
            if message["type"] == "http.response.start":
                self.streams += dict(message["headers"]).get(b"content-type", b"").startswith(b"text/event-stream")
            elif message["type"] == "http.response.body":
                pieces += 1
                over = not message.get("more_body", False)
                if pieces == self.PIECES:
                    gone.set()
            await send(message)

        await self.service(scope, hear, tell)
        if not over:
            await send({"type": "http.response.body", "body": b""})


@pytest.fixture
def bus(tmp_path: Path) -> Generator[Bus]:
    with Bus(tmp_path / "runs") as bus:
        stories.trained(bus.source("run"))
        stories.trained(bus.source("dead"), error="out of memory")
        bus.source("run").publish(Note, n=1, text="</script>\r\n\0")
        begin(bus.source("young"))
        bus.flush()
        yield bus


def described(app: Any, positions: list[str]) -> Any:
    """Return what the service says of itself, for schemathesis to ask by."""
    binding = {"dictionary": "words", "probability": 0.5}
    position = {"dictionary": "positions", "probability": 0.7}
    configure: Callable[[dict[str, Any]], schemathesis.Config] = schemathesis.Config.from_dict  # pyright: ignore
    config = configure(
        {
            "dictionaries": {"words": {"values": WORDS}, "positions": {"values": positions}},
            "generation": {"dictionaries": {"string": binding, "number": binding, "integer": binding}},
            "parameters": {"query.after": position, "header.last-event-id": position},
            # A position and the name of a family have no pattern: what is well-formed may yet be none. And everything
            # in a query is text, so only of a body can be said what is malformed.
            "checks": {"positive_data_acceptance": {"enabled": False}, "negative_data_rejection": {"enabled": False}},
            "operations": [{"include-method": "POST", "checks": {"negative_data_rejection": {"enabled": True}}}],
        }
    )
    return schemathesis.openapi.from_asgi("/openapi.json", app, config=config, headers=ASKING)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("mode", GenerationMode, ids=lambda mode: mode.value)
def test_whatever_the_documents_allow_or_forbid_is_answered_as_they_say(bus: Bus, mode: GenerationMode) -> None:
    assert bus.journal is not None
    tail = Tail(bus.journal.parent, run="run")
    positions = [told.position for told in tail.read(20)]
    tail.close()
    app = Ended(service(bus, token=TOKEN, limits=QUICK))
    everything = [one.ok() for one in described(app, ["", "now", *positions]).get_all_operations()]
    # What takes nothing can be asked in no wrong way.
    operations = [one for one in everything if mode.is_positive or list(one.iter_parameters())]
    runs: tuple[dict[str, str], ...] = ({"run": "run"}, {"run": "dead"}, {})
    cases = [
        one.as_strategy(mode, path_parameters=run)
        for one in operations
        for run in runs[0 if "{run}" in one.path else 2 :]
    ]
    asked: Counter[str] = Counter()
    answered: Counter[int] = Counter()

    @settings(
        max_examples=CASES // len(GenerationMode),
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
    )
    @given(st.one_of(cases), st.sampled_from([SSE, {"accept": "application/json"}]))
    def ask(case: Any, accept: dict[str, str]) -> None:
        answer = case.call_and_validate(headers=ASKING | accept)
        asked[case.operation.label] += 1
        answered[answer.status_code] += 1
        event(f"{case.operation.label} {answer.status_code}")

    with bus.steering.within("run", Wheel()):
        ask()
    assert asked.total() >= CASES // len(GenerationMode)
    assert {*asked} == {one.label for one in operations}
    assert {*answered} >= ({200, 202, 404, 409} if mode.is_positive else {400, 404})
    assert app.streams > 0 or mode.is_negative
    assert app.service.hub.streams == 0


# -- what is no request at all ---------------------------------------------------------------------

OPENINGS = 4000
AT_ONCE = 50
KEY = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
UPGRADE: tuple[str, ...] = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", KEY)
HEADERS = ("Host: localhost", f"Authorization: Bearer {TOKEN}")
PATHS = ("/", "/runs", "/runs/run", "/runs/run/events", "/runs/run/metrics", "/runs/run/ws", "/events-of-runs", "/no")


@contextmanager
def errors() -> Generator[list[str]]:
    """Give what is logged as an error in the block, by whatever logger: those of the server tell no other."""
    said: list[str] = []

    class Ear(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(self.format(record))

    ear = Ear(logging.ERROR)
    loggers = [logging.getLogger(name) for name in ("uvicorn", "asyncio", "lineside")]
    for logger in loggers:
        logger.addHandler(ear)
    try:
        yield said
    finally:
        for logger in loggers:
            logger.removeHandler(ear)


def request(line: str, *headers: str, body: bytes = b"") -> bytes:
    return "\r\n".join([line, *HEADERS, *headers, "", ""]).encode("latin-1") + body


def get(chance: random.Random, *headers: str) -> bytes:
    return request(f"GET {chance.choice(PATHS)} HTTP/1.1", *headers)


def post(*headers: str, body: bytes = b"") -> bytes:
    return request("POST /runs/run/stop HTTP/1.1", "Content-Type: application/json", *headers, body=body)


def opening(*headers: str) -> bytes:
    """Return an opening of a WebSocket, a good one unless `headers` are others."""
    return request("GET /runs/run/ws HTTP/1.1", *(headers or UPGRADE))


def frame(chance: random.Random, head: int, payload: bytes, length: int | None = None, masked: bool = True) -> bytes:
    """Return a frame of a WebSocket that says of itself what it is told to say."""
    length = len(payload) if length is None else length
    if length < 126:
        size = bytes([length | masked << 7])
    elif length < 1 << 16:
        size = bytes([126 | masked << 7]) + length.to_bytes(2)
    else:
        size = bytes([127 | masked << 7]) + length.to_bytes(8)
    if not masked:
        return bytes([head]) + size + payload
    mask = chance.randbytes(4)
    pad = (mask * (len(payload) // 4 + 1))[: len(payload)]
    return bytes([head]) + size + mask + (int.from_bytes(payload) ^ int.from_bytes(pad)).to_bytes(len(payload))


def truncated(chance: random.Random) -> bytes:
    whole = chance.choice([get(chance), post("Content-Length: 30", body=b'{"reason": "enough of it now"}'), opening()])
    return whole[: chance.randrange(len(whole))]


def flipped(chance: random.Random) -> bytes:
    data = bytearray(chance.choice([get(chance), post("Content-Length: 2", body=b"{}"), opening()]))
    for _ in range(chance.randint(1, 5)):
        data[chance.randrange(len(data))] = chance.randrange(256)
    return bytes(data)


def noise(chance: random.Random) -> bytes:
    tls = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc"
    http2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"
    return chance.choice([b"", b"\0", b"\r\n" * 50, tls, http2, chance.randbytes(chance.randint(1, 3000))])


def wrong_line(chance: random.Random) -> bytes:
    path = chance.choice(PATHS)
    return request(
        chance.choice(
            [
                *(
                    f"{method} {path} HTTP/1.1"
                    for method in ("get", "G\x00T", "", "BREW", "CONNECT", "PRI", "X" * 9000)
                ),
                *(f"GET {path} {version}" for version in ("HTTP/9.9", "HTTP/2", "HTTP/1.1.1", "HTTP/", "ICY", "")),
                *(
                    f"GET {odd} HTTP/1.1"
                    for odd in ("*", "a b", "http://evil.example/", "/\x7f\xff", "//", "/%", "/%zz")
                ),
                "GET",
                "GET /" + "a" * chance.choice([1000, 70_000, 200_000]) + " HTTP/1.1",
            ]
        )
    )


def wrong_headers(chance: random.Random) -> bytes:
    return get(
        chance,
        *chance.choice(
            [
                ("no colon",),
                (": no name",),
                ("A\0: nul",),
                ("A: nul\0",),
                ("A : space",),
                (" A: folded",),
                ("A: b\r\n\tfolded",),
                ("A: b\nHost: evil.example",),
                ("A: b\rB: c",),
                ("Host: localhost",),
                ("Host: evil.example",),
                ("Authorization: Bearer \xff\xfe",),
                ("Cookie: lineside_token=\xff; =; ;;; \0",),
                ("Cookie: " + "a=b; " * 3000,),
                ("Origin: http://[",),
                ("Accept: text/event-stream", "Last-Event-ID: " + "f" * 60_000),
                ("A: " + "b" * chance.choice([9000, 70_000, 300_000]),),
                ("A" * chance.choice([9000, 70_000]) + ": b",),
                tuple(f"A{n}: {n}" for n in range(chance.choice([200, 3000]))),
            ]
        ),
    )


def wrong_length(chance: random.Random) -> bytes:
    length = chance.choice(
        ["-5", "+5", "0x5", "5,5", "5, 6", " ", "1e3", "65537", "9" * 30, "\xb2", "5\r\nContent-Length: 6"]
    )
    return post(f"Content-Length: {length}", body=b"{}   ")


def wrong_chunks(chance: random.Random) -> bytes:
    body = chance.choice(
        [
            b"zz\r\n",
            b"-1\r\n{}\r\n0\r\n\r\n",
            b"f" * 17 + b"\r\n",
            b"2\r\n{}",
            b"2\r\n{}xx0\r\n\r\n",
            b"2;" + b"a" * 20_000 + b"\r\n{}\r\n0\r\n\r\n",
            b"2\r\n{}\r\n0\r\nHost: evil.example\r\nno colon\r\n\r\n",
            b"2\n{}\n0\n\n",
            b"\r\n\r\n",
            b"1000\r\n" + b" " * 4096 + b"\r\n",
            (b"1000\r\n" + b" " * 4096 + b"\r\n") * 20 + b"0\r\n\r\n",
            b"5\r\n{",
        ]
    )
    codings = [
        "chunked",
        "chunked, chunked",
        "gzip, chunked",
        "chunked, gzip",
        "xchunked",
        "chunked\r\nContent-Length: 3",
    ]
    return post(f"Transfer-Encoding: {chance.choice(codings[:1] * 5 + codings)}", body=body)


def many(chance: random.Random) -> bytes:
    """Several at once, as a client may send that does not wait for answers; the last of them is none."""
    asked = ((), ("Accept: text/event-stream",))
    return b"".join(get(chance, *chance.choice(asked)) for _ in range(chance.randint(1, 5))) + chance.choice(
        [noise, truncated, flipped]
    )(chance)


def expecting(chance: random.Random) -> bytes:
    return post(
        "Expect: " + chance.choice(["100-continue", "200-ok", "\0"]), f"Content-Length: {chance.choice([0, 5, 99])}"
    )


def wrong_opening(chance: random.Random) -> bytes:
    headers: list[str] = [*UPGRADE]
    place = chance.randrange(len(headers))
    name, _, value = headers[place].partition(": ")
    wrong = [
        "",
        value + "x",
        value[:-1],
        value.upper(),
        "\xff\xfe",
        "0",
        "a" * 9000,
        f"{value}, {value}",
        f"{value}\r\n{name}: {value}",
        "h2c",
        "close",
    ]
    choice = chance.randrange(8)
    if choice == 0:
        del headers[place]
    elif choice == 1:
        headers += [f"Sec-WebSocket-Protocol: {chance.choice(['', ',,', chr(255), 'a, a', '='])}"]
    elif choice == 2:
        headers += [f"Sec-WebSocket-Extensions: {chance.choice(['permessage-deflate; =', ';;', chr(255), 'a' * 9000])}"]
    elif choice == 3:
        headers += ["Content-Length: 5"]
    elif choice == 4:
        line = chance.choice(["POST /runs/run/ws HTTP/1.1", "GET /runs/run/ws HTTP/1.0", "GET /runs HTTP/1.1"])
        return request(line, *headers)
    elif choice == 5:
        path = chance.choice(
            ["/runs/none/ws", "/runs/a%20b/ws", "/runs/run/ws?after=x", "/runs/run/ws?rank=x", "/no/ws"]
        )
        return request(f"GET {path} HTTP/1.1", *headers)
    else:
        headers[place] = f"{name}: {chance.choice(wrong)}"
    return opening(*headers)


def wrong_frames(chance: random.Random) -> bytes:
    """A good opening, and then what is no message."""
    text, binary, close, ping = 0x81, 0x82, 0x88, 0x89
    said = chance.choice(
        [
            chance.randbytes(chance.randint(1, 300)),
            frame(chance, text, b"not masked", masked=False),
            frame(chance, text, b"\xff\xfe is no text"),
            frame(chance, text, b"", length=(1 << 63) - 1),
            frame(chance, text, b"", length=(1 << 64) - 1),
            frame(chance, binary, bytes(QUICK.body + 1)),
            frame(chance, binary, bytes(300), length=chance.randint(301, 400)),
            frame(chance, chance.randrange(0x83, 0x88), b"reserved"),
            frame(chance, chance.randrange(0x8B, 0x90), b"reserved"),
            frame(chance, 0xF1, b"reserved bits"),
            frame(chance, 0x80, b"continues nothing"),
            frame(chance, 0x01, b"begun ") + frame(chance, text, b"begun again"),
            frame(chance, 0x01, b"never ended"),
            frame(chance, 0x09, b"a ping in parts"),
            frame(chance, ping, bytes(126)),
            frame(chance, ping, b"") * 50,
            frame(chance, close, b"\x03"),
            frame(chance, close, (chance.choice([0, 999, 1005, 1006, 1015, 65_535])).to_bytes(2)),
            frame(chance, close, (1000).to_bytes(2) + b"\xff\xfe"),
            frame(chance, close, (1000).to_bytes(2)) + frame(chance, text, b"after the end"),
            get(chance),
        ]
    )
    return opening() + frame(chance, text, b"heard") * chance.randint(0, 2) + said


ATTACKS = (
    truncated,
    flipped,
    noise,
    wrong_line,
    wrong_headers,
    wrong_length,
    wrong_chunks,
    many,
    expecting,
    wrong_opening,
    wrong_frames,
    wrong_frames,
)
LEAVINGS = ("listen", "listen", "half", "close", "reset", "pieces")


async def attack(port: int, data: bytes, leaving: str, chance: random.Random) -> bytes:
    """Send `data` and leave, in one of several ways; return what was answered as far as it was listened to."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    answer = b""
    try:
        if data.startswith(opening()):  # what comes behind it is for the WebSocket
            writer.write(opening())
            answer = await reader.readuntil(b"\r\n\r\n")
            data = data.removeprefix(opening())
        cut = chance.randrange(len(data)) if data and leaving == "pieces" else len(data)
        for piece in (data[:cut], data[cut:]):
            writer.write(piece)
            await writer.drain()
        if leaving == "listen":
            answer += await reader.read(1 << 16)
        if leaving in ("listen", "half", "pieces"):
            writer.write_eof()
            while (more := await reader.read(1 << 16)) and b"text/event-stream" not in answer:  # that one goes on
                answer += more
        elif leaving == "reset":
            made = writer.get_extra_info("socket")
            made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    except (OSError, asyncio.IncompleteReadError):
        pass  # it did not want to hear all of that
    finally:
        writer.transport.abort() if leaving == "reset" else writer.close()
        with suppress(OSError):
            await writer.wait_closed()
    return answer


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
async def test_malformed_openings_are_refused_and_leave_nothing_behind(bus: Bus, seed: int) -> None:
    assert bus.journal is not None
    folder = bus.journal.parent
    bus.close()  # while it has a file open, SQLite closes no other descriptor of it
    app = service(folder, token=TOKEN, limits=replace(QUICK, request=1.0))
    chance = random.Random(seed)
    process = psutil.Process()
    attacks = [(ATTACKS[number % len(ATTACKS)](chance), chance.choice(LEAVINGS)) for number in range(OPENINGS // 4)]
    wrong: list[object] = []
    told: set[str] = set()
    with serving(app) as server:
        state = server.server_state
        loop = server.servers[0].get_loop()

        def idle() -> bool:
            return not state.tasks and not state.connections and app.hub.idle

        async def works() -> None:
            address = url(server)
            async with client(address) as http, following(http, "/runs/run/events") as stream:
                await stream.until(1)
            async with websocket(
                address.replace("http", "ws") + "/runs/run/ws?after=now", additional_headers=BEARER
            ) as talk:
                assert json.loads(await talk.recv())["event"] == "open"
            await until(idle)

        await works()
        descriptors, tasks = process.num_fds(), asyncio.all_tasks(loop)
        places = asyncio.Semaphore(AT_ONCE)

        async def one(data: bytes, leaving: str) -> None:
            async with places, asyncio.timeout(PATIENCE):
                answer = await attack(server.config.port, data, leaving, chance)
            status = answer[9:12].decode("latin-1")
            told.add(status)
            if answer and not (answer.startswith(b"HTTP/1.1 ") and status.isdecimal() and status < "500"):
                wrong.append((leaving, data[:300], answer[:300]))

        with errors() as said:
            await asyncio.gather(*(one(*each) for each in attacks))
            await until(lambda: idle() and process.num_fds() <= descriptors and asyncio.all_tasks(loop) <= tasks)
        await works()
    assert wrong == []
    assert said == []
    assert told >= {"", "101", "200", "400", "404", "408"}


async def test_a_head_without_end_is_refused_before_it_fills_the_memory(bus: Bus) -> None:
    with serving(service(bus, token=TOKEN, limits=QUICK)) as server:
        for begin_ in (
            b"GET /",
            b"GET / HTTP/1.1\r\nA: ",
            b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nA: ",
        ):
            reader, writer = await asyncio.open_connection("127.0.0.1", server.config.port)
            sent = 0
            writer.write(begin_)
            async with asyncio.timeout(PATIENCE):
                with suppress(ConnectionError):
                    while not reader.at_eof() and sent < 64 << 20:
                        writer.write(b"a" * 10_000)
                        await writer.drain()
                        sent += 10_000
                        await asyncio.sleep(0)  # for the reader, that it may hear of the end
            assert sent < 64 << 20
            writer.transport.abort()
            await until(lambda: not server.server_state.connections)


@pytest.mark.parametrize("begun", [b"", truncated(random.Random(1)), post("Content-Length: 5", body=b"{")])
async def test_who_does_not_end_a_request_is_let_go(bus: Bus, begun: bytes) -> None:
    with serving(service(bus, token=TOKEN, limits=replace(QUICK, request=0.2))) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.config.port)
        writer.write(begun)
        async with asyncio.timeout(PATIENCE):
            answer = await reader.read()
        writer.close()
        await writer.wait_closed()
        assert b" 408 " in answer.partition(b"\r\n")[0]


async def test_a_stream_ends_with_its_client_whatever_else_that_had_asked_for(bus: Bus) -> None:
    """Requests that wait behind a stream are told of the end, and the stream has to be."""
    app = service(bus, token=TOKEN, limits=replace(QUICK, heartbeat=3600.0))
    stream = request("GET /runs/run/events?after=now HTTP/1.1", "Accept: text/event-stream")
    with serving(app) as server, errors() as said:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.config.port)
        writer.write(stream + request("GET /runs HTTP/1.1"))
        async with asyncio.timeout(PATIENCE):
            await reader.readuntil(b"\r\n\r\n")
            await until(lambda: app.hub.streams == 1)
        writer.transport.abort()
        await until(lambda: app.hub.idle and not server.server_state.tasks)
        assert said == []


async def test_a_stream_that_is_refused_leaves_nothing_behind(bus: Bus) -> None:
    app = service(bus, token=TOKEN, limits=QUICK)
    with serving(app) as server, errors() as said:
        address = url(server)
        async with client(address) as http:
            refused = await http.get("/runs/run/events?after=nowhere", headers=SSE)
            assert refused.status_code == 400
        with pytest.raises(InvalidStatus, match="400"):
            await websocket(address.replace("http", "ws") + "/runs/run/ws?after=nowhere", additional_headers=BEARER)
        await until(lambda: not server.server_state.connections)
        assert app.hub.idle
        assert said == []


async def test_who_comes_while_the_service_leaves_meets_nobody_rather_than_an_error(bus: Bus) -> None:
    """A browser's `EventSource` comes again after a lost connection, and never after an error."""
    app = service(bus, token=TOKEN, limits=replace(QUICK, grace=2.0, stalled=PATIENCE))
    asked = request("GET /runs/run/events HTTP/1.1", "Accept: text/event-stream")
    with serving(app) as server:
        loop = server.servers[0].get_loop()
        slow = app.hub.opened(lambda: None)
        loop.call_soon_threadsafe(slow.__enter__)
        await until(lambda: app.hub.streams == 1)
        early = [await asyncio.open_connection("127.0.0.1", server.config.port) for _ in range(2)]
        early[0][1].write(request("GET /healthz HTTP/1.1"))
        await early[0][0].readuntil(b"}")
        server.should_exit = True
        await until(lambda: app.hub.closing)
        answers: list[bytes] = []
        for reader, writer in early:
            with suppress(OSError):
                writer.write(asked)
                answers.append(await reader.read())
            writer.close()
        with pytest.raises(OSError, match="refused|reset|Connect call failed"):
            await asyncio.open_connection("127.0.0.1", server.config.port)
        loop.call_soon_threadsafe(slow.__exit__, None, None, None)
    assert b"".join(answers) == b""
