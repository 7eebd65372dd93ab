from __future__ import annotations

from collections.abc import Generator

import pytest

from .kernels import Kernel, kernel


@pytest.fixture(scope="package")
def lab() -> Generator[Kernel]:
    """A kernel that the tests share: each uses names and cells of its own."""
    with kernel() as made:
        yield made
