"""Connections to SQLite that survive threads, forks and flipped bits."""

from __future__ import annotations

import ctypes
import os
import sqlite3
import weakref
from typing import Any


class Connection(sqlite3.Connection):
    """One that is known as long as it is open, for `_keep_open`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        _connections.add(self)


class Temporary(Connection):
    """One to a file without a name, which nobody closes: cursors may read it after the end of the bus."""

    def __del__(self) -> None:
        self.close()


_connections: weakref.WeakSet[Connection] = weakref.WeakSet()


def connect(uri: str) -> sqlite3.Connection:
    """Return a connection that any thread may use, and that a forked child leaves open.

    Where `uri` is empty, to a file that has no name.
    """
    kind = Connection if uri else Temporary
    made = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False, timeout=5, factory=kind)
    made.text_factory = _text
    return made


def _text(data: bytes) -> str:
    return data.decode(errors="replace")  # a flipped bit in a name must not keep all the others from being read


def _keep_open() -> None:
    """In a forked child, never close the parent's connections: that could take its files from under it."""
    for connection in tuple(_connections):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))


os.register_at_fork(after_in_child=_keep_open)
