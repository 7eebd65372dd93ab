"""Callbacks that ship with the bus: subscribe one, and it shows or writes what happens."""

from .json_lines import JsonLines
from .progress import Progress

__all__ = ["JsonLines", "Progress"]
