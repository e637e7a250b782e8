"""One task of ingest: recordings decoded, cut where they are long, and written as one shard.

The rule of this file: a recording is opened once for all clips that are taken from it, and memory
is that of one clip and a row group, however long the recording is.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from unfused import data
from unfused.audio.decode import BadClip, Grid, Heard, Parts, Source, Spans, decode_heard
from unfused.audio.log_mel_sums import LogMelSums
from unfused.audio.samples import INT16_SCALE
from unfused.config import AudioConfig, IngestConfig
from unfused.data.recordings import open_recording, read_recording
from unfused.store import Folder, Work

AUTO_LIMIT = 30.0
"""Seconds from which a recording of a corpus is cut where `ingest.segment_seconds` is auto."""
AUTO_SEGMENT = 10.0
"""Seconds of its segments."""
SMALL_BYTES = 32 * 2**20
"""Files up to this size are read at once, larger ones as they are decoded."""
SILENT_RANGE = 32
"""Between the lowest and the highest sample of a clip that is near silent throughout: -66 dBFS."""

Span = tuple[int, float | None, float | None]
"""A clip's index, and the seconds at which it begins and ends; None is the recording's own."""


@dataclass(frozen=True)
class Recording:
    """A file, and the clips that are taken from it."""

    path: str
    digest: str
    """SHA-256 of its bytes."""
    size: int
    """Bytes."""
    clips: tuple[Span, ...]

    @property
    def is_whole(self) -> bool:
        """Whether it is one clip, or as many as it is cut into."""
        return len(self.clips) == 1 and self.clips[0][1:] == (None, None)


@dataclass(frozen=True)
class Cutting:
    """Which recordings are cut into segments, and how.

    Attributes:
        limit: seconds up to which a recording is one clip.
        grid: what a longer one is cut into; none: it cannot be used.
        min_level: dB of full scale, below which a segment is left out; none keeps all.
    """

    limit: float
    grid: Grid | None
    min_level: float | None = None

    @classmethod
    def of(cls, config: IngestConfig, *, is_corpus: bool) -> Cutting:
        """As `config` asks for it."""
        seconds = config.segment_seconds
        if seconds == "off" or (seconds == "auto" and not is_corpus):
            return cls(config.max_seconds, None)
        limit, length = (AUTO_LIMIT, AUTO_SEGMENT) if seconds == "auto" else (seconds, seconds)
        return cls(limit, Grid(length, config.segment_overlap), config.segment_min_level)


@dataclass(frozen=True)
class Shard:
    """What one task decodes, and writes if it has a folder to write to.

    Attributes:
        split: of its part.
        number: of the shard in its part.
        recordings: in order.
        audio: what clips become.
        cutting: of recordings that are one clip by themselves.
        folder: of the part; none: nothing is kept.
        statistics: whether log-mel values are summed up.
    """

    split: str
    number: int
    recordings: tuple[Recording, ...]
    audio: AudioConfig
    cutting: Cutting
    folder: Folder | None = None
    statistics: bool = False

    def plain(self) -> dict[str, Any]:
        """As JSON values."""
        return {**asdict(self), "audio": self.audio.model_dump()}

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> Shard:
        """From `plain`."""
        cutting, folder = plain["cutting"], plain["folder"]
        recordings = [
            Recording(**{**one, "clips": tuple(map(tuple, one["clips"]))})
            for one in plain["recordings"]
        ]
        changed = {
            "folder": folder and Work(**folder),
            "audio": AudioConfig(**plain["audio"]),
            "cutting": Cutting(**{**cutting, "grid": cutting["grid"] and Grid(**cutting["grid"])}),
            "recordings": tuple(recordings),
        }
        return cls(**{**plain, **changed})


@dataclass
class Told:
    """What came of a shard's recordings, as JSON values."""

    split: str
    number: int
    seen: int
    """Recordings."""
    rows: list[tuple[int, float | None, float | None, str, int]] = field(default_factory=list)
    """Of every clip in the shard: index, begin and end in seconds (None is the recording's own),
    digest, and samples."""
    bad: list[tuple[int, str]] = field(default_factory=list)
    """Clips that cannot be used, by index, and why."""
    gaps: list[tuple[int, float, float, str]] = field(default_factory=list)
    """Segments of a recording that cannot be used though others can: index, begin, end, why."""
    silent: list[Span] = field(default_factory=list)
    """Clips in the shard that are near silent throughout."""
    shortened: list[tuple[int, float, float, str]] = field(default_factory=list)
    """Stretches that end before they should: index, begin, end, why."""
    kinds: list[tuple[int, int]] = field(default_factory=list)
    """Hz and channels of every recording that was decoded."""
    cut: int = 0
    """Recordings that were cut into segments."""
    segments: int = 0
    """That they were cut into."""
    quiet: int = 0
    """Segments that were left out, being too quiet."""
    cancelled: int = 0
    """Recordings whose channels cancelled each other."""
    dead: int = 0
    """Recordings of several channels of which one is stuck at one value."""
    lost: list[tuple[str, float, str]] = field(default_factory=list)
    """Recordings that were kept, the seconds that are missing of them as far as that is known, and
    what is damaged in words."""
    moments: dict[str, float] = field(default_factory=lambda: {"count": 0})


