"""Publishing from signal handlers and finalizers, which interrupt a thread anywhere."""

from __future__ import annotations

import gc

from lineside.bus import Bus

from .support import Beat, Tick, numbers, run_script

SIGNALS = """
import itertools, signal
from lineside.bus import Bus
from lineside.schemas import Event

class Tick(Event, urgent=False):
    n: int

class Alarm(Event):
    n: int

ALARMS = 2000
got = []
alarms = itertools.count()
rung = 0

def interrupt(number, frame):  # which may itself be interrupted
    global rung
    n = next(alarms)
    bus.publish(Alarm if n % 3 else Tick, n=-n)
    bus.stats()
    rung += 1
    if n == ALARMS:
        signal.setitimer(signal.ITIMER_REAL, 0)

published = 0
with Bus(window=1024) as bus:
    subscription = bus.subscribe(got.append, Event)
    signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
    with bus.stream(Alarm) as stream:
        while rung < ALARMS:  # every kind of thing that the interrupted thread may be in the middle of
            for _ in range(20):
                published += 1
                bus.publish(Tick, n=published)
            next(stream)
            with bus.subscribe(len, Tick, where=lambda event: False):
                bus.drain()
    signal.setitimer(signal.ITIMER_REAL, 0)
    bus.drain()
    bus.drain()
    stats = subscription.stats
    assert stats.delivered == len(got), stats
    assert stats.delivered + stats.missed == bus.position, (stats, bus.position)
    assert bus.position >= published + rung, (bus.position, published, rung)
    own = [event.n for event in got if isinstance(event, Tick) and event.n > 0]
    assert own == sorted(own)
    interrupting = [event.n for event in got if event.type == "Alarm"]
    assert len(interrupting) == len(set(interrupting))
print("no signal was too much")
"""


def test_publishing_from_a_signal_handler_at_two_kilohertz_neither_hangs_nor_mixes_the_order() -> None:
    assert run_script(SIGNALS, timeout=110).stdout == "no signal was too much\n"


class Witness:
    """Publishes when it is collected."""

    def __init__(self, bus: Bus, n: int) -> None:
        self._bus, self._n = bus, n
        self.myself = self  # only the garbage collector ends it

    def __del__(self) -> None:
        self._bus.publish(Tick, n=self._n)


def test_publishing_from_finalizers_that_run_anywhere_loses_nothing() -> None:
    got: list[Beat] = []
    threshold = gc.get_threshold()
    with Bus() as bus:
        bus.subscribe(got.append, Tick)
        bus.subscribe(lambda event: Witness(bus, 1000 + event.n), Tick, where=lambda event: event.n < 1000)
        try:
            gc.set_threshold(5)  # collect all the time: inside the bus, and in all its threads
            for n in range(500):
                Witness(bus, n)
            bus.drain()
        finally:
            gc.set_threshold(*threshold)
        gc.collect()
        bus.drain()
        gc.collect()
        bus.drain()
    assert sorted(numbers(got)) == [*range(500), *range(1000, 1500)]


def test_finalizers_at_interpreter_exit_publish_into_a_closed_bus() -> None:
    done = run_script(
        """
        from lineside.bus import Bus
        from lineside.schemas import Event

        class Tick(Event):
            n: int

        class Witness:
            def __init__(self, bus):
                self.bus, self.source, self.event = bus, bus.source("r"), Tick(n=1)

            def __del__(self):
                self.bus.publish(self.event)
                self.source.publish(type(self.event), n=2)
                self.bus.close()
                print(self.bus.stats().refused)

        bus = Bus()
        bus.subscribe(print, Tick)
        witness = Witness(bus)
        """
    )
    assert (done.stdout, done.stderr) == ("2\n", "")
