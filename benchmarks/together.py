"""What is left of a run's speed beside others: a busy loop, two, a matrix product, another run.

    python benchmarks/together.py --seconds 8

Each contestant computes on waveforms or rows held in memory, in a process of its own: as a job of
the platform does, and with torch's own way, a thread on every core that looks for the others again
and again. Neighbours are no part of the platform, but the last one, which is a second contestant of
the same kind: what both do together is held against what one does alone.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import harness
import peers
import torch

from unfused import clustering, cores, runtime
from unfused.config import RunOptions

BUSY = "while True: pass"
PRODUCT = "import torch; a = torch.randn(1500, 1500)\nwhile True: a @ a"
NEIGHBOURS = {
    "none": [],
    "one busy loop": [BUSY],
    "two busy loops": [BUSY, BUSY],
    "a product of matrices on all cores": [PRODUCT],
}
ANOTHER = "another of its kind"
LEAST = {
    "one busy loop": 0.5,
    "two busy loops": 0.3,
    "a product of matrices on all cores": 0.3,
    ANOTHER: 0.9,
}
"""Of the speed alone."""
HOWS = {"ours": True, "threads that look": False}


@dataclass(frozen=True)
class Sizes:
    batch_size: int = 64
    embedding_dim: int = 2048
    rows: int = 20000
    """That k-means clusters."""
    seconds: float = 6.0
    repetitions: int = 3


def measure(sizes: Sizes) -> harness.Report:
    rows, aims = [], []
    for work in WORKS:
        contestants = {
            f"{how}, {neighbour}": _contestant(work, how, neighbour, sizes)
            for neighbour in (*NEIGHBOURS, ANOTHER)
            for how in HOWS
        }
        found = harness.alternate(contestants, sizes.repetitions)
        for name, rates in found.items():
            how, _, neighbour = name.partition(", ")
            share = harness.ratio(found, name, f"{how}, none")
            rows.append([work, how, neighbour, harness.spread(rates), f"{share:.2f}"])
            if how == "ours" and neighbour in LEAST:
                what = f"{work} beside {neighbour} / alone"
                aims.append(harness.Aim(what, share, LEAST[neighbour]))
    return harness.Report(
        "A run beside others",
        ["work", "how", "beside", "clips or rows a second, in all", "of alone"],
        rows,
        aims,
        [
            f"training: d = {sizes.embedding_dim}, batches of {sizes.batch_size} clips, two views;"
            f" k-means: {sizes.rows} rows of 64 in 64 clusters",
            f"ours: {cores.threads_of_job()} threads that wait asleep; torch's own: a thread on"
            f" each of {cores.available_cpus()} cores",
        ],
    )


def _contestant(work: str, how: str, neighbour: str, sizes: Sizes) -> Callable[[], float]:
    def run() -> float:
        count = 2 if neighbour == ANOTHER else 1
        with _neighbours(NEIGHBOURS.get(neighbour, [])):
            return sum(_rates(count, work, HOWS[how], sizes))

    return run


@contextmanager
def _neighbours(programs: list[str]) -> Iterator[None]:
    """Other people's programs while this is open."""
    theirs = {name: value for name, value in os.environ.items() if name not in cores.ENVIRONMENT}
    running = [subprocess.Popen([sys.executable, "-c", one], env=theirs) for one in programs]
    try:
        yield
    finally:
        for one in running:
            one.kill()
            one.wait()


def _rates(count: int, work: str, ours: bool, sizes: Sizes) -> list[float]:
    """What processes that compute at the same time do in a second."""
    settings = json.dumps([work, ours, sizes.__dict__])
    environment = {k: v for k, v in os.environ.items() if k not in cores.ENVIRONMENT}
    children = [
        subprocess.Popen(
            [sys.executable, __file__, "--child", settings],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment | (dict(cores.ENVIRONMENT) if ours else {}),
        )
        for _ in range(count)
    ]
    for child in children:
        child.stdout.readline()
    for child in children:
        child.stdin.write("go\n")
        child.stdin.flush()
    return [float(child.communicate()[0]) for child in children]


def _training(sizes: Sizes) -> tuple[Callable[[], None], int]:
    """A step, and its clips."""
    config = runtime.resolve(peers.contrast(), runtime.probe(RunOptions())).pretrain
    shape = sizes.batch_size, peers.AUDIO.crop_samples
    waves = torch.randint(-3000, 3000, shape, dtype=torch.int16)
    settings = config.model_copy(update={"batch_size": sizes.batch_size})
    loop = peers.InMemoryLoop(waves, settings, sizes.embedding_dim)
    return loop.epoch, sizes.batch_size


def _k_means(sizes: Sizes) -> tuple[Callable[[], None], int]:
    """A clustering, and its rows."""
    rows = torch.randn(sizes.rows, 64).numpy()

    def cluster() -> None:
        clustering.get("torch")(rows, num_clusters=64, num_iterations=20, seed=0, num_init=1)

    return cluster, sizes.rows


WORKS = {"training": _training, "k-means": _k_means}


def _child(work: str, ours: bool, sizes: dict) -> None:
    """Get ready, say so, wait for a line, and print what is done in a second."""
    if ours:
        cores.prepare_process()
    else:
        cores.prepare_process(threads=cores.available_cpus())
    act, amount = WORKS[work](Sizes(**sizes))
    act()
    print("ready", flush=True)
    sys.stdin.readline()
    began, done = time.perf_counter(), 0
    while time.perf_counter() < began + sizes["seconds"]:
        act()
        done += 1
    print(done * amount / (time.perf_counter() - began))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        _child(*json.loads(sys.argv[2]))
    else:
        harness.main("together", Sizes(), measure)
