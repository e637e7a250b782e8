"""A Ray of a process's own is tried again where it does not start, and is for nobody else."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections import namedtuple
from pathlib import Path
from types import SimpleNamespace

import pytest

from unfused import runtime
from unfused.config import RunOptions
from unfused.runtime import starting

TIMED_OUT = "The current node timed out during startup. This could happen because"
Disk = namedtuple("Disk", "total used free")
GIB = 2**30


@pytest.fixture
def own(monkeypatch):
    """No Ray in this process, and a folder that goes again."""
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    monkeypatch.setattr("ray.shutdown", lambda: None)
    # A Ray of other tests may be there, and keeps its token.
    loader = SimpleNamespace(reset_cache=lambda: None, has_token=lambda **_: True)
    monkeypatch.setattr("ray._raylet.AuthenticationTokenLoader.instance", lambda: loader)
    monkeypatch.setattr(starting, "_place", None)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    yield
    starting.clear()


@pytest.fixture
def failing(own, monkeypatch):
    """`failing(n)`: the first n starts leave a process and time out; gives what was started."""
    started: list[subprocess.Popen] = []
    asked: list[dict] = []

    def prepare(times: int, error: Exception) -> tuple[list[subprocess.Popen], list[dict]]:
        def init(**settings) -> None:
            asked.append(settings)
            if len(asked) <= times:
                command = [sys.executable, "-c", LEFT, settings["_temp_dir"]]
                started.append(subprocess.Popen(command))
                raise error

        monkeypatch.setattr("ray.init", init)
        return started, asked

    yield prepare
    for process in started:
        process.kill()
        process.wait()


LEFT = "import time; time.sleep(60)"


def test_a_start_that_times_out_is_told_cleared_away_and_tried_again(failing):
    started, asked = failing(1, Exception(f"{TIMED_OUT} of this.\nAnd so on."))
    told: list[str] = []
    runtime.start(RunOptions(), told.append)
    assert len(asked) == 2
    assert told == [f"Ray did not start ({TIMED_OUT} of this); trying again"]
    assert [process.wait(timeout=10) for process in started] == [-9]


def test_a_ray_that_never_starts_is_one_sentence(failing):
    started, _ = failing(9, Exception(TIMED_OUT))
    with pytest.raises(runtime.NotStarted, match=r"in 3 attempts \(The current .*; let the mach"):
        runtime.start(RunOptions())
    assert [process.wait(timeout=10) for process in started] == [-9, -9, -9]


def test_what_ray_refuses_is_not_asked_again(failing):
    _, asked = failing(9, ValueError("no such setting"))
    with pytest.raises(ValueError, match="no such setting"):
        runtime.start(RunOptions())
    assert len(asked) == 1


NODE = """
import json, os
import ray._private.node
from unfused import runtime
from unfused.config import RunOptions
from unfused.runtime import starting

seen = {}

def node(ray_params, **_):
    seen["address"], seen["folder"] = ray_params.node_ip_address, ray_params.temp_dir
    seen["ports"] = [getattr(ray_params, name) for name in starting.AGENTS]
    seen["token"] = os.environ["RAY_AUTH_TOKEN_PATH"]
    raise ValueError("far enough")

ray._private.node.Node = node
try:
    runtime.start(RunOptions())
except ValueError as error:
    seen["ended"] = str(error)
seen["mode"], seen["left"] = os.environ["RAY_AUTH_MODE"], os.environ.get("RAY_AUTH_TOKEN_PATH")
starting.clear()
print(json.dumps(seen))
"""


def test_a_ray_of_ones_own_is_on_this_machine_alone_in_a_folder_of_its_own():
    """Looked at where Ray would begin to start processes, in a process without one."""
    environment = {name: value for name, value in os.environ.items() if "RAY_" not in name}
    done = subprocess.run(
        [sys.executable, "-c", NODE], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen["ended"] == "far enough" and seen["address"] == "127.0.0.1"
    assert len(set(seen["ports"])) == len(starting.AGENTS) and min(seen["ports"]) > 0
    assert Path(seen["token"]).parent == Path(seen["folder"])
    assert seen["mode"] == "token" and seen["left"] is None
    assert not Path(seen["folder"]).exists()


@pytest.mark.parametrize(
    ("shared", "disk", "settings", "told"),
    [
        (50, 50, {}, False),
        (1, 50, {"object_store_memory": int(0.9 * GIB)}, False),
        (0.06, 50, {"object_store_memory": 2 * GIB, "_plasma_directory": "/folder"}, True),
    ],
)
def test_the_object_store_fits_the_shared_memory(monkeypatch, shared, disk, settings, told):
    free = {starting.SHARED_MEMORY: shared * GIB, Path("/folder"): disk * GIB}
    monkeypatch.setattr("shutil.disk_usage", lambda path: Disk(0, 0, int(free[path])))
    monkeypatch.setattr(starting.cores, "available_memory", lambda: 40 * GIB)
    lines: list[str] = []
    assert starting.object_store(Path("/folder"), lines.append) == settings
    assert bool(lines) == told


def test_no_room_for_objects_is_one_sentence(monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: Disk(0, 0, 10 * 2**20))
    with pytest.raises(runtime.NoRoom, match=r"Neither /dev/shm nor .* give the container"):
        starting.object_store(Path("/tmp/folder"), print)


def test_a_soft_limit_on_open_files_is_raised():
    program = (
        "import resource; from unfused.runtime.starting import allow_files; allow_files();"
        "print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])"
    )
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    limits = (256, most)
    done = _limited(program, limits)
    assert done.stdout.strip() == str(most), done.stderr


def test_a_hard_limit_that_is_too_low_is_one_sentence():
    program = "from unfused.runtime import prepare; prepare()"
    done = _limited(program, (256, 256))
    assert "may have 256 files open and a run needs 1024; raise the limit" in done.stderr


def _limited(program: str, limits: tuple[int, int]) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", program],
        env={name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"},
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, limits),
    )


def test_advice_to_programmers_stays_out_and_all_else_is_said(monkeypatch):
    from ray._private import worker

    said = []
    monkeypatch.setattr(worker, "print_to_stdstream", lambda data, **how: said.append((data, how)))
    starting._keep_advice_out()
    starting._keep_advice_out()
    for line in (f"WARNING: 8 PYTHON{starting.ADVICE}: x", "out of memory"):
        worker.print_to_stdstream({"lines": [line], "pid": "raylet"}, ignore_prefix=False)
    assert said == [({"lines": ["out of memory"], "pid": "raylet"}, {"ignore_prefix": False})]


def test_the_line_that_is_kept_out_is_rays():
    import ray

    raylet = Path(ray.__file__).parent / "core/src/ray/raylet/raylet"
    assert starting.ADVICE.encode() in raylet.read_bytes()
