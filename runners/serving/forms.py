"""The forms in which results are sent: a line or an event each, or all in one answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from pydantic_core import to_json, to_jsonable_python

from .errors import sendable
from .request import Answer, Failure

NDJSON = "application/x-ndjson"
EVENTS = "text/event-stream"
ONE = "application/json"


@dataclass(frozen=True, slots=True)
class ResultForm:
    """How a client wants its results."""

    media_type: str
    frame: Callable[[str, bytes], bytes]
    """From what it is, ``result`` or ``end``, and its JSON to what is sent."""
    streamed: bool = True


def _line(_: str, data: bytes) -> bytes:
    return data + b"\n"


def _event(name: str, data: bytes) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (name.encode(), data)


FORMS = {
    NDJSON: ResultForm(NDJSON, _line),
    EVENTS: ResultForm(EVENTS, _event),
    ONE: ResultForm(ONE, lambda _, data: data, streamed=False),
}


def wanted(accept: str) -> ResultForm:
    """Return the form that a client prefers by its ``Accept``; lines of JSON, if it does not say."""
    offers = [_offer(offer) for offer in accept.split(",")]
    names = [name for name, _ in offers]
    found: list[tuple[float, int, int, ResultForm]] = []
    for form in FORMS.values():
        ranges = (form.media_type, f"{form.media_type.partition('/')[0]}/*", "*/*")  # the narrowest decides
        width = next((width for width, one in enumerate(ranges) if one in names), None)
        if width is not None:
            place = names.index(ranges[width])
            found.append((offers[place][1], -width, -place, form))
    best = max(found, key=lambda one: one[:3], default=None)  # of equals the first, which are lines
    return best[3] if best is not None and best[0] > 0 else FORMS[NDJSON]


def _offer(offer: str) -> tuple[str, float]:
    name, *parameters = (part.strip().lower() for part in offer.split(";"))
    quality = next((one[2:] for one in parameters if one.startswith("q=")), "1")
    try:
        return name, float(quality)
    except ValueError:
        return name, 0.0


def result_json(request: str, answer: Answer) -> tuple[bytes, bool]:
    """Return an answer as JSON, and whether it is a result rather than an error."""
    head = {"request": request, "index": answer.index, "input": answer.label}
    if not isinstance(answer.result, Failure):
        try:
            # Twice, for models have a mode of their own, by which most would make null of nan.
            result = to_jsonable_python(answer.result, fallback=_plain)
            return to_json({**head, "result": result}, inf_nan_mode="strings"), True
        except Exception as error:  # of the user's own code: a serializer, a `tolist`
            return to_json({**head, "error": f"the result has no form in JSON: {reason_of(error, 200)}"}), False
    return to_json({**head, "error": answer.result.error}), False


def end_json(request: str, end: str, count: int, reason: str | None = None) -> bytes:
    """Return what comes last: how it ended, and how many results and errors there were."""
    why = {} if reason is None else {"reason": reason}
    return to_json({"request": request, "end": end, "count": count, **why})


def reason_of(error: BaseException, most: int = 500) -> str:
    """Return what `error` is and says, as text that can be sent: what users' errors say need not be any."""
    try:
        said = str(error)[:most]
    except Exception as failed:
        said = f"what it says is unknown, for its __str__ raises {type(failed).__name__}"
    return sendable(f"{type(error).__name__}: {said}")


def _plain(value: object) -> object:
    """Return tensors and arrays as lists, for they are what JSON has no form for."""
    listed = getattr(value, "tolist", None)
    if not callable(listed):
        raise TypeError(f"a {type(value).__qualname__} is neither a number, text, list nor mapping")
    return cast("Callable[[], Any]", listed)()
