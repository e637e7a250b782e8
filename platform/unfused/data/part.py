"""What a part is: one corpus, or one split of a task, as ingest wrote it.

The rule of this file: a part is a folder of `part-00000.parquet`, ... with the columns `digest` (of
the clip's bytes) and `samples` (mono, the bytes of little-endian int16, which Parquet copies; it
decodes lists number by number). A clip's index is its row in that order.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from unfused.config import AudioConfig, environment
from unfused.store import Artifact, Facts, read_table

SCHEMA = pa.schema([("digest", pa.string()), ("samples", pa.large_binary())])
SAMPLE = np.dtype("<i2")
KEPT_BYTES = environment.number("UNFUSED_KEPT_MIB") * 2**20
"""A worker's share of the clips that it keeps at hand: four and a half hours at 16 kHz."""


class PartFacts(Facts):
    """What is known of a part beside its clips."""

    digest: str
    """Of the clips' digests, the audio settings and the shards' size."""
    shards: list[int]
    """Clips in each shard, in order."""
    seconds: float
    """Of sound, over all clips."""
    durations: list[float]
    """Seconds of the shortest clip, of the quartiles, and of the longest."""
    audio: AudioConfig
    """Its window is a number, also where auto was asked for."""
    recorded_rate: int = 0
    """Hz, that half of the recordings had or more; 0 where that is not known."""
    log_mel_mean: float | None = None
    """Over all log-mel values; only of parts that are learned from."""
    log_mel_std: float | None = None
    """Likewise, above 0."""

    @property
    def num_clips(self) -> int:
        """N, over all shards."""
        return sum(self.shards)


def shard_file(number: int) -> str:
    """The name of a part's shard in its folder; the first is number 0."""
    return f"part-{number:05d}.parquet"


def num_clips(part: Artifact[PartFacts]) -> int:
    """N, over all shards of a part."""
    return part.facts.num_clips


def digests(part: Artifact[PartFacts]) -> list[str]:
    """SHA-256 of the bytes of every clip of a part, in order."""
    found: list[str] = []
    for number in range(len(part.facts.shards)):
        table = read_table(part.folder, shard_file(number), ["digest"])
        found += table["digest"].to_pylist()
    return found


def may_be_kept(part: Artifact[PartFacts], rows: range) -> bool:
    """Whether the clips `rows` of a part, were they all of mean length, fit in `KEPT_BYTES`."""
    total = 2 * part.facts.seconds * part.facts.audio.sample_rate
    return total * len(rows) <= KEPT_BYTES * num_clips(part)


def rank_rows(total: int, rank: int, world: int) -> range:
    """The contiguous clips that one worker trains on; shares differ by one at most."""
    return range(total * rank // world, total * (rank + 1) // world)
