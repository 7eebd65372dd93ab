"""Lineside: typed events from training, validation, prediction and export, read while the loop keeps going.

Here are the names that most programs need, and every event. They are loaded when they are first used: ``import
lineside`` is quick, and a machine that only listens needs no torch. The runners and `Recipe` do.
``from lineside import *`` loads them all, but for those whose packages are not installed.

The rest of the house is `lineside.schemas` (what happened), `lineside.bus` (how word travels) and
`lineside.runners` (what makes it happen).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lineside import schemas
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

__all__: list[str] = [
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
_FACE = frozenset(__all__)
if TYPE_CHECKING:
    __all__ += schemas.__all__
else:
    del __all__  # made when it is asked for: the events would have to be loaded for it, and packages may be missing

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
    if name == "__all__":
        return _exported()
    if name.startswith("_"):
        raise AttributeError(f"module 'lineside' has no attribute {name!r}")
    from lineside.extras import needed_for

    with needed_for(f"lineside.{name}"):
        room = import_module(
            _ELSEWHERE.get(name)
            or ("lineside.bus" if name in _BUS else "lineside.runners" if name in _FACE else "lineside.schemas")
        )
        try:
            return getattr(room, name)  # this too may import
        except AttributeError:
            raise AttributeError(f"module 'lineside' has no attribute {name!r}") from None


def _exported() -> list[str]:
    """Return what ``from lineside import *`` gives: the face as far as its packages are installed, and every event."""
    from contextlib import suppress

    from lineside import schemas
    from lineside.extras import MissingExtra

    names = {*schemas.__all__}
    for name in _FACE:
        with suppress(MissingExtra):
            _load(name)
            names.add(name)
    return sorted(names)


if not TYPE_CHECKING:  # a type checker shall see the names above and no others

    def __getattr__(name):
        value = globals()[name] = _load(name)
        return value

    def __dir__():
        from lineside import schemas

        return sorted({*globals(), *_FACE, *_ROOMS, *schemas.__all__})
