"""What an event says, as a sentence: shared by the displays."""

from __future__ import annotations

from typing import get_args

from ...schemas import (
    ErrorInfo,
    EventsMissed,
    ExportEnd,
    FitEpochEnd,
    NonFinite,
    Phase,
    PredictEnd,
    PretrainRoutineEnd,
    RunEnd,
    RunStart,
    SubscriberFailed,
    ValEnd,
)
from . import text


def beginning(event: RunStart) -> str:
    """Say what runs where."""
    where = f" on {event.device}" if event.device else ""  # a loop of the user's own may compute anywhere
    return f"{event.model}{where}, run {event.run}"


def preparation(event: PretrainRoutineEnd) -> str:
    """Say what is trained on what."""
    parts = [text.plural(event.parameters, "parameter")]
    if event.trainable != event.parameters:
        parts.append(f"{event.trainable:,} of them trained")
    if event.batches is not None:
        parts.append(f"{text.plural(event.batches, 'batch', 'batches')} an epoch")
    if event.resumed_from is not None:
        parts.append(f"resumed from {event.resumed_from}")
    return ", ".join(parts)


def numbers(event: FitEpochEnd) -> dict[str, float]:
    """Return the training losses and what validation computed, by name; a name of both is marked for the latter."""
    validated = {f"val {name}" if name in event.losses else name: value for name, value in event.metrics.items()}
    return {**({} if event.final else event.losses), **validated}


def is_best(event: FitEpochEnd) -> bool:
    """Return whether this epoch is the best so far."""
    return not event.final and event.fitness is not None and event.best_epoch == event.epoch


def non_finite(event: NonFinite) -> str:
    """Say where a loss was lost."""
    return f"epoch {event.epoch + 1}, batch {event.batch + 1}: {text.scalars(event.losses)}"


def phases_of(written: str) -> tuple[str, ...]:
    """Return the phases of an export to the format `written`, in order: pt2 keeps the program as it was captured."""
    return tuple(phase for phase in get_args(Phase) if (written, phase) != ("pt2", "lower"))


def exported(event: ExportEnd) -> str:
    """Say what was written and how well it agrees with the module."""
    return (
        f"{text.size(event.bytes)}, verified: largest difference {event.max_error:.1e} "
        f"(allowed {event.tolerance:.0e}), {text.duration(event.duration)}"
    )


def evaluated(event: ValEnd) -> str:
    """Say how much was validated."""
    return f"{text.plural(event.samples, 'sample')}, {text.duration(event.duration)}"


def predicted(event: PredictEnd) -> str:
    """Say how much was predicted."""
    batches = text.plural(event.batches, "batch", "batches")
    return f"{text.plural(event.inputs, 'input')} in {batches}, {text.duration(event.duration)}"


def ending(event: RunEnd) -> str:
    """Say how a run ended."""
    why = _error(event.error) if event.error else event.reason
    return f"{event.outcome} in {text.duration(event.duration)}" + (f": {why}" if why else "")


def subscriber_failed(event: SubscriberFailed) -> str:
    """Say which subscriber failed, and on what."""
    off = "; it is switched off" if event.switched_off else ""
    return f"{event.subscription} failed on {event.event}: {_error(event.error)}{off}"


def _error(error: ErrorInfo) -> str:
    return f"{error.type.rpartition('.')[2]}: {error.message}"


def events_missed(event: EventsMissed) -> str:
    """Say who missed how many events."""
    who = event.subscription or "everybody"
    return f"{who} missed {text.plural(event.count, 'event')} ({event.reason}{event.detail and ': ' + event.detail})"
