"""A run on an awkward machine: it ends, nobody else can talk to it, and it leaves nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path

import pytest

from conftest import LITTLE
from listening import listening
from unfused.cores import descendants

USER = f"unfused-{os.geteuid()}"


@pytest.fixture
def awkward(program, small_task):
    """A program without a home, with few files open and a long place for temporary ones."""
    one = program("awkward")
    long = one.folder / ("long" * 30)
    long.mkdir()
    one.extra |= {"HOME": "/nonexistent", "TMPDIR": str(long)}
    arguments = one.command("--task", str(small_task), "--num-workers", "2", *LITTLE)
    environment = {k: v for k, v in one.environment.items() if not k.startswith("RAY_")}

    def start() -> subprocess.Popen:
        return subprocess.Popen(
            ["bash", "-c", 'ulimit -Sn 256; exec "$@"', "bash", *arguments],
            cwd=one.folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )

    return start


def test_a_run_listens_on_this_machine_alone_and_leaves_nothing_of_ray(awkward):
    run = awkward()
    seen: set[tuple[str, str]] = set()
    places: set[Path] = set()
    scripts: set[str] = set()
    while run.poll() is None:
        seen |= listening(run.pid)
        places |= places_of(run.pid)
        scripts |= {Path(word).name for word in words_of(run.pid) if word.endswith(".py")}
        time.sleep(0.5)
    said = run.communicate()[0]
    assert run.returncode == 0, said
    owners = {owner for owner, _ in seen}
    assert owners >= {"gcs_server", "raylet"}
    assert not scripts & {"dashboard.py", "monitor.py", "log_monitor.py"}
    assert not [one for one in sorted(seen) if not ip_address(one[1]).is_loopback]
    assert len(places) == 1 and not [place for place in places if place.exists()]


def test_a_run_that_is_interrupted_leaves_nothing_of_ray(awkward):
    run = awkward()
    assert run.stdout is not None
    for line in run.stdout:
        if line.startswith("finetune/scratch started"):
            break
    places, processes = places_of(run.pid), {*descendants(run.pid)}
    run.send_signal(signal.SIGINT)
    said = run.communicate(timeout=60)[0]
    assert run.returncode == 130, said
    assert len(places) == 1 and not [place for place in places if place.exists()]
    until = time.monotonic() + 30
    while living := [one for one in processes if Path(f"/proc/{one}/exe").exists()]:
        assert time.monotonic() < until, living
        time.sleep(0.2)


def places_of(process: int) -> set[Path]:
    """Folders of the Rays that a process has started, from their commands."""
    words = words_of(process)
    return {Path(w.partition("=")[2]) for w in words if w.startswith("--temp_dir=")}


def words_of(process: int) -> set[str]:
    """Of the commands of all that a process has started."""
    found = set()
    for one in descendants(process):
        with suppress(OSError):
            found |= {*Path(f"/proc/{one}/cmdline").read_bytes().decode().split("\0")}
    return found
