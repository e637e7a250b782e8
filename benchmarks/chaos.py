"""Kills runs at seeded points, starts them again, and holds the outcome against an undisturbed run.

    python benchmarks/chaos.py --points 50 --seed 0
    python benchmarks/chaos.py --points 50 --only 4,18,38-49 --concurrency 1
    python benchmarks/chaos.py --points 12 --bucket
    python benchmarks/chaos.py --points 12 'arms=[unfused]'

Points are tried side by side, each kept to its share of the cores. One is a line that a run writes,
a moment after it, and a victim: the driver, its whole process group, a Train worker, Ray's raylet
or its control store, a task of ingest; or a place inside a commit or a registration (see `faults`);
or a search. After each, the same command must end well, every file of the store be as it was
written, the numbers be those of the undisturbed run, MLflow have one finished run and none that is
running, and nothing be left: no process, nothing in `work/` and in `checkpoints/`. (In a bucket of
an S3 server, `work/` is swept after a day and not looked at.) Exit status 1 where one does not.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import random
import re
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from queue import Queue
from typing import Any

import numpy as np
import soundfile
import tables
from faults import FAULTS

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "platform"))
from unfused.store import Folder  # noqa: E402

SETTINGS = (
    "encoder.embedding_dim=32", "pretrain.epochs=4", "pretrain.batch_size=12",
    "pretrain.projector_hidden=32", "pretrain.projector_dim=16", "cluster.num_clusters=4",
    "cluster.num_components=8", "rounds=1", "distill.epochs=3", "distill.batch_size=8",
    "finetune.labels_per_class=3", "finetune.num_repeats=1", "finetune.epochs=4",
    "finetune.encoder_epochs=1", "finetune.num_folds=2", "teachers.num_folds=3",
    "teachers.num_repeats=1", "selftrain.epochs=2", "selftrain.batch_size=8",
    "arms=[floor,unfused,mixture,selftrain]",
)  # fmt: skip
SPACE = """
from optuna.distributions import FloatDistribution
space = {"distill.temperature": FloatDistribution(0.5, 6.0, log=True)}
objectives = {"valid_accuracy": "maximize"}
"""
KILLED = ("driver", "group", "worker", "raylet", "gcs", "ingest")
TITLES = {
    "worker": "ray::RayTrainWorker",
    "raylet": "raylet/raylet",
    "gcs": "gcs_server",
    "ingest": "ray::Map",
}
"""What the command line of a victim has in it."""
RUN_SECONDS = 600
VICTIM_SECONDS = 60
"""How long a victim is waited for."""
GONE_SECONDS = 60
"""How long processes may take to end after their run has."""
OF_SEARCH = 14
"""Points from which on there are such of a search."""
TRIES = 3
"""Starts after a kill, of which the last must end well."""


@dataclass(frozen=True)
class Point:
    """Where a run is struck.

    Attributes:
        victim: one of `KILLED` or of `FAULTS`.
        line: after which the victim is killed; of a fault the number of times.
        delay: seconds after the line.
        is_search: whether it is a search that is struck.
    """

    victim: str
    line: str
    delay: float = 0.0
    is_search: bool = False

    def __str__(self) -> str:
        if self.victim in FAULTS:
            return f"{self.victim}, time {self.line}"
        what = "search: " * self.is_search
        return f"{what}{self.victim}, {self.delay:.1f} s after {self.line!r}"


@dataclass
class Outcome:
    """What came of one start."""

    status: int
    output: str
    struck: bool
    seen: set[tuple[int, str]] = field(default_factory=set)
    """Its processes: id, and when each began."""


class Runs:
    """Runs of one command in a folder of their own.

    Args:
        folder: is made.
        data: the clips.
        cores: that they are kept to.
        more: further arguments.
        name: of the summary.
        trials: of a search.
        store: of the artifacts; below `folder`, or a URI.
    """

    def __init__(
        self, folder: Path, data: Path, cores: set[int], more: Sequence[str] = (),
        name: str = "summary", trials: int = 3, store: str = "store",
    ) -> None:  # fmt: skip
        self.folder, self.data, self.cores, self.store = folder, data, cores, store
        self.more, self.summary, self.trials = more, folder / f"{name}.json", trials
        folder.mkdir(parents=True, exist_ok=True)

    def start(self, point: Point | None, *, is_search: bool, most: float = 0) -> Outcome:
        """Start, strike at the point if there is one, and wait for the end.

        Args:
            point: where it is struck.
            is_search: whether it is one.
            most: seconds after which all its processes are killed, if it has not ended.
        """
        process = subprocess.Popen(
            self._command(point, is_search),
            cwd=self.folder,
            env=self._environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            preexec_fn=lambda: os.sched_setaffinity(0, self.cores),
        )
        found = Outcome(-1, "", struck=bool(point) and point.victim in FAULTS)
        ended = threading.Event()
        watch = threading.Thread(target=_watch, args=(process.pid, found, ended), daemon=True)
        watch.start()
        timer = threading.Timer(most or RUN_SECONDS, os.killpg, (process.pid, signal.SIGKILL))
        timer.start()
        assert process.stdout is not None
        for text in process.stdout:
            found.output += text
            if point and not found.struck and text.startswith(point.line):
                time.sleep(point.delay)
                found.struck = _strike(point.victim, process.pid, found)
        found.status = process.wait()
        timer.cancel()
        ended.set()
        watch.join()
        return found

    def _command(self, point: Point | None, is_search: bool) -> list[str]:
        program = [sys.executable, "-m", "unfused"]
        if point and point.victim in FAULTS:
            program = [sys.executable, str(ROOT / "benchmarks/faults.py"), point.victim, point.line]
        asked = ["--task", str(self.data), *SETTINGS, *self.more, "--store", self.store]
        asked += ["--summary", self.summary.name]
        if not is_search:
            return [*program, "run", *asked]
        (self.folder / "space.py").write_text(SPACE)
        trials = ["--space", "space.py", "--num-trials", str(self.trials), "--concurrency", "1"]
        return [*program, "search", *trials, *asked, "arms=[unfused]"]

    @staticmethod
    def _environment() -> dict[str, str]:
        dropped = ("RAY_ADDRESS", "MLFLOW_TRACKING_URI")
        return {name: value for name, value in os.environ.items() if name not in dropped}

    def numbers(self, *, is_search: bool) -> Any:
        """What no kill may change."""
        summary = json.loads(self.summary.read_text())
        if is_search:
            trials = [(one["number"], one["state"], one["changes"]) for one in summary["trials"]]
            return {"trials": trials, "arms": summary["test"]["arms"]}
        return {name: summary.get(name) for name in ("arms", "chosen", "trust", "pseudo_labels")}

    def wrong(self, *, is_search: bool, finished: tuple[int, int] = (1, 1)) -> Iterator[str]:
        """What is not as it must be after the last run has ended well.

        Args:
            is_search: whether it was one.
            finished: runs that MLflow should have, at least and at most.
        """
        remote = "://" in self.store
        store = Folder.of(self.store if remote else self.folder / self.store)
        for rest in ("checkpoints",) if remote else ("work", "checkpoints"):
            if files := (store / rest).names():
                yield f"{len(files)} files are left in {rest}/, as {files[0]}"
        done = subprocess.run(
            [sys.executable, "-m", "unfused", "verify", "--store", self.store],
            cwd=self.folder, capture_output=True, text=True, env=self._environment(),
        )  # fmt: skip
        if done.returncode:
            yield f"verify: {done.stdout.strip()}"
        yield from self._wrong_in_mlflow(is_search, finished)

    def _wrong_in_mlflow(self, is_search: bool, finished: tuple[int, int]) -> Iterator[str]:
        with sqlite3.connect(f"file:{self.folder}/mlflow.db?mode=ro", uri=True) as database:
            runs = database.execute("select run_uuid, status from runs").fetchall()
            nested = database.execute(
                "select run_uuid from tags where key = 'mlflow.parentRunId'"
            ).fetchall()
            versions = database.execute("select count(*) from model_versions").fetchone()[0]
        below = {run for (run,) in nested}
        tops = Counter(status for run, status in runs if run not in below)
        running = sum(status == "RUNNING" for _, status in runs)
        if running:
            yield f"{running} runs are RUNNING in MLflow"
        if not finished[0] <= tops["FINISHED"] <= finished[1]:
            yield f"{tops['FINISHED']} finished runs in MLflow"
        if not is_search and not 1 <= versions <= finished[1]:
            yield f"{versions} versions of the registered model"


def _watch(root: int, found: Outcome, ended: threading.Event) -> None:
    """Note all processes below one, also those that its end has left behind."""
    while not ended.wait(0.5):
        found.seen |= _below(root, found).keys()


def _below(root: int, found: Outcome) -> dict[tuple[int, str], str]:
    """The processes below one, and those below what was seen before, with their command lines."""
    every = [*_processes()]
    known = {root} | {pid for pid, _, began, _ in every if (pid, began) in found.seen}
    while more := {pid for pid, parent, _, _ in every if parent in known} - known:
        known |= more
    return {(pid, began): line for pid, _, began, line in every if pid in known}


def _processes() -> Iterator[tuple[int, int, str, str]]:
    """Of every process: id, parent, when it began, command line."""
    for place in Path("/proc").iterdir():
        if place.name.isdigit():
            with suppress(OSError, IndexError):
                state = (place / "stat").read_text().rpartition(")")[2].split()
                if state[0] != "Z":
                    line = os.fsdecode((place / "cmdline").read_bytes()).replace("\0", " ")
                    yield int(place.name), int(state[1]), state[19], line


def _strike(victim: str, root: int, found: Outcome) -> bool:
    """Kill a victim, once it is there; whether there was one."""
    if victim == "driver":
        os.kill(root, signal.SIGKILL)
        return True
    if victim == "group":
        os.killpg(root, signal.SIGKILL)
        return True
    until = time.monotonic() + VICTIM_SECONDS
    while time.monotonic() < until:
        for (pid, _), line in _below(root, found).items():
            if TITLES[victim] in line:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                    return True
        time.sleep(0.05)
    return False


def _left(seen: set[tuple[int, str]]) -> list[str]:
    """The command lines of processes that do not end."""
    until = time.monotonic() + GONE_SECONDS
    while left := [line for pid, _, began, line in _processes() if (pid, began) in seen]:
        if time.monotonic() > until:
            return left
        time.sleep(0.5)
    return []


def write_clips(folder: Path) -> Path:
    """Three classes of tones, in a folder for each split and class."""
    rng = np.random.default_rng(3)
    for label, hertz in (("low", 200), ("mid", 700), ("high", 2500)):
        for split, count in (("train", 12), ("valid", 4), ("test", 4)):
            place = folder / split / label
            place.mkdir(parents=True)
            for number in range(count):
                time_axis = np.arange(int(rng.uniform(0.4, 1.1) * 16000)) / 16000
                wave = 0.3 * np.sin(2 * np.pi * hertz * rng.uniform(0.8, 1.25) * time_axis)
                wave += 0.02 * rng.standard_normal(len(wave))
                soundfile.write(place / f"{number}.wav", wave, 16000)
    return folder


def points(total: int, seed: int, lines: list[str], of_search: list[str]) -> list[Point]:
    """The points of a seed: every kind in turn, each at a line by chance."""
    rng = random.Random(seed)
    training = [line for line in lines if " epoch " in line]
    found: list[Point] = []
    kinds = [*KILLED, *FAULTS, "driver of a search", "group", "driver", "worker"]
    assert kinds.index("driver of a search") == OF_SEARCH
    for number in range(total):
        kind, delay = kinds[number % len(kinds)], rng.uniform(0, 1.5)
        if kind in FAULTS:
            most = 12 if kind.startswith("commit") else 1
            found.append(Point(kind, str(rng.randint(1, most))))
        elif kind == "driver of a search":
            found.append(Point("driver", rng.choice(of_search), delay, is_search=True))
        elif kind == "ingest":
            found.append(Point(kind, "ingest/task started", 0.0))
        elif kind == "worker":
            found.append(Point(kind, rng.choice(training), delay))
        else:
            found.append(Point(kind, rng.choice(lines), delay))
    return found


def lines_of(output: str) -> list[str]:
    """The lines of an undisturbed run that a disturbed one writes too, as far as they are equal;
    in an order that does not depend on what ended first."""
    line = re.compile(r"\S+ (?:started|built|epoch \d+/\d+)|trial \d+ ")
    return sorted({found[0] for found in map(line.match, output.splitlines()) if found})


def tried(point: Point, runs: Runs, wanted: Any) -> tuple[str, int]:
    """Strike at a point and start again: what is wrong, or nothing; and how many starts it took."""
    first = last = runs.start(point, is_search=point.is_search)
    seen, starts = set(first.seen), 1
    while last.status != 0 and starts <= TRIES:
        last = runs.start(None, is_search=point.is_search)
        seen |= last.seen
        starts += 1
    if not first.struck or (starts == 1 and point.victim in ("driver", "group", *FAULTS)):
        return "nobody was struck", starts
    if last.status != 0:
        return f"exit status {last.status}: {last.output[-400:]}", starts
    if "Traceback" in first.output + last.output:
        return "a traceback", starts
    numbers = runs.numbers(is_search=point.is_search)
    if numbers != wanted:
        differ = " ".join(_differ("", wanted, numbers))
        return f"other numbers than without it: {differ[:400]}", starts
    # One that dies between its last line in MLflow and its last word has finished all the same.
    complete = not point.is_search and all(
        f"evaluate/{arm} built" in first.output for arm in wanted["arms"]
    )
    found = [*runs.wrong(is_search=point.is_search, finished=(1, 1 + complete))]
    if left := _left(seen):
        found.append(f"{len(left)} processes are left, as {left[0][:80]}")
    if found:
        found.append(f"at first it ended with {first.status}: {first.output[-400:]}")
    return "; ".join(found), starts


def _differ(name: str, one: Any, other: Any) -> Iterator[str]:
    """Where two JSON values differ."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in one | other:
            yield from _differ(f"{name}.{key}", one.get(key), other.get(key))
    elif one != other:
        yield f"{name[1:]}: {one} and {other};"


