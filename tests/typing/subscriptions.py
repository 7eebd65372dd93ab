"""What type checkers know of subscriptions, streams and publishing. Nothing here is run; `make types` checks it.

Each ``type: ignore`` is an error that must be found: mypy and pyright complain of those that are not needed.
"""
# pyright: reportUnnecessaryTypeIgnoreComment=true, reportUnusedFunction=false

from __future__ import annotations

from collections.abc import Mapping
from typing import assert_type

import pandas as pd
import polars as pl

from lineside.bus import Bus, Lane, Overflow, Source, Stream, Subscription
from lineside.bus.notebook import Recorded, Shown
from lineside.bus.notebook.plot import RunFigure
from lineside.schemas import BatchEnd, Event, FitEpochEnd, TrainBatchEnd, ValEnd


def decorated_callbacks_take_the_events_of_their_subscription(bus: Bus) -> None:
    @bus.on(TrainBatchEnd)
    def plain(event: TrainBatchEnd) -> int:
        return assert_type(event.batch, int)

    @bus.on(TrainBatchEnd)
    async def asynchronous(event: TrainBatchEnd) -> None: ...

    @bus.on(TrainBatchEnd, ValEnd)
    def of_two(event: TrainBatchEnd | ValEnd) -> None: ...

    @bus.on(TrainBatchEnd, ValEnd, FitEpochEnd)
    def of_three(event: TrainBatchEnd | ValEnd | FitEpochEnd) -> None: ...

    @bus.on(BatchEnd)
    def of_a_family(event: BatchEnd) -> int:
        return event.batch

    @bus.on(TrainBatchEnd)
    def of_more_than_it_needs(event: Event) -> None: ...

    @bus.on("on_train_batch_end")
    def by_name(event: TrainBatchEnd) -> None: ...

    @bus.on()
    def of_everything(event: Event) -> None: ...


def a_decorated_callback_keeps_its_result(bus: Bus, event: TrainBatchEnd) -> None:
    @bus.on(TrainBatchEnd)
    def plain(event: TrainBatchEnd) -> str:
        return event.type

    assert_type(plain(event), str)


def a_loop_of_ones_own_can_be_looked_back_at(bus: Bus, other: Recorded) -> None:
    run = bus.run("x")
    assert_type(run.frame(TrainBatchEnd), pd.DataFrame)
    assert_type(run.frame("on_fit_epoch_end", library="polars"), pl.DataFrame)
    assert_type(run.plot("loss", against=[other, run]), RunFigure)
    shown: Shown = run
    assert_type(shown.id, str)
    with run:
        run.frame(TrainBatchEnd, library="arrow")  # type: ignore[call-overload]


def callbacks_for_other_events_are_errors(bus: Bus) -> None:
    @bus.on(TrainBatchEnd)  # type: ignore[arg-type]
    def of_another(event: ValEnd) -> None: ...

    @bus.on(TrainBatchEnd, ValEnd)  # type: ignore[arg-type]
    def of_one_of_two(event: ValEnd) -> None: ...

    @bus.on(BatchEnd)  # type: ignore[arg-type]
    def of_one_of_a_family(event: TrainBatchEnd) -> None: ...

    @bus.on(TrainBatchEnd)  # type: ignore[arg-type]
    def of_none() -> None: ...

    @bus.on(TrainBatchEnd)  # type: ignore[arg-type]
    def of_two_arguments(event: TrainBatchEnd, more: int) -> None: ...


def subscribe_is_typed_like_the_decorator(bus: Bus) -> None:
    def plain(event: TrainBatchEnd) -> None: ...

    async def asynchronous(event: TrainBatchEnd | ValEnd) -> None: ...

    events: list[TrainBatchEnd] = []
    assert_type(bus.subscribe(plain, TrainBatchEnd), Subscription)
    bus.subscribe(asynchronous, TrainBatchEnd, ValEnd)
    bus.subscribe(events.append, TrainBatchEnd)
    bus.subscribe("package.module:function", TrainBatchEnd, lane="process")
    bus.subscribe(lambda event: print(event.losses), TrainBatchEnd)


def the_keywords_of_a_policy_are_checked(bus: Bus) -> None:
    bus.on(TrainBatchEnd, every=10, once=True, run="r", since="start", overflow="wait", backlog=10, timeout=1.5)
    bus.on(TrainBatchEnd, lane=Lane.THREAD, overflow=Overflow.LATEST, where=lambda event: event.loss > 1, since=7)
    bus.on(TrainBatchEnd, everry=10)  # type: ignore[call-overload]
    bus.on(TrainBatchEnd, lane="gpu")  # type: ignore[call-overload]
    bus.on(TrainBatchEnd, every="often")  # type: ignore[call-overload]


async def streams_give_the_events_they_are_of(bus: Bus) -> None:
    assert_type(bus.stream(TrainBatchEnd), Stream[TrainBatchEnd])
    async with bus.stream(TrainBatchEnd) as stream:
        async for event in stream:
            assert_type(event, TrainBatchEnd)
        for event in stream:
            assert_type(event, TrainBatchEnd)
    async for either in bus.stream(TrainBatchEnd, ValEnd):
        assert_type(either, TrainBatchEnd | ValEnd)
    async for member in bus.stream(BatchEnd):
        assert_type(member, BatchEnd)
    async for any_of_three in bus.stream(TrainBatchEnd, ValEnd, FitEpochEnd):
        assert_type(any_of_three, TrainBatchEnd | ValEnd | FitEpochEnd)
    async for anything in bus.stream("ValEnd"):
        assert_type(anything, Event)
    reads_anything(bus.stream(TrainBatchEnd))


def reads_anything(stream: Stream[Event]) -> None: ...


async def the_next_event_is_of_its_type(bus: Bus) -> None:
    assert_type(await bus.next(FitEpochEnd), FitEpochEnd)
    assert_type(await bus.next(FitEpochEnd, where=lambda event: event.final, timeout=1), FitEpochEnd)


class Fields:
    def ready(self) -> bool:
        return True

    def result(self) -> Mapping[str, object]:
        return {}


class NoFields:
    def ready(self) -> bool:
        return True


def what_is_published_is_an_event(bus: Bus, source: Source, event: ValEnd) -> None:
    bus.publish(event)
    bus.publish(TrainBatchEnd, epoch=1)
    source.publish(TrainBatchEnd, epoch=1)
    source.publish_when(Fields(), TrainBatchEnd, epoch=1)
    assert_type(source.stamp(event), ValEnd)
    bus.publish(42)  # type: ignore[arg-type]
    bus.publish("TrainBatchEnd")  # type: ignore[arg-type]
    source.publish(int)  # type: ignore[arg-type]
    source.publish_when(NoFields(), TrainBatchEnd)  # type: ignore[arg-type]
