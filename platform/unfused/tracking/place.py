"""Where runs are recorded, and whether that can work.

The rule of this file: it imports MLflow only to make what is missing, and a file that somebody may
miss is moved aside, never removed.
"""

from __future__ import annotations

import importlib.metadata
import logging
import os
import shlex
import shutil
import sqlite3
import ssl
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.client import HTTPException
from pathlib import Path
from typing import Any

from unfused import locks, secrets
from unfused.config import ConfigError, database_url
from unfused.tracking import views

log = logging.getLogger(__package__)

DEFAULT_URI = "sqlite:///mlflow.db"
DEFAULT_NAME = DEFAULT_URI.rpartition("/")[2]
MAGIC = b"SQLite format 3\0"
COMPANIONS = ("-journal", "-wal", "-shm")
"""Files beside a sqlite database that would be taken for the next one's."""
OUTDATED = "out-of-date database schema"
"""What MLflow says of a database that it has not migrated to its own version."""
MAKING_SECONDS = 60.0
"""After which nobody is thought to make a database that is not whole."""
ANSWER_SECONDS = 5.0
DATABASES = ("postgresql", "mysql", "mssql")
RETRIES = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"
QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    RETRIES: "0",
}
"""MLflow's own settings, unless the environment has others. Retries are ours (see `patience`):
MLflow would make a run twice whose first answer was lost."""
UI = "http://127.0.0.1:5000"
"""Where `mlflow ui` answers."""


class TrackingError(ConfigError):
    """MLflow cannot be used as asked; the message is one sentence that names the remedy."""


def quiet_client(uri: str) -> Any:
    """MLflow's client, whose own bars and notes stay out of the output."""
    _quiet_mlflow()
    from mlflow import MlflowClient, MlflowException

    try:
        return MlflowClient(uri)
    except MlflowException as error:
        if OUTDATED not in str(error):
            raise
        raise TrackingError(
            f"{bare(uri)} is of another version of MLflow; copy it and run"
            f" `mlflow db upgrade {shlex.quote(bare(uri))}`, or move it away"
        ) from None


def _quiet_mlflow() -> None:
    """Import MLflow so that its own bars and notes stay out of the output."""
    for setting, value in QUIET.items():
        os.environ.setdefault(setting, value)
    import mlflow  # noqa: F401

    for library in ("mlflow", "alembic"):
        # The import sets these to INFO; a run's output is the run's own.
        logging.getLogger(library).setLevel(logging.ERROR)
    # It logs the trace of what it also raises.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)


@contextmanager
def reading() -> Iterator[None]:
    """Let MLflow ask a server again meanwhile, a few times: what is only read is read twice without
    harm. Where the environment says how often, it is left so."""
    if os.environ.get(RETRIES) != QUIET[RETRIES]:
        yield
        return
    os.environ[RETRIES] = "3"
    try:
        yield
    finally:
        os.environ[RETRIES] = QUIET[RETRIES]


def is_missing(uri: str) -> bool:
    """Whether a URI names the file of a database that nobody has made yet."""
    path = _database(uri)
    return path is not None and not path.exists()


def initialise(uri: str | None = None) -> str:
    """Settle where runs are recorded, and that it can work; imports no MLflow and writes nothing.

    Args:
        uri: MLflow's tracking URI; by default MLFLOW_TRACKING_URI, else `sqlite:///mlflow.db`.

    Returns:
        The URI, with a database's path made absolute. The database itself is made by the first
        `Tracker` that opens it, under a lock.

    Raises:
        TrackingError: the URI is malformed, or no MLflow server answers there.
    """
    found = named(uri)
    if is_server(found):
        check_server(found)
    return found


def named(uri: str | None = None) -> str:
    """Where runs are recorded, as `initialise` returns it, without asking a server.

    Raises:
        TrackingError: the URI is malformed.
    """
    given = uri or os.environ.get("MLFLOW_TRACKING_URI") or DEFAULT_URI
    scheme = given.partition(":")[0].partition("+")[0]
    if scheme == "sqlite":
        return f"sqlite:///{_usable_database(given)}"
    if is_server(given):
        _check_host(given)
        return given.rstrip("/")
    if given.startswith("databricks") or scheme in DATABASES or scheme in plugin_schemes():
        return database_url(given)
    raise TrackingError(
        f"MLflow cannot track runs at {bare(given)!r}; use {DEFAULT_URI}"
        " or the address of a server (http://host:5000)."
    )


