"""Scalars on their way from the device to the host, without ever making either wait for the other.

Where the values are on the host anyway (CPU), or the device has no reliable asynchronous copies (MPS), they are
read at once: `HostScalars`. On CUDA, `CudaScalars` snapshots them: the scalars of a step are stacked into one tensor on
the device, copied into a pinned slot on the host by the same stream, and an event is recorded behind the copy. Whoever
wants the values asks that event. Nothing here calls ``.item()`` on CUDA.
"""

from __future__ import annotations

import logging
import math
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from decimal import Decimal
from numbers import Real
from types import TracebackType
from typing import cast

import numpy as np
import torch
from torch import Tensor

logger = logging.getLogger("lineside.runners")

Fields = Callable[[Sequence[float]], Mapping[str, object]]
"""Makes an event's fields of the values, in the order of the tensors they came from."""

Scalar = Tensor | float
"""A tensor with one element, or a number that is on the host already."""
Row = Tensor | list[float]
"""Scalars of one moment: a tensor of doubles on the device, or numbers on the host."""


def scalar_of(value: object) -> Scalar | None:
    """Return `value`, a number of any kind, as a scalar: a tensor as it is, all else as a float.

    None: it is none, or none that a float can hold: complex, too large, of several elements, not dense.
    """
    if isinstance(value, Tensor):
        return value if value.numel() == 1 and value.layout == torch.strided and not value.is_complex() else None
    if isinstance(value, (np.ndarray, np.generic)) and value.size == 1:
        value = cast("object", value.item())
    try:
        return float(value) if isinstance(value, (Real, Decimal)) else None
    except (OverflowError, ValueError):  # too large; a nan that signals
        return None


def described(value: object) -> str:
    """Return what `value` is, for messages that say that it is no scalar."""
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}, {value.dtype} and {value.layout}"
    return "a number that no float can hold" if isinstance(value, (Real, Decimal)) else f"{value!r:.80}"


class Snapshot(ABC):
    """Values taken at one moment of the loop. A `Pending` of the bus that can also be waited for."""

    known = False
    """Whether the values were on the host from the beginning."""
    lost = False
    """Whether the values were given up, because no slot was free; they are nan."""

    def __init__(self, row: Row) -> None:
        self.row = row

    @abstractmethod
    def ready(self) -> bool:
        """Return whether the values have arrived. Never blocks; from any thread."""

    @abstractmethod
    def result(self) -> Mapping[str, object]:
        """Return the values as an event's fields; only once they have arrived."""

    @abstractmethod
    def wait(self) -> Mapping[str, object]:
        """Wait for the values and return them as an event's fields."""


class Sums:
    """Running sums of scalars, weighted, that stay where the scalars are until they are read."""

    def __init__(self, scalars: Scalars) -> None:
        self._scalars = scalars
        self._sums: Row = []
        self.weight = 0.0

    def add(self, snapshot: Snapshot, weight: float) -> None:
        """Count the values of `snapshot` with `weight`; always as many of them."""
        self._sums = _add(self._sums, snapshot.row, weight)
        self.weight += weight

    def read(self) -> list[float]:
        """Wait for the sums and return them; none where nothing was counted."""
        return self._scalars.read(self._sums)

    def restore(self, sums: Sequence[float], weight: float) -> None:
        """Go on from `sums` that were saved."""
        self._sums, self.weight = self._scalars.write(sums), weight


def _add(sums: Row, row: Row, weight: float) -> Row:
    if isinstance(row, Tensor):
        return sums.add_(row, alpha=weight) if isinstance(sums, Tensor) else row * weight
    before = [0.0] * len(row) if isinstance(sums, Tensor) or not sums else sums
    return [total + value * weight for total, value in zip(before, row, strict=True)]


class Scalars(ABC):
    """The way of scalars from one device to the host."""

    dropped = 0
    """Snapshots whose values were given up because no slot was free."""

    @abstractmethod
    def take(self, scalars: Sequence[Scalar], fields: Fields) -> Snapshot:
        """Snapshot `scalars`, as they are at this point of the stream, for an event's fields."""

    @abstractmethod
    def read(self, row: Row | Sequence[Scalar]) -> list[float]:
        """Wait for some scalars and return them: for the ends of epochs, where the values steer the run."""

    @abstractmethod
    def write(self, values: Sequence[float]) -> Row:
        """Put values where the scalars are."""

    computing: AbstractContextManager[None] = nullcontext()
    """Entered around a step's computation: it may capture a graph, which a query from any thread would break."""


class HostScalars(Scalars):
    """Reads every value at once."""

    def take(self, scalars: Sequence[Scalar], fields: Fields) -> Snapshot:
        """Read `scalars`."""
        return _Known(self.read(scalars), fields)

    def read(self, row: Row | Sequence[Scalar]) -> list[float]:
        """Return the scalars as numbers."""
        return [scalar.item() if isinstance(scalar, Tensor) else float(scalar) for scalar in row]

    def write(self, values: Sequence[float]) -> Row:
        """Return the values."""
        return list(values)


