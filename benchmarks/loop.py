"""What ten subscribers take from a training loop: steps a second with them, against the bare loop.

    python benchmarks/loop.py [--quick] [--json FILE] [--milliseconds 1 10 100] [--threads 1]

A small network is trained by torch on the CPU, sized so that a bare step takes about 1, 10 and 100 ms here. Every step
publishes the five events that the trainer publishes, to the ten subscribers that `ten.py` describes. Slices of the bare
loop and of the contender alternate (bare, contender, bare, contender …), every slice starts when all that went before
is delivered, and the ratio is that of neighbouring slices. `catch-up` is how long after a slice the last subscriber was
done, and `refused` counts the events that a bus did not take.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from threading import Thread
from typing import Any, Protocol

import torch
from bubus import BaseEvent, EventBus
from harness import Report, Spread, Table, arguments, interleave, paired
from pyee.asyncio import AsyncIOEventEmitter
from ten import STEP_EVENTS, Member, Ten

from lineside import Bus
from lineside.schemas import BeforeZeroGrad, Event, OptimizerStep, ParamsUpdate, TrainBatchEnd, TrainBatchStart

Publish = Callable[..., object]
PAIRS = 12
"""Pairs of slices, bare and contender, a round."""


# ---------------------------------------------------------------------------------------------------- the training loop


class Training:
    """A multilayer perceptron trained on noise: some fifty small operations a step, whatever the batch size."""

    def __init__(self, batch_size: int, width: int = 128, layers: int = 3) -> None:
        torch.manual_seed(0)
        hidden = [module for _ in range(layers) for module in (torch.nn.Linear(width, width), torch.nn.ReLU())]
        self.model = torch.nn.Sequential(*hidden, torch.nn.Linear(width, 10))
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=1e-4, momentum=0.9)
        self.inputs = torch.randn(batch_size, width)
        self.targets = torch.randint(10, (batch_size,))
        self.batch_size = batch_size
        self.number = 0

    def step(self, publish: Publish | None) -> None:
        """Train on one batch, publishing what the trainer would publish, if at all."""
        self.number += 1
        batch = {"epoch": 0, "batch": self.number, "batches": None, "batch_size": self.batch_size}
        if publish:
            publish(TrainBatchStart, **batch)
        loss = torch.nn.functional.cross_entropy(self.model(self.inputs), self.targets)
        loss.backward()
        if publish:
            lr = {"group_0": self.optimizer.param_groups[0]["lr"]}
            publish(OptimizerStep, **batch, step=self.number, lr=lr)
        self.optimizer.step()
        if publish:
            publish(ParamsUpdate, **batch, step=self.number, ema=False)
            publish(BeforeZeroGrad, **batch, step=self.number)
        self.optimizer.zero_grad()
        value = loss.item()
        if publish:
            publish(TrainBatchEnd, **batch, step=self.number, loss=value, losses={"loss": value}, lr=lr)

    def run(self, steps: int, publish: Publish | None) -> float:
        """Return the steps a second."""
        start = time.perf_counter()
        for _ in range(steps):
            self.step(publish)
        return steps / (time.perf_counter() - start)


def sized(seconds: float) -> Training:
    """Return a training whose bare step takes about `seconds` on this machine."""
    batch_size = 16
    for _ in range(6):
        training = Training(batch_size)
        training.run(5, None)
        took = 1 / training.run(max(5, int(0.2 / seconds)), None)
        if abs(took / seconds - 1) < 0.1:
            break
        fixed = 0.4e-3  # what the operations cost with an empty batch
        batch_size = max(1, int(batch_size * max(seconds - fixed, 1e-4) / max(took - fixed, 1e-4)))
    return training


# -------------------------------------------------------------------------------------------------------- contenders


class Contender(Protocol):
    """Serves the ten subscribers."""

    publish: Publish
    refused: int

    def settle(self) -> None:
        """Wait until all that was published has been handled."""


class LoopThread:
    """An event loop in a thread of its own, where the peers live while the main thread trains."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = Thread(target=self.loop.run_forever)
        self._thread.start()

    def call(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result()

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


@dataclass
class Lineside:
    bus: Bus
    publish: Publish
    refused: int = 0

    def settle(self) -> None:
        self.bus.drain(timeout=60)


@contextmanager
def lineside(latency: float | None = None) -> Iterator[Lineside]:
    """Our bus, each of the ten in its lane."""
    ten = Ten()
    journal = ten.folder / "runs"
    with Bus(journal) if latency is None else Bus(journal, latency=latency) as bus:
        asyncio.run_coroutine_threadsafe(ten.open(), bus.loop).result()
        for member in ten.members:
            if member.lane == "journal":
                continue  # the bus is it
            if member.lane == "stream":
                asyncio.run_coroutine_threadsafe(_begin(_read(bus, member)), bus.loop).result()
            else:
                bus.subscribe(member.callback, *member.types, name=member.name, lane=member.lane, every=member.every)
        yield Lineside(bus, bus.source("benchmark").publish)
        bus.drain(timeout=60)
        asyncio.run_coroutine_threadsafe(ten.aclose(), bus.loop).result()
    ten.close()


_readers: set[asyncio.Task[None]] = set()


async def _begin(reading: Any) -> None:
    task = asyncio.get_running_loop().create_task(reading)
    _readers.add(task)
    task.add_done_callback(_readers.discard)


async def _read(bus: Bus, member: Member) -> None:
    with bus.stream(*member.types) as stream:
        async for event in stream:
            member.inline(event)


@dataclass
class Inline:
    """The original's way: the loop calls a list of functions, one after the other."""

    callbacks: dict[type[Event], list[Callable[[Any], None]]] = field(default_factory=lambda: defaultdict(list))
    refused: int = 0

    def publish(self, cls: type[Event], **fields: Any) -> None:
        event = cls(**fields)
        for callback in self.callbacks[cls]:
            callback(event)

    def settle(self) -> None:
        """Nothing is ever late."""


@contextmanager
def inline() -> Iterator[Inline]:
    ten, contender = Ten(), Inline()
    for member in ten.members:
        for cls in member.types:
            contender.callbacks[cls].append(_every(member.inline, member.every))
    yield contender
    ten.close()


def _every(callback: Callable[[Any], Any], number: int) -> Callable[[Any], Any]:
    """Return `callback`, called with every `number`-th event only, under a name of its own."""
    if number == 1:
        return callback
    turn = count()

    def sampled(event: Event) -> Any:
        return callback(event) if next(turn) % number == 0 else None

    return sampled


@dataclass
class Pyee:
    thread: LoopThread
    emitter: AsyncIOEventEmitter
    refused: int = 0

    def publish(self, cls: type[Event], **fields: Any) -> None:
        self.thread.loop.call_soon_threadsafe(self.emitter.emit, cls.__name__, cls(**fields))

    def settle(self) -> None:
        self.thread.call(self._idle())

    async def _idle(self) -> None:
        await self.emitter.wait_for_complete()


@contextmanager
def pyee() -> Iterator[Pyee]:
    """pyee on a loop of its own: async callbacks become tasks, plain ones run where `emit` runs, on the loop."""
    ten, thread = Ten(), LoopThread()
    emitter = AsyncIOEventEmitter(loop=thread.loop)
    thread.call(ten.open())
    for member in ten.members:
        for cls in member.types:
            emitter.on(cls.__name__, _every(member.callback, member.every))
    contender = Pyee(thread, emitter)
    yield contender
    contender.settle()
    thread.call(ten.aclose())
    thread.close()
    ten.close()


class Envelope(BaseEvent[None]):
    """What bubus demands around a payload."""

    payload: Event


ENVELOPES = {cls: type(cls.__name__, (Envelope,), {"__module__": __name__}) for cls in STEP_EVENTS}


@dataclass
class Bubus:
    thread: LoopThread
    bus: EventBus
    refused: int = 0

    def publish(self, cls: type[Event], **fields: Any) -> None:
        self.thread.loop.call_soon_threadsafe(self._dispatch, cls(**fields))

    def _dispatch(self, event: Event) -> None:
        try:
            self.bus.dispatch(ENVELOPES[type(event)](payload=event))
        except RuntimeError:
            self.refused += 1

    def settle(self) -> None:
        self.thread.call(self.bus.wait_until_idle(timeout=60))


@contextmanager
def bubus() -> Iterator[Bubus]:
    """bubus on a loop of its own; it refuses events when more than 100 are on their way."""
    logging.getLogger("bubus").setLevel(logging.CRITICAL)
    ten, thread = Ten(), LoopThread()
    thread.call(ten.open())
    bus = EventBus()
    for member in ten.members:
        for cls in member.types:
            bus.on(ENVELOPES[cls], _unwrapped(member))
    contender = Bubus(thread, bus)
    yield contender
    thread.call(bus.stop(timeout=60, clear=True))
    thread.call(ten.aclose())
    thread.close()
    ten.close()


def _unwrapped(member: Member) -> Callable[[Any], Any]:
    callback = _every(member.callback, member.every)
    if inspect.iscoroutinefunction(callback):

        async def handler(envelope: Envelope) -> None:
            await callback(envelope.payload)
    else:

        def handler(envelope: Envelope) -> None:  # type: ignore[misc]
            callback(envelope.payload)

    handler.__name__ = member.name.replace(" ", "_")
    return handler


CONTENDERS: dict[str, Callable[[], AbstractContextManager[Contender]]] = {
    "lineside, latency 50 ms": lineside,
    "inline, the original's way": inline,
    "pyee": pyee,
    "bubus": bubus,
    "lineside, latency 1 ms": partial(lineside, 0.001),
    "lineside, latency 5 ms": partial(lineside, 0.005),
    "lineside, latency 20 ms": partial(lineside, 0.020),
}


# ------------------------------------------------------------------------------------------------------------ measuring


@dataclass(frozen=True)
class Pairs:
    """One round of one contender: steps a second of neighbouring slices, and what it owed afterwards."""

    bare: list[float]
    with_it: list[float]
    catch_up: list[float]
    refused: int


def measure(
    training: Training, open_contender: Callable[[], AbstractContextManager[Contender]], steps: int, pairs: int
) -> Pairs:
    bare, with_it, catch_up = [], [], []
    training.run(max(2, steps // 10), None)
    with open_contender() as contender:
        training.run(max(2, steps // 10), contender.publish)  # start its threads and processes
        contender.settle()
        for _ in range(pairs):
            bare.append(training.run(steps, None))
            with_it.append(training.run(steps, contender.publish))
            start = time.perf_counter()
            contender.settle()
            catch_up.append(time.perf_counter() - start)
        return Pairs(bare, with_it, catch_up, contender.refused)


def compare(milliseconds: float, rounds: int, *, quick: bool) -> Table:
    training = Training(16) if quick else sized(milliseconds / 1e3)
    steps = 10 if quick else max(10, int(300 / milliseconds))
    chosen = dict(list(CONTENDERS.items())[:4]) if quick else CONTENDERS
    runs = {name: partial(measure, training, setup, steps, 1 if quick else PAIRS) for name, setup in chosen.items()}
    return table(milliseconds, training, interleave(runs, rounds))


def table(milliseconds: float, training: Training, results: dict[str, list[Pairs]]) -> Table:
    bare = [rate for rounds in results.values() for pairs in rounds for rate in pairs.bare]
    took = 1e3 / Spread.of(bare).median
    title = f"steps of {milliseconds:g} ms (bare: {took:.2f} ms); median (min..max) of all pairs"
    columns = {
        "contender": "{}",
        "steps/s": "{:,.0f}",
        "ratio to bare": "{:.3f}",
        "catch-up s": "{:.2f}",
        "refused": "{:,}",
    }
    shown = Table(title, columns)
    shown.add("bare", Spread.of(bare), 1.0, None, None)
    for name, rounds in results.items():
        with_it = [rate for pairs in rounds for rate in pairs.with_it]
        beside = [rate for pairs in rounds for rate in pairs.bare]
        late = Spread.of([seconds for pairs in rounds for seconds in pairs.catch_up])
        shown.add(name, Spread.of(with_it), paired(with_it, beside), late, sum(pairs.refused for pairs in rounds))
    return shown


def main() -> None:
    options = arguments(
        "steps a second of a training loop with ten subscribers",
        milliseconds={"type": float, "nargs": "+", "default": [1, 10, 100], "help": "length of a bare step"},
        threads={"type": int, "default": 1, "help": "torch threads"},
    )
    torch.set_num_threads(options.threads)
    report = Report("loop", options)
    for milliseconds in [1.0] if options.quick else options.milliseconds:
        report.show(compare(milliseconds, options.rounds or (1 if options.quick else 3), quick=options.quick))
    report.finish()


if __name__ == "__main__":
    main()
