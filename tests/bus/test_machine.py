"""The same rules under hypothesis, which chooses the moves; ``LINESIDE_EXAMPLES`` sets how often.

What it found is printed as it was played: threads do not fail twice alike, so there is no shorter one to be found.
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from lineside.schemas import Event

from .schedules import shaken
from .stage import BEHAVIOURS, Behaviour, Stage
from .support import KINDS, Beat, Kind, Tick, Tock

EXAMPLES = int(os.environ.get("LINESIDE_EXAMPLES", "150"))

CLASSES: st.SearchStrategy[type[Beat]] = st.sampled_from((Tick, Tock))
FAMILIES: st.SearchStrategy[type[Event]] = st.sampled_from((Tick, Tock, Beat))
FILTERS: st.SearchStrategy[dict[str, Any]] = st.sampled_from(
    ({}, {}, {"where": lambda event: event.n % 3 != 1}, {"every": 2}, {"once": True}, {"since": "start"})  # pyright: ignore[reportUnknownLambdaType, reportUnknownMemberType]
)
PACE: st.SearchStrategy[dict[str, Any]] = st.sampled_from(
    ({}, {"overflow": "drop"}, {"overflow": "latest"}, {"overflow": "wait"}, {"overflow": "wait", "backlog": 1})
)


class Traffic(RuleBasedStateMachine):
    """Everything that can be done to one bus."""

    def __init__(self) -> None:
        super().__init__()
        self._context = ExitStack()
        self._context.enter_context(shaken())

    @initialize(window=st.sampled_from((4, 16, 64)), latency=st.sampled_from((0.0, 0.001, 0.02)))
    def open(self, window: int, latency: float) -> None:
        self.stage = Stage(window=window, latency=latency, patience=20)

    @rule(cls=CLASSES, count=st.integers(1, 30), as_instance=st.booleans())
    def publish(self, cls: type[Beat], count: int, as_instance: bool) -> None:
        for _ in range(count):
            self.stage.publish(cls, as_instance=as_instance)

    @rule()
    def publish_misfit(self) -> None:
        self.stage.publish_misfit()

    @rule()
    def publish_late(self) -> None:
        self.stage.publish_late()

    @rule(threads=st.integers(1, 3), count=st.integers(1, 20))
    def storm(self, threads: int, count: int) -> None:
        self.stage.storm(threads, count)

    @rule(
        kind=st.sampled_from(KINDS),
        family=FAMILIES,
        behaviour=st.sampled_from(BEHAVIOURS),
        pace=PACE,
        filters=FILTERS,
        gated=st.booleans(),
    )
    def subscribe(
        self,
        kind: Kind,
        family: type[Event],
        behaviour: Behaviour,
        pace: dict[str, Any],
        filters: dict[str, Any],
        gated: bool,
    ) -> None:
        gated = gated and kind == "sync" and pace.get("overflow") != "wait"
        self.stage.subscribe(kind, family, behaviour, gated=gated, **pace, **filters)

    @rule(family=FAMILIES, pace=PACE, filters=FILTERS, asynchronous=st.booleans())
    def stream(self, family: type[Event], pace: dict[str, Any], filters: dict[str, Any], asynchronous: bool) -> None:
        self.stage.stream(family, asynchronous=asynchronous, **pace, **filters)

    @precondition(lambda self: bool(self.stage.readers))
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        self.stage.cancel(self.stage.readers[data.draw(st.integers(0, len(self.stage.readers) - 1))])

    @rule()
    def drain(self) -> None:
        self.stage.drain()

    def teardown(self) -> None:
        with self._context:
            if hasattr(self, "stage"):
                self.stage.finish()


TestTraffic = pytest.mark.slow(pytest.mark.timeout(1800)(Traffic.TestCase))
TestTraffic.settings = settings(
    max_examples=EXAMPLES,
    stateful_step_count=20,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    phases=[Phase.generate],
)
