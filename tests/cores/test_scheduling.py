"""Ray's own processes step back for threads that train, where Linux knows how."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from unfused.cores import scheduling

needs_linux = pytest.mark.skipif(not hasattr(os, "SCHED_BATCH"), reason="Linux' scheduling")


def in_thread(run):
    """What `run` returns on a thread of its own, whose scheduling ends with it."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(run).result()


@needs_linux
def test_what_starts_in_the_background_stays_there_and_its_starter_does_not():
    def run() -> tuple[int, str, int]:
        with scheduling.in_background():
            inside = os.sched_getscheduler(0)
            child = "import os; print(os.sched_getscheduler(0))"
            printed = subprocess.check_output([sys.executable, "-c", child], text=True)
        return inside, printed.strip(), os.sched_getscheduler(0)

    assert in_thread(run) == (os.SCHED_BATCH, str(os.SCHED_BATCH), os.SCHED_OTHER)


@needs_linux
def test_a_thread_that_computes_leaves_the_background_and_keeps_its_turn_and_its_niceness():
    def run() -> list[tuple[int, int, int]]:
        found = []

        def look() -> None:
            now = scheduling.current()
            found.append((now.policy, now.turn, now.niceness))

        os.setpriority(os.PRIO_PROCESS, 0, 5)
        with scheduling.in_background():
            look()
            scheduling.hold_cores()
            look()
        scheduling.hold_cores()
        look()
        with scheduling.in_background():
            look()
        look()
        return found

    background, held, again, inside, after = in_thread(run)
    assert background[0] == inside[0] == os.SCHED_BATCH
    assert held == again == after and held[0] == os.SCHED_OTHER
    assert {niceness for *_, niceness in (background, held, again, inside, after)} == {5}
    kernel = tuple(int(part) for part in platform.release().split(".")[:2])
    if kernel >= (6, 12):
        assert held[1] == round(scheduling.TURN_SECONDS * 1e9)


def test_a_processor_whose_system_calls_are_not_known_changes_nothing(monkeypatch):
    monkeypatch.setattr(scheduling, "LINUX_CALLS", {})
    scheduling.hold_cores()
    with scheduling.in_background():
        assert scheduling.current() == scheduling.Scheduling(size=0)


@needs_linux
def test_without_the_speed_up_no_system_call_is_made(monkeypatch):
    calls: list[str] = []
    monkeypatch.setattr("ctypes.CDLL", lambda *_: calls.append("called"))
    monkeypatch.setenv("UNFUSED_SPEEDUPS", "dropout,lean")
    scheduling.hold_cores()
    with scheduling.in_background():
        pass
    assert not calls
