"""Callbacks that another process can import: how they get there, and how they are found by name."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from importlib import import_module
from typing import Any

from .errors import CallbackRefused


def pickle_callback(callback: object) -> bytes:
    """Return `callback` in a form that another process can load.

    Raises:
        CallbackRefused: it is not importable there.
    """
    module = getattr(callback, "__module__", None) or type(callback).__module__
    if module == "__main__" or type(callback).__module__ == "__main__":
        raise CallbackRefused(
            callback,
            "another process cannot import it from the script or notebook you run; "
            "put it into a module and pass it, or its name 'package.module:function', with lane='process'",
        )
    try:
        return pickle.dumps(callback)
    except Exception as error:
        raise CallbackRefused(
            callback, f"another process cannot import it ({error}); expected a function at the top of a module"
        ) from None


def import_callback(name: str) -> Callable[..., Any]:
    """Return the function that ``"package.module:function"`` names.

    Raises:
        CallbackRefused: there is none.
    """
    module, _, attribute = name.partition(":")
    if not attribute:
        raise CallbackRefused(name, "expected 'package.module:function'")
    try:
        found = import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise CallbackRefused(name, str(error)) from None
    return found  # type: ignore[return-value]
