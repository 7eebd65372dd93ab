"""The example inputs of an export, and the same inputs in other batch sizes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from .errors import ExampleUnusable


@dataclass(frozen=True)
class Example:
    """The positional inputs a module is captured with.

    The batch is the first dimension of the first input; every other input whose first dimension has that
    length is batched too, and the rest (a scale, a lookup table) stay as they are in every batch size.
    """

    inputs: tuple[Tensor, ...]

    @classmethod
    def of(cls, inputs: Tensor | Sequence[Tensor]) -> Example:
        """Return the example that `inputs`, one tensor or several, make.

        Raises:
            ExampleUnusable: there are none, or one is no tensor.
        """
        several = isinstance(cast("object", inputs), Iterable) and not isinstance(inputs, Tensor)
        given = cast("tuple[object, ...]", tuple(inputs) if several else (inputs,))
        found = tuple(value.detach() for value in given if isinstance(value, Tensor))
        if not given or len(found) != len(given):
            kinds = ", ".join(type(value).__qualname__ for value in given) or "nothing"
            raise ExampleUnusable(f"expected one tensor or a sequence of tensors, got {kinds}")
        return cls(found)

    @property
    def batch_size(self) -> int:
        """Length of the batch dimension.

        Raises:
            ExampleUnusable: the first input has no dimension, or none of its rows.
        """
        first = self.inputs[0]
        if first.dim() == 0 or first.shape[0] == 0:
            raise ExampleUnusable(
                f"a dynamic batch needs a first input of shape (batch, ...) with at least one row, "
                f"got {tuple(first.shape)}; give such an example or export with dynamic_batch=False"
            )
        return first.shape[0]

    def batched(self, value: Tensor) -> bool:
        """Return whether the first dimension of `value` is the batch."""
        return value.dim() > 0 and value.shape[0] == self.batch_size

    def resized(self, size: int) -> Example:
        """Return the example with `size` rows, the given ones in turn."""
        if size == self.batch_size:
            return self
        rows = torch.arange(size) % self.batch_size
        return Example(tuple(value[rows.to(value.device)] if self.batched(value) else value for value in self.inputs))

    def to(self, device: torch.device | str) -> Example:
        """Return the example on `device`."""
        return Example(tuple(value.to(device) for value in self.inputs))
