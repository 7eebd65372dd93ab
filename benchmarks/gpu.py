"""The promise "0 synchronisations added", on a machine with a CUDA device: waits, values, speed and memory.

    python benchmarks/gpu.py [--quick] [--json FILE] [--device cuda] [--milliseconds 1 10]

A small convolutional network is trained by plain torch and by the real `Trainer`, with clipping and in every precision,
from batches in pinned memory. The Trainer has four readers: an async one, one in a thread, a stream, and one that
computes in the process lane.

* waits: torch's sync debug mode is on from before the first batch of every epoch until after the last. First it counts
  (``"warn"``), in the bare loop and in the Trainer; where the bare loop waits for nothing, the Trainer is run
  once more with ``"error"``. The mode does not see who waits for an event or for the whole device: that is counted
  too. torch's `GradScaler` itself reads one number a step from the device, unless the optimizer is fused.
* values: what arrives is what ``.item()`` gives in the same training by plain torch, all of it, in order.
* speed: steps a second against the bare loop, in rounds that take turns; an epoch ends when the device is done with it.
* memory: what is still allocated on the device while the bus is open, with all it keeps, and the model is gone.

A check with figures: it ends with 1 where a promise is broken. Without a CUDA device it says so and ends with 0;
``--device cpu`` runs the same code there, without what needs the device.
"""

from __future__ import annotations

import gc
import math
import os
import sys
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from convnet import Data, Got, Measured, Work, bare, ours, ours_read, read
from harness import Report, Spread, Table, arguments, interleave, paired
from syncs import Watch
from torch import Tensor

from lineside import Bus
from lineside.runners import Trainer
from lineside.schemas import OptimizerStep, TrainBatchEnd, TrainBatchStart

# ------------------------------------------------------------------------------------------------------------- waits


def waits(work: Work, steps: int, broken: list[str]) -> tuple[object, ...]:
    """Return a row: the waits of the bare loop and of the Trainer, and what came of refusing them."""
    if not work.on_cuda:
        ours_read(work, Data(work, steps), 2)
        return work.name, 2 * steps, None, None, None
    found = []
    for train in (bare, ours_read):
        watch = Watch("warn")
        train(work, Data(work, steps, watch), 2)
        found.append(watch.waits)
    if found[1] > found[0]:
        broken.append(f"{work.name}: the Trainer waited {found[1]} times for the device, the bare loop {found[0]}")
    verdict = "not run" if found[0] else refused(work, steps)
    if verdict not in ("not run", "silent"):
        broken.append(f"{work.name}: where waiting is refused: {verdict}")
    return work.name, 2 * steps, *found, verdict


def refused(work: Work, steps: int, hook: Any = None) -> str:
    """Train by the Trainer where waiting for the device is an error; return what came of it."""
    watch = Watch("error")
    try:
        got, lost = ours_read(work, Data(work, steps, watch), 2, hook=hook)
    except RuntimeError as error:
        if "synchronizing" not in str(error):
            raise
        return "it raised"
    finally:
        watch.end()  # an epoch that was broken off has not done so
    if watch.waits:
        return f"{watch.waits} waits"
    complete = all(len(events) == 4 * steps for events in got.values())
    return "silent" if complete and not lost else "events were lost"


def reads_a_value(event: TrainBatchStart, trainer: Trainer) -> None:
    next(trainer.model.parameters()).sum().item()


def waits_for_the_device(event: TrainBatchStart, trainer: Trainer) -> None:
    torch.cuda.synchronize()


def waits_table(works: Sequence[Work], steps: int, broken: list[str]) -> Table:
    columns = {"training": "{}", "steps": "{:,}", "waits, bare": "{:,}", "waits, Trainer": "{:,}", "if refused": "{}"}
    table = Table("waits for the device, first batch to last; the Trainer with four readers", columns)
    for work in works:
        table.add(*waits(work, steps, broken))
    for hook in (reads_a_value, waits_for_the_device):
        verdict = refused(works[0], steps, hook) if works[0].on_cuda else None
        name = hook.__name__.replace("_", " ")
        table.add(f"self-check: a hook that {name}", 2 * steps, None, None, verdict)
        if verdict == "silent":
            broken.append(f"a hook that {name} went unseen: the check of the waits proves nothing")
    return table


