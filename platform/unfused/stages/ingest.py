"""Ingest: decode, mix down, resample, write Parquet shards, gather statistics, quarantine.

Audio is read twice: once for the digests that decide the order and show overlap before anything is
written, once to be decoded. Both passes are Ray Data tasks; the driver holds a row of text and
integers for each clip and no audio.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from unfused import corpora, runtime, shards
from unfused.audio.decode import BadClip, decode
from unfused.config import AudioConfig, ConfigError, DataConfig, IngestConfig, RunOptions
from unfused.corpora import location
from unfused.corpora.clip import Clip
from unfused.corpora.overlap import refuse_overlap
from unfused.events import Note, Progress
from unfused.stages import Build, Facts
from unfused.store import Artifact, Folder, digest, npy, read_npy

HASH_BATCH = 256
STATISTICS_SECONDS = 30.0
CORPUS = "corpus"


class TooManyBadClips(ConfigError):
    """More clips than `ingest.max_bad_fraction` allows cannot be used."""


def needs(options: RunOptions, hardware: runtime.Hardware) -> dict[str, float]:
    return {"CPU": 1.0}


def run(builds: Sequence[Build], cluster: runtime.Cluster) -> list[Facts]:
    return [_Ingest(build, cluster).run() for build in builds]


@dataclass
class _Ingest:
    build: Build
    cluster: runtime.Cluster

    def run(self) -> Facts:
        clips = list(self.build.clips)
        digests, bad = self._hash(clips)
        good = [i for i in range(len(clips)) if i in digests]
        self._refuse_overlap(clips, digests, good)
        order = self._order(digests, good)
        by_split: dict[str, list[int]] = {}
        for i in order:
            by_split.setdefault(clips[i].split or CORPUS, []).append(i)
        jobs = [
            _Shard(
                self.build.out / split,
                number,
                split,
                tuple((i, clips[i].path, digests[i]) for i in rows),
                self._audio,
                self._ingest.max_seconds,
                statistics=split in (CORPUS, "train"),
            )
            for split, indices in by_split.items()
            for number, rows in enumerate(_chunks(indices, self._ingest.clips_per_shard))
        ]
        results = self._decode(jobs, len(order))
        for result in results:
            bad |= {int(i): reason for i, reason in result["quarantined"].items()}
        self._quarantine(clips, bad)
        return self._facts(clips, digests, results, len(bad))

    @property
    def _data(self) -> DataConfig:
        return self.build.config["data"]  # type: ignore[return-value]

    @property
    def _audio(self) -> AudioConfig:
        return self.build.config["audio"]  # type: ignore[return-value]

    @property
    def _ingest(self) -> IngestConfig:
        return self.build.config["ingest"]  # type: ignore[return-value]

    def _hash(self, clips: list[Clip]) -> tuple[dict[int, str], dict[int, str]]:
        """SHA-256 of every readable clip's bytes, and why the others cannot be read."""
        rows = [
            json.dumps([(i, clips[i].path) for i in chunk])
            for chunk in _chunks(range(len(clips)), HASH_BATCH)
        ]
        digests: dict[int, str] = {}
        bad: dict[int, str] = {}
        for row in self._map(rows, _hash_clips, len(clips), "reading"):
            digests |= {int(i): d for i, d in row["digests"].items()}
            bad |= {int(i): reason for i, reason in row["quarantined"].items()}
        return digests, bad

    def _decode(self, jobs: list[_Shard], total: int) -> list[dict[str, Any]]:
        rows = [json.dumps(job.plain()) for job in jobs]
        results = list(self._map(rows, _decode_shard, total, "decoding"))
        return sorted(results, key=lambda result: (result["split"], result["number"]))

    def _map(self, rows: list[str], task: Any, total: int, doing: str) -> Iterable[dict[str, Any]]:
        """Run `task` on every row as Ray Data tasks; reports the clips done as they come."""
        import ray

        ray.data.DataContext.get_current().enable_progress_bars = False
        items = ray.data.from_items(
            [{"task": row} for row in rows], override_num_blocks=max(1, len(rows))
        )
        done = 0
        for row in items.map(_Task(task)).iter_rows():
            result = json.loads(row["result"])
            done += result["seen"]
            self.cluster.stream.emit(Progress(self.build.node, done, total, doing=doing))
            yield result

    def _order(self, digests: Mapping[int, str], good: list[int]) -> list[int]:
        """One shuffle that depends on the clips' bytes alone, never on paths or times."""
        seed = self._ingest.shuffle_seed
        return sorted(good, key=lambda i: (digest([seed, digests[i]]), digests[i], i))

    def _refuse_overlap(
        self, clips: list[Clip], digests: Mapping[int, str], good: list[int]
    ) -> None:
        if self._data.allow_overlap:
            return
        train = {digests[i]: clips[i].path for i in good if clips[i].split in ("train", None)}
        held_out = {
            digests[i]: clips[i].path for i in good if clips[i].split in ("valid", "test")
        }
        refuse_overlap(train, held_out)

    def _quarantine(self, clips: list[Clip], bad: Mapping[int, str]) -> None:
        """Keep the list of what cannot be used; fail where it is too long."""
        rows = [{"path": clips[i].path, "reason": bad[i]} for i in sorted(bad)]
        self.build.out.write_json("quarantine.json", rows)
        if not bad:
            return
        share, first = len(bad) / len(clips), rows[0]
        told = (
            f"{len(bad)} of {len(clips)} clips cannot be used, the first: "
            f"{first['path']} ({first['reason']})"
        )
        if share > self._ingest.max_bad_fraction or len(bad) == len(clips):
            raise TooManyBadClips(
                f"{told}; repair them or raise ingest.max_bad_fraction"
                f" (now {self._ingest.max_bad_fraction:g})."
            )
        self.cluster.stream.emit(Note(told, self.build.node, "warning"))

    def _facts(
        self,
        clips: list[Clip],
        digests: Mapping[int, str],
        results: list[dict[str, Any]],
        num_bad: int,
    ) -> Facts:
        parts: dict[str, Facts] = {}
        for split in dict.fromkeys(result["split"] for result in results):
            mine = [result for result in results if result["split"] == split]
            kept = [i for result in mine for i in result["kept"]]
            parts[split] = self._part(mine, [digests[i] for i in kept])
            if split != CORPUS:
                parts[f"{split}.labels"] = self._labels(clips, kept, split)
        return {
            "clips": {"read": len(clips) - num_bad, "quarantined": num_bad},
            "parts": parts,
        }

    def _part(self, results: list[dict[str, Any]], kept: list[str]) -> Facts:
        identity = {
            "audio": self._audio.model_dump(mode="json"),
            "clips_per_shard": self._ingest.clips_per_shard,
            "digests": kept,
        }
        facts: Facts = {
            "digest": digest(identity),
            "shards": [len(result["kept"]) for result in results],
            "seconds": sum(result["samples"] for result in results) / self._audio.sample_rate,
            "audio": self._audio.model_dump(mode="json"),
        }
        count = sum(result["count"] for result in results)
        if count:
            mean = sum(result["sum"] for result in results) / count
            square = sum(result["sum_of_squares"] for result in results) / count
            facts["log_mel_mean"] = mean
            facts["log_mel_std"] = max(square - mean**2, 1e-12) ** 0.5
        return facts

    def _labels(self, clips: list[Clip], kept: list[int], split: str) -> Facts:
        classes = corpora.label_map(clips)
        ids = np.array([classes.index(str(clips[i].label)) for i in kept], np.int32)
        (self.build.out / f"{split}.labels").write("labels.npy", npy(ids))
        identity = {"classes": classes, "labels": ids.tolist()}
        counts = np.bincount(ids, minlength=len(classes)).tolist()
        return {
            "digest": digest(identity),
            "classes": list(classes),
            "counts": dict(zip(classes, counts, strict=True)),
        }


