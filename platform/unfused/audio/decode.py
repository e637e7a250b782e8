"""Turns audio files into 16-bit mono samples.

The rule of this room's files: a clip is decoded whole or refused with a reason; a recording that is
cut into `Parts` gives all that is there. What a header claims is never believed: memory grows with
the samples that are really there, up to `max_seconds`.

Axes: N frames.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from unfused.audio.badclip import BadClip
from unfused.audio.parts import Grid, Part, Parts, Spans, finished, nothing
from unfused.audio.reading import Heard, Reading, Source
from unfused.audio.resampling import resample

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
        BadClip: not audio, empty, truncated, NaN or infinite samples, or too long. What lacks its
            end without a trace passes for whole: an MP3 without its last frame, or without a
            header that counts them; an Ogg that ends between two pages; AAC or AMR in no container.
    """
    reading = Reading(source)
    most_seconds = min(max_seconds, max_samples / (reading.rate * reading.channels))
    limit = math.floor(most_seconds * reading.rate)
    blocks = list(reading.blocks(limit))
    if reading.num_frames > limit:
        raise BadClip(f"longer than {most_seconds:g} s")
    heard = reading.heard()
    if heard.damage:
        raise BadClip("truncated", heard.damage)
    if not reading.num_frames:
        raise nothing(heard)
    samples, cancelled = finished(blocks, reading.rate, sample_rate, channel)
    return samples, replace(heard, cancelled=True) if cancelled else heard