# ------------------------------------------------------------------------------------------------------------- values


def values_row(work: Work, steps: int, broken: list[str]) -> tuple[object, ...]:
    """Return a row: what arrived, beside what ``.item()`` gives in the same training."""
    expected: list[tuple[float, float]] = []
    with _deterministic():
        bare(work, Data(work, steps), 2, lambda loss, norm: expected.append((loss.item(), norm.item())))
    got, lost = ours_read(work, Data(work, steps), 2, deterministic=True)
    places = [(epoch, batch) for epoch in range(2) for batch in range(steps)]
    differing = sum(_differing(events, expected) for events in got.values())
    disorder = sum(not _in_order(events, places) for events in got.values())
    for number, problem in ((lost, "events lost"), (differing, "values differ"), (disorder, "readers out of order")):
        if number:
            broken.append(f"{work.name}: {number} {problem}")
    return work.name, len(expected), sum(map(len, got.values())), lost, differing, disorder


@contextmanager
def _deterministic() -> Generator[None]:
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


def _differing(events: Sequence[Measured], expected: Sequence[tuple[float, float]]) -> int:
    losses = [event.loss for event in events if isinstance(event, TrainBatchEnd)]
    norms = [event.grad_norm for event in events if isinstance(event, OptimizerStep)]
    found = list(zip(losses, norms, strict=False))
    wrong = sum(not all(map(_same, *pair)) for pair in zip(found, expected, strict=False))
    return wrong + abs(len(found) - len(expected))


def _same(value: float | None, expected: float) -> bool:
    """Bit for bit; nan is like nan: fp16 may begin with too large a scale."""
    return value == expected or (value is not None and math.isnan(value) and math.isnan(expected))


def _in_order(events: Sequence[Measured], places: Sequence[tuple[int, int]]) -> bool:
    numbers = [event.seq for event in events]
    ends = [(event.epoch, event.batch) for event in events if isinstance(event, TrainBatchEnd)]
    return numbers == sorted(set(numbers)) and ends == list(places)


def values_table(works: Sequence[Work], steps: int, broken: list[str]) -> Table:
    columns = {
        "training": "{}",
        "steps": "{:,}",
        "delivered": "{:,}",
        "lost": "{:,}",
        "unlike .item()": "{:,}",
        "readers out of order": "{}",
    }
    table = Table("losses and norms that three readers in this process got", columns)
    for work in works:
        table.add(*values_row(work, steps, broken))
    return table


# -------------------------------------------------------------------------------------------------------------- speed


def seconds(train: Callable[..., object], work: Work, steps: int) -> float:
    """Return the seconds of a step, in the second epoch."""
    data = Data(work, steps)
    train(work, data, 2)
    return data.seconds[1] / steps


def sized(work: Work, wanted: float) -> Work:
    """Return a work whose bare step takes about `wanted` seconds here, or as few as there can be."""
    for _ in range(8):
        took = seconds(bare, work, max(5, int(0.2 / wanted)))
        if abs(took / wanted - 1) < 0.15:
            break
        work = replace(work, batch_size=max(1, int(work.batch_size * min(wanted / took, 8))))
    return work


def speed_table(work: Work, milliseconds: float, rounds: int, *, quick: bool) -> Table:
    if not quick:
        work = sized(work, milliseconds / 1e3)
    steps = 6 if quick else max(50, int(1000 / milliseconds))
    contenders = {"bare": bare, "Trainer, no subscriber": ours, "Trainer, four readers": ours_read}
    runs = {name: partial(seconds, train, work, steps) for name, train in contenders.items()}
    results = interleave(runs, rounds)
    took = 1e3 * Spread.of(results["bare"]).median
    title = f"steps of {milliseconds:g} ms (bare: {took:.2f} ms, {work.batch_size} images); median (min..max)"
    table = Table(title, {"contender": "{}", "steps/s": "{:,.0f}", "ratio to bare": "{:.3f}"})
    for name, found in results.items():
        rates = Spread.of([1 / value for value in found])
        table.add(name, rates, paired(rates.values, [1 / value for value in results["bare"]]))
    return table


# ------------------------------------------------------------------------------------------------------------- memory


@contextmanager
def trained_bare(work: Work, steps: int) -> Generator[Got]:
    bare(work, Data(work, steps), 2)
    yield {}


