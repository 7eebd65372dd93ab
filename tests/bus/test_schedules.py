"""Ten thousand random schedules of everything that can be done to a bus, on real threads.

``LINESIDE_SCHEDULES`` sets another number.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCHEDULES = int(os.environ.get("LINESIDE_SCHEDULES", "10000"))
PROCESSES = 2


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_rules_hold_in_ten_thousand_random_schedules() -> None:
    first = random.randrange(1 << 30)
    each = SCHEDULES // PROCESSES
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.bus.schedules", str(first + part * each), str(each)],
            cwd=ROOT,
            stderr=subprocess.PIPE,
            text=True,
        )
        for part in range(PROCESSES)
    ]
    errors = [process.communicate()[1] for process in processes]
    assert [process.returncode for process in processes] == [0] * PROCESSES, "\n".join(errors)
