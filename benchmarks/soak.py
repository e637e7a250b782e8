"""Hours of use in minutes: many at once, for long, and nothing grows or differs.

    python benchmarks/soak.py                                   all parts
    python benchmarks/soak.py --parts serve --minutes 5 --rate 200

`pipelines`: four at once on one store, two of them the same command; `bucket`: on an object store.
Their numbers must be those of each alone. `search`: many trials, killed every few minutes and
started again, against one that is left alone. `serve`: the server under so many requests a second,
every third a broken file; memory, open files and threads must not grow, and labels be those of
`predict`. Exit status 1 where one does not hold.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import bad_files
import numpy as np
from chaos import Runs, Shares, bucket, write_clips

ROOT = Path(__file__).resolve().parents[1]
VARIANTS: Mapping[str, tuple[str, ...]] = {
    "one": (),
    "same": (),
    "clusters": ("cluster.num_clusters=5",),
    "warm": ("distill.temperature=2.5",),
}
LONG_SECONDS = 3600
SENDERS = 16
LOOK_SECONDS = 2.0
WARM_UP = 0.25
"""The share of the time after which growth is looked for: libraries load, heaps fill."""
NOISE_MIB = 8.0
"""That the second half of what is left may be above the first."""


def alone(root: Path, data: Path) -> dict[str, Any]:
    """The numbers of each pipeline that has nothing beside it on its store."""
    shares = Shares(len(os.sched_getaffinity(0)))

    def run(name: str) -> Any:
        with shares.one() as cores:
            return _numbers(Runs(root / f"alone-{name}", data, cores, VARIANTS[name]))

    names = [name for name in VARIANTS if name != "same"]
    with ThreadPoolExecutor(len(names)) as pool:
        found = dict(zip(names, pool.map(run, names), strict=True))
    return found | {"same": found["one"]}


def pipelines(folder: Path, data: Path, store: str, wanted: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with four at once on one store, whose numbers alone are `wanted`."""
    begun, where = time.monotonic(), folder.name
    found = _at_once(folder, data, store)
    print(f"four pipelines at once, {where}: {time.monotonic() - begun:.0f} s", flush=True)
    for name, numbers in found.items():
        if numbers != wanted[name]:
            failed = f": {numbers}" if isinstance(numbers, str) else ""
            yield f"{where}, {name}: other numbers than alone{failed}"
    every = Runs(folder, data, set(), store=store)
    wrong = every.wrong(is_search=False, finished=(4, 4))
    yield from (f"{where}: {text}" for text in wrong)


def _at_once(folder: Path, data: Path, store: str) -> dict[str, Any]:
    cores = os.sched_getaffinity(0)
    every = {
        name: Runs(folder, data, cores, changes, name, store=store)
        for name, changes in VARIANTS.items()
    }
    with ThreadPoolExecutor(len(every)) as pool:
        return dict(zip(every, pool.map(_numbers, every.values()), strict=True))


def _numbers(runs: Runs) -> Any:
    done = runs.start(None, is_search=False, most=LONG_SECONDS)
    return runs.numbers(is_search=False) if done.status == 0 else done.output[-600:]


def search(root: Path, data: Path, trials: int, seconds: float) -> Iterator[str]:
    """What is wrong with a search of so many trials that is killed every so many seconds."""
    shares = Shares(2)

    def whole(name: str) -> Runs:
        with shares.one() as cores:
            runs = Runs(root / name, data, cores, trials=trials)
            begun, starts = time.monotonic(), 0
            while True:
                starts += 1
                most = seconds if name == "killed" else LONG_SECONDS
                done = runs.start(None, is_search=True, most=most)
                if done.status != -signal.SIGKILL:
                    break
            assert done.status == 0, done.output[-2000:]
            took = time.monotonic() - begun
            print(f"{trials} trials, {name}: {starts} starts, {took:.0f} s", flush=True)
            return runs

    with ThreadPoolExecutor(2) as pool:
        one, other = pool.map(whole, ("left alone", "killed"))
    if one.numbers(is_search=True) != other.numbers(is_search=True):
        yield "search: other trials or scores than of one that is left alone"
    yield from (f"search: {text}" for text in other.wrong(is_search=True))


@dataclass
class Load:
    """What came of the requests.

    Attributes:
        statuses: how many answers had which.
        wrong: answers that are not what they should be.
        late: seconds from sending to answer, of each.
    """

    statuses: Counter[int] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    late: list[float] = field(default_factory=list)