def decode_shard(plain: Mapping[str, Any]) -> dict[str, Any]:
    """Decode and write a shard; `Told` as JSON values."""
    shard = Shard.of(plain)
    statistics = LogMelSums(shard.audio) if shard.statistics else None
    writer = shard.folder and data.ShardWriter(shard.folder, data.shard_file(shard.number))
    decoding = _Decoding(shard)
    for digest, samples in decoding.clips():
        if writer:
            writer.add(digest, samples)
        if statistics:
            statistics.add(samples)
    if writer:
        writer.close()
    if statistics:
        decoding.told.moments = statistics.totals()
    return asdict(decoding.told)


def span_digest(digest: str, start: float | None, end: float | None) -> str:
    """What a clip is known by: its recording's digest, or that of a stretch of it."""
    if start is None and end is None:
        return digest
    return hashlib.sha256(f"{digest} {start or 0:.6f} {end or math.inf:.6f}".encode()).hexdigest()


class _Decoding:
    """The clips of a shard's recordings, and what is told of them."""

    def __init__(self, shard: Shard) -> None:
        self._shard = shard
        self.told = Told(shard.split, shard.number, len(shard.recordings))

    def clips(self) -> Iterator[tuple[str, np.ndarray]]:
        """Digest and samples (S,) of every clip that can be used, in order."""
        for recording in self._shard.recordings:
            try:
                yield from self._of(recording)
            except BadClip as reason:
                self.told.bad += [(i, str(reason)) for i, _, _ in recording.clips]

    def _of(self, recording: Recording) -> Iterator[tuple[str, np.ndarray]]:
        audio, cutting = self._shard.audio, self._shard.cutting
        with _opened(recording) as source:
            if not recording.is_whole:
                yield from self._stretches(recording, source)
                return
            try:
                samples, heard = decode_heard(
                    source, audio.sample_rate, cutting.limit, audio.channel
                )
            except BadClip as bad:
                if cutting.grid is None or not _may_be_cut(bad):
                    raise
                yield from self._segments(recording, source, cutting.grid)
            else:
                self._tell(recording, heard)
                yield self._taken(recording, recording.clips[0], samples)

    def _stretches(
        self, recording: Recording, source: Source
    ) -> Iterator[tuple[str, np.ndarray]]:
        parts = self._parts(source, [(start or 0.0, end) for _, start, end in recording.clips])
        for part in parts:
            clip = recording.clips[part.index]
            if part.samples is None:
                self.told.bad.append((clip[0], part.reason))
            else:
                if part.reason:
                    self.told.shortened.append((clip[0], part.start, part.end, part.reason))
                yield self._taken(recording, clip, part.samples)
        self._tell(recording, parts.heard)

    def _segments(
        self, recording: Recording, source: Source, grid: Grid
    ) -> Iterator[tuple[str, np.ndarray]]:
        ((clip, _, _),) = recording.clips
        parts, least = self._parts(source, grid), self._shard.cutting.min_level
        taken = quiet = 0
        for part in parts:
            if part.samples is None:
                self.told.gaps.append((clip, part.start, part.end, part.reason))
            elif least is not None and level(part.samples) < least:
                quiet += 1
            else:
                taken += 1
                yield self._taken(recording, (clip, part.start, part.end), part.samples)
        if not taken:
            reasons = [gap[3] for gap in self.told.gaps if gap[0] == clip]
            raise BadClip(*(reasons[:1] or ("quiet", f"no segment reaches {least:g} dBFS")))
        self.told.quiet += quiet
        if taken + quiet > 1:
            self.told.cut, self.told.segments = self.told.cut + 1, self.told.segments + taken
        self._tell(recording, parts.heard)

    def _parts(self, source: Source, spans: Spans) -> Parts:
        return Parts(source, self._shard.audio.sample_rate, spans, self._shard.audio.channel)

    def _taken(
        self, recording: Recording, clip: Span, samples: np.ndarray
    ) -> tuple[str, np.ndarray]:
        digest = span_digest(recording.digest, *clip[1:])
        self.told.rows.append((*clip, digest, len(samples)))
        if int(samples.max()) - int(samples.min()) <= SILENT_RANGE:
            self.told.silent.append(clip)
        return digest, samples

    def _tell(self, recording: Recording, heard: Heard | None) -> None:
        assert heard is not None
        self.told.kinds.append((heard.rate, heard.channels))
        self.told.cancelled += heard.mixed.cancelled
        self.told.dead += heard.mixed.dead
        if heard.damage:
            self.told.lost.append((recording.path, heard.lost, heard.damage))


def _opened(recording: Recording) -> AbstractContextManager[Source]:
    if recording.size <= SMALL_BYTES:
        return nullcontext(read_recording(recording.path))
    return open_recording(recording.path)


def _may_be_cut(bad: BadClip) -> bool:
    """Whether parts of a recording can be had that cannot be had whole."""
    return bad.reason == "truncated" or bad.reason.startswith("longer than")


def level(samples: np.ndarray) -> float:
    """RMS of int16 samples (S,) in dB of full scale; -inf of digital silence."""
    power = float(np.mean(np.square(samples.astype(np.float32) * INT16_SCALE)))
    return 10 * math.log10(power) if power > 0 else -math.inf

