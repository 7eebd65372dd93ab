"""The server: Uvicorn, which says goodbye to open streams before it waits for them."""

from __future__ import annotations

import asyncio
import select
import socket
import sys
from collections.abc import Callable
from typing import Any, ClassVar, Protocol, cast

import httptools
import uvicorn
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send
from uvicorn._types import ASGI3Application, ASGISendEvent
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame, Opcode
from websockets.http11 import Request

from .guard import failure
from .limits import ConnectionLimits
from .stream import GONE, TRANSPORT

SEND_BUFFER = 128 << 10
"""Bytes that the system keeps for a connection whose client does not read."""
EXIT_SECONDS = 1
FRAMING = 16
"""Bytes of framing that each byte of a body may come with: a chunk of a single byte takes five, or some more."""
LOOK_SECONDS = 1.0
"""Time between two looks at whether a client is still there that is not read from."""
PONG = bytes([0x80 | Opcode.PONG])
"""What a pong begins with."""


class Host(Protocol):
    """Who has the clients of a service."""

    @property
    def limits(self) -> ConnectionLimits:
        """How much each of them gets."""
        ...

    def close(self) -> None:
        """Begin to say goodbye to all; cut those that do not take it in time."""
        ...

    async def emptied(self) -> None:
        """Wait until all are gone."""
        ...


class Served(Protocol):
    """An app that the server can serve."""

    @property
    def hub(self) -> Host:
        """Who has its clients."""
        ...

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        ...


