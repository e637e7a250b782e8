"""Processes that share a machine share its cores out among them."""

from __future__ import annotations

import pytest

from unfused.cores import process


@pytest.mark.parametrize(("processes", "threads"), [(1, 8), (2, 4), (3, 2), (20, 1)])
def test_each_process_has_its_share_of_the_cores_also_without_glibc(
    monkeypatch, processes, threads
):
    def no_glibc(name: str) -> None:
        raise OSError(name)

    asked: list[int] = []
    monkeypatch.setattr(process, "available_cpus", lambda: 8)
    monkeypatch.setattr("torch.set_num_threads", asked.append)
    monkeypatch.setattr("ctypes.CDLL", no_glibc)
    process.prepare_process(processes)
    assert asked == [threads]
