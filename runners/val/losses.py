"""`MeanLosses`: the losses of many batches by name, and their mean."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ..errors import InvalidObjective
from ..objective import Loss
from ..scalars import Scalars, Snapshot, Sums


class MeanLosses:
    """Counts the losses of batches; their mean, weighted by batch size, stays on the device until it is read.

    The first batch says which parts there are, and in which order they are reported.

    Args:
        scalars: The way of the values to the host.
        total: Whether a batch is reported with its total, besides the parts.
    """

    def __init__(self, scalars: Scalars, *, total: bool = False) -> None:
        self._scalars = scalars
        self._sums = Sums(scalars)
        self._total = total
        self.names: tuple[str, ...] = ()
        """The parts, then what is only reported."""
        self.reported: tuple[str, ...] = ()
        """Those that are only reported."""

    def count(self, loss: Loss, size: int) -> Snapshot:
        """Count the loss of a batch of `size` samples; return it on its way.

        Raises:
            InvalidObjective: it has other parts than those before.
        """
        self._settle(loss)
        values, parts = loss.values, len(self.names) - len(self.reported)
        fields = _LossFields(self.names, parts if self._total else None)
        snapshot = self._scalars.take([values[name] for name in self.names], fields)
        self._sums.add(snapshot, size)
        return snapshot

    def _settle(self, loss: Loss) -> None:
        names = loss.names
        if not self.names:
            self.names, self.reported = names, tuple(loss.reported)
        elif names != self.names and sorted(names) != sorted(self.names):
            raise InvalidObjective(
                f"the loss has the parts {', '.join(names)} in this batch, and had {', '.join(self.names)} "
                f"in those before, so that they have no mean",
                "return the same parts for every batch, zero where one has no part in it",
            )

    def sums(self) -> list[float]:
        """Wait for the sums, weighted by batch size, in the order of `names`."""
        return self._sums.read()

    def restore(self, names: Sequence[str], reported: Sequence[str], sums: Sequence[float], weight: float) -> None:
        """Go on from `sums` that were saved."""
        self.names, self.reported = tuple(names), tuple(reported)
        self._sums.restore(sums, weight)

    def means(self, add_up: Callable[[Sequence[float]], list[float]] = list) -> dict[str, float]:
        """Wait for the means by name; of all processes together, where `add_up` adds up over them."""
        sums = dict(zip(self.names, self.sums(), strict=True))
        ordered = sorted(sums)  # the first batch of another process may have had them in another order
        *totals, weight = add_up([*(sums[name] for name in ordered), self._sums.weight])
        means = {name: total / weight for name, total in zip(ordered, totals, strict=True)}
        return {name: means[name] for name in self.names}


@dataclass(frozen=True, slots=True)
class _LossFields:
    """Makes the fields of a batch's event of the values of its loss."""

    names: tuple[str, ...]
    parts: int | None
    """How many of them, from the first on, make the total; None: it is not wanted."""

    def __call__(self, values: Sequence[float]) -> Mapping[str, object]:
        losses = dict(zip(self.names, values, strict=True))
        return {"losses": losses} if self.parts is None else {"loss": sum(values[: self.parts]), "losses": losses}
