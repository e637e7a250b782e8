"""Hundreds of broken files among good ones, through a whole run: does it end, and are the good ones
what they are alone?

    python benchmarks/bad_files.py --bad 300 --seed 0

A hundred good files, every kind and rate that is read, are run alone; then again with the broken
ones beside them, which are made of them: cut, overwritten, under another ending, no file at all.
Every good clip must come out bit for bit the same and every broken one be a clip or in the
quarantine. Exit status 1 where that does not hold.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import tables

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests")]

from hundred_files import write_hundred  # noqa: E402

ARGUMENTS = ("arms=[floor]", "finetune.num_repeats=1", "ingest.max_bad_fraction=1")
SPLITS = ("train", "train", "valid", "test")
"""In turns: both classes have files of all kinds in each."""


def cut(data: bytes, rng: np.random.Generator) -> bytes:
    return data[: int(rng.integers(1, len(data)))]


def flipped(data: bytes, rng: np.random.Generator) -> bytes:
    found = np.frombuffer(data, np.uint8).copy()
    found[rng.integers(0, len(found), rng.integers(1, 65))] ^= rng.integers(1, 256, dtype=np.uint8)
    return found.tobytes()


def without_head(data: bytes, rng: np.random.Generator) -> bytes:
    return rng.bytes(64) + data[64:]


def zeros_to_the_end(data: bytes, rng: np.random.Generator) -> bytes:
    whole = int(rng.integers(1, len(data)))
    return data[:whole] + bytes(len(data) - whole)


def middle_lost(data: bytes, rng: np.random.Generator) -> bytes:
    start, end = sorted(rng.integers(0, len(data), 2))
    return data[:start] + data[end:]


def more_behind(data: bytes, rng: np.random.Generator) -> bytes:
    return data + rng.bytes(int(rng.integers(1, 9999)))


def noise(data: bytes, rng: np.random.Generator) -> bytes:
    return rng.bytes(len(data))


def head_alone(data: bytes, rng: np.random.Generator) -> bytes:
    return data[:44]


def text(data: bytes, rng: np.random.Generator) -> bytes:
    return b"<html>404 not found</html>"


def empty(data: bytes, rng: np.random.Generator) -> bytes:
    return b""


BROKEN = (cut, flipped, without_head, zeros_to_the_end, middle_lost, more_behind, noise,
          head_alone, text, empty)  # fmt: skip


def _socket(path: Path) -> None:
    # A socket's path is short.
    here = os.getcwd()
    os.chdir(path.parent)
    socket.socket(socket.AF_UNIX).bind(path.name)
    os.chdir(here)


NO_FILE: dict[str, Callable[[Path], object]] = {
    "FIFO": os.mkfifo,
    "socket": _socket,
    "device": lambda path: path.symlink_to("/dev/zero"),
    "dangling link": lambda path: path.symlink_to("nowhere.wav"),
    "folder": Path.mkdir,
}
KINDS = (*(kind.__name__.replace("_", " ") for kind in BROKEN), "other ending", *NO_FILE)


@dataclass(frozen=True)
class Found:
    """What a run made of a folder.

    Attributes:
        clips: of every clip its samples, by the digest that it is known by.
        used: the files that they came from.
        refused: the files that could not be used; each has a reason.
    """

    clips: dict[str, bytes]
    used: set[str]
    refused: set[str]


def write_good(root: Path) -> None:
    """`root/<split>/<class>/`: no two files alike."""
    made = root.parent / "made"
    made.mkdir(parents=True)
    for number, file in enumerate(write_hundred(made)):
        place = root / SPLITS[number // 2 % 4] / "ab"[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        file.path.rename(place / file.path.name)
    made.rmdir()


def write_bad(root: Path, count: int, seed: int) -> dict[str, str]:
    """Write broken files beside the good ones, every kind in turn: the kind of each."""
    rng = np.random.default_rng(seed)
    good = sorted(path for path in root.rglob("*") if path.is_file())
    found = {}
    for number in range(count):
        kind, model = KINDS[number % len(KINDS)], good[rng.integers(len(good))]
        path = model.with_name(f"bad{number:03d}-{model.name}")
        if kind in NO_FILE:
            NO_FILE[kind](path)
        elif kind == "other ending":
            other = good[rng.integers(len(good))]
            path = path.with_suffix(other.suffix)
            path.write_bytes(model.read_bytes())
        else:
            path.write_bytes(BROKEN[KINDS.index(kind)](model.read_bytes(), rng))
        found[str(path.relative_to(root))] = kind
    return found


def copies(root: Path) -> set[str]:
    """The files whose bytes others have too; they are kept once."""
    found: dict[bytes, list[str]] = {}
    for path in root.rglob("*"):
        if path.is_file() and not path.is_symlink():
            found.setdefault(path.read_bytes(), []).append(str(path.relative_to(root)))
    return {name for names in found.values() if len(names) > 1 for name in names}


def run(root: Path) -> Found:
    """Run all stages over a folder, in a store beside it."""
    place = root.parent
    command = [sys.executable, "-m", "unfused", "run", "--task", str(root), *ARGUMENTS]
    begun = time.monotonic()
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, timeout=900)
    said = done.stdout + done.stderr
    if done.returncode or "Traceback" in said:
        sys.exit(f"exit status {done.returncode}: {said[-2000:]}")
    (folder,) = (path.parent for path in place.glob("store/ingest/*/manifest.json"))
    shards = folder.rglob("part-*.parquet")
    rows = [row for shard in shards for row in pq.read_table(shard).to_pylist()]
    files = pq.read_table(folder / "clips.parquet")["path"].to_pylist()
    used = {str(Path(path).relative_to(root)) for path in files}
    listed = json.loads((folder / "quarantine.json").read_text())
    refused = {str(Path(one["path"]).relative_to(root)) for one in listed if one["reason"]} - used
    took = time.monotonic() - begun
    print(f"{len(rows)} clips, {len(refused)} files in the quarantine, {took:.0f} s", flush=True)
    return Found({row["digest"]: row["samples"] for row in rows}, used, refused)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--bad", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="unfused-bad-") as name:
        found = []
        write_good(Path(name) / "good")
        for turn, bad in enumerate((0, chosen.bad)):
            root = Path(name) / str(turn) / "clips"
            shutil.copytree(Path(name) / "good", root)
            kinds = write_bad(root, bad, chosen.seed)
            found.append(run(root))
        alone, among = found
        same = sum(among.clips.get(one) == samples for one, samples in alone.clips.items())
        lost = kinds.keys() - among.used - among.refused - copies(root)
        tried, used = Counter(kinds.values()), Counter(kinds.get(one) for one in among.used)
        refused = Counter(kinds[one] for one in among.refused)
        rows = [[kind, *(str(each[kind]) for each in (tried, used, refused))] for kind in KINDS]
        of_all = (len(kinds), len(kinds.keys() & among.used), refused.total())
        rows.append(["all", *map(str, of_all)])
        head = ["broken", "files", "used as far as they go", "in the quarantine"]
        print(tables.markdown(head, rows))
        print(f"{same} of {len(alone.clips)} good clips are the same")
        print(f"{len(lost)} files lost", *lost)
    sys.exit(same < len(alone.clips) or bool(lost))


if __name__ == "__main__":
    main()
