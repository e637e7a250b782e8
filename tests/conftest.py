"""Shared by the tests: small real audio, and runs of the whole program in a folder of their own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

from unfused import data, runtime
from unfused.config import AudioConfig, RunOptions
from unfused.data import PartFacts
from unfused.events import Stream
from unfused.stages.ingest import QUARTILES
from unfused.store import Artifact, Folder

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared" / "data"
TINY = (
    "rounds=2",
    "encoder.embedding_dim=32",
    "pretrain.epochs=20",
    "pretrain.batch_size=12",
    "pretrain.projector_hidden=64",
    "pretrain.projector_dim=32",
    "cluster.num_clusters=6",
    "cluster.num_components=16",
    "bootstrap.epochs=4",
    "distill.epochs=4",
    "distill.batch_size=8",
    "finetune.labels_per_class=3",
    "finetune.num_repeats=2",
    "finetune.epochs=20",
    "finetune.encoder_epochs=3",
    "finetune.num_folds=2",
    "teachers.num_folds=3",
    "teachers.num_repeats=1",
    "selftrain.epochs=2",
    "selftrain.batch_size=8",
)
"""A pipeline small enough for a test; every stage is real."""
LITTLE = (*(s for s in TINY if not s.startswith("rounds")), "rounds=1", "arms=[floor,scratch]")
"""Few stages, and all kinds of processes."""


STARTS_OTHERS = frozenset({"ray_cluster", "program", "finished", "two_ranks"})
"""Fixtures that start Ray or other processes."""
SHARED_RUNS = ("finished", "ray_cluster")
"""Fixtures that are made once for all who ask for them."""


def pytest_configure() -> None:
    """Workers that test side by side (`-n`) have a share of the cores each."""
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    if worker:
        number, count = int(worker[2:]), int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, cores[number::count] or cores)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What starts Ray or processes is slow, said or not: `make test-fast` goes without. Side by
    side go files, and what shares a run stays together."""
    for item in items:
        asked, file = getattr(item, "fixturenames", ()), item.nodeid.partition("::")[0]
        group = next((name for name in SHARED_RUNS if name in asked), file)
        item.add_marker(pytest.mark.xdist_group(group))
        calls = getattr(getattr(item, "function", None), "__code__", None)
        spawns = calls is not None and "on_two_ranks" in calls.co_names
        if spawns or STARTS_OTHERS & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.slow)
            # A whole run takes two minutes, and as long again for every program beside it.
            item.add_marker(pytest.mark.timeout(900))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The real recordings beside a checkout."""
    if not SHARED.is_dir():
        pytest.skip(f"no real recordings at {SHARED}")
    return SHARED


def tone(rng: np.random.Generator, hertz: float, seconds: float, rate: int) -> np.ndarray:
    """A tone with its own phase, level and noise: float64 (S,)."""
    time_axis = np.arange(int(seconds * rate)) / rate
    level = rng.uniform(0.1, 0.6)
    wave = level * np.sin(2 * np.pi * hertz * time_axis + rng.uniform(0, 6))
    return wave + 0.01 * rng.standard_normal(len(wave))


@pytest.fixture(scope="session")
def small_task(tmp_path_factory) -> Path:
    """A folder of real files: 3 classes of tones in wav, flac and ogg, at two rates, stereo too;
    two more files are no audio and cut short."""
    root = tmp_path_factory.mktemp("task")
    rng = np.random.default_rng(7)
    kinds = [("wav", 16000), ("flac", 22050), ("ogg", 16000)]
    for label, hertz in (("low", 200), ("mid", 700), ("high", 2500)):
        for split, count in (("train", 16), ("valid", 4), ("test", 6)):
            folder = root / split / label
            folder.mkdir(parents=True)
            for i in range(count):
                kind, rate = kinds[i % 3]
                wave = tone(rng, hertz * rng.uniform(0.8, 1.25), rng.uniform(0.4, 1.4), rate)
                wave = np.stack([wave, 0.5 * wave], axis=1) if i % 4 == 0 else wave
                soundfile.write(folder / f"{i}.{kind}", wave, rate)
    (root / "train/low/words.wav").write_bytes(b"this is no audio")
    whole = (root / "train/mid/0.wav").read_bytes()
    (root / "train/mid/cut.wav").write_bytes(whole[: len(whole) // 2])
    return root


@pytest.fixture(scope="session")
def ray_cluster():
    """A real Ray on this machine, as a run starts it; the relay's events in `events`."""
    stream = Stream()
    options = RunOptions()
    hardware = runtime.Hardware(4, 0, bfloat16=False, cuml=False, joined=False)
    with runtime.connect(options, hardware, stream) as cluster:
        yield cluster


