"""Many recordings through a model, a row of a table for what is said of each.

The rule of this file: memory is that of a few recordings, however many there are and, where they
become timelines, however long; one that cannot be read is a row with its reason.

Axes: S samples of a clip.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import numpy as np

from unfused.audio.decode import BadClip
from unfused.inference.hearing import File, Hearing, known, name_of
from unfused.inference.model import BLOCK_SECONDS, Model
from unfused.inference.tables import row
from unfused.inference.timeline import TimelineConfig

BLOCK_CLIPS = 64
"""That are scored at a time, where they are short."""


@dataclass(frozen=True)
class Looking:
    """How recordings are looked at.

    Attributes:
        whole: every one has one label, however long it is.
        parts: every one is a timeline, however short it is.
        timeline: windows and thresholds, of those that are.
    """

    whole: bool = False
    parts: bool = False
    timeline: TimelineConfig = field(default_factory=TimelineConfig)

    def in_parts(self, model: Model, wave: np.ndarray) -> bool:
        """Whether a recording becomes a timeline."""
        return self.parts or (not self.whole and model.is_long(wave))


@dataclass(frozen=True)
class Recording:
    """One that was decoded, or why it was not.

    Attributes:
        path: empty for bytes.
        digest: SHA-256 of the file.
        wave: int16 (S,); of a long one the first stretch.
        reason: why there is none.
        rest: further stretches of a long one, which are decoded as they are asked for.
    """

    path: str
    digest: str
    wave: np.ndarray | None
    reason: str = ""
    rest: Iterable[np.ndarray] = ()


def predicted(model: Model, clips: Iterable[File], looking: Looking) -> Iterator[dict[str, Any]]:
    """The rows of recordings, in their order.

    Args:
        model: that is asked.
        clips: paths, URIs or the bytes of files.
        looking: how.
    """
    seconds = None if looking.whole else model.stretch_seconds
    for block in blocks(model.hearing, clips, seconds):
        short = [
            one.wave
            for one in block
            if one.wave is not None and not looking.in_parts(model, one.wave)
        ]
        said = iter(model.probabilities(short)) if short else iter(())
        for one in block:
            if one.wave is None:
                yield row(one.path, one.digest, reason=one.reason)
            elif looking.in_parts(model, one.wave):
                yield from _in_parts(model, one, looking)
            else:
                found = model.prediction(one.wave, next(said), one.path, one.digest)
                yield row(one.path, one.digest, found)


def _in_parts(model: Model, one: Recording, looking: Looking) -> Iterator[dict[str, Any]]:
    assert one.wave is not None
    lost: list[str] = []
    stretches = chain([one.wave], _until_lost(one.rest, lost))
    found = list(model.segments(stretches, looking.timeline))
    yield from (row(one.path, one.digest, segment) for segment in found)
    if not found:
        lost.append(f"no label has a probability of {looking.timeline.threshold:g}")
    yield from (row(one.path, one.digest, reason=reason) for reason in lost[:1])


def _until_lost(rest: Iterable[np.ndarray], lost: list[str]) -> Iterator[np.ndarray]:
    """The stretches up to where a recording cannot be read on; why not is added to `lost`."""
    try:
        yield from rest
    except BadClip as bad:
        lost.append(str(bad))


def embedded(model: Model, clips: Iterable[File]) -> Iterator[dict[str, Any]]:
    """The vectors of recordings, in their order: `path`, `digest`, `reason`, and one column for
    everything that embeds."""
    for block in blocks(model.hearing, clips):
        heard = [one.wave for one in block if one.wave is not None]
        found = model.embeddings(heard) if heard else {}
        rows = iter(range(len(heard)))
        for one in block:
            told = told_of(one)
            yield told if one.wave is None else told | _vectors(found, next(rows))


def told_of(one: Recording) -> dict[str, Any]:
    """`path`, `digest` and `reason` of a recording."""
    return {"path": one.path, "digest": one.digest or None, "reason": one.reason or None}


def _vectors(found: Mapping[str, np.ndarray], number: int) -> dict[str, Any]:
    return {name: rows[number].tolist() for name, rows in found.items()}


def blocks(
    hearing: Hearing, clips: Iterable[File], seconds: float | None = None
) -> Iterator[list[Recording]]:
    """Recordings in order, decoded, as many at a time as are scored together.

    Args:
        hearing: what they become.
        clips: paths, URIs or the bytes of files.
        seconds: after which the rest of one is left to be decoded; by default nothing is.
    """
    most, block, total = BLOCK_SECONDS * hearing.sample_rate, list[Recording](), 0
    for clip in clips:
        one = _decoded(hearing, clip, seconds)
        length = 0 if one.wave is None else len(one.wave)
        if block and (total + length > most or len(block) == BLOCK_CLIPS):
            yield block
            block, total = [], 0
        block.append(one)
        total += length
    if block:
        yield block


def _decoded(hearing: Hearing, clip: File, seconds: float | None) -> Recording:
    path, digest = name_of(clip), ""
    try:
        digest, file = known(clip)
        if seconds is None:
            return Recording(path, digest, hearing.wave(file))
        stretches = hearing.stretches(file, seconds)
        return Recording(path, digest, next(stretches), rest=stretches)
    except BadClip as bad:
        return Recording(path, digest, None, str(bad))