def serve(root: Path, data: Path, minutes: float, rate: float) -> Iterator[str]:
    """What is wrong with a server after minutes of requests."""
    runs = Runs(root / "served", data, os.sched_getaffinity(0))
    assert runs.start(None, is_search=False).status == 0
    bad_files.write_good(root / "files")
    kinds = bad_files.write_bad(root / "files", 100, 0)
    good = sorted(path for path in (root / "files").rglob("*") if path.is_file())
    files = [path for path in good if not path.is_symlink()]
    wanted = _labels(runs.folder, files)
    bad = {path for path in files if str(path.relative_to(root / "files")) in kinds}
    print(f"{len(files)} files, {len(bad)} of them broken", flush=True)
    with _server(runs.folder) as (process, port):
        load, looks = Load(), []
        until = time.monotonic() + 60 * minutes
        senders = [
            threading.Thread(target=_send, args=(port, files, wanted, load, number, rate, until))
            for number in range(SENDERS)
        ]
        for sender in senders:
            sender.start()
        while any(sender.is_alive() for sender in senders):
            looks.append(_look(process))
            time.sleep(LOOK_SECONDS)
    total = load.statuses.total()
    late = statistics.quantiles(load.late, n=100)
    print(
        f"{total} requests in {minutes:g} minutes, {total / 60 / minutes:.0f} a second:"
        f" {dict(load.statuses)}; half within {late[49]:.3f} s, 99 of 100 within {late[98]:.2f} s"
    )
    yield from load.wrong[:5]
    looks = looks[int(WARM_UP * len(looks)) :]
    halves = looks[: len(looks) // 2], looks[len(looks) // 2 :]
    for number, (what, noise) in enumerate({"MiB": NOISE_MIB, "files": 4, "threads": 2}.items()):
        before, after = (statistics.median(look[number] for look in half) for half in halves)
        print(f"{what}: {before:.0f} in the first half, {after:.0f} in the second")
        if after > before + noise:
            yield f"serve: {what} grew from {before:.0f} to {after:.0f}"


def _labels(folder: Path, files: list[Path]) -> dict[Path, str | None]:
    """What `predict` says of each; None where it cannot be read."""
    listed = folder / "files.csv"
    listed.write_text("\n".join(["path", *map(str, files)]) + "\n")
    command = ["predict", "best", str(listed), "--whole", "--out", "said.csv"]
    subprocess.run(
        [sys.executable, "-m", "unfused", *command], cwd=folder, check=True, capture_output=True
    )
    import pandas

    said = pandas.read_csv(folder / "said.csv").set_index("path")["label"]
    return {path: label if isinstance(label := said[str(path)], str) else None for path in files}


@contextmanager
def _server(folder: Path) -> Iterator[tuple[int, int]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "unfused", "serve", "best", "--port", "0"], cwd=folder,
        stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    assert process.stdout is not None
    port = re.search(r":(\d+)/", process.stdout.readline())
    assert port is not None
    try:
        yield process.pid, int(port[1])
    finally:
        process.terminate()
        process.wait(60)


def _send(
    port: int, files: list[Path], wanted: Mapping[Path, str | None], load: Load, number: int,
    rate: float, until: float,
) -> None:  # fmt: skip
    """Send files by chance, this sender's share of the rate."""
    rng = np.random.default_rng(number)
    server = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    following = time.monotonic() + rng.uniform(0, SENDERS / rate)
    while following < until:
        time.sleep(max(0.0, following - time.monotonic()))
        following = max(following + SENDERS / rate, time.monotonic() - 1)
        path, begun = files[rng.integers(len(files))], time.monotonic()
        server.request("POST", "/predict", path.read_bytes())
        answer = server.getresponse()
        said = json.loads(answer.read())
        load.late.append(time.monotonic() - begun)
        load.statuses[answer.status] += 1
        known = wanted[path]
        if answer.status == 200 and said["label"] != known:
            load.wrong.append(f"serve: {path.name} is {said['label']}, not {known}")
        elif answer.status != 200 and known is not None and answer.status != 503:
            load.wrong.append(f"serve: {path.name} is answered with {answer.status}: {said}")


def _look(process: int) -> tuple[float, int, int]:
    """MiB, open files and threads of a process."""
    place = Path("/proc") / str(process)
    resident = int((place / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
    return resident, len(list((place / "fd").iterdir())), len(list((place / "task").iterdir()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parts = ("pipelines", "bucket", "search", "serve")
    parser.add_argument("--parts", nargs="+", choices=parts, default=parts)
    parser.add_argument("--minutes", type=float, default=5.0, help="Of the server's load.")
    parser.add_argument("--rate", type=float, default=200.0, help="Requests a second.")
    parser.add_argument("--trials", type=int, default=40, help="Of the search.")
    parser.add_argument("--seconds", type=float, default=150.0, help="From kill to kill.")
    chosen = parser.parse_args()
    wrong: list[str] = []
    with tempfile.TemporaryDirectory(prefix="unfused-soak-") as name:
        root = Path(name)
        data = write_clips(root / "data")
        wanted = alone(root, data) if {"pipelines", "bucket"} & {*chosen.parts} else {}
        if "pipelines" in chosen.parts:
            wrong += pipelines(root / "disk", data, "store", wanted)
        if "bucket" in chosen.parts:
            with bucket() as uri:
                wrong += pipelines(root / "bucket", data, f"{uri}/store", wanted)
        if "search" in chosen.parts:
            wrong += search(root, data, chosen.trials, chosen.seconds)
        if "serve" in chosen.parts:
            wrong += serve(root, data, chosen.minutes, chosen.rate)
    print("\n".join(wrong) or "all held")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