def write_part(folder: Path, clips: list[np.ndarray], per_shard: int = 8) -> Artifact:
    """A part as ingest writes it."""
    sizes = []
    for number, begin in enumerate(range(0, len(clips), per_shard)):
        some = clips[begin : begin + per_shard]
        writer = data.ShardWriter(Folder.of(folder), f"part-{number:05d}.parquet")
        for i, samples in enumerate(some):
            writer.add(f"digest-{begin + i}", samples)
        writer.close()
        sizes.append(len(some))
    facts = PartFacts(
        digest="part",
        shards=sizes,
        seconds=sum(map(len, clips)) / 16000,
        durations=np.quantile([len(clip) / 16000 for clip in clips], QUARTILES).tolist(),
        audio=AudioConfig().settled(),
        log_mel_mean=-8.0,
        log_mel_std=3.0,
    )
    return Artifact(Folder.of(folder), "part", facts)


@dataclass
class Program:
    """The program as a user starts it, in a working folder of its own."""

    folder: Path
    extra: dict[str, str] = field(default_factory=dict)
    """More of its environment."""

    def __call__(
        self, *arguments: str, timeout: float = 600, script: str = "full"
    ) -> subprocess.CompletedProcess:
        return subprocess.run(
            self.command(*arguments, script=script),
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=timeout,
        )

    def command(self, *arguments: str, script: str = "full") -> list[str]:
        return [sys.executable, str(ROOT / "pipelines" / f"{script}.py"), *arguments]

    @property
    def environment(self) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if k not in ("RAY_ADDRESS", "PYTHONPATH")}
        return kept | {"MLFLOW_TRACKING_URI": ""} | self.extra

    def run(self, *arguments: str, script: str = "full") -> dict:
        """Run to the end; the summary."""
        done = self(*arguments, "--summary", "summary.json", script=script)
        assert done.returncode == 0, done.stdout + done.stderr
        summary = json.loads((self.folder / "summary.json").read_text())
        return {**summary, "stdout": done.stdout, "stderr": done.stderr}

    def start_until(
        self, line: str, *arguments: str, script: str = "full"
    ) -> tuple[subprocess.Popen, str]:
        """Start and wait for a line of output; the process, and its output so far."""
        process = subprocess.Popen(
            self.command(*arguments, script=script),
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            # Tests that were themselves started in the background hand on that it is ignored.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
        seen = ""
        deadline = time.monotonic() + 400
        assert process.stdout is not None
        for text in process.stdout:
            seen += text
            if text.startswith(line):
                return process, seen
            assert time.monotonic() < deadline, seen
        raise AssertionError(seen)

    def kill_after(self, line: str, *arguments: str, script: str = "full") -> str:
        """Start, wait for a line of output, SIGKILL everything; the output so far."""
        process, seen = self.start_until(line, *arguments, script=script)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return seen


@pytest.fixture(scope="session")
def program(tmp_path_factory) -> Callable[[str], Program]:
    """`program(name)`: the program in a new working folder."""
    return lambda name: Program(tmp_path_factory.mktemp(name))


@pytest.fixture(scope="session")
def finished(program, small_task) -> tuple[Program, dict]:
    """One whole small run, and its summary; what many tests look at."""
    one = program("finished")
    return one, one.run("--task", str(small_task), *TINY)


@pytest.fixture(scope="module")
def bucket():
    """An empty S3 bucket on this machine: a function that puts an object, and the URI's query."""
    from moto.server import ThreadedMotoServer
    from pyarrow import fs

    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    # Moto's servers in one process share what they hold.
    urllib.request.urlopen(f"http://{host}:{port}/moto-api/reset", data=b"").close()
    store = fs.S3FileSystem(
        access_key="key",
        secret_key="secret",
        region="us-east-1",
        endpoint_override=f"http://{host}:{port}",
        allow_bucket_creation=True,
    )
    store.create_dir("clips")

    def put(key: str, content: bytes) -> None:
        with store.open_output_stream(f"clips/{key}") as stream:
            stream.write(content)

    yield put, f"?region=us-east-1&scheme=http&endpoint_override={host}:{port}"
    server.stop()


@pytest.fixture
def credentials(monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")


@pytest.fixture(scope="session")
def database(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An MLflow that tests share, each with an experiment of its own."""
    from tracked_runs import new_database

    return new_database(tmp_path_factory)


@pytest.fixture
def mlflow(
    database: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> SimpleNamespace:
    """An experiment of the test's own in it, which works in a folder of its own."""
    from tracked_runs import eyes_on

    monkeypatch.chdir(tmp_path)
    return eyes_on(database, request.node.name)
