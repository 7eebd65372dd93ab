"""`Feed`: the batches of an epoch, on the device, with what the events say of them."""

from __future__ import annotations

import copy
import inspect
import itertools
import logging
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, MutableMapping, Sequence, Sized
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, TypeVar, cast
from weakref import WeakSet

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from .errors import EmptyData, ExhaustedData, InvalidArgument, ShorterData

T = TypeVar("T")

logger = logging.getLogger("lineside.runners")


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
        name: What it is, for messages: ``training`` or ``validation``.
    """

    def __init__(self, data: Iterable[Any], name: str) -> None:
        if not iterable(data):
            raise InvalidArgument(
                f"the {name} data is {data!r:.80} of type {type(data).__qualname__}",
                "expected an iterable of batches, e.g. a torch DataLoader or a list",
            )
        self._data = data
        self._name = name
        self._epoch = 0
        self._warned = False
        """Whether it was said that the samples of its batches cannot be counted."""

    @property
    def batches(self) -> int | None:
        """Batches of an epoch; None where the data does not know."""
        return length(self._data)

    def has(self, data: object) -> bool:
        """Whether its batches come from `data`."""
        return self._data is data

    def refuse_empty(self) -> None:
        """Refuse data that is known to be empty.

        Raises:
            EmptyData: its length is 0.
        """
        if self.batches == 0:
            raise EmptyData(self._name)

    def epoch(
        self,
        device: torch.device,
        *,
        skip: int = 0,
        mark_last: bool = False,
        skipped: Callable[[], None] = lambda: None,
    ) -> Iterator[Batch]:
        """Iterate one epoch on `device` from batch `skip` on: those before are thrown away, then `skipped` is called.

        With `mark_last`, `Batch.last` is known; where the data has no length, that takes fetching one batch ahead.

        Raises:
            EmptyData: the first epoch has no batch.
            ExhaustedData: a later one has none, or the data is an iterator at its end.
            ShorterData: it has fewer batches than `skip`.
        """
        count, on_host = self.batches, device.type == "cpu"
        ahead = mark_last and count is None
        batches = _with_last(self._fetch()) if ahead else ((*fetched, False) for fetched in self._fetch())
        if skip:
            self._skip(batches, skip)
            skipped()
        epoch, self._epoch = self._epoch, self._epoch + 1
        index = skip - 1
        for index, (data, waited, last) in enumerate(batches, skip):
            moved = data if on_host else to_device(data, device)
            yield Batch(index, moved, self._samples(data), last or index + 1 == count, count, waited)
        if index < 0:
            spent = epoch > 0 or isinstance(self._data, Iterator)  # another run may have read it
            raise ExhaustedData(self._name, epoch) if spent else EmptyData(self._name)

    def _samples(self, data: object) -> int:
        size = measured(data)
        if size is None and not self._warned:
            self._warned = True
            logger.warning(
                "the samples in a batch of the %s data cannot be counted (it is of type %s): each batch counts as one "
                "sample in means and speeds; expected tensors or arrays in tuples, lists, mappings or dataclasses, or "
                "an integer `batch_size` as an attribute",
                self._name,
                type(data).__qualname__,
            )
        return 1 if size is None else size

    def _skip(self, batches: Iterator[object], count: int) -> None:
        found = sum(1 for _ in itertools.islice(batches, count))
        if found < count:
            raise ShorterData(self._name, count, found)

    def _fetch(self) -> Iterator[tuple[Any, float]]:
        iterator = iterate(self._data)
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


def length(data: object) -> int | None:
    """Return the length of `data`; None where it does not know."""
    try:
        return len(cast(Sized, data))
    except (TypeError, NotImplementedError):  # no ``__len__``, or one that a base class left to be written
        return None


def iterable(data: object) -> bool:
    """Return whether `data` can be iterated over."""
    return hasattr(data, "__iter__") or hasattr(data, "__getitem__")


def iterate(data: Iterable[T]) -> Iterator[T]:
    """Return an iterator over `data`; a map-style dataset, which need not raise IndexError, is as long as it says."""
    count = None if hasattr(data, "__iter__") else length(data)
    return iter(data) if count is None else map(cast("Sequence[T]", data).__getitem__, range(count))


def to_device(value: object, device: torch.device) -> object:
    """Return `value` on `device`: what has a `to` itself; tuples, lists, mappings and dataclasses item by item.

    The copies are not waited for, where `to` takes ``non_blocking``.
    """
    if type(value) is Tensor and value.device == device:  # asked first: `to` takes many times as long to see it
        return value
    move = getattr(value, "to", None)
    if isinstance(value, Tensor) or (callable(move) and _takes_non_blocking(move)):
        return cast("Tensor", value).to(device, non_blocking=True)
    if callable(move):
        return move(device)
    if isinstance(value, Mapping):
        mapping = cast("Mapping[object, object]", value)
        return _replace_items(mapping, {key: to_device(item, device) for key, item in mapping.items()})
    if isinstance(value, (list, tuple)):
        items = cast("Sequence[object]", value)
        moved = [to_device(item, device) for item in items]
        rebuild = cast("Callable[..., object]", type(items))
        return rebuild(*moved) if hasattr(items, "_fields") else rebuild(moved)  # a namedtuple takes them one by one
    items_of = _fields(value)
    if not items_of:
        _warn_if_left(value, device)
    return _replace_fields(value, {name: to_device(item, device) for name, item in items_of.items()})


_left: WeakSet[type] = WeakSet()
"""Classes that were warned of."""


def _warn_if_left(value: object, device: torch.device) -> None:
    """Say, once for a class, that `value` has tensors that stay where they are."""
    held = cast("Mapping[str, object]", getattr(value, "__dict__", {})).items()
    others = {name: item.device for name, item in held if isinstance(item, Tensor) and item.device != device}
    if others and type(value) not in _left:
        _left.add(type(value))
        logger.warning(
            "the tensors of a %s stay on %s (%s), while the model is on %s: it has no `to`; expected a method "
            "`to(device)`, or a dataclass, mapping, list or tuple in its place",
            type(value).__qualname__,
            " and ".join(sorted(set(map(str, others.values())))),
            ", ".join(others),
            device,
        )


def _takes_non_blocking(move: Callable[..., object]) -> bool:
    parameters = inspect.signature(move).parameters
    return "non_blocking" in parameters or any(one.kind is one.VAR_KEYWORD for one in parameters.values())


def _replace_items(mapping: Mapping[object, object], items: dict[object, object]) -> object:
    """Return a copy of `mapping`, with all that it has besides, with `items`; a plain dict if it cannot be changed."""
    try:
        changed = cast("MutableMapping[object, object]", copy.copy(mapping))
        changed.update(items)
    except (TypeError, AttributeError):
        return items
    return changed


def _fields(value: object) -> dict[str, object]:
    """Return the fields of a dataclass by name; of all else, none."""
    if not is_dataclass(value) or isinstance(value, type):
        return {}
    return {field.name: getattr(value, field.name) for field in fields(value) if hasattr(value, field.name)}


def _replace_fields(value: object, items: Mapping[str, object]) -> object:
    """Return a copy of the dataclass `value`, with all that it has besides, with `items`; itself where they are its."""
    others = {name: item for name, item in items.items() if item is not getattr(value, name)}
    if not others:
        return value
    changed = copy.copy(value)
    for name, item in others.items():
        object.__setattr__(changed, name, item)  # also of a frozen one
    return changed


def batch_size(batch: object) -> int:
    """Return the number of samples in `batch`, as far as it can be seen; 1 where there is nothing to go by."""
    size = measured(batch)
    return 1 if size is None else size


def measured(batch: object) -> int | None:
    """Return the number of samples in `batch`; None where there is nothing to go by.

    A batch that has a `batch_size` says it. In a pair, a mapping or a dataclass the first part that can be measured
    counts: a tensor or array by its length, a list or tuple of them by its own, e.g. images of different sizes. A list
    of dataclasses of one class is one of samples.
    """
    size = _size(batch)
    return _first_size(_parts(batch)) if size is None else size


def _size(value: object) -> int | None:
    if isinstance(value, PackedSequence):
        return int(value.batch_sizes[0])
    if _is_array(value):
        return _length(value)
    said = getattr(value, "batch_size", None)
    return said if isinstance(said, int) else _rows(value)


def _length(value: object) -> int | None:
    """Return the length of a tensor or array; None of one without dimensions, and of all else."""
    shape: Sequence[int] = cast("Tensor", value).shape if _is_array(value) else ()
    return shape[0] if shape else None


def _is_array(value: object) -> bool:
    return isinstance(value, (Tensor, np.ndarray))


def _rows(value: object) -> int | None:
    """Return the length of a list of dataclasses of one class; None of all else."""
    items = cast("Sequence[object]", value) if isinstance(value, list) else ()  # a tuple is a pair
    cls = type(items[0]) if items else None
    return len(items) if is_dataclass(cls) and all(type(item) is cls for item in items) else None


def _first_size(parts: Collection[object]) -> int | None:
    for part in parts:
        size, items = _size(part), _parts(part)
        if size is None:
            size = _listed_size(items, parts) if isinstance(part, (list, tuple)) else _first_size(items)
        if size is not None:
            return size
    return None


def _listed_size(items: Collection[object], beside: Collection[object]) -> int | None:
    """Return how many samples a list makes that stands in a batch with what is `beside` it."""
    if _first_size(items) is None:
        return None
    # Where a tensor beside it is as long as each of its own, the list is of several inputs of these samples.
    lengths = {_size(item) for item in items} - {None}
    several = len(lengths) == 1 and lengths <= {_length(part) for part in beside}
    return lengths.pop() if several else len(items)


def _parts(value: object) -> Collection[object]:
    if isinstance(value, Mapping):
        return cast("Mapping[object, object]", value).values()
    return cast("Collection[object]", value) if isinstance(value, (list, tuple)) else _fields(value).values()
