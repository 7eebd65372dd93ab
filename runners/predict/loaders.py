"""From the batches of a DataLoader back to the inputs that they were made of."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TypeGuard, cast

from torch.utils.data import DataLoader, default_collate  # pyright: ignore[reportUnknownVariableType]

from ..feed import length
from .errors import SourceUnusable

Loader = DataLoader[object]
Rows = Sequence[object]


def inputs_in(loader: Loader) -> Iterator[object]:
    """Yield the inputs of each of a loader's batches: of a tuple or list of columns those of the first.

    Without batches a loader gives samples, of which the first element is the input.

    Raises:
        SourceUnusable: a batch has no rows, or is a list that may be of samples as well as of columns.
    """
    if loader.batch_sampler is None:  # pyright: ignore[reportUnknownMemberType]
        for sample in loader:  # torch makes lists of tuples
            yield input_of(tuple(cast("Rows", sample)) if isinstance(sample, list) else sample)
        return
    rows_of: Callable[[object], Rows | None] | None = _collated_inputs if _collates_by_default(loader) else None
    for batch in loader:
        if _is_of_columns(batch) and not batch:  # a function of the user's own left nothing of it
            continue
        rows_of = rows_of or (_sampled_inputs if _is_of_samples(batch, loader) else _own_inputs)
        rows = rows_of(batch)
        if rows is None:
            raise SourceUnusable(loader, f"a batch, {batch!r:.80} of type {type(batch).__qualname__}, {_NO_ROWS}")
        yield from rows


_NO_ROWS = (
    "has no rows; expected a tensor, a list, or a mapping of such of one length; "
    "a loader with batch_size=None gives samples rather than batches"
)


def count_inputs(loader: Loader) -> int | None:
    """Return how many inputs `loader` gives; None where it does not know."""
    rows = length(cast("object", loader.sampler))  # pyright: ignore[reportUnknownMemberType]
    if rows is None or loader.batch_size is None:
        return None
    return rows - rows % loader.batch_size if loader.drop_last else rows


def _collates_by_default(loader: Loader) -> bool:
    return cast("object", loader.collate_fn) is default_collate  # pyright: ignore[reportUnknownMemberType]


# ---- batches of torch's own making, each list of which is known to be of columns, or of strings


def _collated_inputs(batch: object) -> Rows | None:
    return _collated_rows(batch[0] if _is_of_columns(batch) else batch)


def _is_of_columns(value: object) -> TypeGuard[Rows]:
    if not isinstance(value, (tuple, list)):
        return False
    items = cast("Rows", value)
    return not items or not _is_text(items[0])


def _collated_rows(value: object) -> Rows | None:
    """Return what was collated to `value`. None: it was nothing that has rows."""
    if _is_of_columns(value):
        columns = [_collated_rows(column) for column in value]
        known = [column for column in columns if column is not None]
        if not known or len(known) < len(columns):
            return None
        make = cast("Callable[[Iterable[object]], object]", getattr(value, "_make", tuple))  # a namedtuple stays one
        return [make(row) for row in zip(*known, strict=True)]
    return _rows(value, _collated_rows)


# ---- batches that a function of the user's own makes


def _own_inputs(batch: object) -> Rows | None:
    return _own_rows(batch[0] if _is_of_columns(batch) else batch)


def _own_rows(value: object) -> Rows | None:
    return _rows(value, _own_rows)


def _sampled_inputs(batch: object) -> Rows:
    """Return the inputs of samples that were left as they are, e.g. pictures of different sizes."""
    return [input_of(sample) for sample in cast("Rows", batch)]


def input_of(sample: object) -> object:
    """Return what of a sample is the input: of a tuple, (input, target) for instance, the first element."""
    if not isinstance(sample, tuple):
        return sample
    parts = cast("tuple[object, ...]", sample)
    return parts[0] if parts else parts


def _is_of_samples(batch: object, loader: Loader) -> bool:
    """Return whether a loader's first batch is a list of samples: as many as belong to it, of one kind or without rows.

    Raises:
        SourceUnusable: it may as well be one of columns, e.g. inputs and targets.
    """
    if isinstance(batch, tuple) or not _is_of_columns(batch):
        return False
    of_kinds = len({(type(item), getattr(item, "dtype", None)) for item in batch}) > 1
    rows = _own_rows(batch[0])
    size, total = loader.batch_size, count_inputs(loader)
    expected = size if size is None or total is None else min(size, total)
    samples, columns = len(batch) == expected, rows is not None and len(rows) == expected
    if of_kinds and (columns or not samples):  # e.g. pictures and their numbers
        return False
    if samples == columns or (of_kinds and rows is not None):
        raise SourceUnusable(
            loader,
            f"its collate_fn returns a list, {batch!r:.80}, which may hold a batch's samples, or inputs and what "
            f"belongs to them; expected a tuple (inputs, ...) or the inputs alone as a tensor or mapping, or give an "
            f"iterable of the inputs: (sample for batch in loader for sample in batch)",
        )
    return samples


# ---- both


def _rows(value: object, of_column: Callable[[object], Rows | None]) -> Rows | None:
    """Return the rows of `value`; those of a mapping are mappings of the rows of its columns."""
    if isinstance(value, Mapping):
        mapping = cast("Mapping[object, object]", value)
        columns = [of_column(column) for column in mapping.values()]
        known = [column for column in columns if column is not None]
        if len({len(column) for column in known}) != 1 or len(known) < len(columns):
            return None
        return [dict(zip(mapping, row, strict=True)) for row in zip(*known, strict=True)]
    if _is_text(value) or getattr(value, "ndim", 1) == 0 or not isinstance(value, Iterable):
        return None
    return list(cast("Iterable[object]", value))


def _is_text(value: object) -> bool:
    return isinstance(value, (str, bytes))
