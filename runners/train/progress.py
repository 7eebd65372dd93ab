"""`Progress`: how far a training run has come."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from ..val.metrics import better


@dataclass
class Progress:
    """Where a training run stands, at any batch. Plain numbers, so that a checkpoint can hold it."""

    epoch: int = 0
    """The epoch in work, from 0; between two epochs the next one. So also: epochs completed."""
    at_hand: int = 0
    """The epoch whose stages are being reached: the last one until the next is opened."""
    batch: int = 0
    """Batches of the epoch in work that are done."""
    step: int = 0
    """Optimizer steps completed."""
    samples: int = 0
    """Samples of the epoch in work that were trained on."""
    trained: bool = False
    """Whether the epoch in work has no more batches to come: it is to be validated."""
    loss_names: list[str] = field(default_factory=list[str])
    loss_sums: list[float] = field(default_factory=list[float])
    """Losses of the epoch in work, weighted by batch size and added up: filled in for a checkpoint."""

    losses: dict[str, float] = field(default_factory=dict[str, float])
    """Mean losses of the last epoch, and what was only reported beside them."""
    reported: list[str] = field(default_factory=list[str])
    """Names of what was only reported."""
    metrics: dict[str, float] = field(default_factory=dict[str, float])
    """Metrics and losses of the last validation."""
    fitness: float | None = None
    """Fitness of the last validation."""

    best_fitness: float | None = None
    best_epoch: int | None = None
    best_losses: dict[str, float] = field(default_factory=dict[str, float])
    """Training losses of the best epoch."""
    stale: int = 0
    """Validations since the best one."""

    def validated(self, fitness: float | None) -> bool:
        """Note the fitness of the epoch in work; return whether it is the best."""
        improved = better(fitness, self.best_fitness)
        if improved:
            self.best_fitness, self.best_epoch, self.best_losses = fitness, self.epoch, dict(self.losses)
            self.stale = 0
        elif self.trained:  # else there is another validation to come, of the whole epoch
            self.stale += 1
        return improved

    @property
    def loss(self) -> float:
        """Mean loss of the last epoch: the sum of its parts."""
        return sum(value for name, value in self.losses.items() if name not in self.reported)

    def count(self, batch: int, samples: int) -> None:
        """A batch of the epoch in work is done."""
        self.batch = batch + 1
        self.samples += samples

    def next_epoch(self) -> None:
        """The epoch in work is done."""
        self.epoch += 1
        self.batch = self.samples = 0
        self.trained = False
        self.loss_names, self.loss_sums = [], []

    @property
    def position(self) -> tuple[int, int]:
        """Epoch and batch."""
        return self.epoch, self.batch

    def state(self) -> dict[str, Any]:
        """Return everything as plain data."""
        return asdict(self)

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Return the progress that `state` returned."""
        return cls(**state)
