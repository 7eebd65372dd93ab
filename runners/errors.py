"""Errors of the runners.

::

    LinesideError
    └── RunnerError
        ├── InvalidConfig        (also ValueError)         a setting that cannot be
        ├── InvalidHook          (also TypeError)          a hook that could not be called
        ├── UnreachableStage     (also ValueError)         a hook or a wait for another runner's stage
        ├── HookInterrupted      (also RuntimeError)       an async hook whose loop went away
        ├── HookTimeout          (also TimeoutError)       a hook that took too long
        ├── DeviceUnavailable    (also RuntimeError)       torch cannot use that device here
        ├── IncompleteRecipe     (also LookupError)        a recipe lacks what a command needs
        ├── RunnerBusy           (also RuntimeError)       one run at a time
        ├── WouldDeadlock        (also RuntimeError)       a wait that could never end
        ├── JobRefused           (also RuntimeError)       a run cannot do that, or not at this stage
        ├── RunEnded             (also RuntimeError)       the run was over first
        ├── StageNotReached      (also TimeoutError)       a stage did not come in time
        ├── TrackingRefused      (also ValueError)         a loop of the user's own that says what cannot be told
        ├── InvalidArgument      (also TypeError)          not what a runner can work with
        │   ├── InvalidModel
        │   └── InvalidObjective                           a loss that cannot be minimised
        ├── NonFiniteLoss        (also ArithmeticError)    a loss became nan or infinite
        ├── UnknownFitness       (also LookupError)        no metric has that name
        ├── DataError            (also ValueError)
        │   ├── EmptyData                                  no batch at all
        │   ├── ExhaustedData                              an iterator that can be read only once
        │   ├── ShorterData                                fewer batches than were trained on already
        │   └── InvalidBatch                               not a batch that the objective takes
        └── CheckpointError
            ├── CheckpointNotFound   (also FileNotFoundError)
            ├── CheckpointExists     (also FileExistsError)    a new run would overwrite another one
            ├── CheckpointUnreadable (also ValueError)         truncated, garbage or not ours
            ├── CheckpointUnwritable (also OSError)            it could not be written
            ├── UnsavableState       (also TypeError)          state that a checkpoint cannot hold
            └── CheckpointMismatch   (also ValueError)         made by another set-up
                ├── ModelMismatch
                └── OptimizerMismatch

`PredictError`, `ServingError` and `ExportError`, the roots of what only predictors, prediction services and exporters
raise, have their trees in ``predict/errors.py``, ``serving/errors.py`` and ``export/errors.py``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Sized
from pathlib import Path

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from ..bus import errors as bus_errors
from ..schemas import LinesideError


class RunnerError(LinesideError):
    """Something is wrong with a runner, or with what it was given."""


class InvalidConfig(RunnerError, ValueError):
    """A setting does not exist or cannot have that value."""

    def __init__(self, config: str, error: ValidationError) -> None:
        super().__init__(f"{config} cannot be made:\n{_list(_describe(detail) for detail in error.errors())}")


def _describe(detail: ErrorDetails) -> str:
    name = ".".join(map(str, detail["loc"])) or "the combination"
    if detail["type"] == "extra_forbidden":
        return f"{name}: there is no such setting"
    message = detail["msg"].removeprefix("Value error, ")
    return f"{name}: {message}" + ("" if name == "the combination" else f", got {detail['input']!r:.80}")


def _list(lines: Iterable[str]) -> str:
    return "\n".join(f"  - {line}" for line in lines)


class InvalidHook(RunnerError, TypeError):
    """A hook or callback that is not callable, or takes other arguments than it will get."""

    def __init__(self, callback: object, expected: str, problem: str, attempted: str = "registered") -> None:
        name = getattr(callback, "__qualname__", repr(callback))
        super().__init__(f"{name} cannot be {attempted}: {problem}; expected {expected}")


class UnreachableStage(RunnerError, ValueError):
    """A hook or a wait for a stage that the runner never reaches: it would be in vain, in silence."""

    def __init__(self, runner: str, stage: str, families: Iterable[str]) -> None:
        super().__init__(
            f"this {runner} never reaches {stage}; expected a stage of its own, one of {', '.join(families)}: "
            f"turn to the runner that reaches it"
        )


class HookInterrupted(RunnerError, RuntimeError):
    """The event loop of an async hook was closed, or cancelled the hook, before the hook was done."""

    def __init__(self, hook: str, event: str) -> None:
        super().__init__(
            f"the async hook {hook} did not finish at {event}: its event loop was closed or cancelled it; "
            f"keep the loop alive until the run is over, e.g. with `await run`"
        )


class HookTimeout(RunnerError, TimeoutError):
    """A hook did not return within its `timeout`."""

    def __init__(self, hook: str, event: str, run: str, seconds: float) -> None:
        super().__init__(
            f"the hook {hook} did not return within its timeout of {seconds:g} s at {event} of run {run!r}, which "
            f"waited for it; find what it waits for, give it more time, or make it a subscriber: @bus.on({event})"
        )


class DeviceUnavailable(RunnerError, RuntimeError):
    """The device that was asked for cannot be used here."""

    def __init__(self, name: str, error: Exception) -> None:
        first = next(iter(str(error).splitlines()), type(error).__qualname__)
        super().__init__(f"device={name!r} cannot be used: {first}; expected one that is there, e.g. 'auto' or 'cpu'")


class IncompleteRecipe(RunnerError, LookupError):
    """The recipe lacks a part that is needed for what was asked."""

    def __init__(self, part: str, purpose: str) -> None:
        super().__init__(f"this recipe has no {part}, which {purpose} needs: Recipe({part}=..., ...)")


class RunnerBusy(RunnerError, RuntimeError):
    """The runner is running already."""

    def __init__(self, runner: str, run: str, *, predicts: bool = False) -> None:
        gathers = "; many requests at a time share the batches of one PredictionService(predictor)" if predicts else ""
        super().__init__(
            f"this {runner} is busy with run {run!r}: a runner does one run at a time; "
            f"wait for it (`await run`, `run.result()`), or make another {runner}{gathers}"
        )


class WouldDeadlock(RunnerError, bus_errors.WouldDeadlock):
    """A wait that could never end, because the run would be waiting for the one who waits. Also the bus's error."""

    def __init__(self, attempted: str, because: str, instead: str) -> None:
        super().__init__(f"{attempted} would wait for ever: {because}; {instead}")


