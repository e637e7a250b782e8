"""The first dozen kill points of `make chaos`, of smaller runs."""

from __future__ import annotations

import subprocess
import sys

import pytest

from conftest import ROOT

SMALLER = ("arms=[unfused]", "teachers.also=[statistics]")


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_runs_that_are_killed_end_as_if_they_had_not_been():
    command = [sys.executable, "benchmarks/chaos.py", "--points", "12", *SMALLER]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(" ok ") == 12
