"""The app: the routes, behind their guard."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Collection
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response
from starlette.staticfiles import StaticFiles

from ..bus import Bus
from ..errors import BusError
from ..journal import Journal
from .base import App
from .errors import ServiceRefused, status_of
from .feed import Hub
from .guard import LOOPBACK, Guard, failure
from .limits import DEFAULT, Limits
from .routes import routes
from .source import Source
from .token import checked

STATIC = Path(__file__).parent / "static"


class Service(App):
    """The app that `service` makes."""

    hub: Hub


def service(
    source: Bus | Journal | str | os.PathLike[str],
    *,
    token: str | None = None,
    hosts: Collection[str] = (),
    limits: Limits = DEFAULT,
) -> Service:
    """Return an app that tells over HTTP what is in a journal folder, live, with the dashboard at its root.

    Serve it by itself (``lineside serve runs/``) or mount it in an app of yours: ``app.mount("/lineside",
    service(bus))``. On a bus that keeps a journal, its runs can also be stopped, paused and looked into.

    Args:
        source: A journal folder, or the bus of this process.
        token: What clients have to bring, as ``Authorization: Bearer …`` or once as ``?token=…``. None lets everybody
            in who reaches it: for an app that asks who it is by itself. Then no run can be steered.
        hosts: Names that it answers to, beyond ``localhost``, ``127.0.0.1`` and ``[::1]``.
        limits: How much each client gets.

    Raises:
        ServiceRefused: the bus keeps no journal, or the token is too short.
    """
    if token is not None:
        checked(token)
    if isinstance(source, Bus) and source.journal is None:
        raise ServiceRefused("this bus keeps no journal for the service to read; make it as Bus('runs/')")
    hub = Hub(_journal(source), limits)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
        yield
        hub.close()

    app = Service(
        title="Lineside",
        summary="What training, validation, prediction and export runs say while they run.",
        lifespan=lifespan,
        handlers={BusError: _tell},
    )
    app.hub = hub
    app.include_router(routes(Source(hub, source if isinstance(source, Bus) else None, steered=token is not None)))
    app.mount("/", StaticFiles(directory=STATIC, html=True, check_dir=False), name="dashboard")
    app.add_middleware(Guard, token=token, hosts=LOOPBACK | frozenset(hosts), limits=limits)
    return app


def _journal(source: Bus | Journal | str | os.PathLike[str]) -> Journal:
    if isinstance(source, Bus):
        assert source.journal is not None
        return Journal(source.journal.parent)
    return source if isinstance(source, Journal) else Journal(source)


async def _tell(_: Request, error: Exception) -> Response:
    return failure(status_of(cast(BusError, error)), str(error))
