"""What a display in a notebook takes from a training loop: steps a second with it, against the bare loop.

    python benchmarks/notebook.py [--quick] [--json FILE] [--milliseconds 1 10] [--threads 1]

The training and the pairs of slices are those of `loop.py`: a small network on the CPU, five events a step. It runs
bare, with a bus that nobody reads, and with a bus whose run is displayed. The display is the whole Python side of the
widget: its thread, its curves and its messages, which are packed as JSON where a kernel would send them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any

import comm
import torch
from comm.base_comm import BaseComm
from harness import Report, Table, arguments, interleave
from loop import Lineside, Training, measure, sized, table

from lineside import Bus
from lineside.bus.notebook.widget import RunWidget
from lineside.schemas import RunEnd, RunStart, TrainEpochStart, TrainStart

RUN = "displayed"
PAIRS = 8
"""Pairs of slices, bare and contender, a round."""
SLICE = 0.75
"""Seconds of a slice: some messages of the display fall into each."""


class Packed(BaseComm):
    """The way to a frontend, as far as a kernel's main process has it: each message is packed."""

    messages = 0

    def publish_msg(self, msg_type: str, data: Any = None, metadata: Any = None, buffers: Any = None, **_: Any) -> None:
        json.dumps({"type": msg_type, "data": data, "metadata": metadata}).encode()
        Packed.messages += 1


class Counted(Lineside):
    """A bus on which a run goes on."""

    def begin(self) -> None:
        self.publish(RunStart, kind="train", model="Net", device="cpu")
        self.publish(TrainStart, epoch=0, epochs=1, batches=None, step=0)
        self.publish(TrainEpochStart, epoch=0, epochs=1, batches=None, lr={"group_0": 1e-4})


@contextmanager
def unread() -> Iterator[Counted]:
    """A bus that nobody reads."""
    with Bus() as bus:
        contender = Counted(bus, bus.source(RUN).publish)
        contender.begin()
        yield contender


@contextmanager
def displayed() -> Iterator[Counted]:
    """A bus whose run is shown in a notebook."""
    before = Packed.messages
    with Bus() as bus:
        widget = RunWidget(bus, RUN, bus.mark())
        contender = Counted(bus, bus.source(RUN).publish)
        contender.begin()
        yield contender
        contender.publish(RunEnd, kind="train", outcome="completed", duration=1.0)
        assert widget.wait(60), "the display is far behind"
        assert widget.snapshot()["head"]["batch"] > 0, "the display has shown nothing"
        widget.close()
    assert Packed.messages > before, "the display has told nobody"


CONTENDERS: dict[str, Callable[[], AbstractContextManager[Counted]]] = {
    "a bus, no reader": unread,
    "displayed in a notebook": displayed,
}


def compare(milliseconds: float, rounds: int, *, quick: bool) -> Table:
    training = Training(16) if quick else sized(milliseconds / 1e3)
    steps = 10 if quick else max(10, int(SLICE * 1e3 / milliseconds))
    pairs = 1 if quick else PAIRS
    runs = {name: partial(measure, training, setup, steps, pairs) for name, setup in CONTENDERS.items()}
    return table(milliseconds, training, interleave(runs, rounds))


def main() -> None:
    options = arguments(
        "steps a second of a training loop that a notebook displays",
        milliseconds={"type": float, "nargs": "+", "default": [1, 10], "help": "length of a bare step"},
        threads={"type": int, "default": 1, "help": "torch threads"},
    )
    torch.set_num_threads(options.threads)
    comm.create_comm = Packed
    report = Report("notebook", options)
    for milliseconds in [1.0] if options.quick else options.milliseconds:
        report.show(compare(milliseconds, options.rounds or (1 if options.quick else 3), quick=options.quick))
    report.finish()


if __name__ == "__main__":
    main()
