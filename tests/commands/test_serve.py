"""`unfused serve` over real HTTP, with real files."""

from __future__ import annotations

import http.client
import io
import json
import os
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import uvicorn

import unfused
from small_classifier import CROP, random_classifier, tones, write_model
from unfused.audio.decode import BadClip
from unfused.commands.receiving import Limits, Patient, Room
from unfused.commands.serve import application
from unfused.store import Folder

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    root = tmp_path_factory.mktemp("served")
    classifier = random_classifier(Folder.of(root / "classifier"))
    write_model(Folder.of(root / "noises"), classifier)
    limits = ["--max-mib", "1", "--max-seconds", "8", "--patience", "2"]
    process = subprocess.Popen(
        [sys.executable, "-m", "unfused", "serve", "noises", "--port", "0", *limits],
        cwd=root,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    first = process.stdout.readline()
    url = first.split()[-1]
    place = ("127.0.0.1", int(url.rstrip("/").rpartition(":")[2]))
    yield SimpleNamespace(
        url=url, place=place, pid=process.pid, model=unfused.load(root / "noises")
    )
    # Somebody who has never said a word does not keep it from ending.
    with socket.create_connection(place):
        process.terminate()
        assert process.wait(30) is not None


def asked(url: str, data: bytes | None = None) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data), timeout=60) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def file(wave: np.ndarray, rate: int = 16000, kind: str = "WAV") -> bytes:
    whole = io.BytesIO()
    soundfile.write(whole, wave, rate, format=kind)
    return whole.getvalue()


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "OGG", "MP3"])
@pytest.mark.parametrize("rate", [8000, 44100])
def test_a_file_that_is_sent_is_labelled_as_predict_labels_it(server, kind, rate):
    rng = np.random.default_rng(rate)
    sent = file(np.cumsum(rng.standard_normal((rate, 2)), 0) / 300, rate, kind)
    status, answer = asked(server.url + "predict", sent)
    found, wanted = json.loads(answer), server.model.predict(sent)
    assert status == 200 and found["label"] == wanted.label and found["digest"] == wanted.digest
    assert found["probabilities"] == pytest.approx(dict(wanted.probabilities), abs=1e-5)


def test_a_long_recording_has_a_timeline(server):
    sent = file(np.concatenate(tones(CROP, count=6)))
    status, answer = asked(server.url + "timeline?threshold=0", sent)
    found = json.loads(answer)
    assert status == 200 and found[0]["start"] == 0
    assert found[-1]["end"] == pytest.approx(6 * CROP / 16000)


@pytest.mark.parametrize(
    ("path", "data", "status", "told"),
    [
        ("predict", b"x" * (2**20 + 1), 413, "more than 1 MiB"),
        ("predict", file(np.zeros(9 * 8000), 8000), 422, "8 s; `unfused serve --max-seconds`"),
        ("predict", b"this is no audio", 422, "not audio"),
        ("predict", file(np.zeros((100_000, 8)), 192000, "FLAC"), 422, "longer than 0.5 s"),
        ("predict", file(tones(CROP)[0])[:3000], 422, "truncated"),
        ("predict", file(tones(CROP)[0])[:44], 422, "truncated"),
        ("predict", b"#EXTM3U\n#EXTINF:3,\n/etc/passwd\n#EXT-X-ENDLIST\n", 422, "not audio"),
        ("predict", b"", 422, "empty"),
        ("timeline?overlap=2", file(np.ones(800)), 422, "[0, .95]"),
        ("timeline?window=inf", file(np.ones(800)), 422, ".05 to 3600 s long"),
        ("timeline?window=nan", file(np.ones(800)), 422, ".05 to 3600 s long"),
        ("timeline?min_seconds=inf", file(np.ones(800)), 422, "0 or more"),
        ("..%2f..%2fetc%2fpasswd", b"x", 404, "Not Found"),
        ("timeline?threshold=high", file(np.ones(800)), 422, "threshold"),
        ("timeline?treshold=0.8", file(np.ones(800)), 422, "no parameter 'treshold'; there are"),
        ("predict?rate=8000", file(np.ones(800)), 422, "no parameter 'rate'"),
    ],
)
def test_what_cannot_be_answered_is_said(server, path, data, status, told):
    found, answer = asked(server.url + path, data)
    assert found == status
    sentence = json.loads(answer)["detail"]
    assert isinstance(sentence, str) and told in sentence and "\n" not in sentence


def sent_raw(server, text: bytes, patience: float = 20.0) -> tuple[int, str]:
    """What is answered to bytes that no library would send: the status and the sentence."""
    with socket.create_connection(server.place, timeout=patience) as connection:
        connection.sendall(text)
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        return answer.status, json.loads(answer.read())["detail"]


HEAD = b"POST /predict HTTP/1.1\r\nHost: here\r\n"


