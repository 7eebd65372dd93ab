"""Who is let in: every route, by every method, under every host, from every origin, with and without the token."""

from __future__ import annotations

import logging
import stat
from collections.abc import Generator, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from fastapi.routing import APIRoute
from starlette.routing import BaseRoute, Mount, Route
from starlette.testclient import TestClient, WebSocketDenialResponse
from starlette.types import Scope

from lineside.bus import Bus
from lineside.bus.service import ServiceRefused, service, user_token
from lineside.bus.service.app import Service
from lineside.bus.service.guard import HEADERS, OPEN_PATHS

from .support import BEARER, QUICK, TOKEN, begin, plain_client, serving, url

HOSTS = {
    "localhost": True,
    "127.0.0.1:8642": True,
    "[::1]:8642": True,
    "LOCALHOST": True,
    "known.example": True,
    "evil.example": False,
    "localhost.evil.example": False,
    "127.0.0.1.evil.example": False,
    "localhost@evil.example": False,
    "evil.example:80:80": False,
    "localhost/": False,
    "": False,
}
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")


def origins(host: str) -> dict[str | None, bool]:
    """Where a request may say that it comes from, and whether that is the service itself."""
    return {
        None: True,
        f"http://{host}": True,
        f"http://{host}9": False,
        "http://evil.example": False,
        f"http://{host}.evil.example": False,
        "http://[": False,
        "null": False,
        "": False,
    }


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Service:
    folder = tmp_path_factory.mktemp("runs")
    with Bus(folder) as bus:
        begin(bus.source("run"))
    return service(folder, token=TOKEN, hosts=["known.example"], limits=QUICK)


@pytest.fixture(scope="module")
def client(app: Service) -> Generator[TestClient]:
    with TestClient(app, "http://localhost", follow_redirects=False) as client:
        yield client


def routes(all_: list[BaseRoute]) -> Iterator[BaseRoute]:
    for route in all_:
        yield route
        yield from routes(list(getattr(getattr(route, "original_router", None), "routes", [])))


def paths(app: Service) -> list[str]:
    found = {str(route.path) or "/" for route in routes(app.routes) if isinstance(route, (APIRoute, Route, Mount))}
    return sorted(path.replace("{run}", "run") for path in found - {"/events-of-runs"})


async def ask(app: Service, method: str, path: str, headers: dict[str, str]) -> tuple[int, set[str]]:
    """Ask the app itself, with no client in between that would tidy things up."""
    told: list[Any] = []
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "query_string": b"",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }

    asked = iter([{"type": "http.request", "body": b"", "more_body": False}])

    async def receive() -> Any:
        return next(asked, {"type": "http.disconnect"})

    async def send(message: Any) -> None:
        told.append(message)

    await app(scope, receive, send)
    return told[0]["status"], {name.decode() for name, _ in told[0]["headers"]}


async def test_the_matrix(app: Service) -> None:
    found = paths(app)
    assert {"/runs", "/runs/run", "/runs/run/events", "/runs/run/stop", "/metrics", "/openapi.json", "/docs", "/"} <= {
        *found
    }
    everything = [(host, origin) for host in HOSTS for origin in origins(host)]
    each = [pair for pair in everything if pair[0] == "localhost" or pair[1] is None]
    wrong: list[object] = []
    for path, method in product(found, METHODS):
        for (host, origin), (headers, holder) in product(
            everything if path == "/runs" else each, [(BEARER, True), ({}, False)]
        ):
            sent = {"host": host, **headers} | ({} if origin is None else {"origin": origin})
            status, given = await ask(app, method, path, sent)
            if not HOSTS[host] and path not in OPEN_PATHS:
                right = status == 421
            elif not origins(host)[origin]:
                right = status == 403
            elif not holder and path not in OPEN_PATHS:
                right = status == 401
            else:
                right = status < 500 and status not in (401, 403, 421)
            if not right or "access-control-allow-origin" in given or not {*HEADERS} <= given:
                wrong.append((method, path, host, origin, holder, status))
    assert wrong == []


