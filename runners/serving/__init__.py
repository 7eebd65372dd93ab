"""The prediction service: clients send inputs over HTTP or WebSockets, and get results as they come.

Needs the packages of ``lineside[serve]``, which are loaded when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .app import PredictionApp, prediction_service
    from .limits import PredictionLimits
    from .server import PredictionServer
    from .service import PredictionService

__all__ = ["PredictionApp", "PredictionLimits", "PredictionServer", "PredictionService", "prediction_service"]

_WHERE = {
    "PredictionApp": "app",
    "PredictionLimits": "limits",
    "PredictionServer": "server",
    "PredictionService": "service",
    "prediction_service": "app",
}

if not TYPE_CHECKING:  # a type checker shall see the names above and no others

    def __getattr__(name):
        if name not in _WHERE:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)
