"""A pool whose workers are threads of this process."""

from __future__ import annotations

from pathlib import Path

import pytest

from unfused.store import Folder
from unfused.training import pool as rooms


class FakeSession:
    """Runs functions in place of jobs, and notes what it is told."""

    def __init__(self, cluster, storage) -> None:
        self.storage, self.told = storage, []

    def run(self, job):
        self.told.append("run")
        return job(self)

    def __getattr__(self, name: str):
        def note(*_, **__):
            self.told.append(name)
            return True

        return note


def fake_pool(folder: Path, monkeypatch: pytest.MonkeyPatch, size: int) -> rooms.Pool:
    """A pool of so many."""
    monkeypatch.setattr(rooms, "Session", FakeSession)
    return rooms.Pool(None, Folder.of(folder / "work"), size)
