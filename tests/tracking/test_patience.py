"""What passes by itself is waited for, and nothing else."""

from __future__ import annotations

import errno
import sqlite3

import pytest

from unfused.tracking import patience
from unfused.tracking.patience import GivenUp, Patience


def mlflow_error(text: str, code: str) -> Exception:
    from mlflow import MlflowException
    from mlflow.protos import databricks_pb2

    return MlflowException(text, error_code=getattr(databricks_pb2, code))


def answered(status: int) -> Exception:
    from requests import HTTPError, Response

    response = Response()
    response.status_code = status
    return HTTPError("answered", response=response)


REFUSED = "API request to http://h:1/api failed with exception HTTPConnectionPool: refused"
PASSES = {
    "connection refused": lambda: mlflow_error(REFUSED, "INTERNAL_ERROR"),
    "a proxy's 502": lambda: mlflow_error(
        "API request to endpoint /x failed with error code 502 != 200", "INTERNAL_ERROR"
    ),
    "locked": lambda: mlflow_error("database is locked", "TEMPORARILY_UNAVAILABLE"),
    "too many requests": lambda: mlflow_error("slow down", "REQUEST_LIMIT_EXCEEDED"),
    "connection reset": lambda: ConnectionResetError("reset"),
    "disk full": lambda: OSError(errno.ENOSPC, "No space left on device"),
    "an upload's 503": lambda: answered(503),
}
STAYS = {
    "refused value": lambda: mlflow_error("bad name", "INVALID_PARAMETER_VALUE"),
    "broken tables": lambda: mlflow_error("no such table: metrics", "TEMPORARILY_UNAVAILABLE"),
    "no such file": lambda: FileNotFoundError("model.json"),
    "an upload's 404": lambda: answered(404),
    "our own fault": lambda: KeyError("changes"),
}


@pytest.mark.parametrize("trouble", PASSES.values(), ids=PASSES)
def test_what_passes_is_tried_again_until_it_works(trouble, monkeypatch):
    monkeypatch.setattr(patience, "FIRST_PAUSE", 0.001)
    troubles = [trouble() for _ in range(4)]

    def call() -> str:
        if troubles:
            raise troubles.pop()
        return "done"

    assert Patience().try_on(call) == "done"


@pytest.mark.parametrize("trouble", STAYS.values(), ids=STAYS)
def test_what_does_not_pass_is_raised_at_once(trouble):
    error, calls = trouble(), []

    def call() -> None:
        calls.append(1)
        raise error

    with pytest.raises(type(error)):
        Patience().try_on(call)
    assert len(calls) == 1


def test_an_error_of_the_servers_own_is_tried_some_times_and_holds_up_nothing_for_ever(monkeypatch):
    monkeypatch.setattr(patience, "FIRST_PAUSE", 0.001)
    calls = []

    def call() -> None:
        calls.append(1)
        raise mlflow_error("something broke", "INTERNAL_ERROR")

    with pytest.raises(Exception, match="something broke"):
        Patience().try_on(call)
    assert len(calls) == patience.STUMBLES


@pytest.mark.parametrize(
    "error",
    [
        lambda: mlflow_error("log in", "UNAUTHENTICATED"),
        lambda: sqlite3.DatabaseError("database disk image is malformed"),
    ],
)
def test_what_a_person_must_mend_is_kept_for_later(error):
    def call() -> None:
        raise error()

    with pytest.raises(GivenUp):
        Patience().try_on(call)


def test_there_is_an_end_to_it(monkeypatch):
    def call() -> None:
        raise ConnectionRefusedError("nobody is there")

    with pytest.raises(GivenUp, match="nobody is there"):
        Patience(most=0.1).try_on(call)


def test_what_a_database_says_is_told_and_not_what_is_put_around_it():
    said = (
        "(raised as a result of Query-invoked autoflush; consider using a session.no_autoflush"
        " block)\n(sqlite3.OperationalError) attempt to write a readonly database\n[SQL: ...]"
    )
    assert patience.told(RuntimeError(said)) == "attempt to write a readonly database"
    assert patience.told(RuntimeError(" ")) == "RuntimeError"
