"""Turns audio files into 16-bit mono samples.

The rule of this room's files: a clip is decoded whole or refused with a reason; a recording that is
cut into `Parts`, or comes in stretches, gives all that is there. What a header claims is never
believed: memory grows with the samples that are really there, up to `max_seconds`.

Axes: N frames.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from unfused.audio.badclip import BadClip
from unfused.audio.parts import Grid, Part, Parts, Spans, finished, nothing, one_channel
from unfused.audio.reading import Heard, Reading, Source
from unfused.audio.resampling import Stream, resample
from unfused.audio.samples import to_int16

__all__ = [
    "BadClip",
    "Grid",
    "Heard",
    "Part",
    "Parts",
    "Source",
    "Spans",
    "decode",
    "decode_heard",
    "resample",
    "stretches",
]


def decode(
    source: Source,
    sample_rate: int,
    max_seconds: float,
    channel: str = "mean",
    max_samples: float = math.inf,
) -> np.ndarray:
    """The samples of `decode_heard`."""
    return decode_heard(source, sample_rate, max_seconds, channel, max_samples)[0]


def decode_heard(
    source: Source,
    sample_rate: int,
    max_seconds: float,
    channel: str = "mean",
    max_samples: float = math.inf,
) -> tuple[np.ndarray, Heard]:
    """Decode an audio file of any format that libsndfile or FFmpeg knows, any rate and channels.

    Resampling is soxr's HQ, as in `librosa.load`.

    Args:
        source: the bytes of a file; or a seekable file, which is not read by others meanwhile.
        sample_rate: Hz of the result.
        max_seconds: longer clips are refused.
        channel: of several channels "mean" (or the loudest where they cancel each other), "left",
            "right" or "loudest".
        max_samples: clips of more samples, all channels together, are refused.

    Returns:
        int16 (N,), N >= 1, full scale at 32768, rounded and clipped; and what is known of the file.

    Raises:
        BadClip: not audio, empty, truncated, too long, or samples that are NaN, infinite or far
            beyond full scale. What lacks its end without a trace passes for whole: an MP3 without
            its last frame, or without a header that counts them; an Ogg that ends between two
            pages; AAC or AMR in no container.
    """
    reading = Reading(source)
    blocks = list(_up_to(reading, max_seconds, max_samples))
    heard = reading.heard()
    if heard.damage:
        raise BadClip("truncated", heard.damage)
    if not reading.num_frames:
        raise nothing(heard)
    samples, mixed = finished(blocks, reading.rate, sample_rate, channel)
    return samples, replace(heard, mixed=mixed)


def stretches(
    source: Source,
    sample_rate: int,
    seconds: float,
    channel: str = "mean",
    max_seconds: float = math.inf,
    max_samples: float = math.inf,
) -> Iterator[np.ndarray]:
    """Decode a recording of any length, a stretch at a time, as they are asked for.

    Args:
        source: as in `decode_heard`.
        sample_rate: Hz of the result.
        seconds: of a stretch, or a little more. A recording that is no longer is one stretch, what
            `decode` gives of it.
        channel: as in `decode_heard`; where channels cancel each other is decided for every one.
        max_seconds: as in `decode_heard`.
        max_samples: as in `decode_heard`.

    Yields:
        int16 (N,), one after the other, resampled without a seam.

    Raises:
        BadClip: as `decode_heard`; of a recording of several stretches that lacks its end, after
            all that is there has come, and of one with impossible samples, after the stretches
            before.
    """
    reading = Reading(source)
    stream, most = Stream(reading.rate, sample_rate), math.floor(seconds * reading.rate)
    held, count, given = list[np.ndarray](), 0, 0

    def mixed() -> np.ndarray:
        try:
            return one_channel(held, channel)[0]
        except BadClip as bad:
            if not given:
                raise
            end = reading.num_frames / reading.rate
            where = f"between {end - count / reading.rate:.2f} and {end:.2f} s"
            raise BadClip(bad.reason, ", ".join(filter(None, [bad.detail, where]))) from None

    for block in _up_to(reading, max_seconds, max_samples):
        held.append(block)
        count += len(block)
        if count > most:
            yield to_int16(stream(mixed()))
            held, count, given = [], 0, given + 1
    heard = reading.heard()
    if given:
        rest = mixed() if held else np.zeros(0, np.float32)
        yield to_int16(stream(rest, last=True))
    if heard.damage:
        raise BadClip("truncated", heard.damage)
    if not reading.num_frames:
        raise nothing(heard)
    if not given:
        yield finished(held, reading.rate, sample_rate, channel)[0]


def _up_to(reading: Reading, max_seconds: float, max_samples: float) -> Iterator[np.ndarray]:
    """The blocks of a recording.

    Raises:
        BadClip: it is too long.
    """
    most = min(max_seconds, max_samples / (reading.rate * reading.channels))
    limit = math.inf if most == math.inf else math.floor(most * reading.rate)
    for block in reading.blocks(limit):
        if reading.num_frames > limit:
            raise BadClip(f"longer than {most:g} s")
        yield block