class Shares:
    """The cores of this machine in equal parts, of which whoever tries a point holds one."""

    def __init__(self, number: int) -> None:
        cores = sorted(os.sched_getaffinity(0))
        self.free: Queue[set[int]] = Queue()
        for share in range(number):
            self.free.put({*cores[share::number]} or {cores[share % len(cores)]})

    @contextmanager
    def one(self) -> Iterator[set[int]]:
        share = self.free.get()
        try:
            yield share
        finally:
            self.free.put(share)


@contextmanager
def bucket() -> Iterator[str]:
    """A bucket of an S3 server on this machine; what is started meanwhile asks that server."""
    import boto3
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    os.environ |= {
        "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
    }  # fmt: skip
    boto3.client("s3").create_bucket(Bucket="runs")
    try:
        yield "s3://runs"
    finally:
        server.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description="Kill runs, start them again, compare.")
    parser.add_argument("--points", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help="These of them, as 4,18,38-49.")
    parser.add_argument("--bucket", action="store_true", help="The store is an object store.")
    parser.add_argument("--concurrency", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("settings", nargs="*", help="Of all runs, as arms=[unfused].")
    chosen = parser.parse_args()
    only = numbers(chosen.only) if chosen.only else [*range(chosen.points)]
    with (
        tempfile.TemporaryDirectory(prefix="unfused-chaos-") as name,
        bucket() if chosen.bucket else nullcontext("") as place,
    ):
        tries = Tries(Path(name), chosen.concurrency, place, chosen.settings)
        if not tries.all_hold(chosen.points, chosen.seed, only):
            sys.exit(1)


def numbers(text: str) -> list[int]:
    """Those of `4,18,38-49`."""
    ends = (part.partition("-") for part in text.split(","))
    return [one for first, _, last in ends for one in range(int(first), int(last or first) + 1)]


class Tries:
    """Points that are tried, each in a folder of its own.

    Args:
        folder: of them all.
        concurrency: how many are tried side by side.
        bucket: URI of what their stores are in, if that is not their folder.
        more: settings of all runs.
    """

    def __init__(self, folder: Path, concurrency: int, bucket: str, more: Sequence[str]) -> None:
        self.folder, self.data = folder, write_clips(folder / "data")
        self.bucket, self.more = bucket, more
        self.shares = Shares(concurrency)
        self.pool = ThreadPoolExecutor(concurrency)
        self.wanted: dict[bool, Any] = {}

    def all_hold(self, total: int, seed: int, only: Sequence[int]) -> bool:
        """Try some points of so many, print what came of each, and say whether all held."""
        kinds = (False, True)[: 1 + (total > OF_SEARCH)]
        said = dict(zip(kinds, self.pool.map(self.whole, kinds), strict=True))
        lines = {False: "", True: "trial 0 "} | said
        known = points(total, seed, lines_of(lines[False]), lines_of(lines[True]))
        every = [known[number] for number in only]
        passed: Counter[str] = Counter()
        asked: Counter[str] = Counter()
        held = self.pool.map(self.holds, only, every)
        for point, well in zip(every, held, strict=True):
            kind = "search" if point.is_search else point.victim
            asked[kind] += 1
            passed[kind] += well
        rows = [[kind, str(asked[kind]), str(passed[kind])] for kind in asked]
        rows.append(["all", str(asked.total()), str(passed.total())])
        print(tables.markdown(["killed", "tried", "held"], rows))
        return passed == asked

    def _runs(self, name: str, cores: set[int]) -> Runs:
        store = f"{self.bucket}/{name}" if self.bucket else "store"
        return Runs(self.folder / name, self.data, cores, self.more, store=store)

    def whole(self, is_search: bool) -> str:
        """What an undisturbed run writes; its numbers are those that are wanted."""
        begun = time.monotonic()
        with self.shares.one() as cores:
            runs = self._runs(f"whole-{is_search}", cores)
            done = runs.start(None, is_search=is_search)
        assert done.status == 0, done.output
        self.wanted[is_search] = runs.numbers(is_search=is_search)
        print(f"undisturbed: {time.monotonic() - begun:.0f} s", flush=True)
        return done.output

    def holds(self, number: int, point: Point) -> bool:
        """Try one and print what came of it; whether it held."""
        begun = time.monotonic()
        with self.shares.one() as cores:
            runs = self._runs(str(number), cores)
            trouble, starts = tried(point, runs, self.wanted[point.is_search])
        took = f"{starts} starts, {time.monotonic() - begun:.0f} s"
        print(
            f"{number:3} {'WRONG' if trouble else 'ok'} {point} ({took}) {trouble}",
            flush=True,
        )
        return not trouble


if __name__ == "__main__":
    main()
