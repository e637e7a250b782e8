"""An object store that fails in the middle of a whole run."""

from __future__ import annotations

import http.client
import http.server
import threading
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from conftest import LITTLE

OF_ONE_LEG = ("connection", "transfer-encoding")
"""Headers that say nothing of the whole way."""


class Between(http.server.BaseHTTPRequestHandler):
    """Hands every request on, or answers as a store that is overloaded."""

    protocol_version = "HTTP/1.1"
    behind, failing = "", False

    def do_GET(self) -> None:
        body = self.body()
        if Between.failing:
            status, headers, content = 503, {}, b""
        else:
            store = http.client.HTTPConnection(Between.behind)
            asked = {k: v for k, v in self.headers.items() if k.lower() not in OF_ONE_LEG}
            store.request(self.command, self.path, body, asked)
            answer = store.getresponse()
            status, headers, content = answer.status, dict(answer.headers), answer.read()
            store.close()
        self.send_response(status)
        kept = {k: v for k, v in headers.items() if k.lower() not in (*OF_ONE_LEG, "server")}
        for name, value in ({"Content-Length": str(len(content))} | kept).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        found = b""
        while size := int(self.rfile.readline(), 16):
            found += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return found

    do_HEAD = do_PUT = do_POST = do_DELETE = do_GET

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@pytest.fixture
def unreliable(program, bucket) -> Iterator[SimpleNamespace]:
    """The program with a store that can be made to fail."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Between)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    Between.behind, Between.failing = bucket[1].rpartition("=")[2], False
    one = program("unreliable")
    one.extra = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_port}",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    yield one
    server.shutdown()


@pytest.mark.slow
@pytest.mark.extra
@pytest.mark.timeout(900)
@pytest.mark.parametrize("line", ["ingest/task started", "finetune/scratch started"])
def test_a_store_that_fails_ends_the_run_in_a_sentence_and_the_rerun_completes(
    unreliable, small_task, line
):
    store = f"s3://clips/{line.partition('/')[0]}"
    asked = ["--task", str(small_task), "--store", store, *LITTLE]
    process, seen = unreliable.start_until(line, *asked)
    Between.failing = True
    seen += process.communicate(timeout=400)[0]
    assert process.returncode == 1 and "Traceback" not in seen, seen
    (told,) = (text for text in seen.splitlines() if text.startswith("failed: "))
    assert store in told and "wait until it is well" in told
    Between.failing = False
    assert unreliable.run(*asked)["arms"].keys() == {"floor", "scratch"}
