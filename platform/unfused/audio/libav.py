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
LITTLE_SECONDS = 0.1
"""A header that promises so much more than there is counts what an encoder adds."""


class Libav:
    """The first audio stream of a file.

    Attributes:
        rate: Hz, of its first frame.
        channels: C, of its first frame.
        lost: seconds that its header promises beyond those read; right after the last piece.
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
        self.lost, self.damage = 0.0, ""

    @classmethod
    def of(cls, file: BinaryIO) -> Libav | None:
        """The sound of a seekable file that nobody else reads meanwhile; None where there is none
        that FFmpeg decodes."""
        import av

        file.seek(0)
        try:
            return cls(av.open(file, options={"format_whitelist": DEMUXERS}))
        except (av.FFmpegError, IndexError, StopIteration):
            return None

    def pieces(self, skip: float = 0.0, filled: bool = False) -> Iterator[Piece]:
        """All that is there.

        Args:
            skip: seconds at the beginning that are left out.
            filled: what is missing in between is silence, so that later frames keep their time.
        """
        at, hole, total, first = 0, 0, 0.0, round(skip * self.rate)
        for frame in self._frames:
            block = _samples(frame)
            gap = self._start_of(frame) - at if filled and at else 0
            if gap > 0:
                block = np.concatenate([np.zeros((gap, block.shape[1]), np.float32), block])
                hole += gap
            at += len(block)
            total += len(block) / frame.sample_rate
            kept = block[max(0, first - at + len(block)) :]
            if len(kept):
                yield frame.sample_rate, kept
        self._compare(total)
        self.lost += hole / self.rate
        self._container.close()

    def _start_of(self, frame: av.AudioFrame) -> int:
        """Where a frame begins, in frames of the first one's rate; 0 where it is not told."""
        return 0 if frame.time is None else round(frame.time * self.rate)

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
        stream, container = self._stream, self._container
        if stream.duration is not None:
            return float(stream.duration * stream.time_base)
        alone = len(container.streams) == 1 and container.duration is not None
        return container.duration / 1e6 if alone else 0.0


def _samples(frame: av.AudioFrame) -> np.ndarray:
    """Float32 (N, C) in [-1, 1] of a frame of any sample format."""
    values: Any = frame.to_ndarray()
    if frame.format.is_planar:
        values = values.T
    values = values.reshape(-1, frame.layout.nb_channels)
    if values.dtype.kind == "f":
        return values.astype(np.float32)
    middle = 128 if values.dtype == np.uint8 else 0
    full = 2.0 ** (8 * values.dtype.itemsize - 1)
    return ((values.astype(np.float64) - middle) / full).astype(np.float32)
