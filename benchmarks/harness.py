"""What all benchmarks share: alternating repetitions, medians, ratios, the host, the output.

Every benchmark is a program of its own, `python benchmarks/NAME.py`, with its sizes as options; it
prints its table and keeps it as JSON in benchmarks/results/performance/. `bench.py` runs them all.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.metadata
import json
import os
import platform
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tables

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "performance"
# torch's profiler looks for a GPU and says so; read when torch is imported.
os.environ.setdefault("KINETO_LOG_LEVEL", "99")
PACKAGES = ("torch", "torchaudio", "ray", "numpy", "scikit-learn", "librosa", "faiss-cpu")


@dataclass(frozen=True)
class Aim:
    """A bound that a measured figure is held against."""

    what: str
    value: float
    bound: float
    at_most: bool = False

    @property
    def met(self) -> bool:
        return self.value <= self.bound if self.at_most else self.value >= self.bound

    def __str__(self) -> str:
        sign, verdict = ("<=" if self.at_most else ">="), ("met" if self.met else "MISSED")
        return f"{verdict}: {self.what} {self.value:.4g} (aim {sign} {self.bound:g})"


@dataclass
class Report:
    """What one benchmark found."""

    title: str
    header: list[str]
    rows: list[list[str]]
    aims: list[Aim] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        parts = [tables.markdown(self.header, self.rows), *(f"- {aim}" for aim in self.aims)]
        return "\n".join([parts[0], "", *parts[1:], *(f"- {note}" for note in self.notes)])


def alternate(
    contestants: Mapping[str, Callable[[], float]], repetitions: int
) -> dict[str, list[float]]:
    """Call all contestants in turn, `repetitions` times; each returns one figure (a rate).

    Taking turns lets a neighbour's load on the machine fall on all of them.
    """
    found: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(repetitions):
        for name, run in contestants.items():
            found[name].append(run())
    return found


def ratio(found: Mapping[str, Sequence[float]], one: str, other: str) -> float:
    """Median over the rounds of one contestant's figure in another's."""
    return statistics.median(a / b for a, b in zip(found[one], found[other], strict=True))


def rate(work: int, run: Callable[[], Any]) -> float:
    """`work` per second of one call."""
    began = time.perf_counter()
    run()
    return work / (time.perf_counter() - began)


def spread(values: Sequence[float]) -> str:
    """Median and range."""
    middle = statistics.median(values)
    return f"{middle:.4g} ({min(values):.4g} to {max(values):.4g})"


def operations(run: Callable[[], Any], most: int = 6) -> str:
    """The operations of torch that a call spends its time in, by the profiler's own count."""
    import torch

    with torch.autograd.profiler.profile(use_kineto=False) as profile:
        run()
    spent = {event.key: event.self_cpu_time_total for event in profile.key_averages()}
    whole = sum(spent.values())
    largest = sorted(spent, key=lambda name: -spent[name])[:most]
    return ", ".join(f"{name.removeprefix('aten::')} {spent[name] / whole:.0%}" for name in largest)


def host() -> dict[str, Any]:
    """The machine that the figures belong to."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    flags = Path("/proc/cpuinfo").read_text()
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "processor": model,
        "cores": len(os.sched_getaffinity(0)),
        "bfloat16": "avx512_bf16" in flags or "amx_bf16" in flags,
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "load": round(os.getloadavg()[0], 2),
        "date": time.strftime("%Y-%m-%d"),
        "versions": versions,
    }


def main(name: str, sizes: Any, measure: Callable[[Any], Report]) -> None:
    """Measure with the sizes of the command line, print the report and keep it.

    Args:
        name: of the program, without its ending.
        sizes: a dataclass whose fields become options.
        measure: sizes -> report.
    """
    parser = argparse.ArgumentParser()
    for option in dataclasses.fields(sizes):
        flag, value = f"--{option.name.replace('_', '-')}", getattr(sizes, option.name)
        if isinstance(value, tuple):
            kind = type(value[0])
            parser.add_argument(flag, type=kind, nargs="+", default=list(value))
        else:
            parser.add_argument(flag, type=type(value), default=value)
    given = vars(parser.parse_args())
    chosen = dataclasses.replace(
        sizes, **{k: tuple(v) if isinstance(v, list) else v for k, v in given.items()}
    )
    machine, began = host(), time.perf_counter()
    report = measure(chosen)
    kept = {
        "command": shlex.join(["python", f"benchmarks/{name}.py", *sys.argv[1:]]),
        "seconds": round(time.perf_counter() - began, 1),
        "host": machine,
        "sizes": dataclasses.asdict(chosen),
        **dataclasses.asdict(report),
        "text": report.text,
        "missed": [str(aim) for aim in report.aims if not aim.met],
    }
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(kept, indent=1) + "\n")
    print(f"\n{report.title}\n\n{report.text}", flush=True)
