"""Events of training. In the order of a run: see the docstring of each and ``docs/events.md``."""

from __future__ import annotations

from pydantic import Field

from .families import BatchEnd, BatchStart, OptimizerEvent, TrainEvent
from .fields import Bytes, Count, FilePath, Scalars, Seconds
from .run import ErrorInfo, Outcome


class PretrainRoutineStart(TrainEvent):
    """Preparation begins: data and checkpoint were checked, nothing was moved or loaded yet."""

    epochs: int | None = Field(description="Epochs asked for; null where only steps or time limit the run.")


class PretrainRoutineEnd(TrainEvent):
    """Model, data, optimizer and, on resuming, the checkpoint are ready."""

    parameters: Count = Field(description="Parameters of the model.")
    trainable: Count = Field(description="Parameters that are trained.")
    batches: int | None = Field(description="Training batches an epoch; null where the loader does not know.")
    val_batches: int | None = Field(description="Validation batches; null without validation or where unknown.")
    resumed_from: FilePath | None = Field(default=None, description="Checkpoint that was loaded.")


class TrainStart(TrainEvent):
    """The epochs begin."""

    epoch: Count = Field(description="First epoch to run, from 0; more than 0 on resuming.")
    epochs: int | None = Field(description="Epochs asked for.")
    batches: int | None = Field(description="Training batches an epoch.")
    step: Count = Field(description="Optimizer steps completed before; more than 0 on resuming.")


class TrainEpochStart(TrainEvent):
    """An epoch begins."""

    epoch: Count = Field(description="Epoch, from 0.")
    epochs: int | None = Field(description="Epochs asked for.")
    batches: int | None = Field(description="Batches of this epoch.")
    lr: Scalars = Field(description="Learning rate by parameter group.")


class TrainBatchStart(TrainEvent, BatchStart):
    """A batch was fetched; the forward pass comes next."""

    data_seconds: Seconds = Field(default=0.0, description="Seconds the loop waited for the loader.")


class OptimizerStep(OptimizerEvent, callback="optimizer_step"):
    """The gradients are complete, unscaled and clipped; the optimizer steps next."""

    grad_norm: float | None = Field(
        default=None, description="Norm of all gradients before clipping; null without clipping."
    )
    lr: Scalars = Field(description="Learning rate by parameter group.")


class OptimizerSkip(OptimizerEvent):
    """The scaler skipped the step because gradients were not finite."""

    scale: float | None = Field(
        default=None, description="Loss scale in use; null where reading it would stop the device."
    )


class ParamsUpdate(OptimizerEvent):
    """The optimizer has changed the parameters, and the moving average follows them."""

    ema: bool = Field(description="Whether a moving average was updated too.")


class BeforeZeroGrad(OptimizerEvent):
    """The gradients are about to be set to zero."""


class TrainBatchEnd(TrainEvent, BatchEnd):
    """A batch is done: forward, backward and, where its window was complete, the optimizer step."""

    step: Count = Field(description="Optimizer steps completed.")
    loss: float = Field(description="Loss of the batch: the value that was differentiated, before scaling.")
    losses: Scalars = Field(description="Its parts by name.")
    lr: Scalars = Field(description="Learning rate by parameter group.")
    seconds: Seconds = Field(default=0.0, description="Seconds from the batch's arrival to its end, on the host.")


class NonFinite(TrainEvent):
    """A loss became nan or infinite."""

    epoch: Count = Field(description="Epoch of the batch.")
    batch: Count = Field(description="The batch whose loss it was.")
    step: Count = Field(description="Optimizer steps completed before that batch.")
    losses: Scalars = Field(description="The losses by name.")


class TrainEpochEnd(TrainEvent):
    """The batches of an epoch are done; validation comes next."""

    epoch: Count = Field(description="Epoch, from 0.")
    epochs: int | None = Field(description="Epochs asked for.")
    batches: Count = Field(description="Batches computed in this epoch.")
    step: Count = Field(description="Optimizer steps completed.")
    losses: Scalars = Field(description="Mean of this epoch's losses by name, weighted by batch size.")
    lr: Scalars = Field(description="Learning rate by parameter group.")
    duration: Seconds = Field(description="Seconds the epoch's batches took.")
    samples: Count = Field(description="Samples seen in this epoch.")
    speed: float = Field(description="Samples a second.", json_schema_extra={"unit": "1/s"})


class ModelSave(TrainEvent):
    """A checkpoint is on disk, whole."""

    epoch: Count = Field(description="Epoch it was written in.")
    step: Count = Field(description="Optimizer steps it holds.")
    path: FilePath = Field(description="The checkpoint to resume from.")
    best: FilePath | None = Field(description="The best checkpoint, where this one became it.")
    fitness: float | None = Field(description="Fitness of this checkpoint; null where it was not validated.")
    bytes: Bytes = Field(description="Size of the file.")
    duration: Seconds = Field(description="Seconds the loop waited for it.")


class FitEpochEnd(TrainEvent):
    """An epoch is over: trained, validated, saved. Once more, with `final`, for the best weights at the end."""

    epoch: Count = Field(description="Epoch; for the final evaluation the epoch of the best weights.")
    epochs: int | None = Field(description="Epochs asked for.")
    final: bool = Field(default=False, description="Whether this is the final evaluation of the best weights.")
    losses: Scalars = Field(description="Mean training losses of the epoch by name.")
    metrics: Scalars = Field(description="Validation metrics and losses just computed; empty where the epoch had none.")
    fitness: float | None = Field(description="The number to be improved, larger is better; null without validation.")
    best_fitness: float | None = Field(description="The best so far.")
    best_epoch: int | None = Field(description="The epoch it was reached in.")
    best: FilePath | None = Field(description="The best checkpoint.")
    last: FilePath | None = Field(description="The latest checkpoint.")
    duration: Seconds = Field(description="Seconds of the epoch, validation and saving included.")


class TrainEnd(TrainEvent):
    """Training came to its end by itself or by a stop. A failed run has none."""

    epochs: Count = Field(description="Epochs completed.")
    step: Count = Field(description="Optimizer steps completed.")
    metrics: Scalars = Field(description="Metrics of the final evaluation; without one, of the last validation.")
    best_fitness: float | None = Field(description="The best fitness reached.")
    best_epoch: int | None = Field(description="The epoch it was reached in.")
    best: FilePath | None = Field(description="The best checkpoint.")
    last: FilePath | None = Field(description="The latest checkpoint.")
    duration: Seconds = Field(description="Seconds since `TrainStart`.")


class Teardown(TrainEvent, callback="teardown"):
    """The trainer gives back what it held. Comes however the run ended."""

    outcome: Outcome = Field(description="`completed`, `stopped` or `failed`.")
    reason: str | None = Field(default=None, description="Why, where that is not obvious.")
    error: ErrorInfo | None = Field(default=None, description="The error of a failed run.")
