"""The guard: what every request has to pass before anything else sees it.

A page of any site can make the browser of somebody who visits it talk to a service on that machine. So a request has to
name a host that this service is known by (or a page whose name was rebound to 127.0.0.1 could read everything), has to
come from no other origin, and has to bring the token.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Collection
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from pydantic_core import to_json
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .limits import ConnectionLimits
from .manual import DOOR

logger = logging.getLogger("lineside.service")

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
COOKIE = "lineside_token"
OPEN_PATHS = frozenset({"/healthz"})
"""What needs no token and any host will do for, as probes name an address: it tells nothing."""
MONTH = 30 * 24 * 3600

HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "font-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "x-frame-options": "DENY",
}


def failure(status: int, what: str, **headers: str) -> Response:
    """Return an answer that says what was wrong and what to do."""
    return Response(to_json({"error": what}), status, headers, "application/json")


class Refused(Exception):
    """A request that goes no further."""

    def __init__(self, response: Response) -> None:
        super().__init__()
        self.response = response


class Guard:
    """The outermost part of the app.

    Args:
        app: What it guards.
        token: What clients have to bring; None: nothing.
        hosts: The names that it answers to.
        limits: Of the bodies it takes.
    """

    def __init__(self, app: ASGIApp, token: str | None, hosts: Collection[str], limits: ConnectionLimits) -> None:
        self._app = app
        self._token = None if token is None else token.encode()
        self._hosts = frozenset(host.lower() for host in hosts)
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the request pass, or answer it."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return

        async def answer(message: Message) -> None:
            if message["type"] in ("http.response.start", "websocket.http.response.start"):
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault("cache-control", "no-store")
            await send(message)

        offered = _take_token(scope)
        headers = Headers(scope=scope)
        try:
            self._check_host(scope, headers)
            self._check_origin(headers)
            self._check_token(scope, headers, offered)
            self._check_length(headers)
        except Refused as refused:
            await refused.response(scope, receive, answer)
            return
        await self._app(scope, self._limited(receive), answer)

    def _check_host(self, scope: Scope, headers: Headers) -> None:
        if _path(scope) in OPEN_PATHS:
            return
        host = headers.getlist("host")
        name = _name(host[0]) if len(host) == 1 else None
        if name not in self._hosts:
            shown = name or "none, or more than one"
            raise Refused(
                failure(
                    421,
                    f"this service does not answer to the host {shown!r}; if it is its own, allow it with "
                    "--allow-host, or with hosts=[...] where the app is made",
                )
            )

    def _check_origin(self, headers: Headers) -> None:
        """A browser says where the page comes from that asks; it has to be this service itself."""
        for origin in headers.getlist("origin"):
            if _site(origin) != headers.get("host", "").lower():
                raise Refused(failure(403, "requests of pages of other origins are refused; open the service itself"))
        if headers.get("sec-fetch-site") == "cross-site" and headers.get("sec-fetch-mode") != "navigate":
            raise Refused(failure(403, "requests of pages of other sites are refused; open the service itself"))

    def _check_token(self, scope: Scope, headers: Headers, offered: str | None) -> None:
        if self._token is None or _path(scope) in OPEN_PATHS:
            return
        if (
            offered is not None
            and self._fits(offered)
            and scope["type"] == "http"
            and scope["method"] in ("GET", "HEAD")
        ):
            raise Refused(self._entrance(scope))
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and self._fits(bearer.strip()):
            return
        if self._fits(_cookie(headers)):
            return
        asked = {"www-authenticate": "Bearer"}
        if "text/html" in headers.get("accept", ""):
            raise Refused(HTMLResponse(DOOR, 401, asked))
        raise Refused(
            failure(
                401,
                "this needs the token: send the header 'Authorization: Bearer TOKEN', or open the link that "
                "`lineside serve` printed, or `lineside predict serve`",
                **asked,
            )
        )

    def _fits(self, offered: str) -> bool:
        assert self._token is not None
        return secrets.compare_digest(offered.encode("utf-8", "replace"), self._token)

    def _entrance(self, scope: Scope) -> Response:
        """Take the token out of the address, where it would be kept, into a cookie that no script can read."""
        assert self._token is not None
        root = scope.get("root_path", "")
        # One slash and no backslash at its beginning: two would name another host.
        path = "/" + quote((root + _path(scope)).lstrip("/\\"))
        query = scope["query_string"].decode("latin-1")
        response = RedirectResponse(path + (f"?{query}" if query else ""), 303)
        response.set_cookie(
            COOKIE,
            self._token.decode(),
            max_age=MONTH,
            path=quote(root) or "/",
            secure=scope.get("scheme") == "https",
            httponly=True,
            samesite="strict",
        )
        return response

    def _check_length(self, headers: Headers) -> None:
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > self._limits.body:
            raise Refused(failure(413, self._too_long(), connection="close"))

    def _too_long(self) -> str:
        return f"the body is too long; at most {self._limits.body} bytes are taken"

    def _limited(self, receive: Receive) -> Receive:
        """Return `receive` for a body whose length nobody told; of one that is too long, the app answers the error."""
        left = self._limits.body

        async def limited() -> Message:
            nonlocal left
            message = await receive()
            if message["type"] == "http.request":
                left -= len(message.get("body", b""))
                if left < 0:
                    raise HTTPException(413, self._too_long(), {"connection": "close"})
            return message

        return limited


def _take_token(scope: Scope) -> str | None:
    """Remove the token from the address, for good: servers write addresses into their logs."""
    query = scope.get("query_string", b"").decode("latin-1")
    if "token" not in query:
        return None
    pairs = parse_qsl(query, keep_blank_values=True)
    scope["query_string"] = urlencode([pair for pair in pairs if pair[0] != "token"]).encode("latin-1")
    return next((value for name, value in pairs if name == "token"), None)


def _path(scope: Scope) -> str:
    """Return the path below where the app is mounted."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", "")) or "/"


def _name(host: str) -> str | None:
    """Return the name in a Host header, without the port."""
    try:
        split = urlsplit(f"//{host}")
        _ = split.port  # which checks it
    except ValueError:
        return None
    return split.hostname if split.netloc == host and "@" not in host else None


def _site(origin: str) -> str | None:
    """Return the host and port in an Origin header."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return None


def _cookie(headers: Headers) -> str:
    try:
        cookie = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        return ""
    return cookie.value if cookie is not None else ""
