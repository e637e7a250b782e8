"""Whatever FFmpeg decodes: AAC, Opus in WebM, WMA, AMR, the sound of a film.

The rule of this file: PyAV is imported when a file needs it. Only demuxers of audio and film are
let in: others open further files, or addresses, that a file names.

Axes: N frames, C channels.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from unfused.audio.resampling import Piece

if TYPE_CHECKING:
    import av

DEMUXERS = (
    "aac,ac3,eac3,aiff,amr,amrnb,amrwb,ape,asf,au,avi,caf,dsf,dts,flac,flv,gsm,loas,matroska,mov,"
    "mp3,mpc,mpc8,mpeg,mpegts,nistsphere,ogg,oma,qcp,rm,tak,truehd,tta,voc,w64,wav,wv,xwma"
)
STATED = ("mov", "matroska", "flac", "flv", "tta", "wv")
"""Demuxers whose files state how long they are; of others FFmpeg guesses it from their size."""
STAMPED = (*STATED, "ogg", "asf", "mpegts", "mpeg")
"""Demuxers whose files say when a frame is heard; in others FFmpeg adds up what came before."""
LITTLE_SECONDS = 0.1
"""A header that promises so much more than there is counts what an encoder adds; time stamps are
off by less, but for FLAC's, which count samples."""
LONGEST_HOLE = 3600.0
"""Seconds in all; time stamps that jump farther, or back, are no sign of a loss."""


class Libav:
    """The first audio stream of a file.

    Attributes:
        rate: Hz, of its first frame.
        channels: C, of its first frame.
        filled: seconds of silence in place of what is missing; right after the last piece.
        lost: those, and what its header promises beyond its end; right after the last piece.
        damage: what does not decode, in words.
    """

    def __init__(self, container: av.container.InputContainer) -> None:
        self._container = container
        self._stream = container.streams.audio[0]
        self._bad_packets = 0
        frames = self._decoded()
        first = next(frames)
        self._frames = chain([first], frames)
        self.rate, self.channels = first.sample_rate, first.layout.nb_channels
        self._exact = container.format.name == "flac"
        self._start = self._origin = self._beginning(first)
        self.filled, self.lost, self.damage = 0.0, 0.0, ""

    @classmethod
    def of(cls, file: BinaryIO) -> Libav | None:
        """The sound of a seekable file that nobody else reads meanwhile; None where there is none
        that FFmpeg decodes."""
        import av

        file.seek(0)
        try:
            whitelist = {"format_whitelist": DEMUXERS}
            return cls(av.open(file, options=whitelist, metadata_errors="replace"))
        except (av.FFmpegError, IndexError, StopIteration):
            return None

    def pieces(self, skip: float = 0.0) -> Iterator[Piece]:
        """All that is there, and silence where something is missing in between, so that what
        follows keeps its time.

        Args:
            skip: seconds at the beginning that are left out.
        """
        at = 0.0
        for frame in self._frames:
            for block in chain(_silence(self._gap(frame, at), frame), [_samples(frame)]):
                at += len(block) / frame.sample_rate
                kept = block[max(0, len(block) - round((at - skip) * frame.sample_rate)) :]
                if len(kept):
                    yield frame.sample_rate, kept
        self._compare(at)
        self.lost += self.filled
        self._container.close()

    def _beginning(self, first: av.AudioFrame) -> float | None:
        """Seconds at which the sound begins by the file, of which `first` is what decodes first."""
        if self._exact:
            return 0.0
        start = self._stream.start_time
        if self._bad_packets and start is not None:
            return float(start * self._stream.time_base)
        return self._time_of(first)

    def _gap(self, frame: av.AudioFrame, at: float) -> int:
        """How many frames are missing in front of one that comes after `at` seconds."""
        time = self._time_of(frame)
        if time is None or self._origin is None:
            return 0
        seconds = time - self._origin - at
        if seconds < -LITTLE_SECONDS or self.filled + seconds > LONGEST_HOLE:
            self._origin += seconds
            return 0
        gap = round(seconds * frame.sample_rate)
        if gap <= (0 if self._exact else LITTLE_SECONDS * frame.sample_rate):
            return 0
        self.filled += gap / frame.sample_rate
        return gap

    def _time_of(self, frame: av.AudioFrame) -> float | None:
        """Seconds at which a frame is heard by the file; None where it does not say."""
        return frame.time if self._container.format.name.startswith(STAMPED) else None

    def _decoded(self) -> Iterator[av.AudioFrame]:
        import av

        try:
            for packet in self._container.demux(self._stream):
                try:
                    yield from packet.decode()
                except av.FFmpegError:
                    self._bad_packets += 1
        except av.FFmpegError:
            self._bad_packets += 1

    def _compare(self, seconds: float) -> None:
        """Hold what was decoded against what is promised."""
        if not self._container.format.name.startswith(STATED):
            return
        if self._bad_packets:
            self.damage = f"{self._bad_packets} of its packets do not decode"
        short = self._promised() - seconds
        self.lost = short if short > LITTLE_SECONDS else 0.0

    def _promised(self) -> float:
        """Seconds; a container's are counted from 0, wherever its sound begins."""
        stream, container = self._stream, self._container
        if stream.duration is not None:
            return float(stream.duration * stream.time_base)
        alone = len(container.streams) == 1 and container.duration is not None
        return container.duration / 1e6 - max(0.0, self._start or 0.0) if alone else 0.0


def _silence(frames: int, like: av.AudioFrame) -> Iterator[np.ndarray]:
    """Zeros (N, C) of that many frames, a second at a time."""
    for first in range(0, frames, like.sample_rate):
        count = min(like.sample_rate, frames - first)
        yield np.zeros((count, like.layout.nb_channels), np.float32)


def _samples(frame: av.AudioFrame) -> np.ndarray:
    """Float32 (N, C) in [-1, 1] of a frame of any sample format."""
    values = _values(frame)
    if frame.format.is_planar:
        values = values.T
    values = values.reshape(-1, frame.layout.nb_channels)
    if values.dtype.kind == "f":
        return values.astype(np.float32)
    middle = 128 if values.dtype == np.uint8 else 0
    full = 2.0 ** (8 * values.dtype.itemsize - 1)
    return ((values.astype(np.float64) - middle) / full).astype(np.float32)


def _values(frame: av.AudioFrame) -> Any:
    """Samples as they lie in a frame; of 64-bit integers, too, which PyAV does not convert."""
    if frame.format.name.removesuffix("p") != "s64":
        return frame.to_ndarray()
    count = frame.samples * (1 if frame.format.is_planar else frame.layout.nb_channels)
    return np.stack([np.frombuffer(plane, np.int64, count) for plane in frame.planes])
