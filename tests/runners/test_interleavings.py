"""Whatever threads, tasks and hooks do to a run at the same time, it ends, and nobody is left waiting.

``LINESIDE_INTERLEAVINGS=10000`` plays as many schedules. A failure names the seed; ``LINESIDE_SEED`` plays that alone.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lineside.bus import Bus

from .interleavings import DEADLINE, INNER, KINDS, STAGES, Script, Step, play, random_script

SCHEDULES = int(os.environ.get("LINESIDE_INTERLEAVINGS", "120"))
SEED = os.environ.get("LINESIDE_SEED")
PER_BUS = 100
"""Schedules that share a bus."""


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Let torch compute in the calling thread: the threads that matter here are others."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.slow
@pytest.mark.timeout(DEADLINE + SCHEDULES)
def test_no_interleaving_of_holds_pauses_stops_waits_and_checkpoints_hangs(tmp_path: Path) -> None:
    seeds = range(SCHEDULES) if SEED is None else [int(SEED)]
    before = set(threading.enumerate())
    for first in range(0, len(seeds), PER_BUS):
        with Bus() as bus:
            for seed in seeds[first : first + PER_BUS]:
                try:
                    play(random_script(seed), bus, tmp_path, f"schedule-{seed}")
                except BaseException as error:
                    error.add_note(f"LINESIDE_SEED={seed}")
                    raise
    left = set(threading.enumerate()) - before
    assert not left


_steps = st.builds(
    Step, st.sampled_from(KINDS), st.integers(0, len(STAGES) - 1), st.sampled_from(INNER), st.integers(0, 3)
)
_actors = st.lists(st.lists(_steps, max_size=3).map(tuple), max_size=3).map(tuple)
_scripts = st.builds(
    Script, _actors, _actors, st.lists(_steps, max_size=2).map(tuple), st.sampled_from([1, 2, None]), st.just(1)
)


@pytest.mark.slow
@settings(
    max_examples=max(SCHEDULES // 6, 1),
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(script=_scripts)
def test_no_script_hangs(script: Script, tmp_path: Path) -> None:
    with Bus() as bus:
        play(script, bus, tmp_path, "script")
