"""`Feed`: the batches of an epoch, on the device, with what the events say of them."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from .errors import EmptyData, ExhaustedData, InvalidArgument, ShorterData


@dataclass(slots=True)
class Batch:
    """One batch, fetched and on the device."""

    index: int
    """Its place in the epoch, from 0."""
    data: Any
    size: int
    """Samples in it."""
    last: bool
    """Whether it is known to be the last of the epoch."""
    batches: int | None
    """Batches of the epoch; None where the data does not know."""
    waited: float
    """Seconds the loop waited for it."""


class Feed:
    """Gives the batches of any iterable, epoch after epoch.

    Args:
        data: A loader, a list of batches, or anything else that can be iterated.
        device: Where the batches go.
        name: What it is, for messages: ``training`` or ``validation``.
    """

    def __init__(self, data: Iterable[Any], device: torch.device, name: str) -> None:
        if not hasattr(data, "__iter__") and not hasattr(data, "__getitem__"):
            raise InvalidArgument(
                f"the {name} data is {data!r:.80} of type {type(data).__qualname__}",
                "expected an iterable of batches, e.g. a torch DataLoader or a list",
            )
        self._data = data
        self._device = device
        self._name = name
        self._epoch = 0

    @property
    def batches(self) -> int | None:
        """Batches of an epoch; None where the data does not know."""
        try:
            return len(cast(Sized, self._data))
        except TypeError:  # no length, or a DataLoader of an IterableDataset without one
            return None

    def refuse_empty(self) -> None:
        """Refuse data that is known to be empty.

        Raises:
            EmptyData: its length is 0.
        """
        if self.batches == 0:
            raise EmptyData(self._name)

    def epoch(
        self, *, skip: int = 0, mark_last: bool = False, skipped: Callable[[], None] = lambda: None
    ) -> Iterator[Batch]:
        """Iterate one epoch from the batch `skip` on: those before are thrown away, then `skipped` is called.

        With `mark_last`, `Batch.last` is known; where the data has no length, that takes fetching one batch ahead.

        Raises:
            EmptyData: the first epoch has no batch.
            ExhaustedData: a later one has none.
            ShorterData: it has fewer batches than `skip`.
        """
        count, on_host = self.batches, self._device.type == "cpu"
        ahead = mark_last and count is None
        batches = _with_last(self._fetch()) if ahead else ((*fetched, False) for fetched in self._fetch())
        if skip:
            self._skip(batches, skip)
            skipped()
        epoch, self._epoch = self._epoch, self._epoch + 1
        index = skip - 1
        for index, (data, waited, last) in enumerate(batches, skip):
            moved = data if on_host else to_device(data, self._device)
            yield Batch(index, moved, batch_size(data), last or index + 1 == count, count, waited)
        if index < 0:
            raise ExhaustedData(self._name, epoch) if epoch else EmptyData(self._name)

    def _skip(self, batches: Iterator[object], count: int) -> None:
        found = sum(1 for _ in itertools.islice(batches, count))
        if found < count:
            raise ShorterData(self._name, count, found)

    def _fetch(self) -> Iterator[tuple[Any, float]]:
        iterator = iter(self._data)
        while True:
            begin = time.perf_counter()
            try:
                data = next(iterator)
            except StopIteration:
                return
            yield data, time.perf_counter() - begin

    def generators(self) -> list[torch.Generator]:
        """Return the random generators that the order of the batches depends on, besides the global one."""
        holders = [self._data, *(getattr(self._data, name, None) for name in ("sampler", "batch_sampler"))]
        holders.append(getattr(getattr(self._data, "batch_sampler", None), "sampler", None))
        found = [getattr(holder, "generator", None) for holder in holders]
        unique = {id(generator): generator for generator in found if isinstance(generator, torch.Generator)}
        return list(unique.values())

    def set_epoch(self, epoch: int) -> None:
        """Tell a distributed sampler, or a dataset that asks for it, which epoch comes."""
        for holder in (self._data, getattr(self._data, "sampler", None), getattr(self._data, "batch_sampler", None)):
            set_epoch = getattr(holder, "set_epoch", None)
            if callable(set_epoch):
                set_epoch(epoch)


def _with_last(fetched: Iterator[tuple[Any, float]]) -> Iterator[tuple[Any, float, bool]]:
    ahead = next(fetched, None)
    while ahead is not None:
        (data, waited), ahead = ahead, next(fetched, None)
        yield data, waited, ahead is None


def to_device(value: object, device: torch.device) -> object:
    """Return `value` with every tensor in its tuples, lists and mappings on `device`. The copies are not waited for."""
    if isinstance(value, Tensor):
        return value.to(device, non_blocking=True)
    if isinstance(value, Mapping):
        mapping = cast("Mapping[object, object]", value)
        return {key: to_device(item, device) for key, item in mapping.items()}
    if isinstance(value, (list, tuple)):
        items = cast("Sequence[object]", value)
        moved = [to_device(item, device) for item in items]
        rebuild = cast("Callable[..., object]", type(items))
        return rebuild(*moved) if hasattr(items, "_fields") else rebuild(moved)  # a namedtuple takes them one by one
    return value


def batch_size(batch: object) -> int:
    """Return the number of samples in `batch`: the length of the first tensor in it; 1 where there is none."""
    first = next(_tensors(batch), None)
    return first.shape[0] if first is not None and first.dim() else 1


def _tensors(value: object) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        yield from _tensors(list(cast("Mapping[object, object]", value).values()))
    elif isinstance(value, (list, tuple)):
        for item in cast("Sequence[object]", value):
            yield from _tensors(item)
