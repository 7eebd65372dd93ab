"""`Recipe`: how to make each part of a training, validation, prediction and export, in one place."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from ..bus import Bus
from .config import TrainConfig, ValConfig
from .errors import IncompleteRecipe
from .exporter import ExportConfig, Exporter
from .objective import LossFunction, StepFunction
from .predictor import Postprocess, PredictConfig, Predictor, Preprocess
from .train.fitting import load_weights
from .train.random_state import seed_everything
from .trainer import Trainer
from .validator import Validator

if TYPE_CHECKING:
    from torchmetrics import Metric, MetricCollection

T = TypeVar("T")

Weights = str | os.PathLike[str]
"""A checkpoint that a trainer wrote, or the folder with its checkpoints: then the best."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How to make the parts of each runner, and the settings of each.

    The parts are functions, so that only what is needed is made, and every run gets its own. A Python file that
    builds a recipe can be run from the command line, ``lineside train FILE``; in a program a recipe makes runners::

        result = recipe.trainer(bus=bus, epochs=5).run()
        recipe.validator(result.best, bus=bus).run()
    """

    model: Callable[[], nn.Module]
    """Makes the module, with fresh weights."""
    train_data: Callable[[], Iterable[Any]] | None = None
    """Makes the batches to train on."""
    val_data: Callable[[], Iterable[Any]] | None = None
    """Makes the batches to validate on."""
    predict_data: Callable[[], Iterable[Any]] | None = None
    """Makes the inputs to predict."""
    example_inputs: Callable[[], Tensor | Sequence[Tensor]] | None = None
    """Makes inputs of the module to export it with."""
    loss: LossFunction | None = None
    """``loss(outputs, targets)``, see `Trainer`."""
    step: StepFunction | None = None
    """``step(model, batch)``, in place of `loss`."""
    optimizer: Callable[[Iterable[nn.Parameter]], Optimizer] | None = None
    """Makes the optimizer of the parameters."""
    scheduler: Callable[[Optimizer], LRScheduler] | None = None
    """Makes the learning rate scheduler of the optimizer."""
    metrics: Callable[[], Metric | MetricCollection | Mapping[str, Metric]] | None = None
    """Makes the metrics of validation."""
    preprocess: Preprocess | None = None
    """From inputs to what the module takes, in prediction."""
    postprocess: Postprocess[Any] | None = None
    """From the module's outputs to results, in prediction."""
    decode: Callable[[bytes, str], object] | None = None
    """From what a client sent and its media type to one input, where predictions are served. JSON comes value by value.
    Default: numbers and lists of them as arrays, pictures as arrays of shape (height, width, 3), RGB, uint8."""
    train: TrainConfig = field(default_factory=TrainConfig)
    val: ValConfig = field(default_factory=ValConfig)
    predict: PredictConfig = field(default_factory=PredictConfig)
    export: ExportConfig | None = None
    """Where to export to, and how."""

    def trainer(self, *, bus: Bus | None = None, config: TrainConfig | None = None, **settings: Any) -> Trainer:
        """Return a trainer of a new module. `settings` replace those of `config`, which is the recipe's by default.

        Where the settings have a seed, the module is made with it: its fresh weights are the same every time.

        Raises:
            IncompleteRecipe: there is nothing to train on, or no optimizer.
        """
        config = (config or self.train).with_(**settings)
        if config.seed is not None:
            seed_everything(config.seed)
        return Trainer(
            self.model(),
            _needed(self.train_data, "train_data", "training")(),
            val=None if self.val_data is None else self.val_data(),
            loss=self.loss,
            step=self.step,
            optimizer=_needed(self.optimizer, "optimizer", "training"),
            scheduler=self.scheduler,
            metrics=self._metrics(),
            bus=bus,
            config=config,
        )

    def validator(
        self,
        weights: Weights | None = None,
        *,
        bus: Bus | None = None,
        config: ValConfig | None = None,
        **settings: Any,
    ) -> Validator:
        """Return a validator of the module, with `weights` or fresh ones.

        Raises:
            IncompleteRecipe: there is nothing to validate on.
            CheckpointError: the weights cannot be loaded.
        """
        return Validator(
            self.trained(weights),
            _needed(self.val_data, "val_data", "validation")(),
            loss=self.loss,
            step=self.step,
            metrics=self._metrics(),
            bus=bus,
            config=config or self.val,
            **settings,
        )

    def predictor(
        self,
        weights: Weights | None = None,
        *,
        bus: Bus | None = None,
        config: PredictConfig | None = None,
        **settings: Any,
    ) -> Predictor[Any]:
        """Return a predictor with the module, with `weights` or fresh ones; `source` is what it may predict.

        Raises:
            CheckpointError: the weights cannot be loaded.
        """
        return Predictor(
            self.trained(weights),
            preprocess=self.preprocess,
            postprocess=self.postprocess,
            bus=bus,
            config=config or self.predict,
            **settings,
        )

    def source(self) -> Iterable[Any]:
        """Return the inputs to predict.

        Raises:
            IncompleteRecipe: there are none.
        """
        return _needed(self.predict_data, "predict_data", "prediction")()

    def exporter(
        self,
        weights: Weights | None = None,
        *,
        bus: Bus | None = None,
        config: ExportConfig | None = None,
        **settings: Any,
    ) -> Exporter:
        """Return an exporter of the module, with `weights` or fresh ones.

        Raises:
            IncompleteRecipe: there are no example inputs, or nothing says where to export to.
            CheckpointError: the weights cannot be loaded.
        """
        return Exporter(
            self.trained(weights),
            _needed(self.example_inputs, "example_inputs", "export")(),
            bus=bus,
            config=config or self.export_to(settings.pop("path", None)),
            **settings,
        )

    def export_to(self, path: str | os.PathLike[str] | None) -> ExportConfig:
        """Return how to export, to `path` or, without one, to where the recipe says.

        Raises:
            IncompleteRecipe: neither says where.
        """
        if path is None:
            return _needed(self.export, "export", "export without a path")
        if self.export is None:
            return ExportConfig(path=Path(path))
        opset = self.export.opset if Path(path).suffix == ".onnx" else None  # no other format has any
        return self.export.with_(path=Path(path), format=None, opset=opset)

    def trained(self, weights: Weights | None = None) -> nn.Module:
        """Return a module, with `weights` or fresh ones.

        Raises:
            CheckpointError: the weights cannot be loaded, or are those of another module.
        """
        model = self.model()
        if weights is not None:
            load_weights(model, weights)
        return model

    def _metrics(self) -> Metric | MetricCollection | Mapping[str, Metric] | None:
        return None if self.metrics is None else self.metrics()


def _needed(part: T | None, name: str, purpose: str) -> T:
    if part is None:
        raise IncompleteRecipe(name, purpose)
    return part
