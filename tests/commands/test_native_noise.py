"""What libraries in C say of a file is not the program's own output."""

from __future__ import annotations

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
