"""A place that fails says so in one sentence, after a few attempts that wait longer and longer."""

from __future__ import annotations

import http.server
import os
import resource
import subprocess
import sys
import threading

import pytest

from conftest import ROOT, TINY
from unfused import remote
from unfused.config import ConfigError
from unfused.pipeline import Request
from unfused.store import Folder, Store, StoreError, StoreFailed, folder


class Answers(http.server.BaseHTTPRequestHandler):
    """Answers every request with one status, and counts."""

    status, seen = 500, 0

    def do_HEAD(self) -> None:
        Answers.seen += 1
        self.send_response(Answers.status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@pytest.fixture
def answering(credentials):
    """A function that has an object store answer all requests with a status; gives its URI."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    where = f"region=us-east-1&scheme=http&endpoint_override=127.0.0.1:{server.server_port}"

    def answer(status: int) -> str:
        Answers.status, Answers.seen = status, 0
        return f"s3://clips/store?{where}"

    yield answer
    server.shutdown()


def test_a_store_in_a_bucket_is_tried_for_writing_and_left_as_it_was(bucket, credentials):
    store = Store.at(f"s3://clips/store{bucket[1]}")
    store.check_readable()
    store.check_writable()
    assert not store.root.files()


@pytest.mark.parametrize("try_it", [Store.check_readable, Store.check_writable])
def test_a_missing_bucket_is_told_with_its_remedy(bucket, credentials, try_it):
    with pytest.raises(StoreError, match=r"s3://absent/store: there is no such bucket; make it"):
        try_it(Store.at(f"s3://absent/store{bucket[1]}"))


@pytest.mark.parametrize("status", [401, 403])
def test_credentials_that_are_refused_are_refused_at_once(answering, status):
    store = Store.at(answering(status))
    with pytest.raises(StoreError, match="does not let these credentials in; give others"):
        store.check_readable()
    assert Answers.seen == 1


def test_a_store_that_answers_with_errors_is_asked_a_few_times(answering, monkeypatch):
    monkeypatch.setattr(remote, "ATTEMPTS", 3)
    store = Store.at(answering(500))
    with pytest.raises(StoreError, match="answers with errors, or not in time; wait"):
        store.check_readable()
    assert Answers.seen == 3


def test_an_endpoint_where_nothing_answers_is_told(credentials, monkeypatch):
    monkeypatch.setattr(remote, "ATTEMPTS", 2)
    where = "region=us-east-1&scheme=http&endpoint_override=127.0.0.1:9"
    with pytest.raises(StoreError, match="nothing answers; see that its endpoint is right"):
        Store.at(f"s3://clips/store?{where}").check_readable()


def test_a_store_says_where_it_is_without_its_keys():
    uri = "s3://key:secret@clips/store?region=us-east-1&endpoint_override=127.0.0.1:9&scheme=http"
    assert (Folder.of(uri) / "work").shown == "s3://clips/store/work"


def test_keys_of_the_uri_are_kept_and_others_are_looked_for(credentials):
    where = "?region=us-east-1&scheme=http&endpoint_override=127.0.0.1:9"
    _, (given,) = Folder.of(f"s3://mine:own@clips/a{where}").filesystem.__reduce__()
    _, (found,) = Folder.of(f"s3://clips/a{where}").filesystem.__reduce__()
    assert (given["access_key"], given["secret_key"]) == ("mine", "own")
    assert found["access_key"] != "mine"
    assert given["request_timeout"] == remote.ANSWER_SECONDS


def test_a_file_in_the_place_of_the_store_is_told(tmp_path):
    (tmp_path / "store").write_text("a file")
    with pytest.raises(StoreError, match=r"store: there is a file in its place; move that away"):
        Store.at(str(tmp_path / "store")).check_writable()


def test_a_folder_that_cannot_be_written_is_told():
    # Nobody, root neither, makes folders in there.
    with pytest.raises(StoreError, match="Cannot write to the store /proc/1/store: "):
        Store.at("/proc/1/store").check_writable()


def test_a_disk_that_is_full_is_refused_before_the_run(tmp_path, monkeypatch):
    """What is written goes to the device that is always full."""
    create = folder._Synced
    monkeypatch.setattr(folder, "_Synced", lambda path: create("/dev/full"))
    with pytest.raises(StoreError, match="no space left; free some space there"):
        Store.at(str(tmp_path / "store")).check_writable()


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError(28, "No space left on device"), "no space left; free some"),
        (RuntimeError("[Errno 28] No space left on device"), "no space left; free some"),
        (OSError("Cannot write 'x'. Detail: [errno 30] Read-only file system"), "read-only"),
        (OSError("When x: AWS Error SLOW_DOWN during PutObject"), "not in time; wait"),
    ],
)
def test_a_place_that_fails_in_the_middle_of_a_run_is_one_sentence(tmp_path, error, told):
    failed = Store.at(str(tmp_path)).failure(error)
    assert isinstance(failed, StoreFailed)
    assert str(failed).startswith(f"Cannot use the store {tmp_path} any more: ")
    assert told in str(failed) and len(str(failed).splitlines()) == 1


def test_a_full_disk_that_is_not_the_stores_is_named(tmp_path):
    error = OSError(28, "No space left on device", "/elsewhere/file")
    assert "/elsewhere/file any more" in str(Store.at(str(tmp_path)).failure(error))


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ("[errno 13] Permission denied", "it is read-only or somebody"),
        ("[errno 20] Not a directory", "there is a file in its place; move that away"),
    ],
)
def test_what_may_be_so_of_one_file_alone_names_it(tmp_path, said, why):
    error = OSError(f"Failed to open local file '{tmp_path}/a.bin'. Detail: {said}")
    told = str(Store.at(str(tmp_path)).failure(error))
    assert told.startswith(f"Cannot use {tmp_path}/a.bin any more: {why}")


@pytest.mark.parametrize("error", [ConfigError("wrong"), RuntimeError("no"), FileNotFoundError(2)])
def test_other_errors_stay_what_they_are(tmp_path, error):
    assert Store.at(str(tmp_path)).failure(error) is error


def _limited() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


@pytest.mark.slow
def test_a_store_that_cannot_be_written_is_one_sentence_before_anything_starts(
    small_task, tmp_path
):
    done = subprocess.run(
        [sys.executable, ROOT / "pipelines/full.py", "--task", str(small_task), *TINY],
        cwd=tmp_path,
        env={**os.environ, "MLFLOW_TRACKING_URI": ""},
        capture_output=True,
        text=True,
        preexec_fn=_limited,
    )
    assert done.returncode == 2, done.stderr
    assert "store: a file became larger than is allowed; raise the limit" in done.stderr
    assert "Traceback" not in done.stderr and not (tmp_path / "mlflow.db").exists()


def test_a_dry_run_writes_nothing_into_its_store(small_task, tmp_path):
    from unfused.commands.run import show_plan
    from unfused.config import preset, run_options

    options = run_options(store=str(tmp_path / "store"))
    show_plan(Request(preset("demo"), options, None, str(small_task)))
    assert not (tmp_path / "store").exists()
