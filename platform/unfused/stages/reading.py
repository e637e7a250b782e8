"""Clips read: hashed, put in order, decoded, and what is to be said of them.

Files are read twice: once for the digests that decide the order, once to be decoded (see `shards`).

The rule of this file: a run's ingest and `unfused inspect` read clips by these lines and no others;
what came of every clip is known here, and no audio is.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from unfused.audio.decode import BadClip
from unfused.config import AudioConfig, ConfigError, IngestConfig
from unfused.corpora.clip import Clip
from unfused.data.recordings import digest_of
from unfused.stages.shards import Cutting, Recording, Shard, Told, decode_shard
from unfused.store import Folder, digest

HASH_BATCH = 256
LARGE_BYTES = 4 * 2**20
"""A file counts for one more, where files are dealt out to shards, for every so many bytes."""
CORPUS = "corpus"
EMPTY = "empty: the file has no bytes"
NO_SAMPLES = "empty"
"""The kind of reason of files that have none, as recorders leave them when their battery goes."""

Map = Callable[[Sequence[str], Callable[[Any], dict[str, Any]], int, str], Iterator[dict[str, Any]]]
"""Calls a function from JSON to JSON on every row; takes the number of files too, and a word for
what is done. Results come in any order, and `seen` is how many files each has dealt with."""


class TooManyBadClips(ConfigError):
    """More clips than `ingest.max_bad_fraction` allows cannot be used."""


@dataclass(frozen=True)
class Row:
    """A clip that can be used.

    Attributes:
        clip: its index among the clips that were listed.
        start: seconds into the recording; None is its beginning, or the listed clip's own.
        end: likewise.
        digest: of its bytes, or of its recording's and the stretch.
        length: in samples.
    """

    clip: int
    start: float | None
    end: float | None
    digest: str
    length: int


def read(
    clips: Sequence[Clip], audio: AudioConfig, ingest: IngestConfig, run: Map, out: Folder | None
) -> Read:
    """Read all clips.

    Args:
        clips: as they are listed; those without a split are a corpus.
        audio: what they become.
        ingest: how they are read.
        run: does the work.
        out: where shards are written, `<out>/<split>/`; none: nowhere.
    """
    by_path: dict[str, list[int]] = {}
    for i, clip in enumerate(clips):
        by_path.setdefault(clip.path, []).append(i)
    digests, bad = _hashed(by_path, run)
    recordings, repeats = _recordings(clips, by_path, digests, ingest.shuffle_seed)
    shards = [
        Shard(
            split,
            number,
            tuple(some),
            audio,
            Cutting.of(ingest, is_corpus=split == CORPUS),
            folder=out and out / split,
            statistics=out is not None and split in (CORPUS, "train"),
        )
        for split, ordered in recordings.items()
        for number, some in enumerate(_dealt(ordered, ingest.clips_per_shard))
    ]
    jobs = [json.dumps(shard.plain()) for shard in shards]
    total = sum(map(len, recordings.values()))
    told = [Told(**result) for result in run(jobs, decode_shard, total, "decoding")]
    told.sort(key=lambda one: (one.split, one.number))
    bad |= {i: why for one in told for i, why in one.bad}
    # What has the bytes of a file that cannot be used cannot be used either.
    useless = {i: bad[first] for i, first in repeats.items() if first in bad}
    bad |= useless
    num_repeats = len({clips[i].path for i in repeats.keys() - useless.keys()})
    rows = {
        split: [Row(*row) for one in told if one.split == split for row in one.rows]
        for split in recordings
    }
    return Read(clips, ingest, told, rows, bad, num_repeats)


def _hashed(
    by_path: Mapping[str, list[int]], run: Map
) -> tuple[dict[str, str], dict[int, str]]:
    """SHA-256 of every readable file's bytes, by path, and why the clips of others are bad."""
    found: dict[str, str] = {}
    bad: dict[int, str] = {}
    rows = [json.dumps(some) for some in _chunks(list(by_path), HASH_BATCH)]
    for row in run(rows, _hash_files, len(by_path), "reading"):
        found |= row["digests"]
        bad |= {i: why for path, why in row["bad"].items() for i in by_path[path]}
    return found, bad