class JobRefused(RunnerError, RuntimeError):
    """What was asked of a run is something that it cannot do, or not at this stage."""

    def __init__(self, run: str, what: str, obstacle: str) -> None:
        super().__init__(f"run {run!r} cannot do {what}: {obstacle}")


class RunEnded(RunnerError, RuntimeError):
    """The run was over before what was waited for came."""

    def __init__(self, run: str, waited_for: str) -> None:
        super().__init__(
            f"run {run!r} ended before {waited_for} came; its result says how: `await run` or `run.result()`"
        )


class StageNotReached(RunnerError, TimeoutError):
    """A stage was not reached in the time given."""

    def __init__(self, run: str, waited_for: str, timeout: float | None) -> None:
        super().__init__(f"run {run!r} did not reach {waited_for} within {timeout} s; it is still going on")


class TrackingRefused(RunnerError, ValueError):
    """A loop of the user's own says something that cannot be told of it."""

    def __init__(self, problem: str, instead: str) -> None:
        super().__init__(f"{problem}; {instead}")


class InvalidArgument(RunnerError, TypeError):
    """A runner was given something that it cannot work with."""

    def __init__(self, problem: str, instead: str) -> None:
        super().__init__(f"{problem}; {instead}")


class InvalidModel(InvalidArgument):
    """Something other than a module was given, or a module that cannot be used so."""


class InvalidObjective(InvalidArgument):
    """The loss is missing, is given twice, or returned something that cannot be minimised."""


class NonFiniteLoss(RunnerError, ArithmeticError):
    """A loss became nan or infinite, and ``on_nonfinite="fail"`` was asked for."""

    def __init__(self, epoch: int, batch: int, losses: Mapping[str, float]) -> None:
        shown = ", ".join(f"{name}={value}" for name, value in losses.items())
        super().__init__(
            f"the loss of batch {batch} in epoch {epoch} is not finite ({shown}); "
            f"lower the learning rate, clip the gradients (clip_norm=1.0), or set on_nonfinite='continue'"
        )


