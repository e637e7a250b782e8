"""Ingest: decode, mix down, resample, write Parquet shards, gather statistics, quarantine.

Both passes over the clips (see `reading`) are Ray Data tasks; the driver holds a row of text and
numbers for each clip and no audio.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
import pyarrow as pa

from unfused import corpora
from unfused.config import AudioConfig, IngestConfig
from unfused.corpora.clip import Clip
from unfused.data import LabelFacts, PartFacts
from unfused.secrets import hidden, hidden_in
from unfused.stages.access import Tasks
from unfused.stages.contract import Build, Built, Stage
from unfused.stages.reading import CORPUS, Read, Row, read
from unfused.stages.shards import Told
from unfused.store import Facts, Folder, digest, npy, write_table

QUARTILES = (0.0, 0.25, 0.5, 0.75, 1.0)
CLIPS_FILE = "clips.parquet"
"""Split, index, digest, path, label, begin and end of every clip that an ingest artifact holds."""
QUARANTINE_FILE = "quarantine.json"
"""Path and reason of every clip that cannot be used, and of those that are suspect but kept."""


class ClipCounts(Facts):
    """Clips that can be used, and those that were set aside."""

    read: int
    quarantined: int


class IngestFacts(Facts):
    """Of the clips of a corpus or a task."""

    clips: ClipCounts
    parts: dict[str, PartFacts | LabelFacts]
    """The clips of every split under its name, their labels under `<split>.labels`."""


def run(builds: Sequence[Build], tasks: Tasks) -> list[Built]:
    return [Built(_ingested(build, tasks)) for build in builds]


def _ingested(build: Build, tasks: Tasks) -> IngestFacts:
    audio, ingest = build.config["audio"], build.config["ingest"]
    found = read(build.clips, audio, ingest, partial(tasks.map, build.node), build.out)
    build.out.write_json(QUARANTINE_FILE, hidden_in(found.suspects))
    found.check()
    for note in found.notes():
        tasks.tell(build.node, note)
    for warning in found.warnings():
        tasks.warn(build.node, warning)
    _list(build.out, found)
    return _facts(build.out, found, audio, ingest)


def _list(out: Folder, found: Read) -> None:
    """Keep which file each clip came from: its content is known by digest alone elsewhere."""
    every = [(split, n, row) for split, rows in found.rows.items() for n, row in enumerate(rows)]
    table = {
        "split": [split for split, _, _ in every],
        "clip": [number for _, number, _ in every],
        "digest": [row.digest for _, _, row in every],
        "path": [_shown(found.clips[row.clip].path) for _, _, row in every],
        "label": pa.array([found.clips[row.clip].label for _, _, row in every], pa.string()),
        "start": pa.array([row.start for _, _, row in every], pa.float64()),
        "end": pa.array([row.end for _, _, row in every], pa.float64()),
    }
    write_table(out, CLIPS_FILE, pa.table(table))


def _shown(path: str) -> str:
    """A file's path without secrets, which none on this machine has."""
    return hidden(path) if "://" in path else path


def _facts(out: Folder, found: Read, audio: AudioConfig, ingest: IngestConfig) -> IngestFacts:
    parts: dict[str, PartFacts | LabelFacts] = {}
    classes = corpora.label_map(found.clips)
    for split, rows in found.rows.items():
        parts[split] = _part(found.of(split), rows, audio.settled(), ingest)
        if split != CORPUS:
            parts[f"{split}.labels"] = _labels(out / f"{split}.labels", found.clips, rows, classes)
    counts = ClipCounts(read=sum(map(len, found.rows.values())), quarantined=len(found.bad))
    return IngestFacts(clips=counts, parts=parts)


def _part(
    told: Sequence[Told], rows: Sequence[Row], audio: AudioConfig, ingest: IngestConfig
) -> PartFacts:
    identity = {
        "audio": audio.identity(),
        "clips_per_shard": ingest.clips_per_shard,
        "digests": [row.digest for row in rows],
    }
    mean, std = _moments([one.moments for one in told])
    lengths = [row.length for row in rows]
    return PartFacts(
        digest=digest(identity),
        shards=[len(one.rows) for one in told],
        seconds=sum(lengths) / audio.sample_rate,
        durations=(np.quantile(lengths or [0], QUARTILES) / audio.sample_rate).tolist(),
        audio=audio,
        recorded_rate=int(np.median([rate for one in told for rate, _ in one.kinds] or [0])),
        log_mel_mean=mean,
        log_mel_std=std,
    )


def _moments(sums: Sequence[Mapping[str, float]]) -> tuple[float | None, float | None]:
    """Mean and standard deviation of log-mel values; none where they were not gathered."""
    gathered = [one for one in sums if one["count"]]
    if not gathered:
        return None, None
    count = sum(one["count"] for one in gathered)
    mean = sum(one["sum"] for one in gathered) / count
    square = sum(one["sum_of_squares"] for one in gathered) / count
    return mean, max(square - mean**2, 1e-12) ** 0.5


def _labels(
    out: Folder, clips: Sequence[Clip], rows: Sequence[Row], classes: Sequence[str]
) -> LabelFacts:
    ids = np.array([classes.index(str(clips[row.clip].label)) for row in rows], np.int32)
    out.write("labels.npy", npy(ids))
    counts = np.bincount(ids, minlength=len(classes)).tolist()
    return LabelFacts(
        digest=digest({"classes": list(classes), "labels": ids.tolist()}),
        classes=list(classes),
        counts=dict(zip(classes, counts, strict=True)),
    )


STAGE = Stage(version=9, facts=IngestFacts, access=Tasks, run=run, together=True)
