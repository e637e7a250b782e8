"""Ingest: decode, mix down, resample, write Parquet shards, gather statistics, quarantine.

Audio is read twice: once for the digests that decide the order and show overlap before anything is
written, once to be decoded. Both passes are Ray Data tasks; the driver holds a row of text and
integers for each clip and no audio.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from unfused import cores, corpora, data
from unfused.audio.decode import BadClip, decode_with_rate
from unfused.config import AudioConfig, ConfigError, DataConfig, IngestConfig
from unfused.corpora.clip import Clip
from unfused.corpora.overlap import refuse_overlap
from unfused.data import LabelFacts, PartFacts
from unfused.data.recordings import read_recording
from unfused.stages.access import Tasks
from unfused.stages.contract import Build, Built, Stage
from unfused.store import Facts, Folder, digest, npy

HASH_BATCH = 256
STATISTICS_SECONDS = 30.0
QUARTILES = (0.0, 0.25, 0.5, 0.75, 1.0)
CORPUS = "corpus"
CLIPS_FILE = "clips.parquet"
"""Split, index, digest, path and label of every clip that an ingest artifact holds."""


class TooManyBadClips(ConfigError):
    """More clips than `ingest.max_bad_fraction` allows cannot be used."""


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
    return [Built(_Ingest(build, tasks).run()) for build in builds]


@dataclass
class _Ingest:
    build: Build
    tasks: Tasks

    def run(self) -> IngestFacts:
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
        kept = {
            split: [i for r in results if r["split"] == split for i in r["kept"]]
            for split in dict.fromkeys(r["split"] for r in results)
        }
        self._list(clips, digests, kept)
        return self._facts(clips, digests, results, kept, len(bad))

    @property
    def _data(self) -> DataConfig:
        return self.build.config["data"]

    @property
    def _audio(self) -> AudioConfig:
        return self.build.config["audio"]

    @property
    def _ingest(self) -> IngestConfig:
        return self.build.config["ingest"]

    def _hash(self, clips: list[Clip]) -> tuple[dict[int, str], dict[int, str]]:
        """SHA-256 of every readable clip's bytes, and why the others cannot be read."""
        rows = [
            json.dumps([(i, clips[i].path) for i in chunk])
            for chunk in _chunks(range(len(clips)), HASH_BATCH)
        ]
        digests: dict[int, str] = {}
        bad: dict[int, str] = {}
        for row in self.tasks.map(self.build.node, rows, _hash_clips, len(clips), "reading"):
            digests |= {int(i): d for i, d in row["digests"].items()}
            bad |= {int(i): reason for i, reason in row["quarantined"].items()}
        return digests, bad

    def _decode(self, jobs: list[_Shard], total: int) -> list[dict[str, Any]]:
        rows = [json.dumps(job.plain()) for job in jobs]
        results = list(self.tasks.map(self.build.node, rows, _decode_shard, total, "decoding"))
        return sorted(results, key=lambda result: (result["split"], result["number"]))

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
        held_out = {digests[i]: clips[i].path for i in good if clips[i].split in ("valid", "test")}
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
        self.tasks.warn(self.build.node, told)

    def _list(
        self, clips: list[Clip], digests: Mapping[int, str], kept: Mapping[str, list[int]]
    ) -> None:
        """Keep which file each clip came from: its content is known by digest alone elsewhere."""
        rows = [(split, n, i) for split, indices in kept.items() for n, i in enumerate(indices)]
        table = {
            "split": [split for split, _, _ in rows],
            "clip": [number for _, number, _ in rows],
            "digest": [digests[i] for _, _, i in rows],
            "path": [clips[i].path for _, _, i in rows],
            "label": pa.array([clips[i].label for _, _, i in rows], pa.string()),
        }
        out = self.build.out
        out.filesystem.create_dir(out.path, recursive=True)
        with out.filesystem.open_output_stream(f"{out.path}/{CLIPS_FILE}") as sink:
            pq.write_table(pa.table(table), sink)

    def _facts(
        self,
        clips: list[Clip],
        digests: Mapping[int, str],
        results: list[dict[str, Any]],
        kept: Mapping[str, list[int]],
        num_bad: int,
    ) -> IngestFacts:
        parts: dict[str, PartFacts | LabelFacts] = {}
        for split, indices in kept.items():
            mine = [result for result in results if result["split"] == split]
            parts[split] = self._part(mine, [digests[i] for i in indices])
            if split != CORPUS:
                parts[f"{split}.labels"] = self._labels(clips, indices, split)
        counts = ClipCounts(read=len(clips) - num_bad, quarantined=num_bad)
        return IngestFacts(clips=counts, parts=parts)

    def _part(self, results: list[dict[str, Any]], kept: list[str]) -> PartFacts:
        audio = self._audio.settled()
        identity = {
            "audio": audio.identity(),
            "clips_per_shard": self._ingest.clips_per_shard,
            "digests": kept,
        }
        mean, std = _moments(results)
        rate = audio.sample_rate
        lengths = [length for result in results for length in result["lengths"]]
        return PartFacts(
            digest=digest(identity),
            shards=[len(result["kept"]) for result in results],
            seconds=sum(lengths) / rate,
            durations=(np.quantile(lengths or [0], QUARTILES) / rate).tolist(),
            audio=audio,
            recorded_rate=int(np.median([r for result in results for r in result["rates"]] or [0])),
            log_mel_mean=mean,
            log_mel_std=std,
        )

    def _labels(self, clips: list[Clip], kept: list[int], split: str) -> LabelFacts:
        classes = corpora.label_map(clips)
        ids = np.array([classes.index(str(clips[i].label)) for i in kept], np.int32)
        (self.build.out / f"{split}.labels").write("labels.npy", npy(ids))
        counts = np.bincount(ids, minlength=len(classes)).tolist()
        return LabelFacts(
            digest=digest({"classes": classes, "labels": ids.tolist()}),
            classes=list(classes),
            counts=dict(zip(classes, counts, strict=True)),
        )


