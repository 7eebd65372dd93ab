"""``lineside demo``: digits, from training to predictions, everything shown drawn from bus events."""

from __future__ import annotations

from typing import Annotated

import typer

from lineside.commands.runs import Plain, leave
from lineside.extras import needed_for


def demo(
    epochs: Annotated[int, typer.Option(min=1, help="Epochs to train.")] = 8,
    plain: Plain = False,
) -> None:
    """Train on digits, validate, export and predict."""
    with needed_for("the demo"):
        from lineside.demo.show import show
    show(epochs, plain, check=leave)