class Lookout:
    """Tells of a client that leaves while it is not read from, which no transport notices. Linux alone knows.

    Args:
        transport: The connection.
        gone: Called then.
    """

    def __init__(self, transport: asyncio.Transport, gone: Callable[[], object]) -> None:
        self._transport = transport
        self._gone = gone
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """Look now and then, as long as the client is not read from."""
        if self._timer is None and self._unseen():
            self._timer = asyncio.get_running_loop().call_later(LOOK_SECONDS, self._look)

    def end(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = None
        if self._unseen() and _hung_up(self._transport):
            self._gone()
        else:
            self.begin()

    def _unseen(self) -> bool:
        return not self._transport.is_closing() and not self._transport.is_reading()


class Parser(httptools.HttpRequestParser):
    """A parser that reads on where the client offers to speak what is not spoken here, as RFC 9110 has it (7.8).

    llhttp takes all that follows such a head for the other protocol, the body of the request too.

    Args:
        requests: What is told of the requests.
    """

    def __init__(self, requests: Requests) -> None:
        self._requests = requests
        self._begin()

    def feed_data(self, data: Any) -> None:
        """Parse, and a head with such an offer once more without it.

        Raises:
            httptools.HttpParserError: this is no request.
            httptools.HttpParserUpgrade: what follows is another protocol.
        """
        rest = memoryview(data)
        while True:
            try:
                super().feed_data(rest)
                return
            except httptools.HttpParserUpgrade as upgrade:
                if not self._requests.ignores_upgrade():
                    raise
                rest, head = rest[upgrade.args[0] :], self._requests.head_without_upgrade()
            self._begin()
            super().feed_data(head)

    def _begin(self) -> None:
        """Begin anew: llhttp may have taken the connection for one that ends here."""
        super().__init__(self._requests)
        self.set_dangerous_leniencies(lenient_data_after_close=True)  # as Uvicorn does


class Requests(HttpToolsProtocol):
    """A connection, as Uvicorn's, which lets a request take any time and its head any size.

    And Uvicorn goes on answering on a connection that it has closed itself, which fails; drops the body of a request
    that offers another protocol; opens a WebSocket while other requests are answered, which then never hear of an end;
    and sends chunks to clients of HTTP/1.0, which know none.
    """

    _late: asyncio.TimerHandle | None = None
    _running: RequestResponseCycle | None = None
    """The request that is being answered; others may wait behind it."""
    _head = 0
    """Bytes of the request that is being read, but for its body and what frames that."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Give the client some time for its first request."""
        super().connection_made(transport)
        self.parser = Parser(self)
        self._lookout = Lookout(transport, self._cut)
        self._limits = cast(Served, self.config.app).hub.limits
        self._await_request()

    def connection_lost(self, exc: Exception | None) -> None:
        """End what waits for the client."""
        self._request_came()
        self._lookout.end()
        self._gone()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read on, but no head that is too long."""
        self._head += len(data)
        super().data_received(data)
        if self._head > self._limits.head and not self.transport.is_closing():
            self._refuse(431, f"the head of the request is too long; at most {self._limits.head} bytes are taken")
        if self.transport.is_closing():
            self._gone()
        elif self.flow.read_paused:
            self._lookout.begin()

    def eof_received(self) -> None:
        """Take the client for gone: the connection closes now."""
        self._gone()

    def handle_websocket_upgrade(self) -> None:
        """Hand the connection on."""
        self._request_came()
        self._lookout.end()
        super().handle_websocket_upgrade()

    def ignores_upgrade(self) -> bool:
        """Return whether the head that was read offers another protocol in vain."""
        upgrades = self.parser.should_upgrade() and self.parser.get_method() != b"CONNECT"  # which needs no such offer
        return upgrades and not self._should_upgrade()

    def head_without_upgrade(self) -> bytes:
        """Return the head that was read, but for its offer of another protocol."""
        line = b"%b %b HTTP/%b" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode())
        headers = (b"%b: %b" % header for header in self.headers if header[0] != b"upgrade")
        return b"\r\n".join([line, *headers, b"", b""])

    def on_headers_complete(self) -> None:
        """Begin to answer, unless the head comes once more."""
        if not self.ignores_upgrade():
            super().on_headers_complete()

    def on_message_begin(self) -> None:
        """Give the client some time for the rest."""
        super().on_message_begin()
        self._await_request()

    def on_body(self, body: bytes) -> None:
        """Take a part of the body."""
        self._head = max(self._head - (1 + FRAMING) * len(body), 0)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Begin anew, unless the head comes once more."""
        if not self.ignores_upgrade():
            self._head = 0
            self._request_came()
            super().on_message_complete()

    def on_response_complete(self) -> None:
        """Give the client its whole time for a request of which nothing was read while the answer took its own."""
        if self._late is not None:
            self._request_came()
            self._await_request()
        super().on_response_complete()

    def _should_upgrade(self) -> bool:
        earlier = self._running
        # No WebSocket learns that writing was paused before its time.
        silent = earlier is None or (earlier.response_complete and not self.flow.write_paused)
        return silent and super()._should_upgrade()

    def _await_request(self) -> None:
        if self._late is None:
            self._late = self.loop.call_later(self._limits.request, self._time_is_up)

    def _request_came(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _time_is_up(self) -> None:
        self._late = None
        earlier = self._running
        answering = earlier is not None and not earlier.more_body and not earlier.response_complete
        if answering or self.flow.read_paused:  # it is we who do not read on
            self._await_request()
        elif not self.transport.is_closing():
            self._refuse(408, f"the request took too long; at most {self._limits.request:g} s are waited for one")

    def _refuse(self, status: int, what: str) -> None:
        """Close the connection, with a word where no other answer has begun."""
        if self._running is None or self._running.response_complete or not self._running.response_started:
            self.transport.write(_bytes(failure(status, what, connection="close")))
        self.transport.close()
        self._gone()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        async def answering(scope: Scope, receive: Receive, send: Send) -> None:
            async def answer(message: Message) -> None:
                if self.transport.is_closing():
                    self._gone()
                if cycle.scope["http_version"] == "1.0":  # the answer ends with the connection
                    cycle.chunked_encoding = False
                    cycle.expected_content_length = len(message.get("body", b""))
                await send(message)

            await app(cast(Any, scope), cast(Any, receive), cast(Any, answer))

        self._running = cycle
        cycle.scope[TRANSPORT] = self.transport  # type: ignore[literal-required]
        super()._start_asgi_task(cycle, cast(ASGI3Application, answering))

    def _gone(self) -> None:
        for cycle in (self._running, self.cycle):
            if cycle is not None and not cycle.response_complete:
                cycle.disconnected = True
                cycle.message_event.set()

    def _cut(self) -> None:
        """End it now, with what waits to be sent."""
        self._gone()
        self.transport.abort()


class Talk(WebSocketsSansIOProtocol):
    """A WebSocket, as Uvicorn's.

    Uvicorn never answers an opening that is malformed, nor closes its connection, and fails over it when it shuts down.
    It fails where an app says something on a connection that is being closed, and waits without end for a client that
    does not read what was written before the close. It writes an answer to every ping of a client that reads none. And
    it takes for dead whoever is not read from.
    """

    _heard = False
    """Whether there is something of the client that came, or may lie unread, since it was asked for a sign of life.

    What comes from one that takes nothing of what waits for it does not count.
    """
    _pong = b""
    """The answer to the last ping of a client that does not read: it stands for all of them (RFC 6455, 5.5.3)."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        super().connection_made(transport)
        self._ended = asyncio.Event()

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        self._ended.set()
        super().connection_lost(exc)

    def handle_connect(self, event: Request) -> None:
        """Hand the connection and its end to the app, which begins a little later."""
        super().handle_connect(event)
        if not self.close_sent:
            self.scope[TRANSPORT] = self.transport  # type: ignore[literal-required]
            self.scope[GONE] = self._ended  # type: ignore[literal-required]

    def data_received(self, data: bytes) -> None:
        """Read on."""
        self._heard = self._heard or self.writable.is_set()
        super().data_received(data)
        if self.conn.handshake_exc is not None and not self.handshake_initiated and not self.transport.is_closing():
            self.transport.write(_bytes(failure(400, "this opens no WebSocket: it is malformed", connection="close")))
            self.transport.close()
        if self.transport.is_closing():
            self._gone()

    def handle_ping(self) -> None:
        """Answer the pings that came; where the client does not read, one of them, and once it does."""
        output = self.conn.data_to_send()
        if not self.writable.is_set():
            for pong in (frame for frame in output if frame.startswith(PONG)):
                self._pong = pong
            output = [frame for frame in output if not frame.startswith(PONG)]
        self.transport.write(b"".join(output))

    def resume_writing(self) -> None:
        """Go on: the client reads."""
        super().resume_writing()
        self._heard = True
        if self._pong and not self.transport.is_closing():
            self.transport.write(self._pong)
        self._pong = b""

    def send_keepalive_ping(self) -> None:
        """Ask for a sign of life."""
        self._heard = self.read_paused
        super().send_keepalive_ping()

    def keepalive_timeout(self) -> None:
        """Let go of a client that gave no sign of life. Where it is not read from, it had no way to."""
        if self._heard and not self.transport.is_closing():
            self._heard = self.read_paused
            assert self.ping_timeout is not None
            self.pong_timer = self.loop.call_later(self.ping_timeout, self.keepalive_timeout)
        else:
            closing = self.close_sent
            super().keepalive_timeout()
            if not closing:  # else it is given its time to read what was said last
                self._cut()

    def shutdown(self) -> None:
        """Close it, if it is not being closed."""
        if not self.transport.is_closing():
            super().shutdown()

    def eof_received(self) -> None:
        """Take the client for gone: the connection closes now."""
        self._gone()

    async def send(self, message: ASGISendEvent) -> None:
        """Say something, or that the client is gone."""
        if self.transport.is_closing():
            self._gone()
        await super().send(message)
        if self.close_timer is not None:
            self._close_in_time()
        if self.initial_response is not None and self.close_sent:
            self.handshake_complete = True  # it was refused, which Uvicorn would log as if nothing had been said

    def _cut(self) -> None:
        """End it now, with what waits to be sent."""
        self._gone()
        self.transport.abort()

    def _gone(self) -> None:
        self.handshake_complete = self.disconnected = True
        if not self._ended.is_set():
            self._ended.set()
            self.queue.put_nowait({"type": "websocket.disconnect", "code": 1006})
            self._close_in_time()

    def _close_in_time(self) -> None:
        """Have it end soon, whether or not the client reads what waits to be sent."""
        if self.close_timer is not None:
            self.close_timer.cancel()
        self.close_timer = self.loop.call_later(self.close_timeout, self.transport.abort)


class Monologue(Talk):
    """A WebSocket on which nothing is listened to."""

    def handle_text(self, event: Frame) -> None:
        """Forget what was said."""

    def handle_bytes(self, event: Frame) -> None:
        """Forget what was said."""

    def handle_cont(self, event: Frame) -> None:
        """Forget what was said."""


def _hung_up(transport: asyncio.Transport) -> bool:
    """Return whether the client has closed its side of an open connection."""
    if sys.platform != "linux":
        return False
    poll = select.poll()
    poll.register(transport.get_extra_info("socket").fileno(), select.POLLRDHUP)
    return bool(poll.poll(0))


def _bytes(response: Response) -> bytes:
    """Return an answer as it is sent, for a request that no app has seen."""
    head = b"".join(b"%b: %b\r\n" % header for header in response.raw_headers)
    return b"HTTP/1.1 %d \r\n%b\r\n%b" % (response.status_code, head, bytes(response.body))


class Server(uvicorn.Server):
    """Serves one app.

    Args:
        app: What to serve.
        host: Name or address to listen at.
        port: Port to listen at; 0: any.
    """

    talk: ClassVar[type[asyncio.Protocol]] = Monologue
    """How it speaks over WebSockets."""

    def __init__(self, app: Served, host: str = "127.0.0.1", port: int = 8642) -> None:
        config = uvicorn.Config(
            app,
            host=host,
            port=port,
            log_level="warning",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            http=Requests,
            ws=self.talk,
            ws_max_size=self.longest_message(app),
            ws_per_message_deflate=False,
            timeout_graceful_shutdown=EXIT_SECONDS,
        )
        super().__init__(config)
        self._app = app

    def longest_message(self, app: Served) -> int:
        """Return how many bytes a message over a WebSocket may have."""
        return app.hub.limits.body

    def bind(self) -> socket.socket:
        """Return the socket that is listened at: `serve` and `run` take it. It may be asked for its port.

        Whoever connects from now on is not refused, and waits until it serves.

        Raises:
            OSError: the address is taken, or none of this machine.
        """
        family, kind, protocol, _, address = socket.getaddrinfo(
            self.config.host, self.config.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.socket(family, kind, protocol)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)  # of each connection
            listening.bind(address)
            listening.listen(self.config.backlog)
        except BaseException:
            listening.close()
            raise
        return listening

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End everything: streams first, or they would be waited for.

        Whoever comes meanwhile meets nobody: a browser tries again after a lost connection, and never after an error.
        """
        for server in self.servers:
            server.close()
        for connection in tuple(self.server_state.connections):
            if isinstance(connection, Requests):
                connection.shutdown()  # ends it, or has its answer be the last
        hub = self._app.hub
        hub.close()
        await hub.emptied()
        await super().shutdown(sockets)
