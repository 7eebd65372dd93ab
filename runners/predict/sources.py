"""What can be predicted on, and how inputs are taken from it."""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable, Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import TypeGuard, cast

from torch.utils.data import DataLoader

from ..feed import iterate, length
from .errors import SourceUnusable
from .pictures import Pictures

Source = Iterable[object] | AsyncIterable[object]


def check_source(source: object) -> Source:
    """Return what inputs can be taken from: `source` itself, or the pictures that a path leads to.

    Raises:
        SourceUnusable: it is one input rather than several, or nothing that can be iterated.
        NoPictures: it is the path of a folder without pictures.
        PillowMissing: it is a path, and what reads pictures is not installed.
    """
    if isinstance(source, (str, PurePath)):
        return Pictures.at(source)
    if isinstance(source, (bytes, Mapping)):
        raise SourceUnusable(cast("object", source), _EXPECTED)
    if getattr(source, "ndim", 1) == 0:
        raise SourceUnusable(source, "it has no dimension; expected the batch as the first: value[None]")
    # A map-style dataset has no __iter__; it is iterated by position. Not tried out: iterating may start workers.
    if isinstance(source, (AsyncIterable, Iterable)) or hasattr(source, "__getitem__"):
        return cast("Source", source)
    raise SourceUnusable(source, _EXPECTED)


def check_synchronous(source: Source, instead: str) -> None:
    """Refuse what can only be read on an event loop, for a caller who blocks the thread that it would run in.

    Raises:
        SourceUnusable: `source` is asynchronous, and nothing else; `instead` says what to do.
    """
    if isinstance(source, AsyncIterable) and not isinstance(source, Iterable):
        raise SourceUnusable(source, f"it is asynchronous, and the caller would hold up its event loop; {instead}")


_EXPECTED = "expected an iterable or async iterable of inputs; for a single one give a list of it: [value]"


def inputs_of(source: Iterable[object]) -> Iterator[object]:
    """Return an iterator over the inputs that `source` gives: the rows of a loader's batches."""
    return _rows(source) if _makes_batches(source) else iterate(source)


def _makes_batches(source: object) -> TypeGuard[DataLoader[object]]:
    """Return whether `source` is a loader of batches; without a batch sampler one gives what the dataset gives."""
    if not isinstance(source, DataLoader):
        return False
    loader = cast("DataLoader[object]", source)
    return loader.batch_sampler is not None  # pyright: ignore[reportUnknownMemberType]


def _rows(loader: DataLoader[object]) -> Iterator[object]:
    """Yield the rows of the first element of each of a loader's batches, which is the inputs."""
    for batch in loader:
        rows = _rows_of(_first(batch))
        if rows is None:
            raise SourceUnusable(loader, f"a batch, {batch!r:.80} of type {type(batch).__qualname__}, {_NO_ROWS}")
        yield from rows


def _first(batch: object) -> object:
    if not isinstance(batch, (tuple, list)):
        return batch
    items = cast("Sequence[object]", batch)
    return items[0] if items and not isinstance(items[0], str) else items  # strings are collated to a list of them


def _rows_of(value: object) -> Sequence[object] | None:
    """Return the samples that were collated to `value`: those of a mapping are mappings. None: it is not such a one."""
    if isinstance(value, Mapping):
        mapping = cast("Mapping[object, object]", value)
        columns = [_rows_of(column) for column in mapping.values()]
        known = [column for column in columns if column is not None]
        if len({len(column) for column in known}) != 1 or len(known) < len(columns):
            return None
        return [dict(zip(mapping, row, strict=True)) for row in zip(*known, strict=True)]
    if isinstance(value, (str, bytes)) or getattr(value, "ndim", 1) == 0 or not isinstance(value, Iterable):
        return None
    return list(cast("Iterable[object]", value))


_NO_ROWS = (
    "has no rows; expected a tensor, a list, or a mapping of such of one length; "
    "a loader with batch_size=None gives the samples as they are"
)


def total_of(source: object) -> int | None:
    """Return how many inputs `source` gives; None where it does not know."""
    return _total_rows(cast("DataLoader[object]", source)) if isinstance(source, DataLoader) else length(source)


def _total_rows(loader: DataLoader[object]) -> int | None:
    rows = length(cast("object", loader.sampler))  # pyright: ignore[reportUnknownMemberType]
    if rows is None or loader.batch_size is None:
        return None
    return rows - rows % loader.batch_size if loader.drop_last else rows