def _hash_files(paths: Sequence[str]) -> dict[str, Any]:
    digests, bad = {}, {}
    nothing = hashlib.sha256().hexdigest()
    for path in paths:
        try:
            found = digest_of(path)
        except BadClip as reason:
            bad[path] = str(reason)
            continue
        if found == nothing:
            bad[path] = EMPTY
        else:
            digests[path] = found
    return {"digests": digests, "bad": bad, "seen": len(paths)}


def _recordings(
    clips: Sequence[Clip],
    by_path: Mapping[str, list[int]],
    digests: Mapping[str, str],
    seed: int,
) -> tuple[dict[str, list[Recording]], dict[int, int]]:
    """What is decoded, by split, in a shuffle that depends on the files' bytes alone, never on
    paths or times; and the clips that were left out as exact repeats, with whose."""
    found: dict[str, list[Recording]] = {}
    known: dict[tuple, list[int]] = {}
    repeats: dict[int, int] = {}
    for path in sorted(digests, key=lambda path: (digest([seed, digests[path]]), digests[path])):
        by_split: dict[str, list[int]] = {}
        for i in by_path[path]:
            by_split.setdefault(clips[i].split or CORPUS, []).append(i)
        for split, indices in by_split.items():
            spans = tuple((i, clips[i].start, clips[i].end) for i in indices)
            content = (split, digests[path], tuple(span[1:] for span in spans))
            first = known.setdefault(content, indices)
            if first is not indices:
                repeats |= dict(zip(indices, first, strict=True))
                continue
            one = Recording(path, digests[path], clips[indices[0]].size, spans)
            found.setdefault(split, []).append(one)
    return found, repeats


