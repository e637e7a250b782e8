"""A place to track at works, or is refused in one sentence."""

from __future__ import annotations

import errno
import http.server
import socket
import threading
import time
from pathlib import Path

import pytest

from tracked_runs import free_port
from unfused import tracking
from unfused.config import ConfigError


class Test_the_place_to_track_at:
    def test_is_a_database_in_the_working_directory_by_default(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
        assert tracking.initialise() == f"sqlite:///{tmp_path}/mlflow.db"
        assert not list(tmp_path.iterdir())

    def test_is_the_environments_unless_the_request_names_one(self, tmp_path, monkeypatch):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/env.db")
        assert tracking.initialise() == f"sqlite:///{tmp_path}/env.db"
        other = f"sqlite:///{tmp_path}/other.db"
        assert tracking.initialise(other) == other

    @pytest.mark.parametrize(
        "uri", ["./mlruns", "file:///tmp/mlruns", "localhost:5000", "htp://host", "sqlite://"]
    )
    def test_must_be_one_that_mlflow_can_write_to(self, uri):
        with pytest.raises(tracking.TrackingError, match="sqlite:///mlflow") as refusal:
            tracking.initialise(uri)
        assert repr(uri) in str(refusal.value)
        assert isinstance(refusal.value, ConfigError)

    def test_is_a_database_with_the_driver_that_is_there(self):
        assert tracking.initialise("postgresql://me@h/x") == "postgresql+psycopg2://me@h/x"
        assert tracking.initialise("mysql://me:a@b@h/x") == "mysql://me:a%40b@h/x"

    def test_is_not_in_a_folder_that_is_missing(self, tmp_path):
        with pytest.raises(tracking.TrackingError, match=r"no folder .*missing"):
            tracking.initialise(f"sqlite:///{tmp_path}/missing/mlflow.db")

    def test_is_not_a_file_of_another_kind(self, tmp_path):
        (tmp_path / "letter.txt").write_text("This is a letter, not a database.")
        (tmp_path / "mlflow.db").mkdir()
        for name in ("letter.txt", "mlflow.db"):
            with pytest.raises(tracking.TrackingError, match="not a sqlite database"):
                tracking.initialise(f"sqlite:///{tmp_path}/{name}")

    def test_is_not_a_file_that_may_not_be_read(self, tmp_path, monkeypatch):
        (tmp_path / "mlflow.db").touch()

        def refuse(*_):
            raise PermissionError(errno.EACCES, "Permission denied")

        monkeypatch.setattr(Path, "open", refuse)
        with pytest.raises(tracking.TrackingError, match=r"mlflow\.db cannot be read"):
            tracking.initialise(f"sqlite:///{tmp_path}/mlflow.db")

    def test_is_refused_at_once_where_no_server_answers(self):
        began = time.monotonic()
        with pytest.raises(tracking.TrackingError, match="No MLflow server answers"):
            tracking.initialise(f"http://127.0.0.1:{free_port()}")
        assert time.monotonic() - began < 2

    def test_is_refused_where_the_server_is_silent(self, monkeypatch):
        monkeypatch.setattr("unfused.tracking.place.ANSWER_SECONDS", 0.3)
        with socket.create_server(("127.0.0.1", 0)) as silent:
            uri = f"http://127.0.0.1:{silent.getsockname()[1]}"
            with pytest.raises(tracking.TrackingError, match="No MLflow server answers"):
                tracking.initialise(uri)

    @pytest.mark.parametrize(
        ("status", "body", "remedy"),
        [(403, b"Invalid Host header", "--allowed-hosts"), (404, b"", "not an MLflow server")],
    )
    def test_is_refused_with_the_remedy_where_the_server_refuses(self, status, body, remedy):
        with answering(status, body) as uri, pytest.raises(tracking.TrackingError, match=remedy):
            tracking.initialise(uri)

    def test_may_ask_for_credentials_that_only_mlflow_knows(self):
        with answering(401, b"") as uri:
            assert tracking.initialise(f"{uri}/") == uri


class answering:
    """A server that gives one answer to everything."""

    def __init__(self, status: int, body: bytes) -> None:
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(status)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Quiet."""

        self.server = http.server.HTTPServer(("127.0.0.1", 0), Handler)

    def __enter__(self) -> str:
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{self.server.server_port}"

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()


def test_the_ui_is_named_without_a_login_and_a_database_without_its_password():
    server = "http://me:lantern@host:5000"
    assert tracking.ui_command(server) == "http://host:5000"
    assert tracking.ui_address(server, "3").startswith("http://host:5000/#/experiments/3/runs?")
    told = tracking.ui_command("postgresql://me:lantern@host/x")
    assert "postgresql://me:***@host/x" in told and "in the place of ***" in told


@pytest.mark.parametrize("login", ["me:lantern", "lantern", "me:p@lantern", "me:la/lantern"])
def test_a_server_that_does_not_answer_is_told_without_its_login(login):
    with pytest.raises(tracking.TrackingError, match="answers at http://") as refusal:
        tracking.initialise(f"http://{login}@127.0.0.1:{free_port()}")
    assert "lantern" not in str(refusal.value)


def test_the_ui_command_opens_the_database_or_names_the_servers_address():
    command = tracking.ui_command("sqlite:////data/my runs/mlflow.db")
    database = "'sqlite:////data/my runs/mlflow.db'"
    assert command.endswith(f"mlflow ui --workers 1 --backend-store-uri {database}")
    at_home, elsewhere = (tracking.ui_address(u, "3") for u in ("sqlite:///a.db", "http://h:80"))
    assert at_home.startswith("http://127.0.0.1:5000/#/experiments/3/runs?")
    assert elsewhere.startswith("http://h:80/#/experiments/3/runs?")
    assert tracking.ui_command("http://host:5000") == "http://host:5000"
