"""An MLflow that the tests of this folder share, each with an experiment of its own."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from tracked_runs import eyes_on, new_database


@pytest.fixture(scope="session")
def database(tmp_path_factory: pytest.TempPathFactory) -> str:
    return new_database(tmp_path_factory)


@pytest.fixture
def mlflow(
    database: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> SimpleNamespace:
    """An experiment of the test's own, which works in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    return eyes_on(database, request.node.name)