def _moments(results: list[dict[str, Any]]) -> tuple[float | None, float | None]:
    """Mean and standard deviation of log-mel values; none where they were not gathered."""
    count = sum(result["count"] for result in results)
    if not count:
        return None, None
    mean = sum(result["sum"] for result in results) / count
    square = sum(result["sum_of_squares"] for result in results) / count
    return mean, max(square - mean**2, 1e-12) ** 0.5


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


def _hash_clips(clips: list[tuple[int, str]]) -> dict[str, Any]:
    digests, bad = {}, {}
    for i, path in clips:
        try:
            digests[i] = hashlib.sha256(read_recording(path)).hexdigest()
        except BadClip as reason:
            bad[i] = str(reason)
    return {"digests": digests, "quarantined": bad, "seen": len(clips)}


def _decode_shard(plain: Mapping[str, Any]) -> dict[str, Any]:
    shard = _Shard.of(plain)
    statistics = _Statistics(shard.audio) if shard.statistics else None
    writer = data.ShardWriter(shard.folder, f"part-{shard.number:05d}.parquet")
    kept, bad, lengths, rates = [], {}, [], []
    for i, path, clip_digest in shard.clips:
        try:
            samples, rate = decode_with_rate(
                read_recording(path), shard.audio.sample_rate, shard.max_seconds
            )
        except BadClip as reason:
            bad[i] = str(reason)
            continue
        writer.add(clip_digest, samples)
        kept.append(i)
        lengths.append(len(samples))
        rates.append(rate)
        if statistics:
            statistics.add(samples)
    writer.close()
    moments = statistics.totals() if statistics else {"count": 0}
    return {
        "split": shard.split,
        "number": shard.number,
        "kept": kept,
        "quarantined": bad,
        "lengths": lengths,
        "rates": rates,
        "seen": len(shard.clips),
        **moments,
    }


class _Statistics:
    """Running sums of log-mel values over whole clips, without padding."""

    def __init__(self, audio: AudioConfig) -> None:
        from unfused.models.clip_encoder import log_mel

        cores.prepare_process(threads=1)
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


STAGE = Stage(version=5, facts=IngestFacts, access=Tasks, run=run, together=True)
