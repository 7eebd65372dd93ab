"""Threads that help the run's own thread, and what they take over from it."""

from __future__ import annotations

import contextvars
import logging
import threading
import time
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from typing import TypeVar

import torch

T = TypeVar("T")

GRACE = 1.0
"""Seconds that the end of a run waits for what helps it, where that is held up by the source or the preprocessing."""

logger = logging.getLogger("lineside.runners")


class Helper:
    """A thread that works for a run, in the context of the thread that makes it.

    Args:
        name: What it does, in a word.
        work: Called in it, once.
    """

    def __init__(self, name: str, work: Callable[[], object]) -> None:
        # A daemon: what hangs in a user's function must not keep the interpreter from its end.
        self._thread = threading.Thread(
            target=Settings().call, args=(work,), name=f"lineside-predict-{name}", daemon=True
        )
        self._thread.start()

    def join(self, seconds: float | None = GRACE) -> bool:
        """Wait until it has ended; False, and a warning: it hangs, and is left to itself."""
        began = time.monotonic()
        self._thread.join(seconds)
        if self._thread.is_alive():
            logger.warning(
                "thread %s is left behind: the source or the preprocessing of its prediction hangs, and did not come "
                "back within %.1f s; it ends once that returns",
                self._thread.name,
                time.monotonic() - began,
            )
        return not self._thread.is_alive()


class Settings:
    """What is set for the thread that makes this, and for no other: context variables, and what torch keeps."""

    def __init__(self) -> None:
        self._context = contextvars.copy_context()
        self._threads = torch.get_num_threads()
        self._grad, self._inference = torch.is_grad_enabled(), torch.is_inference_mode_enabled()
        self._device = torch.get_default_device()
        self._autocast = [
            (kind, torch.get_autocast_dtype(kind)) for kind in ("cpu", "cuda") if torch.is_autocast_enabled(kind)
        ]
        # Where nobody has used CUDA, asking for its device would begin it.
        begun = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
        self._stream = torch.cuda.current_stream() if begun else None

    def call(self, work: Callable[[], T]) -> T:
        """Return ``work()``, called in this thread as if it were in that one."""
        with self._of_torch():
            return self._context.run(work)

    @contextmanager
    def _of_torch(self) -> Generator[None]:
        if torch.get_num_threads() != self._threads:
            torch.set_num_threads(self._threads)
        with ExitStack() as entered:
            if self._stream is not None:  # the device too; work of several threads stays in order on one stream
                entered.enter_context(torch.cuda.stream(self._stream))
            if self._device != torch.get_default_device():
                entered.enter_context(self._device)
            for kind, dtype in self._autocast:
                entered.enter_context(torch.autocast(kind, dtype=dtype))
            if self._inference:
                entered.enter_context(torch.inference_mode())
            entered.enter_context(torch.set_grad_enabled(self._grad))
            yield
