"""What torch makes of a module: scripted, traced, frozen, exported, compiled. All of it runs as it does when called."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Generator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lineside.runners import Exporter, Predictor, Trainer, Validator
from lineside.runners.errors import InvalidModel

INPUTS = torch.arange(12.0).reshape(4, 3)

untyped: Any = torch  # the types of what is used of it here are incomplete


def network() -> nn.Module:
    with untyped.random.fork_rng():
        torch.default_generator.manual_seed(0)
        return nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2), nn.Dropout(0.5)).eval()


def scripted(module: nn.Module) -> Any:
    return untyped.jit.script(module)


def traced(module: nn.Module) -> Any:
    return untyped.jit.trace(module, INPUTS)


def frozen(module: nn.Module) -> Any:
    return untyped.jit.freeze(untyped.jit.script(module))


def exported(module: nn.Module) -> Any:
    return torch.export.export(module, (INPUTS,)).module()


def compiled(module: nn.Module) -> Any:
    return untyped.compile(module, backend="eager")


def part_of_another(module: nn.Module) -> Any:
    return nn.Sequential(exported(module), frozen(nn.Sequential(nn.ReLU()).eval()), nn.Dropout(0.5))


Make = Callable[[nn.Module], nn.Module]
kinds = pytest.mark.parametrize("make", [scripted, traced, frozen, exported, compiled, part_of_another])


@pytest.fixture(autouse=True)
def old_ways_are_fine() -> Generator[None]:
    with warnings.catch_warnings():
        # TorchScript is on its way out, and in use; newer torch says so to whoever runs the program.
        for category in (DeprecationWarning, FutureWarning):
            warnings.filterwarnings("ignore", category=category)
        yield


@kinds
def test_a_prediction_gives_what_the_module_gives(make: Make) -> None:
    model = make(network())
    modes = [getattr(module, "training", False) for module in model.modules()]
    results = Predictor(model, batch_size=4, device="cpu").run(INPUTS).results
    expected = network()(INPUTS)
    torch.testing.assert_close(torch.stack(results), expected.relu() if make is part_of_another else expected)
    assert [getattr(module, "training", False) for module in model.modules()] == modes


def distance(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs - targets).square().mean()


@kinds
def test_it_can_be_validated(make: Make) -> None:
    expected = network()(INPUTS).detach()
    targets = expected.relu() if make is part_of_another else expected
    result = Validator(make(network()), [(INPUTS, targets)], loss=distance, device="cpu").run()
    assert result.losses["loss"] < 1e-9


def test_a_module_without_values_is_refused_with_what_to_do(tmp_path: Path) -> None:
    with torch.device("meta"):
        empty = nn.Linear(3, 2)
    partly = nn.Sequential(nn.Linear(3, 3), empty)
    batch = (INPUTS, torch.zeros(4, 2))
    sgd = partial(torch.optim.SGD, lr=0.1)
    for attempt in (
        partial(Predictor(partly, device="cpu").run, INPUTS),
        Validator(empty, [batch], loss=distance, device="cpu").run,
        Trainer(empty, [batch], loss=distance, optimizer=sgd, device="cpu", save=False).run,
        Exporter(empty, INPUTS, path=tmp_path / "empty.pt2").run,
    ):
        with pytest.raises(InvalidModel, match=r"meta device and has no values; give it values first: model\.to_empty"):
            attempt()
    assert not list(tmp_path.iterdir())
