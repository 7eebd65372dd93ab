"""`shaken`: threads are switched in the middle of a line, where each of them hands over least willingly."""

from __future__ import annotations

import random
import sys
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from lineside.runners import awaited, calling, control, hold, jobs, run, stand

FILES = frozenset(str(module.__file__) for module in (awaited, calling, control, hold, jobs, run, stand))
"""What steers a run: where a switch at the wrong moment would do harm."""
OFTEN = 0.03
"""Share of the steps of the interpreter there before which others get their turn."""
PAUSES = (0.0, 0.0, 1e-5, 1e-4)
"""Seconds for which they get it."""


@contextmanager
def shaken(seed: int) -> Generator[None]:
    """Let the threads that are started in the block, and the caller's, hand over between any two bytecodes."""
    draw = random.Random(seed)

    def step(frame: FrameType, event: str, _: object) -> Callable[..., Any]:
        if event == "opcode" and draw.random() < OFTEN:
            time.sleep(draw.choice(PAUSES))
        return step

    def enter(frame: FrameType, event: str, _: object) -> Callable[..., Any] | None:
        if frame.f_code.co_filename not in FILES:
            return None
        frame.f_trace_opcodes = True
        return step

    before, of_threads = sys.gettrace(), threading.gettrace()
    sys.settrace(enter)
    threading.settrace(enter)
    try:
        yield
    finally:
        threading.settrace(of_threads)
        sys.settrace(before)
