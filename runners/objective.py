"""`Objective`: what is minimised, made of the user's ``loss`` or ``step``."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn

from .errors import InvalidBatch, InvalidObjective
from .scalars import Scalar, described, scalar_of

LossValue = Tensor | Mapping[str, Tensor]
LossFunction = Callable[[Any, Any], LossValue]
"""``loss(outputs, targets)``, a tensor of one element; the tensors of a mapping are added up."""
StepValue = LossValue | tuple[LossValue, Mapping[str, Tensor | float]]
"""A loss; or a loss, and numbers by name that are only reported beside it."""
StepFunction = Callable[[Any, Any], StepValue]
"""``step(model, batch)``; it calls the model itself. Any: a step names its own classes of model and batch."""


@dataclass(frozen=True, slots=True)
class Loss:
    """A loss as it was computed: its parts by name, their sum, and what is only reported beside them."""

    total: Tensor
    parts: Mapping[str, Tensor]
    reported: Mapping[str, Scalar] = field(default_factory=dict[str, Scalar])

    @classmethod
    def of(cls, value: LossValue) -> Loss:
        """Return `value`, a scalar tensor or a mapping of them, as a loss.

        Raises:
            InvalidObjective: it is anything else.
        """
        if not isinstance(value, Mapping):
            _check_scalar("loss", value)
            return cls(value, {"loss": value})
        for name, part in value.items():
            _check_scalar(_named(name, "the loss has a part"), part)
        if not value:
            raise InvalidObjective("the loss is an empty mapping", "expected at least one scalar tensor by name")
        return cls(functools.reduce(operator.add, value.values()), value)

    @classmethod
    def of_step(cls, value: StepValue) -> Loss:
        """Return what a step returned, a loss or a pair of one and of what is only reported, as a loss.

        Raises:
            InvalidObjective: it is anything else.
        """
        if not isinstance(value, tuple):
            return cls.of(value)
        given: tuple[object, ...] = value
        reported = given[1] if len(given) == 2 else None
        if not isinstance(reported, Mapping):
            raise InvalidObjective(
                f"the step returned a tuple of {', '.join(type(item).__qualname__ for item in given) or 'nothing'}",
                "expected a loss, or a loss and a mapping of what is only to be reported: "
                "`return loss, {'accuracy': accuracy}`",
            )
        loss = cls.of(value[0])
        scalars: dict[str, Scalar] = {}
        for name, number in cast("Mapping[object, object]", reported).items():
            known = _named(name, "the step reports a number beside its loss")
            scalars[known] = _reported(known, number, loss)
        return cls(loss.total, loss.parts, scalars)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the parts, then of what is only reported."""
        return (*self.parts, *self.reported)

    @property
    def values(self) -> Mapping[str, Scalar]:
        """Parts and what is only reported, by name."""
        return {**self.parts, **self.reported} if self.reported else self.parts


def _named(name: object, what: str) -> str:
    if not isinstance(name, str):
        raise InvalidObjective(f"{what} under {name!r}, a {type(name).__qualname__}", "name it by a str")
    return name


def _reported(name: str, number: object, loss: Loss) -> Scalar:
    if name in loss.parts:
        raise InvalidObjective(
            f"the step reports {name!r} beside its loss, which has a part of that name", "report it by another name"
        )
    scalar = scalar_of(number)
    if scalar is None:
        raise InvalidObjective(
            f"{name}, which the step reports beside its loss, is {described(number)}",
            "expected a number, or a dense tensor or array with one real element, the mean over the samples",
        )
    return scalar


def _check_scalar(name: str, part: object) -> None:
    expected = "expected a scalar tensor, or a mapping of scalar tensors by name"
    if not isinstance(part, Tensor):
        raise InvalidObjective(f"{name} is {part!r:.80} of type {type(part).__qualname__}", expected)
    if part.numel() != 1:
        problem = f"{name} is a tensor of shape {tuple(part.shape)}"
        raise InvalidObjective(problem, f"{expected}; reduce it, e.g. with .mean()")
    if part.is_complex():
        raise InvalidObjective(f"{name} is a complex tensor", f"{expected}, real ones, e.g. its .abs()")


class Objective:
    """Computes the loss of a batch with `loss` (then a batch is a pair of inputs and targets) or with `step`.

    Raises:
        InvalidObjective: both are given, or they cannot be called; none is given where one is `needed`.
    """

    def __init__(self, loss: LossFunction | None, step: StepFunction | None, *, needed: bool = True) -> None:
        if (loss is not None and step is not None) or (needed and loss is None and step is None):
            given = "neither loss nor step" if loss is None else "both loss and step"
            raise InvalidObjective(f"{given} was given", "pass one: loss=f(outputs, targets) or step=f(model, batch)")
        for function in (loss, step):
            if function is not None and not callable(function):
                raise InvalidObjective(f"{function!r:.80} is not callable", "pass a function or a module")
            if isinstance(function, type) and issubclass(function, nn.Module):
                raise InvalidObjective(
                    f"{function.__qualname__} is a class of modules", f"make one of it: {function.__qualname__}(...)"
                )
        self._loss = loss
        self._step = step

    def __bool__(self) -> bool:
        return self._loss is not None or self._step is not None

    @property
    def same_in_validation(self) -> bool:
        """Whether validation has the losses of training: a step may look at the model's mode."""
        return self._loss is not None

    def to(self, device: torch.device) -> None:
        """Move a loss that is a module, e.g. one with class weights, to `device`."""
        if isinstance(self._loss, nn.Module):
            self._loss.to(device)

    def loss(self, model: nn.Module, batch: Any) -> Loss:
        """Return the loss of `model` on `batch`."""
        if self._step is not None:
            return Loss.of_step(self._step(model, batch))
        return self.evaluate(model, batch).known_loss

    def evaluate(self, model: nn.Module, batch: Any, *, outputs: bool = True) -> Evaluated:
        """Return the loss, where there is one, and the outputs and targets that metrics compare.

        With `step`, the model is called once more for the outputs; not if `outputs` are not wanted.
        """
        stepped = None if self._step is None else Loss.of_step(self._step(model, batch))
        if stepped is not None and not outputs:
            return Evaluated(stepped, None, None)
        inputs, targets = self._pair(batch)
        computed = model(inputs)
        loss = stepped if self._loss is None else Loss.of(self._loss(computed, targets))
        return Evaluated(loss, computed, targets)

    def _pair(self, batch: object) -> tuple[Any, Any]:
        given: object = batch
        items = cast("Sequence[object]", given) if isinstance(batch, (tuple, list)) else ()
        if len(items) != 2:
            raise InvalidBatch(given, metrics=self._loss is None)
        return items[0], items[1]


@dataclass(frozen=True, slots=True)
class Evaluated:
    """A batch, evaluated."""

    loss: Loss | None
    outputs: Any
    targets: Any

    @property
    def known_loss(self) -> Loss:
        """The loss, where there must be one."""
        assert self.loss is not None
        return self.loss