@dataclass(frozen=True)
class _Shard:
    """What one task decodes and writes."""

    folder: Folder
    number: int
    split: str
    clips: tuple[tuple[int, str, str], ...]
    audio: AudioConfig
    max_seconds: float
    statistics: bool

    def plain(self) -> dict[str, Any]:
        return {**asdict(self), "audio": self.audio.model_dump()}

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> _Shard:
        folder, audio = Folder(**plain["folder"]), AudioConfig(**plain["audio"])
        return cls(**{**plain, "folder": folder, "audio": audio})


@dataclass(frozen=True)
class _Task:
    """A function from JSON to JSON as a Ray Data map."""

    function: Any

    def __call__(self, row: Mapping[str, Any]) -> dict[str, str]:
        return {"result": json.dumps(self.function(json.loads(row["task"])))}


def _read(path: str) -> bytes:
    """A clip's bytes.

    Raises:
        BadClip: there is no such file, or it cannot be read.
    """
    try:
        return location.read_bytes(path)
    except FileNotFoundError:
        raise BadClip("missing") from None
    except OSError as error:
        raise BadClip(f"unreadable: {error.strerror or error}") from None


def _hash_clips(clips: list[tuple[int, str]]) -> dict[str, Any]:
    digests, bad = {}, {}
    for i, path in clips:
        try:
            digests[i] = hashlib.sha256(_read(path)).hexdigest()
        except BadClip as reason:
            bad[i] = str(reason)
    return {"digests": digests, "quarantined": bad, "seen": len(clips)}


