"""What libraries in C say of a file is not the program's own output."""

from __future__ import annotations

import signal
import subprocess
import sys

import numpy as np
import soundfile


def test_a_decoder_that_complains_is_not_heard_and_an_error_is(tmp_path):
    path = tmp_path / "clips" / "a" / "one.mp3"
    path.parent.mkdir(parents=True)
    soundfile.write(path, np.random.default_rng(0).uniform(-0.5, 0.5, 64000), 16000)
    data = path.read_bytes()
    path.write_bytes(data + data[len(data) // 2 :])

    def inspected(place: str) -> subprocess.CompletedProcess:
        command = [sys.executable, "-m", "unfused", "inspect", place]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)

    complained = "import sys, soundfile; soundfile.read(sys.argv[1])"
    heard = subprocess.run([sys.executable, "-c", complained, path], capture_output=True, text=True)
    assert "Warning" in heard.stderr
    assert inspected("clips").stderr == ""
    refused = inspected("elsewhere")
    assert refused.returncode == 2 and refused.stderr.startswith("error: ")


def test_a_crash_is_told_though_native_libraries_are_not_heard():
    program = (
        "import os; from unfused import cli; cli.quiet_libraries();"
        "os.write(2, b'a line of a library'); os.abort()"
    )
    crashed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert crashed.returncode == -signal.SIGABRT
    assert "Fatal Python error: Aborted" in crashed.stderr
    assert "a line of a library" not in crashed.stderr
