"""A recording as blocks of samples, to the end of what is there, and what is known of it then.

The rule of this file: what a header claims is never believed; what is lost is known, as far as it
can be, once all that is there has been read.

Axes: N frames, C channels.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
import soundfile

from unfused.audio.badclip import BadClip
from unfused.audio.channels import NOTHING, Mixed
from unfused.audio.containers import Container, examine
from unfused.audio.libav import Libav
from unfused.audio.resampling import Piece, joined
from unfused.audio.sndfile import Sndfile

Source = bytes | BinaryIO
"""The whole of a file, or the file: binary and seekable."""

LITTLE_SECONDS = 0.15
"""What a header claims too much is no loss if it is no more than a sector, and no longer."""

BEGINNINGS = ((0, b"fLaC"), (0, b"OggS"), (4, b"ftyp"), (0, b"\x1a\x45\xdf\xa3"), (0, b"caff"))
"""Where a file that does not decode says what it was to be: FLAC, Ogg, MP4, Matroska, CAF."""


@dataclass(frozen=True)
class Heard:
    """What is known of a recording once it has been decoded.

    Attributes:
        rate: Hz, the file's own.
        channels: the file's own.
        seconds: of sound that is there, in the file.
        lost: seconds that are missing of what its header or its time stamps promise.
        mixed: what is to be said of the mean of its channels.
        damage: what is lost, in words; "" of a recording that is whole. It is told where `lost` is
            0, too, if nothing says how much it was.
    """

    rate: int
    channels: int
    seconds: float
    lost: float = 0.0
    mixed: Mixed = NOTHING
    damage: str = ""


class Reading:
    """One pass over a recording.

    Attributes:
        rate: Hz, of its first link.
        channels: C, of its first link.
        num_frames: that have been read so far.

    Raises:
        BadClip: not audio, empty, truncated in its header, or damaged so that a library fails,
            which blocks raise, too.
        OSError: of a file that cannot be read.
    """

    def __init__(self, source: Source) -> None:
        file = io.BytesIO(source) if isinstance(source, bytes) else source
        size = file.seek(0, io.SEEK_END)
        if not size:
            raise BadClip("empty", "the file has no bytes")
        with _told():
            self._container = examine(file, size)
            self._sounds = [_opened(self._container.links[0], self._container)]
        self.rate, self.channels = self._sounds[0].rate, self._sounds[0].channels
        self.num_frames = 0

    def blocks(self, limit: float = math.inf) -> Iterator[np.ndarray]:
        """Float32 (N, C) in [-1, 1], one after the other: all, with silence where time stamps
        say that something is missing; or a little more than `limit` frames."""
        with _told():
            for block in self._alike(limit):
                self.num_frames += len(block)
                yield block
                if self.num_frames > limit:
                    return

    def _alike(self, limit: float) -> Iterator[np.ndarray]:
        """Blocks of one rate and number of channels."""
        if len(self._container.links) == 1 and isinstance(self._sounds[0], Sndfile):
            return (block for _, block in self._sounds[0].pieces(limit))
        return joined(self._pieces(limit), self.rate, self.channels)

    def _pieces(self, limit: float) -> Iterator[Piece]:
        for number, link in enumerate(self._container.links):
            if number:
                self._sounds.append(_opened(link, self._container))
            sound = self._sounds[-1]
            yield from sound.pieces(limit) if isinstance(sound, Sndfile) else sound.pieces()

    def heard(self, mixed: Mixed = NOTHING) -> Heard:
        """What is known after the last block.

        Args:
            mixed: as in `Heard`.
        """
        seconds = self.num_frames / self.rate - sum(sound.filled for sound in self._sounds)
        lost = seconds * self._container.missing
        if self._container.little and lost <= LITTLE_SECONDS:
            lost = 0.0
        damage = self._container.cut
        for sound in self._sounds:
            lost, damage = lost + sound.lost, damage or sound.damage
        if lost:
            damage = f"{lost:.2f} of {seconds + lost:.2f} s are lost"
        return Heard(self.rate, self.channels, seconds, lost, mixed, damage)


@contextmanager
def _told() -> Iterator[None]:
    """Whatever a library raises of a file's content, as a BadClip."""
    try:
        yield
    except (BadClip, OSError, MemoryError):
        raise
    except Exception as error:
        raise BadClip("damaged", str(error) or type(error).__name__) from None


def _opened(file: BinaryIO, container: Container) -> Sndfile | Libav:
    """By libsndfile where it can, by FFmpeg elsewhere.

    Raises:
        BadClip: neither can.
    """
    if not container.beyond:
        try:
            return Sndfile(file, container.guessed)
        except soundfile.LibsndfileError:
            pass
    sound = Libav.of(file)
    if sound is not None:
        return sound
    file.seek(0)
    head = file.read(16)
    if any(head[at:].startswith(name) for at, name in BEGINNINGS):
        raise BadClip("truncated", "the file ends or is damaged in its header")
    raise BadClip("not audio", "neither libsndfile nor FFmpeg finds sound in it")