class UnknownFitness(RunnerError, LookupError):
    """The metric that was named as the fitness was not computed."""

    def __init__(self, name: str, known: Iterable[str]) -> None:
        super().__init__(f"fitness={name!r} is not among what validation computes: {', '.join(known) or 'nothing'}")

    def __str__(self) -> str:
        return str(self.args[0])


class DataError(RunnerError, ValueError):
    """Something is wrong with the data a runner was given."""


class EmptyData(DataError):
    """A loader gave no batch."""

    def __init__(self, what: str) -> None:
        super().__init__(
            f"the {what} data gave no batch; check the dataset's length, "
            f"and with drop_last=True that it holds at least one whole batch"
        )


class ExhaustedData(DataError):
    """An iterator that was read to its end was to be read again."""

    def __init__(self, what: str, epoch: int) -> None:
        super().__init__(
            f"the {what} data gave no batch in epoch {epoch}: it is an iterator at its end, and can be read only once; "
            f"pass something that can be iterated every epoch, e.g. a DataLoader or a list of batches"
        )


class ShorterData(DataError):
    """On resuming within an epoch, the data ended before the batch to go on from."""

    def __init__(self, what: str, skip: int, found: int) -> None:
        super().__init__(
            f"the {what} data has {found} batches, but {skip} of this epoch were done before the resume; "
            f"resume with the same data and batch size, or start a new run"
        )


class InvalidBatch(DataError):
    """A batch is not of the form that the objective takes."""

    def __init__(self, batch: object, *, metrics: bool = False) -> None:
        size = f" of length {len(batch)}" if isinstance(batch, Sized) else ""
        instead = (
            "for other batches leave metrics out, and have the step return what is only to be reported beside its "
            "loss: `return loss, {'accuracy': accuracy}`"
            if metrics
            else "for other batches pass step=..., a function (model, batch) -> loss"
        )
        super().__init__(
            f"with {'metrics' if metrics else 'loss'}=..., a batch is a pair (inputs, targets), "
            f"got {type(batch).__qualname__}{size}; {instead}"
        )


class CheckpointError(RunnerError):
    """Something is wrong with a checkpoint."""


class CheckpointNotFound(CheckpointError, FileNotFoundError):
    """There is no checkpoint to resume from."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            f"there is no checkpoint at {path}; expected a checkpoint file, or a run's folder with last.pt"
        )


class CheckpointExists(CheckpointError, FileExistsError):
    """A new run was about to write where another one has its checkpoints."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            f"{path} exists and belongs to another run; to continue that run pass resume={str(path)!r}, "
            f"to replace it overwrite=True, else choose another directory or name"
        )


class CheckpointUnreadable(CheckpointError, ValueError):
    """The file is truncated, damaged, or no checkpoint of ours."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(
            f"{path} cannot be read as a checkpoint: {reason}; resume from another one, e.g. best.pt beside it"
        )


class CheckpointUnwritable(CheckpointError, OSError):
    """The checkpoint could not be written; the one before it is untouched."""

    def __init__(self, path: Path, error: OSError) -> None:
        super().__init__(f"{path} could not be written: {error}; free space or choose another directory")


class UnsavableState(CheckpointError, TypeError):
    """Some state is not made of tensors, numbers, strings and plain containers."""

    def __init__(self, where: str, value: object) -> None:
        super().__init__(
            f"a checkpoint cannot hold {where}, {value!r:.80} of type {type(value).__qualname__}: expected tensors, "
            f"numbers, strings, None, and dicts, lists and tuples of them, so that loading it runs no code"
        )


class CheckpointMismatch(CheckpointError, ValueError):
    """The checkpoint was made by a run with another set-up."""

    def __init__(self, path: Path, problems: Sequence[str], instead: str) -> None:
        shown = [*problems[:8], *([f"and {len(problems) - 8} more"] if len(problems) > 8 else [])]
        super().__init__(f"{path} does not fit this run:\n{_list(shown)}\n{instead}")


class ModelMismatch(CheckpointMismatch):
    """The checkpoint holds the weights of another model."""

    def __init__(self, path: Path, problems: Sequence[str]) -> None:
        super().__init__(path, problems, "build the model as it was, or start a new run")


class OptimizerMismatch(CheckpointMismatch):
    """The checkpoint holds the state of another optimizer."""

    def __init__(self, path: Path, problems: Sequence[str]) -> None:
        super().__init__(path, problems, "build the optimizer as it was, or start a new run")
