"""A forked child (a worker of a data loader) inherits a bus that is inert: it warns once and never waits."""

from __future__ import annotations

import os
import warnings

import pytest

from lineside.bus import Bus

from .support import Beat, Tick, numbers, run_script

FORKS = """
import asyncio, faulthandler, os, signal, sys, threading, warnings
from lineside.bus import Bus, BusForked
from lineside.schemas import Event

class Tick(Event, urgent=False):
    n: int

class Tock(Event):
    n: int

FORKS, THREADS = 300, 2
sys.setswitchinterval(1e-4)  # fork at more places
bus = Bus(window=512)
source = bus.source("run-1")
got = last = 0

def count(event):
    global got, last
    assert event.seq > last
    got, last = got + 1, event.seq

subscription = bus.subscribe(count, Event, name="plain")

@bus.on(Tick)
async def see(event):
    await asyncio.sleep(0)

stream = bus.stream(Tock)
reader = threading.Thread(target=lambda: [None for _ in stream], daemon=True)
reader.start()
stop = threading.Event()
published = [0] * THREADS

def publish(thread):
    while not stop.is_set():
        source.publish(Tock if published[thread] % 50 == 0 else Tick, n=published[thread])
        published[thread] += 1
        if published[thread] % 20 == 0:
            os.sched_yield()  # leave the children a processor

def child(index):
    signal.alarm(50)  # a child that hangs is killed, and that is seen
    faulthandler.dump_traceback_later(40)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for n in range(3):
            bus.publish(Tick, n=n)
            source.publish(Tock(n=n))
    assert [warning.category for warning in caught] == [RuntimeWarning], caught
    assert "inherited a bus by fork" in str(caught[0].message)
    assert bus.stats().refused == 6
    for attempt in (lambda: bus.subscribe(print), lambda: bus.stream(Tick)):
        try:
            attempt()
        except BusForked:
            pass
        else:
            raise AssertionError
    subscription.cancel()
    stream.close()
    bus.drain()
    if index % 10 == 0:
        own = []
        mine = Bus()
        mine.subscribe(own.append, Tick)
        mine.publish(Tick, n=1)
        report = mine.close(30)  # a machine may stand still for seconds
        assert len(own) == 1, report
    if index % 3 == 0:
        assert bus.close().complete
    if index % 5:
        os._exit(0)
    sys.exit()  # all that happens at exit happens

threads = [threading.Thread(target=publish, args=(thread,), daemon=True) for thread in range(THREADS)]
for thread in threads:
    thread.start()
for index in range(FORKS):
    if (pid := os.fork()) == 0:
        child(index)
    _, status = os.waitpid(pid, 0)
    assert status == 0, (index, status)
stop.set()
for thread in threads:
    thread.join()
bus.drain()
bus.drain()
stats = subscription.stats
assert stats.delivered == got
assert stats.failed == 0
assert stats.delivered + stats.missed == bus.position, (stats, bus.position)
assert bus.position >= sum(published)
bus.close()
reader.join()
print(FORKS, "forks,", sum(published), "events")
"""


@pytest.mark.slow
def test_three_hundred_forks_under_load_neither_hang_nor_disturb_the_parent() -> None:
    done = run_script(FORKS, timeout=110, env={"PYTHONWARNINGS": "default"})
    assert done.stdout.startswith("300 forks")


def test_a_fork_waits_until_the_first_event_of_a_class_is_validated() -> None:
    """What pydantic makes ready on the way would never be ready in the child."""
    done = run_script(
        """
        import os, threading

        forking, forked, validating = threading.Event(), threading.Event(), threading.Event()
        found = []

        from pydantic import field_validator
        from lineside.bus import Bus
        from lineside.schemas import Event

        os.register_at_fork(before=forking.set, after_in_parent=forked.set)

        class Tick(Event):
            n: int

            @field_validator("n")
            @classmethod
            def take_long(cls, n):
                validating.set()
                assert forking.wait(30)
                found.append(forked.wait(0.2))
                return n

        with Bus() as bus:
            bus.subscribe(lambda event: None, Tick)
            bus.publish(Tick, n=1)
            assert validating.wait(30)
            if (pid := os.fork()) == 0:
                os._exit(0)
            os.waitpid(pid, 0)
        print(found)
        """
    )
    assert done.stdout == "[False]\n"


def test_a_child_warns_once_and_ignores_what_it_publishes(bus: Bus) -> None:
    got: list[Beat] = []
    bus.subscribe(got.append, Tick)
    pid = os.fork()
    if pid == 0:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for n in range(3):
                bus.publish(Tick, n=n)
        os._exit(len(caught))
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 1
    bus.publish(Tick, n=9)
    bus.drain()
    assert numbers(got) == [9]


def test_reading_an_inherited_stream_is_refused_at_once() -> None:
    done = run_script(
        """
        import asyncio, os
        from lineside.bus import Bus, BusForked
        from lineside.schemas import Event

        bus = Bus()
        stream = bus.stream(Event)
        if os.fork() == 0:
            for read in (lambda: next(stream), lambda: asyncio.run(anext(stream))):
                try:
                    read()
                except BusForked as refusal:
                    print(refusal, flush=True)
            os._exit(0)
        os.wait()
        bus.close()
        """
    )
    assert done.stdout.count("belongs to the parent process") == 2
