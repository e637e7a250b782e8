"""Which version of a registered model is to be used."""

from __future__ import annotations

import pytest

from tracked_runs import look, new_database
from unfused.tracking import champions


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory):
    return look(new_database(tmp_path_factory))


@pytest.fixture
def add(client, request: pytest.FixtureRequest, tmp_path):
    """`add(estimate, task)`: a version, and what is said of it."""
    name = request.node.name.replace("/", "-")[:60]
    client.create_registered_model(name)

    def one(estimate: float | None, task: str = "sounds") -> str:
        tags = champions.tags(task, estimate)
        version = client.create_model_version(name, str(tmp_path), tags=tags).version
        return champions.place(client, name, version, tags)

    def aliases() -> dict[str, int]:
        found = client.get_registered_model(name).aliases
        return {alias: int(version) for alias, version in found.items()}

    one.aliases = aliases
    return one


def test_the_first_version_is_champion_and_a_better_one_takes_its_place(add):
    assert "first" in add(0.75)
    assert add.aliases() == {"champion": 1}
    assert "cross-validated 0.800, version 1 0.750" in add(0.8)
    assert add.aliases() == {"champion": 2, "challenger": 1}


def test_a_version_that_is_no_better_is_challenger(add):
    add(0.75)
    add(0.75)
    assert add.aliases() == {"champion": 1, "challenger": 2}
    add(None)
    assert add.aliases() == {"champion": 1, "challenger": 3}


def test_a_version_of_another_task_moves_no_alias_however_good_it_is(add):
    add(0.75)
    assert "another task" in add(0.99, task="voices")
    assert add.aliases() == {"champion": 1}
