"""Turns the bytes of an audio file into 16-bit mono samples.

The rule of this room: a clip is decoded whole or refused with a reason. What a header claims is
never believed: memory grows with the samples that are really there, up to `max_seconds`.

Axes: N frames, C channels.
"""

from __future__ import annotations

import io
import math
import struct
from collections.abc import Iterator

import numpy as np
import soundfile
import soxr

from unfused.audio.samples import to_int16

BLOCK_SAMPLES = 2**18
"""Samples (frames x channels) read at a time."""

MP3_FRAME = 1152
"""Encoders disagree by one frame on whether an MP3's own header counts."""

STREAMED_SIZES = {0xFFFFFFFF, 0x80000000, 0x7FFFF000}
"""What ffmpeg, arecord and SoX write for a size that they do not know yet."""

UNTOLD_FRAMES = 2**36 - 1
"""The largest count that FLAC can state; stands in for 0, 'unknown', which libsndfile refuses."""


class BadClip(ValueError):
    """A clip that cannot be used.

    `reason` is "not audio", "empty", "truncated", "NaN or infinite samples" or "longer than N s";
    the text adds what was seen.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason, detail)
        self.reason = reason

    def __str__(self) -> str:
        return ": ".join(filter(None, self.args))


class _ForwardFile(soundfile.SoundFile):
    """Never seeks, which fails where a header claims too much and costs time where it does not."""

    def seekable(self) -> bool:
        return False


def decode(data: bytes, sample_rate: int, max_seconds: float) -> np.ndarray:
    """The samples of `decode_with_rate`."""
    return decode_with_rate(data, sample_rate, max_seconds)[0]


def decode_with_rate(
    data: bytes, sample_rate: int, max_seconds: float
) -> tuple[np.ndarray, int]:
    """Decode a WAV, FLAC, Ogg or MP3 file of any rate and channel count.

    Channels are averaged; resampling is soxr's HQ, as in `librosa.load`.

    Args:
        data: The whole file.
        sample_rate: Hz of the result.
        max_seconds: Longer clips are refused.

    Returns:
        int16 (N,), N >= 1, full scale at 32768, rounded and clipped; and the file's own rate in Hz.

    Raises:
        BadClip: Not audio, empty, truncated, NaN or infinite samples, or too long. An MP3 that
            lacks its last frame passes for whole, and so does any without a Xing header (of which,
            at a variable bit rate, libsndfile gives the beginning).
    """
    if not data:
        raise BadClip("empty", "the file has no bytes")
    wave, rate = _read(_complete(data), max_seconds)
    if not np.isfinite(wave).all():
        raise BadClip("NaN or infinite samples")
    if rate != sample_rate:
        wave = resample(wave, rate, sample_rate)
    return to_int16(wave), rate


def _read(data: bytes, max_seconds: float) -> tuple[np.ndarray, int]:
    """Mono float32 (N,) in [-1, 1] and its rate in Hz."""
    with _open(data) as file:
        limit = math.floor(max_seconds * file.samplerate)
        try:
            wave = np.concatenate(list(_mono_blocks(file, limit)))
        except soundfile.LibsndfileError as error:
            raise BadClip("truncated", error.error_string.removeprefix("Error : ")) from None
        if len(wave) > limit:
            raise BadClip(f"longer than {max_seconds:g} s")
        _check_length(data, file, len(wave))
        return wave, file.samplerate


def _open(data: bytes) -> soundfile.SoundFile:
    try:
        return _ForwardFile(io.BytesIO(data))
    except soundfile.LibsndfileError:
        if data[:4] in (b"fLaC", b"OggS"):
            raise BadClip("truncated", "the file ends or is damaged in its header") from None
        raise BadClip("not audio", "no WAV, FLAC, Ogg or MP3 is recognised") from None


def _mono_blocks(file: soundfile.SoundFile, limit: int) -> Iterator[np.ndarray]:
    """Blocks of the mean over channels, until the end or just past `limit` frames."""
    most, total, ended = max(1, BLOCK_SAMPLES // file.channels), 0, False
    while not ended and total <= limit:
        asked = min(most, limit + 1 - total)
        block = file.read(asked, dtype="float32", always_2d=True)
        yield block[:, 0] if file.channels == 1 else block.mean(axis=1)
        total, ended = total + len(block), len(block) < asked


def _check_length(data: bytes, file: soundfile.SoundFile, num_frames: int) -> None:
    """Hold what was decoded against what the header promises."""
    short = file.frames - num_frames
    untold = file.format == "FLAC" and file.frames == UNTOLD_FRAMES
    guessed = file.format == "MP3" and (short <= MP3_FRAME or not _has_xing_header(data))
    if short > 0 and not (untold or guessed):
        raise BadClip("truncated", f"{num_frames} of {file.frames} frames are there")
    if not num_frames:
        raise BadClip("empty", "there are no samples")


def resample(wave: np.ndarray, rate: int, sample_rate: int) -> np.ndarray:
    """(N,) to (ceil(N sample_rate / rate),), the length that librosa gives."""
    length = math.ceil(len(wave) * sample_rate / rate)
    resampled = soxr.resample(wave, rate, sample_rate, quality="HQ")[:length]
    missing = length - len(resampled)
    return np.pad(resampled, (0, missing)) if missing else resampled


def _complete(data: bytes) -> bytes:
    """The file with sizes that a streaming writer left open filled in.

    Raises:
        BadClip: The container says that its end is missing.
    """
    if data[:4] in (b"RIFF", b"RIFX", b"RF64") and data[8:12] == b"WAVE":
        return _complete_wav(data)
    if data[:4] == b"fLaC":
        return _complete_flac(data)
    if data[:4] == b"OggS":
        _check_ogg(data)
    return data


def _complete_wav(data: bytes) -> bytes:
    """Walk the chunks (RIFF, big-endian RIFX, or RF64 with its 64-bit sizes) to the samples."""
    order = ">" if data[:4] == b"RIFX" else "<"
    at, long_at = 12, 0
    while at + 8 <= len(data):
        name, size = struct.unpack_from(f"{order}4sI", data, at)
        if name == b"data":
            if long_at:
                return _with_size(data, "<Q", long_at, at + 8, {0, 2**64 - 1})
            untold = STREAMED_SIZES if _is_chunk(data, at + 8, order) else STREAMED_SIZES | {0}
            return _with_size(data, f"{order}I", at + 4, at + 8, untold)
        if name == b"ds64" and at + 24 <= len(data):
            long_at = at + 16
        at += 8 + size + size % 2
    raise BadClip("truncated", "the file ends before its samples begin")


def _is_chunk(data: bytes, at: int, order: str) -> bool:
    """Whether a chunk follows a size of zero: then it means no samples, not an unknown number."""
    if at + 8 > len(data):
        return at == len(data)
    name, size = struct.unpack_from(f"{order}4sI", data, at)
    return name.isascii() and name.decode().isprintable() and at + 8 + size <= len(data)


def _with_size(data: bytes, kind: str, at: int, start: int, untold: set[int]) -> bytes:
    """Check the size (at `at`) of the samples (from `start`), or fill in one that is untold."""
    (size,), there = struct.unpack_from(kind, data, at), len(data) - start
    if size in untold:
        return data[:at] + struct.pack(kind, there) + data[at + struct.calcsize(kind) :]
    if size > there:
        raise BadClip("truncated", f"{there} of {size} bytes of samples are there")
    return data


def _complete_flac(data: bytes) -> bytes:
    """STREAMINFO holds 36 bits of frame count at byte 21 and a half (RFC 9639, section 8.2)."""
    if len(data) < 26 or data[21] & 0x0F or any(data[22:26]):
        return data
    return data[:21] + bytes([data[21] | 0x0F]) + b"\xff" * 4 + data[26:]


def _check_ogg(data: bytes) -> None:
    """Walk the pages: the last one is whole and marked as the end (RFC 3533, section 6)."""
    at, ended = 0, False
    while data[at : at + 4] == b"OggS" and at + 27 <= len(data):
        ended, num_segments = bool(data[at + 5] & 4), data[at + 26]
        body = at + 27 + num_segments
        at = body + sum(data[at + 27 : body])
    if at > len(data) or not ended:
        raise BadClip("truncated", "the last Ogg page is missing or cut")


def _has_xing_header(data: bytes) -> bool:
    """Whether the first MP3 frame states the count of frames (else libsndfile guesses it)."""
    start = 0
    if data[:3] == b"ID3" and len(data) >= 10:
        a, b, c, d = data[6:10]
        start = 10 + (a << 21 | b << 14 | c << 7 | d)
    return any(tag in data[start : start + 256] for tag in (b"Xing", b"Info", b"VBRI"))
