"""Audio of any kind to what a model or a teacher is given.

The rule of this file: files are decoded as a run decodes them; a rate that nobody has stated is
asked for, never guessed.

Axes: S samples, C channels.
"""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from numbers import Real
from os import PathLike
from typing import BinaryIO

import numpy as np

from unfused.audio.decode import BadClip, Source, decode, stretches
from unfused.audio.parts import finished
from unfused.audio.samples import LOUDEST
from unfused.config import Channel
from unfused.corpora import location
from unfused.data.recordings import digest_of, open_recording
from unfused.secrets import hidden

File = str | PathLike | bytes
"""A path or URI, or the bytes of a file."""
Audio = File | np.ndarray | Sequence[float]
"""A file; or samples (S,), (S, C) or (C, S), of which the shorter axis is the channels: floats in
[-1, 1], or int16, int32 or uint8 as files have them. Other libraries' arrays do as well."""
INTEGERS = {np.dtype(kind): 2.0 ** (1 - 8 * np.dtype(kind).itemsize) for kind in ("i2", "i4", "u1")}
"""What a step of such samples is worth."""
LOWEST_RATE, HIGHEST_RATE = 1_000, 10_000_000
"""Hz that samples may be said to have: what is less was meant as kHz. A file states its own, which
nobody has typed, and has no such bounds."""
MAX_SECONDS = 4 * 3600.0
"""Of a recording that is wanted whole: a gigabyte of memory for each of its hours at most."""
HELD_BYTES = 2**26
"""A file of no more is read once, for its digest and its samples."""

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
        max_seconds: longer files are refused; where they are wanted whole, those of more than
            `MAX_SECONDS`, too.
        channel: what is taken of several channels, of a file or of samples.
        max_samples: files of more samples (frames x channels) are refused.
    """

    sample_rate: int
    max_seconds: float = math.inf
    channel: Channel = "mean"
    max_samples: float = math.inf

    def wave(self, audio: Audio, rate: int | None = None) -> np.ndarray:
        """Int16 (S,) at `sample_rate`.

        Args:
            audio: a path, bytes or samples; several channels become one, as `channel` says.
            rate: Hz of samples, 1000 to 10 million; a file states its own.

        Raises:
            ValueError: samples without a rate in Hz or too long at it, none at all, or such as are
                none.
            BadClip: the file cannot be read.
        """
        audio = taken(audio)
        if isinstance(audio, np.ndarray):
            return self._from_samples(audio, rate)
        if rate is not None:
            raise ValueError("A file states its own rate; give `rate` with samples alone.")
        most = min(self.max_seconds, MAX_SECONDS), self.channel, self.max_samples
        with _opened(audio) as source:
            return decode(source, self.sample_rate, *most)

    def stretches(
        self, audio: Audio, seconds: float, rate: int | None = None
    ) -> Iterator[np.ndarray]:
        """A recording of any length as int16 (S,) at `sample_rate`, one after the other.

        Args:
            audio: as `wave` takes it; samples are one stretch.
            seconds: of a stretch; see `audio.decode.stretches`.
            rate: as `wave` takes it.

        Raises:
            ValueError: as `wave`.
            BadClip: as `audio.decode.stretches`.
        """
        audio = taken(audio)
        if isinstance(audio, np.ndarray) or rate is not None:
            yield self.wave(audio, rate)
            return
        most = self.channel, self.max_seconds, self.max_samples
        with _opened(audio) as source:
            yield from stretches(source, self.sample_rate, seconds, *most)

    def _from_samples(self, samples: np.ndarray, rate: int | None) -> np.ndarray:
        wanted = self.sample_rate
        if rate is None:
            raise ValueError(
                f"Nothing says at which rate these samples are; give it, as in rate={wanted}."
            )
        if not _is_rate(rate):
            raise ValueError(
                f"A rate is Hz, as in rate={wanted}; got {rate!r}, and samples have"
                f" {LOWEST_RATE} to {HIGHEST_RATE}."
            )
        if samples.ndim not in (1, 2) or not samples.size:
            raise ValueError(
                f"Got samples of shape {samples.shape} at {rate} Hz; give (samples,) or"
                " (samples, channels) at the rate of the recording."
            )
        if max(samples.shape) > self.max_seconds * rate:
            raise ValueError(
                f"These are {max(samples.shape) / rate:.0f} s of sound at {rate:g} Hz, and"
                f" {self.max_seconds:g} are taken; give parts of them, or their own rate."
            )
        block = _by_channel(in_full_scale(samples))
        return finished([block], rate, wanted, self.channel)[0]


def _is_rate(rate: object) -> bool:
    known = isinstance(rate, Real) and not isinstance(rate, bool)
    return known and LOWEST_RATE <= rate <= HIGHEST_RATE


def _by_channel(samples: np.ndarray) -> np.ndarray:
    """Samples (S,), (S, C) or (C, S) as (S, C)."""
    if samples.ndim == 1:
        return samples[:, None]
    return samples if samples.shape[1] <= samples.shape[0] else samples.T


def taken(audio: Audio) -> File | np.ndarray:
    """Audio as this file knows it: a path, bytes, or NumPy's array of other libraries' ones.

    Raises:
        ValueError: it is none of them.
    """
    if isinstance(audio, str | PathLike | bytes | np.ndarray):
        return audio
    if isinstance(audio, bytearray | memoryview):
        return bytes(audio)
    try:
        samples = np.asarray(audio)
    except ValueError:
        raise ValueError(
            "These samples are lists of several lengths; give (samples,) or (samples, channels)."
        ) from None
    if samples.dtype.hasobject:
        kind = type(audio).__name__
        raise ValueError(f"Got {kind}; give the path or the bytes of a file, or samples.")
    return samples


def in_full_scale(samples: np.ndarray) -> np.ndarray:
    """Samples of any shape as float32, full scale at 1.

    Raises:
        ValueError: of a type that nothing says the full scale of, or far beyond it, or NaN.
    """
    if step := INTEGERS.get(samples.dtype):
        offset = 1.0 if samples.dtype.kind == "u" else 0.0
        return samples.astype(np.float32) * np.float32(step) - np.float32(offset)
    if samples.dtype.kind != "f":
        raise ValueError(
            f"Got samples of type {samples.dtype}; give floats in [-1, 1], or int16, int32 or uint8"
            " as files have them."
        )
    peak = np.abs(samples).max(initial=0.0)
    if not np.isfinite(peak):
        raise ValueError("There are NaN or infinite samples; repair the recording.")
    if peak > LOUDEST:
        raise ValueError(
            f"Samples reach {peak:.0f}, where 1 is full scale; divide them by what that is (32768"
            " for int16), or give them as int16."
        )
    return samples.astype(np.float32)


def name_of(audio: File) -> str:
    """The path of a file as tables and messages have it, without keys; "" of bytes."""
    return "" if isinstance(audio, bytes) else hidden(location.spelled(str(audio)))


def known(audio: File) -> tuple[str, File]:
    """The SHA-256 of a file in hexadecimal digits, and the file: the bytes where they are few.

    Raises:
        BadClip: it cannot be read.
    """
    with _opened(audio) as file:
        if isinstance(file, bytes) or file.seek(0, io.SEEK_END) <= HELD_BYTES:
            data = file if isinstance(file, bytes) else _all_of(file)
            return hashlib.sha256(data).hexdigest(), data
    return digest_of(location.absolute(str(audio))), audio


def _all_of(file: BinaryIO) -> bytes:
    file.seek(0)
    return file.read()


@contextmanager
def _opened(audio: File) -> Iterator[Source]:
    if isinstance(audio, bytes):
        yield audio
    elif not str(audio).strip():
        raise BadClip("missing", "the name is empty")
    else:
        with open_recording(location.absolute(str(audio))) as file:
            yield file