def ui_command(uri: str) -> str:
    """What opens MLflow's UI on `uri`: a server's address, or a command to type.

    One worker is enough for one person; by default it starts several, with processes of their own.
    """
    if is_server(uri):
        return secrets.without_login(uri)
    program = Path(sys.executable).with_name("mlflow")
    name = "mlflow" if shutil.which("mlflow") == str(program) else os.path.relpath(program)
    return secrets.command(f"{name} ui --workers 1 --backend-store-uri {shlex.quote(uri)}")


def ui_address(uri: str, experiment: str, *, trials: bool = False) -> str:
    """The page of an experiment's runs, with the columns and charts that matter.

    Args:
        uri: from `initialise`.
        experiment: its id.
        trials: whether it opens on the trials of searches.
    """
    view = views.TRIALS if trials else views.RUNS
    return views.address(secrets.without_login(uri) if is_server(uri) else UI, experiment, view)


def plugin_schemes() -> set[str]:
    return {point.name for point in importlib.metadata.entry_points(group="mlflow.tracking_store")}


def _database(uri: str) -> Path | None:
    """The file behind a sqlite URI; None for any other."""
    kind, found, path = uri.partition(":///")
    if not kind.startswith("sqlite") or not found:
        return None
    return Path(path).absolute()


def _usable_database(uri: str) -> Path:
    path = _database(uri)
    if path is None or path.name in ("", ":memory:"):
        raise TrackingError(f"{uri!r} names no file; write it as {DEFAULT_URI}.")
    if not os.access(path.parent, os.W_OK):
        raise TrackingError(f"{uri!r}: there is no folder {path.parent} to write in; make it.")
    if path.exists() and not (path.is_file() and _may_be_ours(path)):
        raise TrackingError(f"{path} is not a sqlite database; move it away or name another file.")
    return path


def _may_be_ours(path: Path) -> bool:
    """Whether a file is a database, or was one: it has the name that MLflow gives.

    Raises:
        TrackingError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return path.name == DEFAULT_NAME or file.read(len(MAGIC)) in (b"", MAGIC)
    except OSError as error:
        raise TrackingError(
            f"{path} cannot be read ({error.strerror}); have its owner allow it, or name another"
            " file."
        ) from None


def set_aside(uri: str) -> None:
    """Move a damaged database away, so that a new one takes its place, and say so.

    A process looks once, before MLflow has it open; one that is locked is not looked into.
    """
    path = _database(uri)
    if path is None or path in _looked_into or not path.exists():
        return
    _looked_into.add(path)
    if not (damage := _damage(path)):
        return
    aside = Path(f"{path}.damaged-{time.strftime('%Y%m%d-%H%M%S')}")
    for ending in COMPANIONS:
        if (beside := Path(f"{path}{ending}")).exists():
            beside.rename(f"{aside}{ending}")
    path.rename(aside)
    log.warning("%s is damaged (%s): set aside as %s, and begun anew.", path, damage, aside.name)


_looked_into: set[Path] = set()


def _damage(path: Path) -> str:
    """What is wrong with a database; empty where nothing is, or nobody may look now."""
    where = f"{path.absolute().as_uri()}?mode=rw"
    try:
        with closing(sqlite3.connect(where, uri=True, timeout=0)) as database:
            (found,) = database.execute("PRAGMA quick_check(1)").fetchone()
            half_made = found == "ok" and _half_made(database)
    except sqlite3.OperationalError:
        return ""
    except sqlite3.DatabaseError as error:
        return str(error)
    if half_made and time.time() - path.stat().st_mtime > MAKING_SECONDS:
        return "MLflow was killed while it made it"
    return "" if found == "ok" else str(found).splitlines()[-1]


def _half_made(database: sqlite3.Connection) -> bool:
    """Whether there are MLflow's tables without a version, which it neither opens nor upgrades."""
    names = "SELECT name FROM sqlite_master WHERE name IN ('experiments', 'alembic_version')"
    tables = {name for (name,) in database.execute(names)}
    if tables == {"experiments", "alembic_version"}:
        return database.execute("SELECT version_num FROM alembic_version").fetchone() is None
    return tables == {"experiments"}


