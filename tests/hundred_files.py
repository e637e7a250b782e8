"""A hundred short recordings: every kind of file that people bring, at the rates that it takes.

The rule of this file: a folder of real files, always the same sounds; no two alike.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from audio.sounds import by_ffmpeg, encoded

ALL_RATES = (8000, 11025, 16000, 22050, 32000, 44100, 48000)
OPUS_RATES = (8000, 16000, 48000)
SECONDS = 1.3


@dataclass(frozen=True)
class Kind:
    """Files of one container and codec.

    Attributes:
        name: ends in the file's extension.
        write: of samples (S, C) and their rate in Hz, the bytes of a file.
        rates: Hz.
        channels: of the files of each rate; empty for one and two by turns.
    """

    name: str
    write: Callable[[np.ndarray, int], bytes]
    rates: tuple[int, ...] = ALL_RATES
    channels: tuple[int, ...] = ()


def _by_libsndfile(kind: str, subtype: str) -> Callable[[np.ndarray, int], bytes]:
    return partial(encoded, kind=kind, subtype=subtype)


def _by_ffmpeg(kind: str, codec: str, bits: int = 64000) -> Callable[[np.ndarray, int], bytes]:
    return partial(by_ffmpeg, kind=kind, codec=codec, bits=bits)


KINDS = (
    Kind("16.wav", _by_libsndfile("WAV", "PCM_16"), channels=(1, 2)),
    Kind("24.wav", _by_libsndfile("WAV", "PCM_24")),
    Kind("float.wav", _by_libsndfile("WAV", "FLOAT")),
    Kind("flac", _by_libsndfile("FLAC", "PCM_16")),
    Kind("aiff", _by_libsndfile("AIFF", "PCM_16")),
    Kind("caf", _by_libsndfile("CAF", "PCM_16")),
    Kind("vorbis.ogg", _by_libsndfile("OGG", "VORBIS"), channels=(1, 2)),
    Kind("opus", _by_libsndfile("OGG", "OPUS"), OPUS_RATES, (1, 2)),
    Kind("mp3", _by_libsndfile("MP3", "MPEG_LAYER_III"), channels=(1, 2)),
    Kind("m4a", _by_ffmpeg("ipod", "aac")),
    Kind("webm", _by_ffmpeg("webm", "libopus"), OPUS_RATES),
    Kind("wma", _by_ffmpeg("asf", "wmav2"), ALL_RATES[1:]),
    Kind("amr", _by_ffmpeg("amr", "libopencore_amrnb", 12200), (8000,)),
)


def sound(number: int, rate: int, channels: int) -> np.ndarray:
    """Two tones of which one glides, under noise that swells (S, C); channels differ."""
    rng = np.random.default_rng(number)
    time = np.arange(int(SECONDS * rate)) / rate
    pitch, glide = rng.uniform(150, 1500), rng.uniform(-300, 900)
    tones = np.sin(2 * np.pi * (pitch + glide * time / 2) * time)
    tones += 0.5 * np.sin(2 * np.pi * 2.1 * pitch * time)
    noise = rng.standard_normal((len(time), channels)) * np.sin(np.pi * time / SECONDS)[:, None]
    mixed = rng.uniform(0.1, 1) * tones[:, None] + rng.uniform(0.02, 0.3) * noise
    return rng.uniform(0.1, 0.7) * mixed / np.abs(mixed).max()


@dataclass(frozen=True)
class File:
    """One of them."""

    path: Path
    kind: str
    rate: int


def write_hundred(folder: Path) -> list[File]:
    """Write the files; in the order of their names."""
    found: list[File] = []
    for kind in KINDS:
        for turn, rate in enumerate(kind.rates):
            for channels in kind.channels or (1 + turn % 2,):
                path = folder / f"{len(found):03d}-{rate}-{channels}.{kind.name}"
                path.write_bytes(kind.write(sound(len(found), rate, channels), rate))
                found.append(File(path, kind.name, rate))
    return found
