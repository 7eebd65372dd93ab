"""What the app of every service does: it can let go of a client, and says what was wrong."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ExceptionHandler, Receive, Scope, Send

from .guard import failure
from .stream import TRANSPORT


class Problem(BaseModel):
    """Every answer that is not what was asked for."""

    error: str = Field(description="What was wrong, and what to do.")


def problems(meanings: Mapping[int, str]) -> dict[int | str, dict[str, Any]]:
    """Return how the answers that are not what was asked for are described."""
    return {status: {"model": Problem, "description": what} for status, what in meanings.items()}


class App(FastAPI):
    """An app whose answers are its own also where something was wrong.

    Args:
        handlers: How to answer the errors of its own.
        settings: Those of FastAPI.
    """

    def __init__(self, *, handlers: Mapping[type[Exception], ExceptionHandler], **settings: Any) -> None:
        known: dict[Any, Any] = {
            RequestValidationError: _tell_invalid,
            HTTPException: _tell_http,
            Exception: _tell_bug,
            **handlers,
        }
        super().__init__(docs_url=None, redoc_url=None, exception_handlers=known, **settings)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        # Before anything is wrapped around `send`: a client that does not read can only be let go of here.
        scope.setdefault(TRANSPORT, getattr(getattr(send, "__self__", None), "transport", None))
        await super().__call__(scope, receive, send)

    def openapi(self) -> dict[str, Any]:
        """Return what can be asked. FastAPI describes 422 everywhere, for what is a 400 here."""
        if self.openapi_schema is None:
            described = super().openapi()
            for operations in described["paths"].values():
                for operation in operations.values():
                    operation["responses"].pop("422", None)
            for unused in ("HTTPValidationError", "ValidationError"):
                described["components"]["schemas"].pop(unused, None)
        return cast("dict[str, Any]", self.openapi_schema)


async def _tell_invalid(_: Request, error: Exception) -> Response:
    problems = cast(RequestValidationError, error).errors()
    told = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in problems)
    return failure(400, f"{told}; /docs says what is expected")


async def _tell_http(_: Request, error: Exception) -> Response:
    error = cast(HTTPException, error)
    what = {
        404: "there is nothing here; /docs lists what there is",
        405: "that cannot be done here; /docs says what can",
    }
    response = failure(error.status_code, what.get(error.status_code, str(error.detail)))
    response.headers.update(error.headers or {})
    return response


async def _tell_bug(_: Request, error: Exception) -> Response:
    return failure(500, f"a bug of the service ({type(error).__name__}); its log has the details")
