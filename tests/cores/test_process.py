"""A job has the same threads whatever runs beside it."""

from __future__ import annotations

import getpass
import os
import subprocess
import sys
from pathlib import Path

import pytest

from unfused.cores import process


@pytest.mark.parametrize(("cores", "threads"), [(1, 1), (2, 1), (7, 1), (8, 2), (64, 16)])
def test_a_job_has_its_share_of_the_cores_also_without_glibc(monkeypatch, cores, threads):
    def no_glibc(name: str) -> None:
        raise OSError(name)

    asked: list[int] = []
    monkeypatch.setattr(process, "available_cpus", lambda: cores)
    monkeypatch.setattr("torch.set_num_threads", asked.append)
    monkeypatch.setattr("ctypes.CDLL", no_glibc)
    process.prepare_process()
    process.prepare_process(threads=1)
    assert asked == [threads, 1]


HEAP = """
import torch
from unfused import cores
from unfused.cores import memory_of
import os

cores.prepare_process()
blocks = [torch.ones(1_000_000) for _ in range(100)]
last = torch.ones(1000)  # Above them in the heap, which can so not end below it.
full = memory_of(os.getpid())
del blocks
kept = memory_of(os.getpid())
cores.return_memory()
print(full, kept, memory_of(os.getpid()))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the heap is glibc's")
def test_a_heap_keeps_what_is_freed_until_it_is_returned():
    done = subprocess.run([sys.executable, "-c", HEAP], capture_output=True, text=True, check=True)
    full, kept, returned = map(int, done.stdout.split())
    assert full - kept < 50e6 < 300e6 < full - returned


def test_a_container_has_the_memory_that_it_is_given(monkeypatch, tmp_path):
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(process, "CGROUP_LIMIT", limit)
    whole = process.available_memory()
    limit.write_text("max\n")
    assert process.available_memory() == whole
    limit.write_text("1073741824\n")
    assert process.available_memory() == 2**30


def test_a_user_whom_the_system_does_not_know_has_a_home_and_a_name(monkeypatch):
    def unknown(uid: int) -> None:
        raise KeyError(uid)

    monkeypatch.setattr("pwd.getpwuid", unknown)
    for name in ("HOME", "LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    process.settle_user()
    assert Path.home() == Path("/") and getpass.getuser() == str(os.geteuid())
