"""The names of the classes that networks trained on ImageNet tell apart."""

from __future__ import annotations

from functools import cache
from importlib.resources import files


@cache
def class_names() -> tuple[str, ...]:
    """Return the 1,000 names, in the order of the network's outputs; no two are the same."""
    lines = files(__package__ or "").joinpath("imagenet.txt").read_text("ascii").splitlines()
    return tuple(line for line in lines if not line.startswith("#"))
