"""Callbacks for the process lane: this folder is put on ``sys.path``, because another process has to import them.

What they do they write, a line each, to the file that ``WORKER_LOG`` names; it may be a named pipe.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, Any, NoReturn

from pydantic import AfterValidator, Field, PrivateAttr

from lineside.schemas import Event, UnknownEvent


class Job(Event, name="workers.Job", urgent=False):
    n: int


class Errand(Event, name="workers.Errand"):
    n: int


class Baggage(Event, name="workers.Baggage"):
    content: object


class Changed(Event, name="workers.Changed"):
    """Validating changes it, and what has become of its fields would not be taken as its fields."""

    n: Annotated[int, AfterValidator(lambda n: n + 1)]
    name: str = Field(alias="NAME")
    _initial: str = PrivateAttr(default="")

    def model_post_init(self, context: object, /) -> None:
        self._initial = self.name.upper()

    @property
    def initial(self) -> str:
        return self._initial


def write(*words: object) -> None:
    with Path(os.environ["WORKER_LOG"]).open("a", encoding="utf-8") as log:
        print(*words, file=log)


def number(event: Event) -> Any:
    return getattr(event, "n", None)


def note(event: Event) -> None:
    write(event.type, event.run or "-", event.seq, number(event), os.getpid())


def note_fields(event: Event) -> None:
    if isinstance(event, UnknownEvent):
        write(event.type, event.fields)
    elif isinstance(event, Changed):
        own = {"n": event.n, "name": event.name}
        write(own, sorted(event.model_fields_set & own.keys()), event.initial)


async def note_later(event: Event) -> None:
    await asyncio.sleep(0)
    write(number(event), asyncio.get_running_loop().is_running())


def note_through(event: Event) -> Coroutine[Any, Any, None]:
    return note_later(event)


def fail(event: Event) -> None:
    if number(event) % 2:
        raise ValueError(f"no {number(event)}")
    write(number(event))


def return_generator(event: Event) -> object:
    return (number(event) for _ in range(1))


def fail_once(event: Event) -> None:
    """Fail at the first call, whichever process it is in."""
    write(number(event))
    if Path(os.environ["WORKER_LOG"]).read_text().count("\n") == 1:
        raise ValueError


def fail_five_times(event: Event) -> None:
    write(number(event))
    if Path(os.environ["WORKER_LOG"]).read_text().count("\n") <= 5:
        raise ValueError


class Rude(Exception):
    def __str__(self) -> str:
        raise RuntimeError("not even that")


def fail_rudely(event: Event) -> NoReturn:
    raise Rude


def fail_then_hang(event: Event) -> None:
    """Fail at the first call and hang at the second, whichever process it is in."""
    write(number(event))
    calls = Path(os.environ["WORKER_LOG"]).read_text().count("\n")
    if calls == 1:
        raise ValueError
    if calls == 2:
        threading.Event().wait()


def die_once(event: Event) -> None:
    """Die on 5, the first time."""
    write(number(event))
    if number(event) == 5 and Path(os.environ["WORKER_LOG"]).read_text().split().count("5") == 1:
        os.kill(os.getpid(), signal.SIGKILL)


def die(event: Event) -> None:
    """Die on 5, every time."""
    write(number(event))
    if number(event) == 5:
        os.kill(os.getpid(), signal.SIGKILL)


def hang(event: Event) -> None:
    """Hang on 1."""
    write(number(event))
    if number(event) == 1:
        threading.Event().wait()


async def hang_later(event: Event) -> None:
    """Hang on 1, awaiting."""
    write(number(event))
    if number(event) == 1:
        await asyncio.Event().wait()


class Counter:
    """Counts, as long as its process lives."""

    def __init__(self, start: int) -> None:
        self.count = start

    def __call__(self, event: Event) -> None:
        self.count += 1
        write(self.count)

    def close(self) -> None:
        write("closed")


class Survivor:
    """Goes on when the process that published is dead, and tells it through a named pipe."""

    def __init__(self) -> None:
        self._parent = os.getpid()

    def __call__(self, event: Event) -> None:
        if number(event) == 0:
            self._log = os.open(os.environ["WORKER_LOG"], os.O_WRONLY)
            os.write(self._log, b"begun\n")
            while os.getppid() == self._parent:
                threading.Event().wait(0.001)
        os.write(self._log, b"%d\n" % number(event))

    def close(self) -> None:
        os.write(self._log, b"closed\n")


class Homebody:
    """Cannot be loaded anywhere else."""

    def __call__(self, event: Event) -> None: ...

    def __reduce__(self) -> Any:
        return nowhere, ()


def nowhere() -> None:
    raise LookupError("not here")