def _dealt(recordings: Sequence[Recording], most: int) -> Iterator[list[Recording]]:
    """Recordings in order, as many together as are one shard: `most`, large ones counting more."""
    some: list[Recording] = []
    weight = 0
    for one in recordings:
        some.append(one)
        weight += max(len(one.clips), 1 + one.size // LARGE_BYTES)
        if weight >= most:
            yield some
            some, weight = [], 0
    if some:
        yield some


def _chunks(items: Sequence[Any], size: int) -> list[Sequence[Any]]:
    return [items[i : i + size] for i in range(0, len(items), size)]


@dataclass(frozen=True)
class Read:
    """What came of clips.

    Attributes:
        clips: as they were listed.
        ingest: how they were read.
        told: of every shard, by split and number.
        rows: the clips that can be used, by split, in order.
        bad: why others cannot, by index.
        repeats: files that were left out, having the bytes of another.
    """

    clips: Sequence[Clip]
    ingest: IngestConfig
    told: Sequence[Told]
    rows: Mapping[str, Sequence[Row]]
    bad: Mapping[int, str]
    repeats: int

    def of(self, split: str) -> list[Told]:
        """What was told of one split's shards."""
        return [one for one in self.told if one.split == split]

    @property
    def gaps(self) -> list[dict[str, Any]]:
        """Segments that cannot be used, of recordings that can."""
        found = [gap for one in self.told for gap in one.gaps if gap[0] not in self.bad]
        return [self._suspect(*gap) for gap in found]

    @property
    def silent(self) -> list[dict[str, Any]]:
        """Clips that are near silent throughout, though they are kept."""
        spans = [span for one in self.told for span in one.silent]
        return [self._suspect(*span, "near silent throughout") | {"kept": True} for span in spans]

    @property
    def cut_short(self) -> list[dict[str, Any]]:
        """Recordings of which something is missing, though what is there is kept."""
        lost = [one for told in self.told for one in told.lost]
        return [{"path": path, "reason": damage, "kept": True} for path, _, damage in lost]

    @property
    def shortened(self) -> list[dict[str, Any]]:
        """Stretches of which the end is not there, though they are kept."""
        found = [one for told in self.told for one in told.shortened]
        return [self._suspect(*one) | {"kept": True} for one in found]

    @property
    def suspects(self) -> list[dict[str, Any]]:
        """Clips that cannot be used, with the reason, then those that are kept but suspect."""
        bad = [self._suspect(i, None, None, self.bad[i]) for i in sorted(self.bad)]
        return [*bad, *self.gaps, *self.shortened, *self.silent, *self.cut_short]

    def _suspect(
        self, i: int, start: float | None, end: float | None, reason: str
    ) -> dict[str, Any]:
        clip = self.clips[i]
        begin, stop = (clip.start, clip.end) if start is None else (start, end)
        stretch = {} if begin is None else {"start": begin, "end": stop}
        return {"path": clip.path, **stretch, "reason": reason}

    @property
    def reasons(self) -> Counter[str]:
        """Clips that cannot be used, by the kind of reason."""
        return Counter(why.partition(":")[0] for why in self.bad.values())

    def notes(self) -> list[str]:
        """What was done to recordings, and to how many."""
        told, found = self.told, []
        if self.repeats:
            found.append(f"{_files(self.repeats)} the same bytes as another; each is kept once.")
        if cut := sum(one.cut for one in told):
            many = sum(one.segments for one in told)
            found.append(f"{_recordings_are(cut)} long, and cut into {many} segments.")
        if quiet := sum(one.quiet for one in told):
            least = self.ingest.segment_min_level
            found.append(f"{quiet} segments below {least:g} dBFS are left out.")
        return found

    def warnings(self) -> list[str]:
        """What may need attention."""
        found = [self._told_of_bad()] if self.bad else []
        if cancelled := sum(one.cancelled for one in self.told):
            several = "1 recording" if cancelled == 1 else f"{cancelled} recordings"
            found.append(
                f"The channels of {several} cancel each other; the loudest is taken"
                " (audio.channel)."
            )
        if dead := sum(one.dead for one in self.told):
            have = "1 recording has" if dead == 1 else f"{dead} recordings have"
            found.append(
                f"{have} a channel that is silent or stuck at one value, averaged with the others;"
                " audio.channel=loudest leaves it out."
            )
        if gaps := self.gaps:
            are = "1 segment" if len(gaps) == 1 else f"{len(gaps)} segments"
            found.append(
                f"{are} of long recordings cannot be used, the first: {gaps[0]['path']} at"
                f" {gaps[0]['start']:.1f} s ({gaps[0]['reason']})"
            )
        if silent := self.silent:
            are = "1 clip is" if len(silent) == 1 else f"{len(silent)} clips are"
            found.append(
                f"{are} near silent throughout, or at one value, the first: {_where(silent[0])};"
                " kept, and listed with those that cannot be used."
            )
        if cut_short := self.cut_short:
            seconds = sum(seconds for one in self.told for _, seconds, _ in one.lost)
            several = "1 file is" if len(cut_short) == 1 else f"{len(cut_short)} files are"
            first = cut_short[0]
            found.append(
                f"{several} damaged, {seconds:.1f} s or more are lost, the first:"
                f" {first['path']} ({first['reason']}); what is there is kept."
            )
        if shortened := self.shortened:
            several = "1 stretch ends" if len(shortened) == 1 else f"{len(shortened)} stretches end"
            found.append(
                f"{several} after the recording does, the first: {shortened[0]['path']}"
                f" ({shortened[0]['reason']}); what is there is kept."
            )
        return found

    def _told_of_bad(self) -> str:
        first, empty = min(self.bad), self._num_empty
        several = f" ({empty} of them {_empty(empty)})" if empty else ""
        return (
            f"{len(self.bad)} of {len(self.clips)} clips cannot be used{several}, the first:"
            f" {self.clips[first].path} ({self.bad[first]})"
        )

    @property
    def _num_empty(self) -> int:
        return self.reasons[NO_SAMPLES]

    def check(self) -> None:
        """Hold that enough clips can be used. Empty files do not count: recorders write them when
        their battery goes.

        Raises:
            TooManyBadClips: more than `ingest.max_bad_fraction` cannot, or all.
        """
        share = (len(self.bad) - self._num_empty) / max(1, len(self.clips) - self._num_empty)
        most = self.ingest.max_bad_fraction
        if self.bad and (share > most or len(self.bad) == len(self.clips)):
            raise TooManyBadClips(
                f"{self._told_of_bad()}; repair them or raise ingest.max_bad_fraction (now"
                f" {most:g})."
            )


def _empty(count: int) -> str:
    return "an empty file" if count == 1 else "empty files"


def _where(suspect: Mapping[str, Any]) -> str:
    """The file, and where in it."""
    start = suspect.get("start")
    return suspect["path"] if start is None else f"{suspect['path']} from {start:g} s on"


def _recordings_are(count: int) -> str:
    return "1 recording is" if count == 1 else f"{count} recordings are"


def _files(count: int) -> str:
    return "1 file has" if count == 1 else f"{count} files have"
