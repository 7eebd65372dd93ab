"""The training of `gpu.py`: a small convolutional network, by plain torch and by the Trainer with four readers."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Thread
from typing import Any, Literal

import torch
from syncs import Watch
from ten import burn
from torch import Tensor, nn

from lineside import Bus
from lineside.runners import Trainer
from lineside.schemas import OptimizerStep, TrainBatchEnd, TrainBatchStart

RUN = "gpu"
CLIP_NORM = 1.0
POOL = 4
"""Different batches; an epoch goes through them again and again."""
PIXELS = 32

Measured = TrainBatchEnd | OptimizerStep
Got = dict[str, list[Measured]]
Note = Callable[[Tensor, Tensor], object]
"""Takes the loss and the norm of a step."""


@dataclass(frozen=True)
class Work:
    """What is trained, and how."""

    device: torch.device
    amp: Literal["off", "bf16", "fp16"] = "off"
    fused: bool = False
    batch_size: int = 4
    channels: int = 4

    @property
    def name(self) -> str:
        return f"{self.amp}, {'fused ' if self.fused else ''}SGD"

    @property
    def on_cuda(self) -> bool:
        return self.device.type == "cuda"

    def model(self) -> nn.Module:
        torch.manual_seed(0)
        widths = (3, self.channels, 2 * self.channels, 4 * self.channels)
        layers = [layer for i in range(3) for layer in _block(widths[i], widths[i + 1], stride=1 + (i > 0))]
        return nn.Sequential(*layers, _Mean(), nn.Linear(widths[-1], 10)).to(self.device)

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, fused=self.fused or None)

    def batches(self, steps: int) -> list[tuple[Tensor, Tensor]]:
        generator = torch.Generator().manual_seed(1)
        pool = [self._batch(generator) for _ in range(min(POOL, steps))]
        return [pool[i % len(pool)] for i in range(steps)]

    def _batch(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        inputs = torch.randn(self.batch_size, 3, PIXELS, PIXELS, generator=generator)
        targets = torch.randint(10, (self.batch_size,), generator=generator)
        return (inputs.pin_memory(), targets.pin_memory()) if self.on_cuda else (inputs, targets)


def _block(width_in: int, width_out: int, stride: int) -> Sequence[nn.Module]:
    return nn.Conv2d(width_in, width_out, 3, stride, 1, bias=False), nn.BatchNorm2d(width_out), nn.ReLU()


class _Mean(nn.Module):
    """Averages over the pixels; unlike the pooling layers it has a deterministic gradient on CUDA."""

    def forward(self, images: Tensor) -> Tensor:
        return images.mean((2, 3))


class Data:
    """The batches of a work; every epoch is watched, and timed until the device has done all of it."""

    def __init__(self, work: Work, steps: int, watch: Watch | None = None) -> None:
        self.seconds: list[float] = []
        self._batches = work.batches(steps)
        self._work = work
        self._watch = watch

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        start = time.perf_counter()
        if self._watch is not None:
            self._watch.begin()
        yield from self._batches
        if self._watch is not None:
            self._watch.end()
        if self._work.on_cuda:
            torch.cuda.synchronize(self._work.device)
        self.seconds.append(time.perf_counter() - start)


def bare(work: Work, data: Data, epochs: int, note: Note | None = None) -> None:
    """Train by plain torch, as one would without us."""
    model = work.model()
    optimizer, loss_of = work.optimizer(model), nn.CrossEntropyLoss()
    scaler = torch.amp.GradScaler(work.device.type, enabled=work.amp == "fp16")
    dtype = torch.float16 if work.amp == "fp16" else torch.bfloat16
    for batch in (batch for _ in range(epochs) for batch in data):
        inputs, targets = (tensor.to(work.device, non_blocking=True) for tensor in batch)
        with torch.autocast(work.device.type, dtype=dtype, enabled=work.amp != "off"):
            loss = loss_of(model(inputs), targets)
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        norm = nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        if note is not None:
            note(loss.detach(), norm)


def ours(work: Work, data: Data, epochs: int, bus: Bus | None = None, hook: Any = None, **config: object) -> None:
    """Train the same by the Trainer; `hook` is called at the start of every batch."""
    model = work.model()
    trainer = Trainer(
        model,
        data,
        loss=nn.CrossEntropyLoss(),
        optimizer=work.optimizer(model),
        bus=bus,
        name=RUN,
        device=str(work.device),
        amp=work.amp,
        clip_norm=CLIP_NORM,
        epochs=epochs,
        save=False,
        **config,
    )
    if hook is not None:
        trainer.hook(TrainBatchStart)(hook)
    trainer.run()


@contextmanager
def read(bus: Bus) -> Generator[Got]:
    """Attach the four readers for one run. What those in this process got is complete after the block."""
    got: Got = {"async": [], "thread": [], "stream": []}
    types = (TrainBatchEnd, OptimizerStep)

    async def receive(event: Measured) -> None:
        got["async"].append(event)

    def handle(event: Measured) -> None:
        got["thread"].append(event)

    stream = bus.stream(*types, run=RUN)
    reader = Thread(target=lambda: got["stream"].extend(stream))
    reader.start()
    try:
        with (
            bus.subscribe(receive, *types, lane="loop"),
            bus.subscribe(handle, *types, lane="thread"),
            bus.subscribe(burn, TrainBatchEnd, lane="process"),
        ):
            yield got
            bus.drain(timeout=60)
            reader.join(timeout=60)
    finally:
        stream.close()
        reader.join()


def ours_read(work: Work, data: Data, epochs: int, **options: Any) -> tuple[Got, int]:
    """Train by the Trainer with the four readers; return what they got, and how many events were lost."""
    with Bus() as bus, read(bus) as got:
        ours(work, data, epochs, bus, **options)
        bus.drain(timeout=60)
        stats = bus.stats()
    return got, stats.invalid + sum(reader.missed for reader in stats.subscriptions)
