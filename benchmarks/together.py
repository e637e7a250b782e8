"""Two runs at once on the same cores, against one run that has them to itself.

    python benchmarks/together.py --seconds 8

The pre-training step on waveforms held in memory, in two processes that start together: without
turns, and in those of `cores.Turns`; allocator and scheduling are the platform's in all. Both
together can at best do what one does alone.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import harness
import peers
import torch

from unfused import cores, runtime
from unfused.config import RunOptions

CONTESTANTS = {
    "one run": (1, False),
    "two at once": (2, False),
    "two in turns": (2, True),
}
"""Processes, and whether they take turns."""


@dataclass(frozen=True)
class Sizes:
    batch_size: int = 64
    embedding_dim: int = 2048
    seconds: float = 8.0
    repetitions: int = 3


def measure(sizes: Sizes) -> harness.Report:
    apart: dict[str, list[float]] = {}

    def contestant(name: str, count: int, in_turns: bool):
        def run() -> float:
            rates = _rates(count, in_turns, sizes)
            apart.setdefault(name, []).extend(rates)
            return sum(rates)

        return run

    found = harness.alternate(
        {name: contestant(name, *how) for name, how in CONTESTANTS.items()}, sizes.repetitions
    )
    rows, alone = [], "one run"
    for name, rates in found.items():
        share = f"{harness.ratio(found, name, alone):.2f}"
        rows.append([name, harness.spread(apart[name]), harness.spread(rates), share])
    aim = harness.Aim("two in turns / one run", harness.ratio(found, "two in turns", alone), 0.9)
    return harness.Report(
        "Two runs at once, clips/s of pre-training",
        ["contestant", "each", "together", "ratio"],
        rows,
        [aim],
        [f"d = {sizes.embedding_dim}, batches of {sizes.batch_size} clips"],
    )


def _rates(count: int, in_turns: bool, sizes: Sizes) -> list[float]:
    """Clips per second of processes that train at the same time."""
    settings = json.dumps([in_turns, sizes.batch_size, sizes.embedding_dim, sizes.seconds])
    children = [
        subprocess.Popen(
            [sys.executable, __file__, "--child", settings],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(count)
    ]
    for child in children:
        child.stdout.readline()
    for child in children:
        child.stdin.write("go\n")
        child.stdin.flush()
    return [float(child.communicate()[0]) for child in children]


def _child(in_turns: bool, batch: int, width: int, seconds: float) -> None:
    """Get ready, say so, wait for a line, and print the clips per second."""
    cores.hold_cores()
    cores.prepare_process()
    turns = cores.Turns(Path(tempfile.gettempdir())) if in_turns else nullcontext()
    config = runtime.resolve(peers.contrast(), runtime.probe(RunOptions())).pretrain
    waves = torch.randint(-3000, 3000, (batch, peers.AUDIO.crop_samples), dtype=torch.int16)
    loop = peers.InMemoryLoop(waves, config.model_copy(update={"batch_size": batch}), width)
    with turns:
        loop.epoch()
    print("ready", flush=True)
    sys.stdin.readline()
    began, steps = time.perf_counter(), 0
    while time.perf_counter() < began + seconds:
        with turns:
            loop.epoch()
        steps += 1
    print(steps * batch / (time.perf_counter() - began))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        _child(*json.loads(sys.argv[2]))
    else:
        harness.main("together", Sizes(), measure)
