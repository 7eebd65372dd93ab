"""What type checkers know of the steps that a trainer takes. Nothing here is run; `make types` checks it.

Each ``type: ignore`` is an error that must be found: mypy and pyright complain of those that are not needed.
"""
# pyright: reportUnnecessaryTypeIgnoreComment=true, reportUnusedFunction=false

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lineside import Recipe, Trainer, Validator

Rows = DataLoader[dict[str, Tensor]]


@dataclass
class Pair:
    inputs: Tensor
    labels: Tensor


class Net(nn.Module):
    def training_step(self, batch: Mapping[str, Tensor]) -> Tensor:
        return batch["inputs"].sum()


def of_any_module(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    loss: Tensor = model(batch["inputs"]).mean()
    return loss


def of_ones_own_module(model: Net, batch: dict[str, Tensor]) -> Tensor:
    return model.training_step(batch)


def with_parts(model: Net, batch: Pair) -> dict[str, Tensor]:
    return {"ce": batch.inputs.sum(), "weights": batch.labels.sum()}


def with_what_is_only_reported(model: Net, batch: Pair) -> tuple[Tensor, dict[str, Tensor]]:
    return batch.inputs.sum(), {"accuracy": batch.labels.mean()}


def with_parts_and_numbers(model: Net, batch: Pair) -> tuple[dict[str, Tensor], dict[str, float]]:
    return {"ce": batch.inputs.sum()}, {"rows": len(batch.labels)}


def of_no_batch(model: nn.Module) -> Tensor:
    return torch.zeros(())


def of_text(model: nn.Module, batch: dict[str, Tensor]) -> str:
    return "low"


def a_step_may_name_its_own_model_and_batch(net: Net, rows: Rows, pairs: list[Pair]) -> None:
    Trainer(net, rows, step=of_any_module, optimizer=torch.optim.AdamW)
    Trainer(net, rows, step=of_ones_own_module, optimizer=torch.optim.AdamW)
    Trainer(net, pairs, step=with_parts, optimizer=torch.optim.AdamW)
    Trainer(net, pairs, step=with_what_is_only_reported, optimizer=torch.optim.AdamW)
    Trainer(net, pairs, step=lambda model, batch: (model(batch.inputs).sum(), {"rows": 3}), optimizer=torch.optim.AdamW)
    Validator(net, pairs, step=with_parts_and_numbers)
    Recipe(model=Net, step=of_ones_own_module)


def what_is_no_step_is_an_error(net: Net, rows: Rows) -> None:
    Trainer(net, rows, step=of_no_batch, optimizer=torch.optim.AdamW)  # type: ignore[arg-type]
    Validator(net, rows, step=of_text)  # type: ignore[arg-type]
