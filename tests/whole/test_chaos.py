"""The first kill points of `make chaos`: the driver, its process group, a worker."""

from __future__ import annotations

import subprocess
import sys

import pytest

from conftest import ROOT


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_runs_that_are_killed_end_as_if_they_had_not_been():
    command = [sys.executable, "benchmarks/chaos.py", "--points", "3"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(" ok ") == 3
