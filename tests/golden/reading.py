"""Reads the numbers of a run's nodes from the files of its store.

The rule of this file: it knows the store's layout and the names of files, and imports nothing of
the package: code that moves cannot move what it is held against. A fact that is absent is left out
here; that a recorded number is missing is for the comparison to say.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from safetensors.numpy import load_file

Numbers = dict[str, Any]
"""By name: floats are measured; strings, counts and lists are exact."""
SHAPES = ("scalars", "vectors", "matrices", "rank-3 tensors", "filters")
"""Groups of tensors by their number of axes, which renaming leaves as it is."""
DRAW = re.compile(r"draw_\d+")


def read_nodes(store: Path, summary: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The stage, version and numbers of every node of a finished run, in its order."""
    nodes = {}
    for step in summary["stages"]:
        path = next(store.glob(f"*/{step['key']}/manifest.json"))
        manifest = json.loads(path.read_text())
        read = READERS.get(manifest["stage"], _nothing)
        nodes[step["name"]] = {
            "stage": manifest["stage"],
            "version": manifest["version"],
            "numbers": read(path.parent, manifest["facts"]),
        }
    return nodes


def _nothing(folder: Path, facts: Mapping[str, Any]) -> Numbers:
    return {}


def _ingest(folder: Path, facts: Mapping[str, Any]) -> Numbers:
    wanted = ("digest", "shards", "seconds", "log_mel_mean", "log_mel_std", "counts")
    return {
        f"{part} {name}": value
        for part, said in facts.get("parts", {}).items()
        for name, value in _facts(said, *wanted).items()
    }


def _trained(folder: Path, facts: Mapping[str, Any]) -> Numbers:
    last = facts["curve"][-1] if facts.get("curve") else facts
    return {**_facts(last, "loss"), **_norms(folder)}


def _embed(folder: Path, facts: Mapping[str, Any]) -> Numbers:
    tables = [pq.read_table(path) for path in sorted(folder.glob("embeddings-*.parquet"))]
    columns = [table["embedding"].combine_chunks().flatten().to_numpy() for table in tables]
    return {"embeddings": _norm(columns)} if columns else {}


def _cluster(folder: Path, facts: Mapping[str, Any]) -> Numbers:
    labels = {path.name: _digest([np.load(path)]) for path in folder.glob("labels.npy")}
    return {**_facts(facts, "inertia", "num_nonempty"), **labels}


def _finetune(folder: Path, facts: Mapping[str, Any]) -> Numbers:
    return _norms(folder)


def _trust(folder: Path, facts: Mapping[str, Any]) -> Numbers:
    pooled = {f"pooled {n}": _rounded(draw["pooled"]) for n, draw in enumerate(facts["draws"])}
    return {**pooled, **_norms(folder)}


def _evaluate(folder: Path, facts: Mapping[str, Any]) -> Numbers:
    numbers = _facts(facts, "accuracy")
    for path in folder.glob("predictions.parquet"):
        table = pq.read_table(path)
        draws = sorted(name for name in table.column_names if DRAW.fullmatch(name))
        numbers[path.name] = _digest([table[name].to_numpy() for name in draws])
    return numbers


READERS: dict[str, Callable[[Path, Mapping[str, Any]], Numbers]] = {
    "ingest": _ingest,
    "pretrain": _trained,
    "embed": _embed,
    "cluster": _cluster,
    "distill": _trained,
    "finetune": _finetune,
    "fit": _finetune,
    "trust": _trust,
    "selftrain": _finetune,
    "evaluate": _evaluate,
}


def _facts(facts: Mapping[str, Any], *names: str) -> Numbers:
    """Facts by name, however deep they lie; those that are absent are left out."""
    found = ((name, _find(facts, name)) for name in names)
    return {name: _rounded(value) for name, value in found if value is not None}


def _find(facts: Mapping[str, Any], name: str) -> Any:
    if name in facts:
        return facts[name]
    inner = (_find(value, name) for value in facts.values() if isinstance(value, Mapping))
    return next((value for value in inner if value is not None), None)


def _norms(folder: Path) -> Numbers:
    """The norm of every weights' file, by the number of its tensors' axes."""
    numbers = {}
    for path in sorted(folder.glob("*.safetensors")):
        groups: dict[str, list[np.ndarray]] = {}
        for tensor in load_file(path).values():
            groups.setdefault(SHAPES[tensor.ndim], []).append(tensor)
        numbers |= {f"{path.name} {shape}": _norm(groups[shape]) for shape in sorted(groups)}
    return numbers


def _norm(arrays: list[np.ndarray]) -> float:
    return _rounded(math.sqrt(sum(float(np.square(a.astype(np.float64)).sum()) for a in arrays)))


def _rounded(value: Any) -> Any:
    """A float to six digits; everything else as it is."""
    return float(f"{value:.6g}") if isinstance(value, float) else value


def _digest(columns: list[np.ndarray]) -> str:
    return hashlib.sha256(b"".join(_bytes(columns))).hexdigest()[:16]


def _bytes(columns: list[np.ndarray]) -> Iterator[bytes]:
    return (column.astype("<i8").tobytes() for column in columns)