def _decode_shard(plain: Mapping[str, Any]) -> dict[str, Any]:
    shard = _Shard.of(plain)
    statistics = _Statistics(shard.audio) if shard.statistics else None
    writer = shards.ShardWriter(shard.folder, f"part-{shard.number:05d}.parquet")
    kept, bad, total = [], {}, 0
    for i, path, clip_digest in shard.clips:
        try:
            samples = decode(_read(path), shard.audio.sample_rate, shard.max_seconds)
        except BadClip as reason:
            bad[i] = str(reason)
            continue
        writer.add(clip_digest, samples)
        kept.append(i)
        total += len(samples)
        if statistics:
            statistics.add(samples)
    writer.close()
    moments = statistics.totals() if statistics else {"count": 0}
    return {
        "split": shard.split,
        "number": shard.number,
        "kept": kept,
        "quarantined": bad,
        "samples": total,
        "seen": len(shard.clips),
        **moments,
    }


class _Statistics:
    """Running sums of log-mel values over whole clips, without padding."""

    def __init__(self, audio: AudioConfig) -> None:
        from unfused.models.clip_encoder import log_mel

        runtime.prepare_process(runtime.available_cpus())
        self._log_mel = log_mel(audio)
        self._piece = int(STATISTICS_SECONDS * audio.sample_rate)
        self._count, self._sum, self._squares = 0, 0.0, 0.0

    def add(self, samples: np.ndarray) -> None:
        import torch

        for piece in np.array_split(samples, max(1, len(samples) // self._piece)):
            values = self._log_mel(torch.from_numpy(piece.copy())[None]).double()
            self._count += values.numel()
            self._sum += float(values.sum())
            self._squares += float(values.square().sum())

    def totals(self) -> dict[str, float]:
        return {"count": self._count, "sum": self._sum, "sum_of_squares": self._squares}


def _chunks(items: Sequence[int], size: int) -> list[Sequence[int]]:
    return [items[i : i + size] for i in range(0, len(items), size)]


def truth_in(classes: Sequence[str], labels: Artifact) -> np.ndarray:
    """The clips' labels (N,) as ids of the classifier's own label map."""
    ids = read_npy(labels.folder, "labels.npy")
    to_classifier = np.array([classes.index(name) for name in labels.facts["classes"]])
    return to_classifier[ids]
