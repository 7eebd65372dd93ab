"""What happened: frozen, typed payloads for every stage of every runner, and their form on the wire."""

from .bus import EventsMissed, SubscriberFailed
from .errors import DuplicateEvent, EventError, LinesideError, NotAnEvent, UndecodableEvent, UnknownEventName
from .event import Event, events, find_event, find_events
from .export import ExportEnd, ExportPhase, ExportStart
from .families import (
    BatchEnd,
    BatchEvent,
    BatchStart,
    BusEvent,
    ExportEvent,
    OptimizerEvent,
    PredictEvent,
    RunEvent,
    TrainEvent,
    ValEvent,
)
from .fields import FrozenDict, Json, JsonObject, Scalars
from .predict import PredictBatchEnd, PredictBatchStart, PredictEnd, PredictPostprocessEnd, PredictStart
from .run import ErrorInfo, Outcome, RunEnd, RunStart
from .train import (
    BeforeZeroGrad,
    FitEpochEnd,
    ModelSave,
    NonFinite,
    OptimizerSkip,
    OptimizerStep,
    ParamsUpdate,
    PretrainRoutineEnd,
    PretrainRoutineStart,
    Teardown,
    TrainBatchEnd,
    TrainBatchStart,
    TrainEnd,
    TrainEpochEnd,
    TrainEpochStart,
    TrainStart,
)
from .val import ValBatchEnd, ValBatchStart, ValEnd, ValStart
from .wire import UnknownEvent, decode, encode