@pytest.mark.parametrize(
    ("text", "status", "told"),
    [
        (HEAD + b"\r\n", 411, "no Content-Length"),
        (HEAD + b"Content-Length: 99\r\n\r\nRIFF", 408, "did not arrive in 2 s"),
        (HEAD + b"Content-Length: 9999999999\r\n\r\n", 413, "more than 1 MiB"),
        (HEAD + b"Content-Length: -1\r\n\r\n", 400, "no HTTP"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", 400, "no HTTP"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n4\r\nRIFF\r\n", 408, "did not arrive"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n4\r\nRIFF\r\n0\r\n\r\n", 422, ""),
        (
            HEAD + b"Transfer-Encoding: chunked\r\n\r\n180000\r\n" + b"x" * 0x180000,
            413,
            "more than 1 MiB",
        ),
        (
            HEAD + b"Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}",
            415,
            "send the file itself",
        ),
        (
            HEAD + b"Content-Type: multipart/form-data; boundary=x\r\nContent-Length: 1\r\n\r\nx",
            415,
            "send the file itself",
        ),
        (b"hello\r\n\r\n", 400, "no HTTP"),
        (b"GET /" + b"x" * 100_000, 400, "no HTTP"),
    ],
)
def test_whatever_is_sent_is_answered_and_the_next_one_is_served(server, text, status, told):
    found, sentence = sent_raw(server, text)
    assert found == status and told in sentence and "\n" not in sentence
    assert asked(server.url + "predict", file(tones(CROP)[0]))[0] == 200


def test_who_says_nothing_or_hangs_up_is_let_go(server):
    with socket.create_connection(server.place, timeout=20) as silent:
        silent.sendall(b"POST /predict HT")
        with suppress(ConnectionResetError):
            assert silent.recv(1) == b""
    for text in (HEAD + b"Content-Length: 99\r\n\r\nRIFF", HEAD[:9], b""):
        with socket.create_connection(server.place) as gone:
            gone.sendall(text)
    assert asked(server.url + "predict", file(tones(CROP)[0]))[0] == 200


def test_bad_recordings_leave_nothing_behind(server):
    bad = [
        file(np.zeros((100_000, 8)), 192000, "FLAC"),
        b"x" * (2**20 - 1),
        file(np.zeros(9 * 8000), 8000),
        file(tones(CROP)[0])[:3000],
    ]

    def held() -> tuple[float, int]:
        status = Path(f"/proc/{server.pid}/status").read_text()
        mib = int(status.partition("VmRSS:")[2].split()[0]) / 1024
        return mib, len(os.listdir(f"/proc/{server.pid}/fd"))

    def send() -> None:
        for data in bad * 4:
            assert asked(server.url + "predict", data)[0] == 422

    send()
    before = held()
    for _ in range(3):
        send()
    after = held()
    assert after[0] - before[0] < 20 and after[1] - before[1] <= 2


def test_more_at_a_time_than_there_is_room_for_are_asked_to_come_again():
    busy, go_on = threading.Event(), threading.Event()

    def predict(data: bytes):
        busy.set()
        assert go_on.wait(30)
        raise BadClip("not audio")

    facts = SimpleNamespace(name="slow")
    model = SimpleNamespace(facts=facts, predict=predict)
    with served(application(model, Limits(mib=1, requests=1))) as url:
        first = threading.Thread(target=asked, args=(url + "predict", b"one"), daemon=True)
        first.start()
        assert busy.wait(30)
        status, answer = asked(url + "predict", b"two")
        assert status == 503 and b"wait already" in answer
        go_on.set()
        first.join(30)
        assert asked(url + "predict", b"three")[0] == 422


def test_all_that_is_being_sent_has_a_bound():
    room = Room(Limits(mib=1))
    with ExitStack() as sent:
        for _ in range(8):
            room.put(sent.enter_context(room.recording()), bytes(2**20))
        with room.recording() as data:
            refused = room.put(data, b"x")
        assert refused is not None and refused.status_code == 503 and not data
    with room.recording() as data:
        assert room.put(data, b"x") is None


@contextmanager
def served(app) -> Iterator[str]:
    """The server, in a thread of this process."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        running = uvicorn.Server(uvicorn.Config(app, http=Patient, log_level="error"))
        thread = threading.Thread(target=running.run, args=([listener],), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
        running.should_exit = True
        thread.join(30)


def test_the_server_says_what_it_is(server):
    told = json.loads(asked(server.url + "health")[1])
    assert told["classes"] == server.model.classes and told["max_seconds"] == 8
    assert "/predict" in json.loads(asked(server.url + "openapi.json")[1])["paths"]
    assert b"noises" in asked(server.url)[1]


def test_a_port_that_is_taken_is_one_sentence(server, tmp_path):
    port = server.url.rstrip("/").rpartition(":")[2]
    done = subprocess.run(
        [sys.executable, "-m", "unfused", "serve", server.model.folder.uri, "--port", port],
        cwd=Path(tmp_path), capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2 and "give another --host or --port" in " ".join(done.stderr.split())