def bare(uri: str) -> str:
    """A URI without what it is opened with: no user, no password, no key."""
    return secrets.hidden(secrets.without_login(uri))


def is_server(uri: str) -> bool:
    return uri.startswith(("http://", "https://"))


def _check_host(uri: str) -> None:
    """Refuse an address that names no host, or a port that there cannot be."""
    try:
        parts = urllib.parse.urlsplit(secrets.without_login(uri))
        sound = bool(parts.hostname) and parts.port != 0
    except ValueError:
        sound = False
    if not sound:
        raise TrackingError(f"{uri!r} is no address of a server; write it as http://host:5000.")


def check_server(uri: str) -> None:
    """Refuse a server that does not answer, or not to us; says nothing of what is no server."""
    if not is_server(uri):
        return
    remedy = "start it (`mlflow server`) or name another with --tracking-uri"
    try:
        _answer(f"{uri}/health")
    except (OSError, ValueError, HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise TrackingError(
            f"No MLflow server answers at {bare(uri)} ({reason}); {remedy}."
        ) from None
    try:
        status, body = _answer(f"{uri}/api/2.0/mlflow/experiments/search?max_results=1")
    except OSError:
        # A server that has just started opens its database now, which may take longer than we wait.
        return
    if status == 404:
        raise TrackingError(f"What is at {bare(uri)} is not an MLflow server; {remedy}.")
    if status == 403 and b"Host" in body:
        raise TrackingError(
            f"{bare(uri)} refuses that host name; start the server with --allowed-hosts."
        )


def _answer(url: str) -> tuple[int, bytes]:
    """Status and body; 0 for a certificate that only MLflow's own settings may accept."""
    # urllib knows no user:password@host.
    try:
        with urllib.request.urlopen(bare(url), timeout=ANSWER_SECONDS) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()
    except urllib.error.URLError as error:
        if isinstance(error.reason, ssl.SSLError):
            return 0, b""
        raise


@contextmanager
def sole_opener(uri: str) -> Iterator[None]:
    """Keep others from a sqlite database while it is made or migrated.

    MLflow takes no lock for that, and two that do it at once leave a broken file behind.
    """
    path = _database(uri)
    if path is None:
        yield
        return
    with locks.held(path):
        yield


def make_database(uri: str) -> None:
    """Make a sqlite database that is not there yet beside its place, and move it there whole; to be
    called before MLflow's client is made, which would make it in its place.

    MLflow makes one by some forty migrations, each kept at once, and opens none that lacks the
    last: one that was killed among them would be refused ever after.
    """
    path = _database(uri)
    if path is None or (path.exists() and path.stat().st_size):
        return
    _quiet_mlflow()
    from mlflow.store.db import utils

    new = path.with_name(f".{path.name}.new")
    leftovers = [Path(f"{new}{ending}") for ending in ("", *COMPANIONS)]
    for one in leftovers:
        one.unlink(missing_ok=True)
    try:
        engine = utils.create_sqlalchemy_engine(f"sqlite:///{new}")
        utils._initialize_tables(engine)
        engine.dispose()
        new.rename(path)
    finally:
        for one in leftovers:
            one.unlink(missing_ok=True)


def experiment_id(client: Any, uri: str, name: str) -> str:
    """The experiment's id; beside a database its artifacts go to `mlartifacts/`."""
    from mlflow import MlflowException

    found = client.get_experiment_by_name(name)
    path = _database(uri)
    if found is None:
        location = (path.parent / "mlartifacts").as_uri() if path else None
        try:
            return client.create_experiment(name, location)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            found = client.get_experiment_by_name(name)
    if found.lifecycle_stage == "deleted":
        raise TrackingError(f"Experiment {name!r} is deleted; restore it or name another.")
    return found.experiment_id
