"""Lineside: typed events from training, validation, prediction and export, read while the loop keeps going.

Here are the names that most programs need, and every event. They are loaded when they are first used: ``import
lineside`` is quick, and a machine that only listens needs no torch. The runners and `Recipe` do.

The rest of the house is `lineside.schemas` (what happened), `lineside.bus` (how word travels) and
`lineside.runners` (what makes it happen).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lineside.bus import Bus, Stream, Subscription
    from lineside.bus.remote import Remote, connect
    from lineside.bus.service import service
    from lineside.runners import (
        ExportConfig,
        Exporter,
        PredictConfig,
        Predictor,
        Recipe,
        Run,
        TrainConfig,
        Trainer,
        ValConfig,
        Validator,
    )
    from lineside.runners.serving import PredictionService
    from lineside.schemas import *  # noqa: F403  all events, by their own list

    __version__: str

__all__ = [
    "Bus",
    "ExportConfig",
    "Exporter",
    "PredictConfig",
    "PredictionService",
    "Predictor",
    "Recipe",
    "Remote",
    "Run",
    "Stream",
    "Subscription",
    "TrainConfig",
    "Trainer",
    "ValConfig",
    "Validator",
    "connect",
    "service",
]

_BUS = frozenset({"Bus", "Stream", "Subscription"})
_ELSEWHERE = {
    "PredictionService": "lineside.runners.serving",
    "Remote": "lineside.bus.remote",
    "connect": "lineside.bus.remote",
    "service": "lineside.bus.service",
}
_ROOMS = frozenset({"bus", "runners", "schemas"})


def _load(name: str) -> object:
    """Return what `name` means here.

    Raises:
        AttributeError: nothing has that name.
        MissingExtra: it needs a package that is not installed.
    """
    from importlib import import_module

    if name == "__version__":
        from importlib.metadata import version

        return version("lineside")
    if name in _ROOMS:
        return import_module(f"lineside.{name}")
    if name.startswith("_"):
        raise AttributeError(f"module 'lineside' has no attribute {name!r}")
    from lineside.extras import needed_for

    with needed_for(f"lineside.{name}"):
        room = import_module(
            _ELSEWHERE.get(name)
            or ("lineside.bus" if name in _BUS else "lineside.runners" if name in __all__ else "lineside.schemas")
        )
    try:
        return getattr(room, name)
    except AttributeError:
        raise AttributeError(f"module 'lineside' has no attribute {name!r}") from None


if not TYPE_CHECKING:  # a type checker shall see the names above and no others

    def __getattr__(name):
        value = globals()[name] = _load(name)
        return value

    def __dir__():
        from lineside import schemas

        return sorted({*globals(), *__all__, *_ROOMS, *schemas.__all__})
