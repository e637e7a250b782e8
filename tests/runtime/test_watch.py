"""A Ray of the run's own that is killed ends the run with a sentence; Ray's library has none."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

PROGRAM = """
import os, shutil, signal, sys, time
from unfused import runtime, signals
from unfused.config import RunOptions
from unfused.events import Stream
from unfused.runtime import watch
from unfused.runtime.hardware import Hardware
watch.GRACE_SECONDS = 3
signals.listen()
runtime.hold()
stream = Stream()
stream.subscribe(lambda event: print(getattr(event, "text", ""), flush=True))
laptop = Hardware(cpus=2, gpus=0, bfloat16=False, cuml=False, joined=False)
def wait():
    until = time.monotonic() + 120
    while time.monotonic() < until:
        time.sleep(0.1)
try:
    with runtime.connect(RunOptions(), laptop, stream):
        import ray
        if sys.argv[1] == "folder":
            shutil.rmtree(runtime.scratch().parent)
        for name, infos in ray._private.worker._global_node.all_processes.items():
            if name == sys.argv[1]:
                os.kill(infos[0].process.pid, signal.SIGKILL)
        try:
            wait()
        except watch.RayEnded:
            if sys.argv[2] == "stuck":
                wait()
            raise
except watch.RayEnded as error:
    print(error, flush=True)
    runtime.leave(7)
"""


ENDED = "has ended: killed, or no memory was left"


@pytest.mark.parametrize(
    ("killed", "main", "status", "told"),
    [
        ("raylet", "free", 7, f"(raylet) {ENDED}"),
        ("gcs_server", "stuck", 1, f"(gcs_server) {ENDED}"),
        ("folder", "free", 7, "was removed; set TMPDIR to a folder that nothing cleans"),
    ],
)
def test_a_ray_that_ends_is_told_and_ends_the_program(killed, main, status, told, tmp_path):
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, killed, main],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert told in done.stdout, done.stderr
    assert done.returncode == status
