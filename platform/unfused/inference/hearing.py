"""Audio of any kind to what a model or a teacher is given.

The rule of this file: files are decoded as a run decodes them; a rate that nobody has stated is
asked for, never guessed.

Axes: S samples, C channels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from os import PathLike

import numpy as np

from unfused.audio.decode import decode, resample
from unfused.audio.samples import INT16_SCALE, to_int16
from unfused.config import Channel
from unfused.corpora import location
from unfused.data.recordings import read_recording

Audio = str | PathLike | bytes | np.ndarray
"""A path or URI, the bytes of a file, or samples (S,) or (S, C): float in [-1, 1], or int16."""
MAX_SECONDS = 4 * 3600.0
"""Of a recording: it is decoded whole, a gigabyte of memory for each of its hours at most."""

SERVED_SECONDS = 600.0
"""Of a recording that somebody sends to a server."""
SAMPLES_A_SECOND = 96_000
"""Decoded samples (frames x channels) for each second that may be sent: 48 kHz in stereo. A few
kilobytes of silence may unpack to gigabytes."""


@dataclass(frozen=True)
class Hearing:
    """What audio becomes.

    Attributes:
        sample_rate: Hz of what is given.
        max_seconds: longer files are refused.
        channel: what is taken of a file's channels.
        max_samples: files of more samples (frames x channels) are refused.
    """

    sample_rate: int
    max_seconds: float = MAX_SECONDS
    channel: Channel = "mean"
    max_samples: float = math.inf

    def wave(self, audio: Audio, rate: int | None = None) -> np.ndarray:
        """Int16 (S,) at `sample_rate`.

        Args:
            audio: a path, bytes or samples; several channels are averaged.
            rate: Hz of samples; a file states its own.

        Raises:
            ValueError: samples without a rate, none at all, or one that is no number.
            BadClip: the file cannot be read.
        """
        if isinstance(audio, np.ndarray):
            return self._from_samples(audio, rate)
        if rate is not None:
            raise ValueError("A file states its own rate; give `rate` with samples alone.")
        data = audio if isinstance(audio, bytes) else read_named(audio)[1]
        most = self.max_seconds, self.channel, self.max_samples
        return decode(data, self.sample_rate, *most)

    def _from_samples(self, samples: np.ndarray, rate: int | None) -> np.ndarray:
        wanted = self.sample_rate
        if rate is None:
            raise ValueError(
                f"Nothing says at which rate these samples are; give it, as in rate={wanted}."
            )
        if rate < 1 or samples.ndim not in (1, 2) or not samples.size:
            raise ValueError(
                f"Got samples of shape {samples.shape} at {rate} Hz; give (samples,) or"
                " (samples, channels) at the rate of the recording."
            )
        if samples.dtype == np.int16:
            samples = samples * np.float32(INT16_SCALE)
        wave = samples.astype(np.float32)
        if not np.isfinite(wave).all():
            raise ValueError("There are NaN or infinite samples; repair the recording.")
        wave = wave if wave.ndim == 1 else wave.mean(axis=1)
        return to_int16(wave if rate == wanted else resample(wave, rate, wanted))


def read_named(audio: Audio) -> tuple[str, bytes | None]:
    """The path of a file and its bytes; samples have neither."""
    if isinstance(audio, np.ndarray):
        return "", None
    if isinstance(audio, bytes):
        return "", audio
    return str(audio), read_recording(location.absolute(str(audio)))
