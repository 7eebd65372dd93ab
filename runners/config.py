"""The settings of the runners: frozen, checked when they are made, and described."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from .errors import InvalidArgument, InvalidConfig

Device = Annotated[
    str,
    Field(
        pattern=r"^(auto|cpu|cuda|mps|xpu)(:\d+)?$",
        description="`auto` (the best there is), `cpu`, `cuda`, `cuda:1`, `mps` ...",
    ),
]


class RunnerConfig(BaseModel, frozen=True):
    """What every runner can be told.

    Raises:
        InvalidConfig: a setting does not exist or cannot have that value; all of them are named.
    """

    model_config = ConfigDict(extra="forbid")

    if not TYPE_CHECKING:  # type checkers read the fields; the users get an error of ours

        def __init__(self, **settings: Any) -> None:
            try:
                super().__init__(**settings)
            except ValidationError as error:
                raise InvalidConfig(type(self).__name__, error) from None

    name: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z0-9_-]{1,64}$",
        description="Id of the run: letters, digits, `-` and `_`. Default: the kind, the time and four random digits.",
    )
    device: Device = "auto"

    @classmethod
    def of(cls, config: Self | None, **settings: object) -> Self:
        """Return `config`, or the default one, with some settings replaced.

        Raises:
            InvalidArgument: it is no config of this class.
        """
        if config is not None and not isinstance(cast("object", config), cls):
            raise InvalidArgument(
                f"config is {config!r:.80} of type {type(config).__qualname__}",
                f"expected a {cls.__name__}; settings can also be given by name",
            )
        return cls(**dict[str, Any](settings)) if config is None else config.with_(**settings)

    def with_(self, **settings: object) -> Self:
        """Return a copy with some settings replaced, checked like a new one."""
        given: dict[str, Any] = {name: getattr(self, name) for name in self.model_fields_set}
        return type(self)(**{**given, **dict[str, Any](settings)})


class TrainConfig(RunnerConfig, frozen=True):
    """How to train. The first limit reached ends it: `epochs`, `max_steps`, `max_seconds` or `patience`."""

    epochs: int | None = Field(default=10, ge=1, description="Epochs; null: `max_steps` or `max_seconds` is the limit.")
    max_steps: int | None = Field(
        default=None, ge=1, description="Optimizer steps, those of earlier attempts included."
    )
    max_seconds: float | None = Field(default=None, gt=0, description="Seconds, of this attempt alone.")
    patience: int | None = Field(
        default=None, ge=1, description="Validations without a better fitness after which to end."
    )

    amp: Literal["off", "bf16", "fp16"] = Field(
        default="off", description="Precision of the forward pass; fp16 scales the loss."
    )
    accumulate: int = Field(default=1, ge=1, description="Batches whose gradients make one optimizer step.")
    clip_norm: float | None = Field(default=None, gt=0, description="Largest norm of all gradients; null: no clipping.")
    ema_decay: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="Decay of a moving average of the weights, which is then what is validated.",
    )
    schedule: Literal["epoch", "step"] = Field(
        default="epoch", description="Whether the scheduler steps every epoch or step."
    )
    on_nonfinite: Literal["continue", "stop", "fail"] = Field(
        default="continue",
        description="What to do when a loss is nan or infinite. `NonFinite` is published in any case.",
    )

    validate_every: int = Field(default=1, ge=1, description="Validate every so many epochs, and in the last one.")
    fitness: str | None = Field(
        default=None,
        description="The metric (or validation loss) to improve. Default: the first metric, else the loss.",
    )
    mode: Literal["max", "min"] | None = Field(
        default=None,
        description="Which `fitness` is better, larger or smaller. Default: larger; for a loss, smaller.",
    )

    directory: Path | None = Field(default=None, description="Folder of the checkpoints. Default: `runs/<run id>`.")
    save: bool = Field(default=True, description="Write `last.pt` after every epoch and `best.pt` when it is the best.")
    save_every_steps: int | None = Field(
        default=None, ge=1, description="Write `last.pt` within epochs too, every so many optimizer steps."
    )
    resume: Path | None = Field(
        default=None, description="Checkpoint, or folder with a `last.pt`, to continue exactly."
    )
    overwrite: bool = Field(
        default=False, description="Let a new run replace the checkpoints of another in its folder."
    )

    seed: int | None = Field(
        default=None, ge=0, lt=2**32, description="Seed of Python, NumPy and torch; null: none is set."
    )
    deterministic: bool = Field(
        default=False, description="Use deterministic algorithms only, for the length of the run."
    )
    compile: bool = Field(default=False, description="Compile the model with torch.compile.")

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if self.epochs is None and self.max_steps is None and self.max_seconds is None:
            raise ValueError("epochs=None needs another limit: set max_steps or max_seconds")
        if self.resume is not None and self.overwrite:
            raise ValueError("resume continues a run and overwrite replaces one: set one of the two")
        if self.save_every_steps is not None and not self.save:
            raise ValueError("save_every_steps says how often to save, and save=False never does: set one of the two")
        return self


class ValConfig(RunnerConfig, frozen=True):
    """How to validate."""

    amp: Literal["off", "bf16", "fp16"] = Field(default="off", description="Precision of the forward pass.")
    fitness: str | None = Field(
        default=None, description="The metric or loss that is the fitness. Default: the first metric."
    )
    mode: Literal["max", "min"] | None = Field(
        default=None,
        description="Which `fitness` is better, larger or smaller. Default: larger; for a loss, smaller.",
    )
