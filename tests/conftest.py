from __future__ import annotations

import os

import pytest

# Before torch is imported, here and in the processes that tests start: threads that compete for few cores make small
# models many times slower.
os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the slow tests last: what fails fast is seen first."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is not None)