class CudaScalars(Scalars):
    """Snapshots through a ring of pinned slots, allocated in advance.

    Args:
        device: The CUDA device.
        slots: Snapshots that may be on their way at once. Where there are more, values are dropped, never waited for.
        width: Scalars in a snapshot; a wider one replaces the ring, once.
    """

    def __init__(self, device: torch.device, *, slots: int = 256, width: int = 32) -> None:
        self._device = device
        self._slots = slots
        self.computing = self._gate = _Gate()
        self._travelling: deque[_OnItsWay] = deque()
        self._allocate(width)

    def _allocate(self, width: int) -> None:
        self._width = width
        self._free: deque[_Slot] = deque()  # slots of a ring before this one return to theirs
        buffers = torch.empty(self._slots, width, dtype=torch.float64, pin_memory=True)
        self._free.extend(_Slot(buffer, self._free) for buffer in buffers)

    def take(self, scalars: Sequence[Scalar], fields: Fields) -> Snapshot:
        """Enqueue the copy of `scalars` behind what computes them, and return at once."""
        self._collect()
        row = self._stack(scalars)
        if len(row) > self._width:
            self._allocate(2 * len(row))
        try:
            slot = self._free.popleft()
        except IndexError:
            self._drop()
            return _Lost(row, fields)
        slot.fill(row)
        snapshot = _OnItsWay(row, slot, fields, self.may_query)
        self._travelling.append(snapshot)
        return snapshot

    def _drop(self) -> None:
        self.dropped += 1
        if self.dropped == 1:
            logger.warning(
                "the device is more than %d steps behind: the losses of some steps are reported as nan, to wait for "
                "nothing; the means of the epoch count them all the same",
                self._slots,
            )

    def _collect(self) -> None:
        """Copy out what has arrived: other threads seldom meet a moment when they may ask."""
        while self._travelling and self._travelling[0].ready():
            self._travelling.popleft().result()

    def read(self, row: Row | Sequence[Scalar]) -> list[float]:
        """Copy the scalars like a snapshot, and wait for this copy alone."""
        if not len(row):
            return []
        stacked = row if isinstance(row, Tensor) else self._stack(row)
        slot = _Slot(torch.empty(len(stacked), dtype=torch.float64, pin_memory=True), deque())
        slot.fill(stacked)
        slot.event.synchronize()
        return slot.values(len(stacked))

    def write(self, values: Sequence[float]) -> Row:
        """Copy the values to the device."""
        return torch.tensor(values, dtype=torch.float64, device=self._device) if values else []

    def may_query(self) -> bool:
        """Return whether the device may be asked now."""
        return not self._gate.closed and not torch.cuda.is_current_stream_capturing()

    def _stack(self, scalars: Sequence[Scalar]) -> Tensor:
        """Return `scalars` as one tensor of doubles on the device, without their history."""
        return torch.stack([self._double(scalar) for scalar in scalars])

    def _double(self, scalar: Scalar) -> Tensor:
        if isinstance(scalar, Tensor):
            return scalar.detach().reshape(()).to(self._device, torch.float64, non_blocking=True)
        return torch.full((), float(scalar), dtype=torch.float64, device=self._device)


class _Gate:
    """Closed for the length of a block: nobody asks the device then; the loop itself does between two steps."""

    def __init__(self) -> None:
        self.closed = False

    def __enter__(self) -> None:
        self.closed = True

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.closed = False


class _Slot:
    """A piece of pinned memory, and the event that says when it was written."""

    def __init__(self, buffer: Tensor, home: deque[_Slot]) -> None:
        self._buffer = buffer
        self._home = home
        self.event = torch.cuda.Event()  # type: ignore[no-untyped-call]

    def fill(self, row: Tensor) -> None:
        self._buffer[: len(row)].copy_(row, non_blocking=True)
        # The copy is in a stream of the row's device, and that need not be the current one.
        with torch.cuda.device_of(row):  # type: ignore[no-untyped-call]
            self.event.record()

    def arrived(self) -> bool:
        return bool(self.event.query())  # type: ignore[no-untyped-call]

    def values(self, count: int) -> list[float]:
        """Copy the values out and give the slot back."""
        values = cast("list[float]", self._buffer[:count].tolist())  # pyright: ignore[reportUnknownMemberType]
        self._home.append(self)
        return values


class _Known(Snapshot):
    """Values that are on the host."""

    known = True

    def __init__(self, row: list[float], fields: Fields) -> None:
        super().__init__(row)
        self._fields = fields(row)

    def ready(self) -> bool:
        return True

    def result(self) -> Mapping[str, object]:
        return self._fields

    def wait(self) -> Mapping[str, object]:
        return self._fields


class _Lost(_Known):
    """Values that nobody will see, because the ring was full. The means still count them."""

    lost = True

    def __init__(self, row: Tensor, fields: Fields) -> None:
        super().__init__([math.nan] * len(row), fields)
        self.row = row


class _OnItsWay(Snapshot):
    """Values that are being copied. The bus, the loop and its hooks may all ask for them, in any order."""

    def __init__(self, row: Tensor, slot: _Slot, fields: Fields, may_query: Callable[[], bool]) -> None:
        super().__init__(row)
        self._count = len(row)
        self._slot: _Slot | None = slot
        self._make = fields
        self._may_query = may_query
        self._fields: Mapping[str, object] = {}
        self._lock = threading.Lock()

    def ready(self) -> bool:
        slot = self._slot
        return slot is None or (self._may_query() and slot.arrived())

    def result(self) -> Mapping[str, object]:
        with self._lock:
            if self._slot is not None:
                self._fields = self._make(self._slot.values(self._count))
                self._slot = None
        return self._fields

    def wait(self) -> Mapping[str, object]:
        slot = self._slot
        if slot is not None:
            slot.event.synchronize()
        return self.result()


def scalars_of(device: torch.device) -> Scalars:
    """Return the way that scalars on `device` take."""
    return CudaScalars(device) if device.type == "cuda" else HostScalars()