async def test_a_probe_may_name_any_host_or_none(app: Service) -> None:
    for headers in ({"host": "10.1.2.3:8642"}, {}):
        assert (await ask(app, "GET", "/healthz", headers))[0] == 200
    assert (await ask(app, "GET", "/healthz", {"origin": "http://evil.example"}))[0] == 403


def test_a_websocket_is_guarded_likewise(client: TestClient) -> None:
    for (host, known), (headers, holder) in product(HOSTS.items(), [(BEARER, True), ({}, False)]):
        for origin, own in origins(host).items():
            sent = {"host": host, **headers} | ({} if origin is None else {"origin": origin})
            expected = 421 if not known else 403 if not own else 401 if not holder else None
            if expected is None:
                with client.websocket_connect("/runs/run/ws", headers=sent) as socket:
                    assert socket.receive_json()["event"] == "open"
                continue
            with (
                pytest.raises(WebSocketDenialResponse) as denied,
                client.websocket_connect("/runs/run/ws", headers=sent),
            ):
                pass
            assert denied.value.status_code == expected, sent


def test_pages_of_other_sites_cannot_embed_what_is_here(client: TestClient) -> None:
    headers = {**BEARER, "sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}
    assert client.get("/runs", headers=headers).status_code == 403
    assert client.get("/runs", headers={**headers, "sec-fetch-mode": "navigate"}).status_code == 200
    policy = client.get("/", headers=BEARER).headers["content-security-policy"]
    assert "unsafe" not in policy
    assert "http" not in policy


def test_the_link_puts_the_token_into_a_cookie_and_out_of_the_address(client: TestClient) -> None:
    with TestClient(client.app, "http://localhost", follow_redirects=False) as browser:
        assert browser.get("/").status_code == 401
        assert browser.get("/?token=wrong").status_code == 401
        entered = browser.get(f"/runs?a=1&token={TOKEN}&b=%26")
        assert (entered.status_code, entered.headers["location"]) == (303, "/runs?a=1&b=%26")
        cookie = entered.headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=strict" in cookie
        assert browser.get("/runs").status_code == 200
        assert browser.get("/runs", headers={"cookie": "lineside_token=wrong"}).status_code == 401


def test_whoever_is_refused_is_told_what_to_do_whichever_way_the_service_was_started(client: TestClient) -> None:
    missing = client.get("/runs").json()["error"]
    door = client.get("/runs", headers={"accept": "text/html"}).text
    for told in (missing, door):
        assert "lineside serve" in told
        assert "lineside predict serve" in told
    unknown = client.get("/runs", headers={**BEARER, "host": "testserver"})
    assert unknown.status_code == 421
    assert "--allow-host, or with hosts=[...] where the app is made" in unknown.json()["error"]


@pytest.mark.parametrize(
    "path", ["//evil.example", "/\\evil.example", "///evil.example/%0d%0aSet-Cookie:x", "/%2f/evil"]
)
def test_no_link_leads_elsewhere(client: TestClient, path: str) -> None:
    answer = client.get(f"http://localhost{path}?token={TOKEN}")
    location = answer.headers["location"]
    assert location.startswith("/")
    assert not location.startswith(("//", "/\\"))
    assert "\n" not in location


def test_the_token_is_in_no_log(
    app: Service, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(app) as server:
        server.config.access_log = True
        for name in ("uvicorn", "uvicorn.access", "uvicorn.error", "lineside"):
            monkeypatch.setattr(logging.getLogger(name), "propagate", True)
            monkeypatch.setattr(logging.getLogger(name), "level", logging.INFO)
            logging.getLogger(name).manager._clear_cache()  # type: ignore[attr-defined]
        with caplog.at_level(logging.INFO), plain_client(url(server)) as http:
            for path in ("/", "/runs", "/runs/run/events", "/nothing"):
                assert http.get(f"{path}?x=1&token={TOKEN}").status_code < 500
                assert http.get(f"{path}?token={TOKEN}x").status_code < 500
            assert http.get("/runs?seen=1").status_code == 200
    ours = [record for record in caplog.records if record.name.startswith(("uvicorn", "lineside"))]
    told = "\n".join(record.getMessage() for record in ours)
    assert "/runs?seen=1" in told
    assert TOKEN not in told


def test_bodies_are_limited_told_or_not(client: TestClient) -> None:
    long = b"x" * (QUICK.body + 1)
    assert client.post("/runs/run/stop", content=long, headers=BEARER).status_code == 413
    assert client.post("/runs/run/stop", content=iter([long, b"y"]), headers=BEARER).status_code in (400, 413)
    assert client.post("/runs/run/stop", headers={**BEARER, "content-length": "-1"}).status_code == 413


def test_mounted_it_guards_what_is_below(tmp_path: Path) -> None:
    from fastapi import FastAPI

    with Bus(tmp_path) as bus:
        begin(bus.source("run"))
        bus.flush()
        outer = FastAPI()
        outer.mount("/lineside", service(bus, token=TOKEN))
        with TestClient(outer, "http://localhost", follow_redirects=False) as client:
            assert client.get("/lineside/healthz").status_code == 200
            assert client.get("/lineside/runs").status_code == 401
            assert client.get("/lineside/runs", headers=BEARER).json()["runs"][0]["run"] == "run"
            entered = client.get(f"/lineside/?token={TOKEN}")
            assert (entered.status_code, entered.headers["location"]) == (303, "/lineside/")
            assert "Path=/lineside" in entered.headers["set-cookie"]
            assert client.get("/lineside/").status_code == 200


def test_without_a_token_everybody_reads_and_nobody_steers(tmp_path: Path) -> None:
    with Bus(tmp_path) as bus:
        begin(bus.source("run"))
        bus.flush()
        with TestClient(service(bus), "http://localhost") as client:
            assert client.get("/runs").status_code == 200
            assert client.post("/runs/run/stop").status_code == 403


def test_the_token_of_the_user_is_made_once_and_for_them_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    token = user_token()
    assert user_token() == token
    path = tmp_path / "lineside" / "token"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o644)
    with pytest.raises(ServiceRefused, match="others can read"):
        user_token()
    path.chmod(0o600)
    path.write_text("short\n")
    with pytest.raises(ServiceRefused, match="there is no token in"):
        user_token()


def test_a_token_that_is_no_secret_is_refused(tmp_path: Path) -> None:
    for token in ("", "short", "with a space in it....", "snowman-☃-snowman-☃"):
        with pytest.raises(ServiceRefused, match="expected at least 16"):
            service(tmp_path, token=token)
    with Bus() as bus, pytest.raises(ServiceRefused, match="keeps no journal"):
        service(bus)


TRAVERSALS = [
    prefix + dots * depth + target
    for prefix, dots, depth, target in product(
        ["/", "/static/", "/runs/", "/vendor/", "/runs/run/"],
        ["../", "..%2f", "%2e%2e/", "%2e%2e%2f", "..\\", "..%5c", "....//", "%c0%ae%c0%ae/", "..;/", "%252e%252e%252f"],
        [1, 2, 4, 8, 12],
        ["etc/passwd", "secret.txt"],
    )
]


def test_no_path_leads_out_of_the_folder(app: Service, tmp_path: Path) -> None:
    assert len(TRAVERSALS) == 500
    import socket

    with serving(app) as server:
        for path in TRAVERSALS:  # as it is: a client library would tidy it up
            with socket.create_connection(("127.0.0.1", server.config.port), timeout=30) as made:
                made.sendall(
                    f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n"
                    "Connection: close\r\n\r\n".encode()
                )
                answer = b"".join(iter(lambda: made.recv(65536), b""))
            assert answer.split(b" ", 2)[1] in (b"404", b"400", b"405"), path
            assert b"root:" not in answer, path


async def test_it_sees_no_lifespan_that_is_not_its_own(app: Service) -> None:
    said: list[str] = []
    asked = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])

    async def receive() -> Any:
        return next(asked)

    async def send(message: Any) -> None:
        said.append(message["type"])

    scope: Scope = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}
    made = service(Path.cwd(), token=TOKEN)
    await made(scope, receive, send)
    assert said == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
