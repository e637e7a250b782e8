"""Two runs on the same cores compute in turns, and none waits for one that cannot go on."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from itertools import pairwise

import pytest
import torch

from unfused.cores.turns import Turns, turns_for

TAKES_TURNS = """
import sys, time
from pathlib import Path
from unfused.cores.turns import Turns

folder, name, count = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
turns, seen = Turns(folder), (folder / "seen").open("a", buffering=1)
print("ready", flush=True)
for _ in range(count):
    with turns:
        print(name, "in", file=seen)
        time.sleep(0.02)
        print(name, "out", file=seen)
"""


def taking_turns(folder, name, count):
    """A process that takes so many turns and writes them into `folder / "seen"`."""
    child = subprocess.Popen(
        [sys.executable, "-c", TAKES_TURNS, str(folder), name, str(count)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout.readline() == "ready\n"
    return child


def test_two_runs_on_the_same_cores_compute_in_turns_and_never_at_once(tmp_path):
    with Turns(tmp_path):
        children = [taking_turns(tmp_path, name, 30) for name in "ab"]
        time.sleep(0.5)
        assert not (tmp_path / "seen").read_text()
    assert [child.wait(60) for child in children] == [0, 0]
    seen = (tmp_path / "seen").read_text().split()
    names = seen[::4]
    assert sorted(names) == ["a"] * 30 + ["b"] * 30
    assert seen == [word for name in names for word in (name, "in", name, "out")]
    # One after the other would be a single change.
    assert sum(one != other for one, other in pairwise(names)) > 20


def test_a_suspended_run_is_not_waited_for_and_has_its_turns_again_when_it_goes_on(
    tmp_path, monkeypatch
):
    mine, seen = Turns(tmp_path), tmp_path / "seen"
    monkeypatch.setattr("unfused.cores.turns.LONGEST_TURN", 3.0)
    child = taking_turns(tmp_path, "child", 10_000)
    try:
        stopped_in_a_turn = False
        while not stopped_in_a_turn:
            os.kill(child.pid, signal.SIGCONT)
            time.sleep(0.005)
            os.kill(child.pid, signal.SIGSTOP)
            os.waitpid(child.pid, os.WUNTRACED)
            stopped_in_a_turn = seen.read_text().endswith("in\n")
        began = time.monotonic()
        with mine:
            assert time.monotonic() - began > 1.0
        began = time.monotonic()
        for _ in range(100):
            with mine:
                pass
        assert time.monotonic() - began < 1.0
        os.kill(child.pid, signal.SIGCONT)
        # From its next turn on it is waited for, and it waits.
        so_far = len(seen.read_text())
        while "in" not in seen.read_text()[so_far:]:
            time.sleep(0.005)
        for _ in range(20):
            with mine:
                during = seen.read_text()
                time.sleep(0.05)
                assert seen.read_text() == during and during.endswith("out\n")
    finally:
        child.kill()
        child.wait()


@pytest.mark.parametrize(
    ("world", "device", "threads", "takes"),
    [(1, "cpu", 4, True), (2, "cpu", 4, False), (1, "cuda", 4, False), (1, "cpu", 2, False)],
)
def test_turns_are_taken_by_processes_that_have_all_cores_to_themselves(
    monkeypatch, world, device, threads, takes
):
    monkeypatch.setattr("unfused.cores.turns.available_cpus", lambda: 4)
    monkeypatch.setattr("torch.get_num_threads", lambda: threads)
    assert isinstance(turns_for(world, torch.device(device)), Turns) == takes


def test_without_a_place_for_the_file_nobody_takes_turns(monkeypatch, tmp_path):
    monkeypatch.setattr("unfused.cores.turns.available_cpus", lambda: 4)
    monkeypatch.setattr("torch.get_num_threads", lambda: 4)
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path / "missing"))
    with turns_for(1, torch.device("cpu")):
        pass


def test_without_locks_in_that_place_nobody_takes_turns(monkeypatch):
    def no_locks(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("unfused.cores.turns.available_cpus", lambda: 4)
    monkeypatch.setattr("torch.get_num_threads", lambda: 4)
    monkeypatch.setattr("fcntl.lockf", no_locks)
    with turns_for(1, torch.device("cpu")):
        pass
