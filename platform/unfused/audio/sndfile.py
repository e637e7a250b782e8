"""WAV, FLAC, Ogg, MP3, AIFF, CAF, Wave64, AU and more, as libsndfile reads them.

The rule of this file: a file is read forwards once, to the end of what is there.

Axes: N frames, C channels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import suppress
from typing import BinaryIO

import soundfile

from unfused.audio.libav import Libav
from unfused.audio.resampling import Piece, joined

BLOCK_SAMPLES = 2**18
"""Samples (frames x channels) read at a time."""

MP3_FRAME = 1152
"""Encoders disagree by one frame on whether an MP3's own header counts; in a WAV, by two."""

LITTLE_SECONDS = 0.01
"""A header that promises so much more than there is has been written carelessly."""


class _Source:
    """A file as libsndfile is given it: one that is damaged has it look before the beginning, which
    Python prints a traceback about."""

    def __init__(self, file: BinaryIO) -> None:
        self.tell, self.readinto, self._seek = file.tell, file.readinto, file.seek

    def seek(self, offset: int, whence: int) -> None:
        with suppress(ValueError, OSError):
            self._seek(offset, whence)


class _ForwardFile(soundfile.SoundFile):
    """Never seeks, which fails where a header claims too much and costs time where it does not."""

    def seekable(self) -> bool:
        return False


class Sndfile:
    """An audio file.

    Attributes:
        rate: Hz.
        channels: C.
        filled: seconds of silence in place of what is missing; right after the last piece.
        lost: those, and what its header promises beyond its end; right after the last piece.
        damage: what does not decode, in words.

    Args:
        source: a seekable file, not read by others meanwhile.
        guessed: the header states no number of frames.

    Raises:
        soundfile.LibsndfileError: libsndfile does not know it.
    """

    def __init__(self, source: BinaryIO, guessed: bool = False) -> None:
        self._source, self._guessed = source, guessed
        source.seek(0)
        self._file = _ForwardFile(_Source(source))
        self.rate, self.channels = self._file.samplerate, self._file.channels
        self.filled, self.lost, self.damage = 0.0, 0.0, ""

    def pieces(self, limit: float = math.inf) -> Iterator[Piece]:
        """All that is there, or a little more than `limit` frames of it."""
        total, ended = 0, False
        with self._file as file:
            most = max(1, BLOCK_SAMPLES // self.channels)
            # One more than there should be, which finds the end of a short clip at once.
            most = min(most, file.frames + 1) if file.frames else most
            while not ended and total <= limit:
                asked = int(min(most, limit + 1 - total))
                try:
                    block = file.read(asked, dtype="float32", always_2d=True)
                except soundfile.LibsndfileError as error:
                    yield from self._after(error, total)
                    return
                total, ended = total + len(block), len(block) < asked
                yield self.rate, block
            if ended and total < file.frames and not self._guessed:
                self._compare(file.frames - total)

    def _compare(self, short: int) -> None:
        """Hold what was decoded against the frames that are promised."""
        disputed = 0
        if self._file.subtype == "MPEG_LAYER_III":
            disputed = MP3_FRAME if self._file.format == "MP3" else 2 * MP3_FRAME
        little = max(LITTLE_SECONDS * self.rate, disputed)
        self.lost = short / self.rate if short > little else 0.0

    def _after(self, error: soundfile.LibsndfileError, total: int) -> Iterator[Piece]:
        """What lies behind `total` frames, where libsndfile gave up: FFmpeg finds its way again."""
        self.damage = error.error_string.removeprefix("Error : ").rstrip(".")
        rest = Libav.of(self._source)
        if rest is None:
            return
        pieces = rest.pieces(skip=total / self.rate)
        yield from ((self.rate, block) for block in joined(pieces, self.rate, self.channels))
        self.filled = rest.filled
        self.lost = rest.filled if self._guessed else rest.lost
