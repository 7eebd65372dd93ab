"""Keeping the exporters' talk to themselves, but not their errors."""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Generator
from contextlib import contextmanager

_one_at_a_time = threading.RLock()
_LOGGERS = ("torch.onnx", "torch.export", "onnxscript")


@contextmanager
def quiet() -> Generator[None]:
    """Hide what torch's exporters say to torch's own developers.

    That is deprecations inside torch, and log messages below the level of an error (operators of packages that
    are not installed, version conversions). Other warnings pass, so a module's own are seen.

    Warning filters belong to the whole process, hence one export at a time.
    """
    with _one_at_a_time, warnings.catch_warnings(), _errors_only(_LOGGERS):
        for category in (DeprecationWarning, PendingDeprecationWarning, FutureWarning):
            warnings.simplefilter("ignore", category)
        yield


@contextmanager
def _errors_only(names: tuple[str, ...]) -> Generator[None]:
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
