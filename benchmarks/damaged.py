"""Damages one file of a finished run's store at a time, runs the same command again, and compares.

    python benchmarks/damaged.py
    python benchmarks/damaged.py --only 4,18,38-49 'arms=[unfused]'

Every kind of file that a run leaves has a byte flipped, with what was made from it gone so that it
is read again; and is cut, emptied, lengthened or taken away, with all the rest in its place. The
run must end well with the numbers of the undisturbed one, and the file be told and built anew; or,
where nobody read it, `unfused verify` must find it and `--repair` have it built anew. Exit status 1
where that does not hold.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import tables
from chaos import Runs, Shares, numbers, write_clips

MENDED, FOUND = "told and built anew by the run", "found by `unfused verify`"


def _flipped(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 255]) + data[middle + 1 :]


WAYS: Mapping[str, Callable[[bytes], bytes | None]] = {
    "a byte flipped": _flipped,
    "cut in half": lambda data: data[: len(data) // 2],
    "emptied": lambda _: b"",
    "64 bytes more": lambda data: data + bytes(range(64)),
    "gone": lambda _: None,
}
"""What a file becomes; none is no file."""


@dataclass(frozen=True)
class Case:
    """A file of a store, and what becomes of it."""

    file: str
    way: str

    @property
    def place(self) -> str:
        """Stage and key."""
        return "/".join(self.file.split("/")[:2])


def cases(store: Path) -> list[Case]:
    """Of every kind of file the first: a byte of it flipped, and one of the other ways in turn."""
    kinds: dict[str, str] = {}
    for path in sorted(store.glob("*/*/**/*")):
        name = str(path.relative_to(store))
        if path.is_file() and (store / "/".join(name.split("/")[:2]) / "manifest.json").exists():
            kinds.setdefault(re.sub(r"/[0-9a-f]{16}/|\d+", "/", name), name)
    flipped, *others = WAYS
    found = [Case(name, flipped) for name in kinds.values()]
    return found + [Case(name, others[i % len(others)]) for i, name in enumerate(kinds.values())]


def damage(store: Path, case: Case) -> None:
    """Do it; where only a digest can tell, take away what was made of it, so that it is read."""
    path = store / case.file
    data = WAYS[case.way](path.read_bytes())
    if data is None:
        path.unlink()
    else:
        path.write_bytes(data)
    if case.way == "a byte flipped":
        for place in _made_of(store, case.place):
            shutil.rmtree(store / place)


def _made_of(store: Path, place: str) -> set[str]:
    """The artifacts that were built from one, and from those."""
    inputs: dict[str, set[str]] = {}
    for path in store.glob("*/*/manifest.json"):
        one = "/".join(path.relative_to(store).parts[:2])
        if one != place:
            named = json.loads(path.read_text()).get("inputs", {}).values()
            inputs[one] = {name.partition(":")[0] for name in named}
    found, more = set[str](), {place}
    while more:
        more = {one for one, of in inputs.items() if of & more} - found
        found |= more
    return found


class Tries:
    """Cases that are tried, each in a copy of one run's folder."""

    def __init__(self, root: Path, concurrency: int, more: Sequence[str]) -> None:
        self.root, self.more = root, more
        self.data = write_clips(root / "data")
        self.shares = Shares(concurrency)
        self.pool = ThreadPoolExecutor(concurrency)
        with self.shares.one() as cores:
            whole = Runs(root / "whole", self.data, cores, more)
            done = whole.start(None, is_search=False)
        assert done.status == 0, done.output
        self.wanted = whole.numbers(is_search=False)

    def all_hold(self, only: Sequence[int] | None) -> bool:
        """Try some cases, or all, print what came of each, and say whether all held."""
        every = list(enumerate(cases(self.root / "whole" / "store")))
        chosen = every if only is None else [every[number] for number in only]
        tried: Counter[str] = Counter()
        came: Counter[tuple[str, str]] = Counter()
        outcomes = self.pool.map(lambda one: self.outcome(*one), chosen)
        for (number, case), outcome in zip(chosen, outcomes, strict=True):
            tried[case.way] += 1
            came[case.way, outcome] += 1
            well = "ok" if outcome in (MENDED, FOUND) else "WRONG"
            print(f"{number:3} {well} {case.file}, {case.way}: {outcome}", flush=True)
        rows = [
            [way, str(tried[way]), *(str(came[way, outcome]) for outcome in (MENDED, FOUND))]
            for way in tried
        ]
        print(tables.markdown(["damage", "tried", MENDED, FOUND], rows))
        return all(outcome in (MENDED, FOUND) for _, outcome in came)

    def outcome(self, number: int, case: Case) -> str:
        """Damage a file of a copy, run again, and say what came of it."""
        with self.shares.one() as cores:
            runs = Runs(self.root / str(number), self.data, cores, self.more)
            shutil.copytree(self.root / "whole", runs.folder, dirs_exist_ok=True)
            damage(runs.folder / "store", case)
            wrong, said = self._again(runs)
            if wrong:
                return wrong
            told = [line for line in said.splitlines() if "damaged" in line and case.place in line]
            status = verified(runs)
            if told and not status:
                return MENDED
            if told or not status:
                return f"told {len(told)} times, and verify ends with {status}"
            verified(runs, "--repair")
            wrong, _ = self._again(runs)
            return wrong or (FOUND if not verified(runs) else "verify --repair does not mend it")

    def _again(self, runs: Runs) -> tuple[str, str]:
        """Run; what is wrong, and what was said."""
        done = runs.start(None, is_search=False)
        if done.status or "Traceback" in done.output:
            return f"status {done.status}: {done.output[-400:]}", done.output
        same = runs.numbers(is_search=False) == self.wanted
        return "" if same else "other numbers", done.output


def verified(runs: Runs, *more: str) -> int:
    """The exit status of `unfused verify`."""
    command = [sys.executable, "-m", "unfused", "verify", "--store", runs.store, *more]
    return subprocess.run(command, cwd=runs.folder, capture_output=True).returncode


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", type=numbers, help="These of the cases, as 4,18,38-49.")
    parser.add_argument("--concurrency", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("settings", nargs="*", help="Of all runs, as arms=[unfused].")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="unfused-damaged-") as name:
        tries = Tries(Path(name), chosen.concurrency, chosen.settings)
        if not tries.all_hold(chosen.only):
            sys.exit(1)


if __name__ == "__main__":
    main()
