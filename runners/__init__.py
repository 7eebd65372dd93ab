"""What makes it happen: the trainer, validator, predictor and exporter, and the hooks that steer them."""

from .checkpoint import load_weights
from .config import RunnerConfig, TrainConfig, ValConfig
from .errors import (
    CheckpointError,
    CheckpointExists,
    CheckpointMismatch,
    CheckpointNotFound,
    CheckpointUnreadable,
    CheckpointUnwritable,
    DataError,
    EmptyData,
    ExhaustedData,
    HookInterrupted,
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
    UnknownFitness,
    UnsavableState,
    WouldDeadlock,
)
from .export.config import ExportConfig, ExportResult
from .exporter import Exporter
from .hold import Hold
from .hooks import Hook
from .predict.config import PredictConfig, PredictResult
from .predictor import Predictor
from .recipe import Recipe
from .results import RunResult, TrainResult, ValResult
from .run import Run
from .runner import Ending, Runner
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
    "EmptyData",
    "Ending",
    "ExhaustedData",
    "ExportConfig",
    "ExportResult",
    "Exporter",
    "Hold",
    "Hook",
    "HookInterrupted",
    "InvalidArgument",
    "InvalidBatch",
    "InvalidConfig",
    "InvalidHook",
    "InvalidModel",
    "InvalidObjective",
    "ModelMismatch",
    "NonFiniteLoss",
    "OptimizerMismatch",
    "PredictConfig",
    "PredictResult",
    "Predictor",
    "Recipe",
    "Run",
    "RunEnded",
    "RunResult",
    "Runner",
    "RunnerBusy",
    "RunnerConfig",
    "RunnerError",
    "ShorterData",
    "StageNotReached",
    "TrainConfig",
    "TrainResult",
    "Trainer",
    "UnknownFitness",
    "UnsavableState",
    "ValConfig",
    "ValResult",
    "Validator",
    "WouldDeadlock",
    "load_weights",
]
