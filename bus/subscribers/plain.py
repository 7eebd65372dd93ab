"""What happens as plain lines, one a stage, for files, pipes and continuous integration."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import TextIO

from ...schemas import (
    Event,
    EventsMissed,
    ExportEnd,
    ExportPhase,
    FitEpochEnd,
    NonFinite,
    PredictBatchEnd,
    PredictEnd,
    PretrainRoutineEnd,
    RunEnd,
    RunStart,
    SubscriberFailed,
    ValEnd,
)
from . import text, wording


class PlainDisplay:
    """Writes lines to `stream`, without control characters. Predictions come one a line: input, tab, JSON."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._training: set[str] = set()

    def show(self, event: Event) -> None:
        """Write what `event` says; most events say nothing here."""
        lines = list(self.lines(event))
        if lines:
            try:
                print(*lines, sep="\n", file=self._stream, flush=True)
            except BrokenPipeError:
                _discard(self._stream)

    def close(self) -> None:
        """Nothing is held."""

    def lines(self, event: Event) -> Iterator[str]:
        """Give the lines that `event` says. For subclasses to extend."""
        match event:
            case RunStart():
                if event.kind == "train":
                    self._training.add(event.run)
                yield _line(event.kind, wording.beginning(event))
            case PretrainRoutineEnd():
                yield _line("", wording.preparation(event))
            case FitEpochEnd():
                yield _epoch(event)
            case ValEnd():
                if event.aside or event.run not in self._training:
                    label = "aside" if event.aside else "val"
                    yield _line(
                        label, text.scalars(event.metrics), text.scalars(event.losses), wording.evaluated(event)
                    )
            case PredictBatchEnd():
                for name, result in zip(event.inputs, event.results, strict=False):
                    yield f"{name}\t{json.dumps(result)}"
            case RunEnd():
                self._training.discard(event.run)
                yield _line(event.kind, wording.ending(event))
            case _:
                yield from _other(event)


def _discard(stream: TextIO) -> None:
    """Let what is written from now on vanish: whoever read it has left, as `head` does."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def _epoch(event: FitEpochEnd) -> str:
    return _line(
        "final" if event.final else "epoch",
        f"{event.epoch + 1}/{event.epochs or '?'}",
        text.scalars(wording.numbers(event)),
        text.duration(event.duration),
        "best" if wording.is_best(event) else "",
    )


def _other(event: Event) -> Iterator[str]:
    match event:
        case ExportPhase():
            yield _line("export", event.format, event.phase, text.duration(event.duration))
        case ExportEnd():
            yield _line("export", event.format, str(event.path), wording.exported(event))
        case PredictEnd():
            yield _line("predict", wording.predicted(event))
        case NonFinite():
            yield _line("warning", wording.non_finite(event))
        case SubscriberFailed():
            yield _line("warning", wording.subscriber_failed(event))
        case EventsMissed():
            yield _line("warning", wording.events_missed(event))
        case _:
            pass


def _line(label: str, *parts: str) -> str:
    return f"{label:<8} {'  '.join(part for part in parts if part)}"
