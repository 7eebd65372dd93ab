from __future__ import annotations

from collections.abc import Iterator

import pytest

from lineside.schemas import event as event_module


@pytest.fixture(autouse=True)
def _only_shipped_events() -> Iterator[None]:  # pyright: ignore[reportUnusedFunction]
    """Tests of the same process define more events, some of which cannot be described."""
    registries = (event_module._by_type, event_module._by_callback)  # pyright: ignore[reportPrivateUsage]
    kept = [dict(registry) for registry in registries]
    for registry in registries:
        for key, cls in tuple(registry.items()):
            if cls.__module__.startswith("tests.") and not cls.__module__.startswith("tests.schemas"):
                del registry[key]
    yield
    for registry, before in zip(registries, kept, strict=True):
        registry.update({key: cls for key, cls in before.items() if key not in registry})
