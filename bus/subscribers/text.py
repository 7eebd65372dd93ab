"""Numbers, durations and sizes as people read them."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite, log10


def number(value: float) -> str:
    """Return `value` in at most eight characters: ``0.9630``, ``12.4``, ``1.2e-05``, ``nan``."""
    if not isfinite(value):
        return str(value)
    size = abs(value)
    if value == 0 or 1e-3 <= size < 10:
        return f"{value:.4f}"
    return f"{value:,.1f}" if 10 <= size < 1e5 else f"{value:.1e}"


def rate(value: float) -> str:
    """Return a learning rate: ``0.01``, ``0.0032``, ``1e-05``."""
    return f"{value:.2g}"


def rates(by_group: Mapping[str, float]) -> str:
    """Return the learning rates of all parameter groups, equal ones once."""
    return " ".join(dict.fromkeys(rate(value) for value in by_group.values()))


def scalars(by_name: Mapping[str, float]) -> str:
    """Return ``loss 0.1234  accuracy 0.9630``."""
    return "  ".join(f"{name} {number(value)}" for name, value in by_name.items())


def duration(seconds: float) -> str:
    """Return a time that was taken: ``3 ms``, ``0.42 s``, ``12.3 s``, ``3:07`` or ``1:02:07``."""
    if seconds < 0.1:
        return f"{seconds * 1e3:.0f} ms"
    if seconds < 59.95:
        return f"{seconds:.2f} s" if seconds < 9.995 else f"{seconds:.1f} s"
    return clock(seconds)


def clock(seconds: float) -> str:
    """Return a time as a clock shows it: ``0:07``, ``3:07``, ``1:02:07``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def size(count: float) -> str:
    """Return a number of bytes: ``512 B``, ``312 kB``, ``1.4 MB``."""
    if count < 1000:
        return f"{count:.0f} B"
    power = min(int(log10(count) / 3), 4)
    return f"{count / 1000**power:.3g} {'kMGT'[power - 1]}B"


def plural(count: int, noun: str, nouns: str = "") -> str:
    """Return ``1 batch`` or ``20 batches``."""
    return f"{count:,} {noun if count == 1 else nouns or noun + 's'}"
