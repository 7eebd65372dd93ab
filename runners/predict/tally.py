"""Counting the inputs and batches of a prediction, and timing its parts."""

from __future__ import annotations

from dataclasses import dataclass
from time import perf_counter


@dataclass(slots=True)
class Watch:
    """Seconds that the parts of a prediction take, on the host: what a GPU has queued counts where it is waited for."""

    inputs: int
    preprocess: float = 0.0
    inference: float = 0.0
    postprocess: float = 0.0

    def speed(self) -> dict[str, float]:
        """Return the milliseconds an input took, by part; empty without inputs."""
        if not self.inputs:
            return {}
        each = 1e3 / self.inputs
        return {
            "preprocess": each * self.preprocess,
            "inference": each * self.inference,
            "postprocess": each * self.postprocess,
        }


class Tally:
    """What a run has predicted until now."""

    def __init__(self) -> None:
        self._began = perf_counter()
        self._watch = Watch(0)
        self.batches = 0

    @property
    def inputs(self) -> int:
        """Inputs predicted."""
        return self._watch.inputs

    def count(self, watch: Watch) -> None:
        """Add a batch."""
        self.batches += 1
        whole = self._watch
        whole.inputs += watch.inputs
        whole.preprocess += watch.preprocess
        whole.inference += watch.inference
        whole.postprocess += watch.postprocess

    def mean_speed(self) -> dict[str, float]:
        """Return the mean milliseconds an input took, by part; empty without inputs."""
        return self._watch.speed()

    def elapsed(self) -> float:
        """Return the seconds since the first batch could begin."""
        return perf_counter() - self._began
