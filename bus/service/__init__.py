"""The service: what a journal folder holds, over HTTP, as pages, live streams and plots, with the dashboard.

Needs the packages of ``lineside[serve]``.
"""

from .app import service
from .errors import ServiceError, ServiceRefused
from .limits import Limits
from .server import Server
from .token import user_token

__all__ = ["Limits", "Server", "ServiceError", "ServiceRefused", "service", "user_token"]