@contextmanager
def trained_read(work: Work, steps: int) -> Generator[Got]:
    """The run is over, but the bus is open and the readers have kept all they got."""
    with Bus() as bus:
        with read(bus) as got:
            ours(work, Data(work, steps), 2, bus)
        yield got


def memory_table(work: Work, steps: int, broken: list[str]) -> Table:
    columns = {"contender": "{}", "left, bytes": "{:,}", "peak, MiB": "{:,.2f}", "payloads with tensors": "{:,}"}
    table = Table("device memory: left when the model is gone and the bus still open, and the most there was", columns)
    bare(work, Data(work, steps), 1)  # the libraries' workspaces stay
    rows = [held(name, work, trained(work, steps)) for name, trained in CONTENDERS.items()]
    for row in rows:
        table.add(*row)
    (_, left_bare, *_), (_, left, _, tensors) = rows
    if work.on_cuda and left > left_bare:
        broken.append(f"the Trainer left {left} bytes on the device, the bare loop {left_bare}")
    if tensors:
        broken.append(f"{tensors} payloads hold tensors")
    return table


CONTENDERS = {"bare": trained_bare, "Trainer, four readers": trained_read}


def held(name: str, work: Work, trained: AbstractContextManager[Got]) -> tuple[Any, ...]:
    before = allocated(work)
    if work.on_cuda:
        torch.cuda.reset_peak_memory_stats(work.device)
    with trained as got:
        left = allocated(work) - before
        tensors = sum(holds_tensor(event.__dict__) for events in got.values() for event in events)
    if not work.on_cuda:
        return name, None, None, tensors
    return name, left, (torch.cuda.max_memory_allocated(work.device) - before) / 2**20, tensors


def allocated(work: Work) -> int:
    """Return the bytes that are allocated on the device now."""
    gc.collect()
    if not work.on_cuda:
        return 0
    torch.cuda.synchronize(work.device)
    return torch.cuda.memory_allocated(work.device)


def holds_tensor(value: object) -> bool:
    if isinstance(value, Mapping):
        return any(map(holds_tensor, value.values()))
    if isinstance(value, (list, tuple, set)):
        return any(map(holds_tensor, value))
    return isinstance(value, Tensor)


# --------------------------------------------------------------------------------------------------------------- main


def main() -> None:
    options = arguments(
        "what the bus costs a training on CUDA: waits, values, speed, memory",
        device={"default": "cuda", "help": "cuda, cuda:1, or cpu for a rehearsal"},
        milliseconds={"type": float, "nargs": "+", "default": [1, 10], "help": "length of a bare step"},
    )
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        print("gpu: torch finds no CUDA device here, so nothing was measured; --device cpu rehearses it")
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # deterministic sums; read when CUDA starts
    report = Report("gpu", options)
    broken = measure(report, device, options)
    report.finish()
    for problem in broken:
        print(f"BROKEN: {problem}")
    if broken:
        sys.exit(1)
    checked = "no wait was added, no value lost or changed" if device.type == "cuda" else "rehearsed without a device"
    print(f"\n{checked}")


def measure(report: Report, device: torch.device, options: Any) -> list[str]:
    """Show the tables; return the promises that are broken."""
    broken: list[str] = []
    if device.type == "cuda":
        report.machine["device"] = torch.cuda.get_device_name(device)
        report.machine["cuda"] = torch.version.cuda
        print(f"{report.machine['device']}, CUDA {torch.version.cuda}")
    else:
        torch.set_num_threads(1)
    small = Work(device, channels=64 if device.type == "cuda" else 4)
    plain = [replace(small, amp=amp) for amp in ("off", "bf16")]
    works = [*plain, replace(small, amp="fp16", fused=True), replace(small, amp="fp16")]
    works, steps, rounds = (works[::3], 3, 1) if options.quick else (works, 200, 7)
    report.show(waits_table(works, steps, broken))
    report.show(values_table(works, steps, broken))
    for milliseconds in options.milliseconds[:1] if options.quick else options.milliseconds:
        report.show(speed_table(small, milliseconds, options.rounds or rounds, quick=options.quick))
    report.show(memory_table(small, steps, broken))
    return broken


if __name__ == "__main__":
    main()
