"""Counting the inputs and batches of a prediction, and timing its parts."""

from __future__ import annotations

from time import perf_counter

_PARTS = ("preprocess", "inference", "postprocess")


class Watch:
    """The time that parts of a prediction take, on the host: what a GPU has queued counts where it is waited for."""

    def __init__(self, inputs: int) -> None:
        self.inputs = inputs
        self.seconds: dict[str, float] = dict.fromkeys(_PARTS, 0.0)

    def add(self, part: str, began: float) -> None:
        """Add to the time of `part` what has passed since `began`, a reading of `time.perf_counter`."""
        self.seconds[part] += perf_counter() - began

    def speed(self) -> dict[str, float]:
        """Return the milliseconds an input took, by part; empty without inputs."""
        return {name: 1e3 * seconds / self.inputs for name, seconds in self.seconds.items()} if self.inputs else {}


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
        self._watch.inputs += watch.inputs
        for name, seconds in watch.seconds.items():
            self._watch.seconds[name] += seconds

    def mean_speed(self) -> dict[str, float]:
        """Return the mean milliseconds an input took, by part; empty without inputs."""
        return self._watch.speed()

    def elapsed(self) -> float:
        """Return the seconds since the first batch could begin."""
        return perf_counter() - self._began
