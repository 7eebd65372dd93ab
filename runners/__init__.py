"""What makes it happen: the trainer, validator, predictor and exporter, and the hooks that steer them."""

from .config import RunnerConfig, TrainConfig, ValConfig
from .errors import (
    CheckpointError,
    CheckpointExists,
    CheckpointMismatch,
    CheckpointNotFound,
    CheckpointUnreadable,
    CheckpointUnwritable,
    DataError,
    DeviceUnavailable,
    EmptyData,
    ExhaustedData,
    HookInterrupted,
    IncompleteRecipe,
    InvalidArgument,
    InvalidBatch,
    InvalidConfig,
    InvalidHook,
    InvalidModel,
    InvalidObjective,
    ModelMismatch,
    NonFiniteLoss,
    OptimizerMismatch,
    RunEnded,
    RunnerBusy,
    RunnerError,
    ShorterData,
    StageNotReached,
    TrackingRefused,
    UnknownFitness,
    UnreachableStage,
    UnsavableState,
    WouldDeadlock,
)
from .export.config import ExportConfig, ExportResult
from .export.errors import (
    ExampleUnusable,
    ExportError,
    ExportMismatch,
    ExportPackageMissing,
    ExportPhaseFailed,
    ExportTargetExists,
    ExportUnwritable,
)
from .exporter import Exporter
from .hold import Hold
from .hooks import Hook
from .predict.batches import PredictBatch
from .predict.config import PredictConfig, PredictResult
from .predict.errors import (
    InputUnusable,
    NoBatch,
    OutputUnusable,
    PredictError,
    ResultMismatch,
    SourceUnusable,
    StreamBusy,
)
from .predict.stream import PredictStream
from .predictor import Predictor
from .recipe import Recipe
from .results import RunResult, TrainResult, ValResult
from .run import Run
from .runner import Ending, ReadyRunner, Runner
from .tracked import TrackedRun
from .train.fitting import load_weights
from .trainer import Trainer
from .validator import Validator

__all__ = [
    "CheckpointError",
    "CheckpointExists",
    "CheckpointMismatch",
    "CheckpointNotFound",
    "CheckpointUnreadable",
    "CheckpointUnwritable",
    "DataError",
    "DeviceUnavailable",
    "EmptyData",
    "Ending",
    "ExampleUnusable",
    "ExhaustedData",
    "ExportConfig",
    "ExportError",
    "ExportMismatch",
    "ExportPackageMissing",
    "ExportPhaseFailed",
    "ExportResult",
    "ExportTargetExists",
    "ExportUnwritable",
    "Exporter",
    "Hold",
    "Hook",
    "HookInterrupted",
    "IncompleteRecipe",
    "InputUnusable",
    "InvalidArgument",
    "InvalidBatch",
    "InvalidConfig",
    "InvalidHook",
    "InvalidModel",
    "InvalidObjective",
    "ModelMismatch",
    "NoBatch",
    "NonFiniteLoss",
    "OptimizerMismatch",
    "OutputUnusable",
    "PredictBatch",
    "PredictConfig",
    "PredictError",
    "PredictResult",
    "PredictStream",
    "Predictor",
    "ReadyRunner",
    "Recipe",
    "ResultMismatch",
    "Run",
    "RunEnded",
    "RunResult",
    "Runner",
    "RunnerBusy",
    "RunnerConfig",
    "RunnerError",
    "ShorterData",
    "SourceUnusable",
    "StageNotReached",
    "StreamBusy",
    "TrackedRun",
    "TrackingRefused",
    "TrainConfig",
    "TrainResult",
    "Trainer",
    "UnknownFitness",
    "UnreachableStage",
    "UnsavableState",
    "ValConfig",
    "ValResult",
    "Validator",
    "WouldDeadlock",
    "load_weights",
]
