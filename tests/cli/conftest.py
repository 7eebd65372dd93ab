from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from lineside.__main__ import main

TINY = """
import torch
from torch import nn
from torch.optim import SGD
from lineside import ExportConfig, PredictConfig, Recipe, TrainConfig

torch.manual_seed(0)
DATA = [(torch.randn(4, 3), torch.randn(4, 1)) for _ in range(3)]

recipe = Recipe(
    model=lambda: nn.Linear(3, 1),
    train_data=lambda: DATA,
    val_data=lambda: DATA[:1],
    predict_data=lambda: torch.ones(5, 3),
    example_inputs=lambda: torch.ones(2, 3),
    loss=nn.functional.mse_loss,
    optimizer=lambda parameters: SGD(parameters, lr=0.1),
    postprocess=lambda outputs, batch: [round(float(value), 3) for value in outputs],
    train=TrainConfig(epochs=2, name="tiny", device="cpu"),
    predict=PredictConfig(batch_size=2),
    export=ExportConfig(path="tiny.pt2"),
)
"""


class Done(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return the file of a tiny recipe in an empty folder, which is the current one."""
    file = tmp_path / "tiny_recipe.py"
    file.write_text(TINY)
    monkeypatch.chdir(tmp_path)
    path = list(sys.path)
    yield file
    sys.path[:] = path
    sys.modules.pop("tiny_recipe", None)


@pytest.fixture
def lineside(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """Return what runs a command in this process and says how it ended."""

    def run(*arguments: object) -> Done:
        monkeypatch.setattr(sys, "argv", ["lineside", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            main()
        out, err = capfd.readouterr()
        return Done(int(left.value.code or 0), out, err)

    return run
