"""Fields that are still on their way, such as a device scalar: the event waits for them in its place."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import pytest

from lineside.bus import Bus
from lineside.schemas import EventsMissed, NotAnEvent

from .support import PATIENCE, Beat, Tick, Tock, numbers


class Late:
    """Fields that come when the test says so."""

    def __init__(self, **fields: object) -> None:
        self.asked = threading.Event()
        self.results = 0
        self._fields = fields
        self._ready = False

    def come(self) -> None:
        self._ready = True

    def ready(self) -> bool:
        self.asked.set()
        return self._ready

    def result(self) -> Mapping[str, object]:
        self.results += 1
        return self._fields


def test_a_late_event_keeps_its_place(bus: Bus) -> None:
    got: list[Beat] = []
    bus.subscribe(got.append, Beat)
    late = Late(n=2)
    source = bus.source("r")
    source.publish(Tick, n=1)
    source.publish_when(late, Tick)
    source.publish(Tock, n=3)
    assert late.asked.wait(PATIENCE)
    assert not {2, 3} & set(numbers(list(got)))
    late.come()
    bus.drain()
    assert numbers(got) == [1, 2, 3]
    assert late.results == 1


def test_late_fields_join_those_that_were_known(bus: Bus) -> None:
    got: list[Beat] = []
    bus.subscribe(got.append, Tick)
    late = Late(elapsed=7.0)
    late.come()
    bus.source("").publish_when(late, Tick, n=4)
    bus.drain()
    assert numbers(got) == [4]


def test_a_drain_waits_for_late_fields(bus: Bus) -> None:
    got: list[Beat] = []
    bus.subscribe(got.append, Tick)
    late = [Late(n=n) for n in range(20)]
    for fields in late:
        bus.source("r").publish_when(fields, Tick)

    def come() -> None:
        for fields in reversed(late):
            fields.come()

    thread = threading.Thread(target=come)
    thread.start()
    bus.drain()
    thread.join()
    assert numbers(got) == list(range(20))


@pytest.mark.parametrize("error", [RuntimeError("the copy failed"), SystemExit()])
@pytest.mark.parametrize("where", ["ready", "result"])
def test_late_fields_that_fail_cost_their_event_only(bus: Bus, where: str, error: BaseException) -> None:
    got: list[Beat] = []
    missed: list[EventsMissed] = []
    bus.subscribe(got.append, Tick)
    bus.subscribe(missed.append, EventsMissed)
    late = Late(n=1)
    late.come()

    def fail() -> Mapping[str, object]:
        raise error

    setattr(late, where, fail)
    bus.source("r").publish_when(late, Tick)
    bus.publish(Tick, n=2)
    for _ in range(2):
        bus.drain(PATIENCE)
    assert numbers(got) == [2]
    assert [(gap.first, gap.reason) for gap in missed] == [(1, "invalid")]


def test_late_fields_are_asked_for_once_even_if_the_event_has_to_wait_for_room() -> None:
    got: list[Beat] = []
    late = [Late(n=n) for n in range(50)]
    with Bus() as bus:
        bus.subscribe(got.append, Tick, overflow="wait", backlog=1)
        source = bus.source("r")
        for fields in late:
            fields.come()
            source.publish_when(fields, Tick)
    assert numbers(got) == list(range(50))
    assert {fields.results for fields in late} == {1}


def test_late_fields_that_never_come_do_not_hold_up_the_close() -> None:
    got: list[Beat] = []
    bus = Bus()
    bus.subscribe(got.append, Tick)
    with bus.stream(Tick) as stream:
        bus.publish(Tick, n=1)
        bus.source("r").publish_when(Late(n=2), Tick)
        bus.publish(Tick, n=3)
        bus.close(timeout=3)
        assert numbers(stream) == [1, 3]
    assert numbers(got) == [1, 3]
    assert bus.stats().invalid == 1
    bus.publish(Tick, n=4)
    assert bus.stats().refused >= 1


def test_nothing_polls_for_late_fields_while_nobody_waits_for_them() -> None:
    late = Late(n=1)
    asked = 0

    def ready() -> bool:
        nonlocal asked
        asked += 1
        late.asked.set()
        return False

    setattr(late, "ready", ready)  # noqa: B010  # pyright and mypy: a method
    with Bus(latency=1000) as bus, bus.stream(Tick):
        bus.drain()
        bus.source("r").publish_when(late, Tock)
        assert late.asked.wait(PATIENCE)
        bus.close(timeout=0.05)
        assert asked < 100


def test_nobody_waits_for_a_value_that_stays_late(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lineside.bus.inbox.GIVE_WAY_SECONDS", 1000.0)  # who waits is found out by the test's timeout
    with Bus(window=16) as bus:
        late = Late(n=0)
        bus.source("run").publish_when(late, Tick)
        assert late.asked.wait(PATIENCE)
        for n in range(1, 400):
            bus.publish(Tick, n=n)
        late.come()


@pytest.mark.parametrize("what", [42, Tick(n=1), "Tick", int])
def test_only_an_event_class_can_be_completed_later(bus: Bus, what: Any) -> None:
    with pytest.raises(NotAnEvent, match="expected an event class"):
        bus.source("run").publish_when(Late(), what)
    assert bus.stats().published == 0
