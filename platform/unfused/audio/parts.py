"""Parts of a recording of any length, each as if it had been cut out and decoded by itself.

The rule of this file: the recording is decoded once, and of it are held only a block and the parts
that are open.

Axes: N frames, C channels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from unfused.audio.badclip import BadClip
from unfused.audio.channels import NOTHING, Mixed, mono
from unfused.audio.reading import Heard, Reading, Source
from unfused.audio.resampling import resample
from unfused.audio.samples import LOUDEST, to_int16

LITTLE_SECONDS = 0.1
"""A part may end so far behind the recording's end without a word."""
SHORTEST_REST = 0.5
"""Seconds that a last, shorter segment of a grid must add to the one before."""
MAX_SECONDS = 4 * 3600.0


@dataclass(frozen=True)
class Grid:
    """Segments of a recording of any length: as many as it holds.

    One that is cut by the recording's end is left out where it adds less than half a second to the
    one before.

    Attributes:
        seconds: of a segment.
        overlap: share of a segment, in [0, 1), that the next one has too.

    Raises:
        ValueError: either is out of range.
    """

    seconds: float
    overlap: float = 0.0

    def __post_init__(self) -> None:
        if not (0 < self.seconds < math.inf and 0 <= self.overlap < 1):
            raise ValueError(
                "Segments are longer than 0 s and overlap by a share in [0, 1); got"
                f" {self.seconds:g} s and {self.overlap:g}."
            )


Spans = Sequence[tuple[float, float | None]] | Grid
"""Begin and end in seconds, in any order; an end of None is the recording's."""


@dataclass(frozen=True)
class Part:
    """One of the spans that were asked for.

    Attributes:
        index: of the span, or of the grid's segment.
        start: seconds.
        end: seconds, of what is there.
        samples: int16 (N,), or None where there is nothing that can be used.
        reason: why not; or, beside samples, that the recording ends before the span does.
    """

    index: int
    start: float
    end: float
    samples: np.ndarray | None
    reason: str = ""


@dataclass
class _Open:
    """A span whose samples are being collected."""

    index: int
    start: float
    end: float
    """Seconds; infinite where the recording's end is meant."""
    begin: int
    stop: float
    """Frames."""
    blocks: list[np.ndarray] = field(default_factory=list)
    num_frames: int = 0

    @classmethod
    def of(cls, index: int, start: float, end: float | None, rate: int) -> _Open:
        last = math.inf if end is None else end
        stop = math.inf if end is None else round(end * rate)
        return cls(index, start, last, max(0, round(start * rate)), stop)

    def take(self, block: np.ndarray, at: int, limit: float) -> None:
        """What belongs to it of a block (N, C) that begins at frame `at`; past `limit` frames
        nothing is held."""
        stop = min(len(block), self.stop - at)
        mine = block[max(0, self.begin - at) : max(0, int(stop))]
        self.num_frames += len(mine)
        if self.num_frames > limit:
            self.blocks.clear()
        elif len(mine):
            self.blocks.append(mine)


class Parts:
    """The parts of a recording, to be iterated over once.

    They come in the order of their ends. One that begins after the end of what is there has no
    samples; one that ends after it is cut there, and says so where that is more than a tenth of a
    second.

    Args:
        source: the bytes of a file; or a seekable file, which is not read by others meanwhile.
        sample_rate: Hz of the parts.
        spans: which parts.
        channel: as in `decode`; where channels cancel each other is decided for every part.
        max_seconds: a longer part has no samples.

    Attributes:
        heard: what is known of the recording; None before the last part has come.
    """

    def __init__(
        self,
        source: Source,
        sample_rate: int,
        spans: Spans,
        channel: str = "mean",
        max_seconds: float = MAX_SECONDS,
    ) -> None:
        self._source, self._sample_rate, self._spans = source, sample_rate, spans
        self._channel, self._max_seconds = channel, max_seconds
        self._mixed = NOTHING
        self.heard: Heard | None = None

    def __iter__(self) -> Iterator[Part]:
        """The parts.

        Raises:
            BadClip: the recording is no audio, or has no samples at all.
        """
        reading = Reading(self._source)
        rate, at = reading.rate, 0
        limit = math.floor(self._max_seconds * rate)
        coming, open_spans = _Coming(self._spans, rate), list[_Open]()
        for block in reading.blocks():
            open_spans += coming.before(at + len(block))
            for span in open_spans:
                span.take(block, at, limit)
            at += len(block)
            ready = [span for span in open_spans if span.stop <= at]
            open_spans = [span for span in open_spans if span.stop > at]
            yield from (self._part(span, rate, at) for span in _by_end(ready))
        if not at:
            raise nothing(reading.heard())
        rest = [span for span in open_spans if coming.is_wanted(span, at)]
        yield from (self._part(span, rate, at) for span in _by_end(rest + coming.never()))
        self.heard = reading.heard(self._mixed)

    def _part(self, span: _Open, rate: int, there: int) -> Part:
        """A part of the first `there` frames of a recording."""
        if span.begin >= there:
            begins = f"it begins at {span.start:.2f} s of a recording of {there / rate:.2f} s"
            reason = str(BadClip("beyond the end", begins))
            return Part(span.index, span.start, span.end, None, reason)
        end = min(span.end, there / rate)
        try:
            samples = self._samples(span, rate)
        except BadClip as bad:
            return Part(span.index, span.start, end, None, str(bad))
        beyond = math.isfinite(span.end) and span.end - end > LITTLE_SECONDS
        reason = f"ends at {span.end:.2f} s of a recording of {end:.2f} s" if beyond else ""
        return Part(span.index, span.start, end, samples, reason)

    def _samples(self, span: _Open, rate: int) -> np.ndarray:
        if span.num_frames > math.floor(self._max_seconds * rate):
            raise BadClip(f"longer than {self._max_seconds:g} s")
        if not span.num_frames:
            raise BadClip("empty", f"no sample lies between {span.start:g} and {span.end:g} s")
        samples, mixed = finished(span.blocks, rate, self._sample_rate, self._channel)
        self._mixed |= mixed
        return samples


class _Coming:
    """The spans that no block has reached yet."""

    def __init__(self, spans: Spans, rate: int) -> None:
        self._rate, self._grid = rate, spans if isinstance(spans, Grid) else None
        self._next = 0
        given = () if isinstance(spans, Grid) else spans
        found = [_Open.of(index, *span, rate) for index, span in enumerate(given)]
        self._later = sorted(found, key=lambda span: span.begin, reverse=True)

    def before(self, frame: int) -> list[_Open]:
        """Those that begin before `frame`, and are given once."""
        found = []
        while self._grid and self._segment(self._next).begin < frame:
            found.append(self._segment(self._next))
            self._next += 1
        while self._later and self._later[-1].begin < frame:
            found.append(self._later.pop())
        return found

    def never(self) -> list[_Open]:
        """Those that begin behind the recording's end."""
        return self._later

    def is_wanted(self, span: _Open, there: int) -> bool:
        """Whether a span is told that the end of a recording of `there` frames cuts."""
        if self._grid is None or span.index == 0:
            return True
        return there - self._segment(span.index - 1).stop >= SHORTEST_REST * self._rate

    def _segment(self, index: int) -> _Open:
        assert self._grid is not None
        start = index * self._grid.seconds * (1 - self._grid.overlap)
        return _Open.of(index, start, start + self._grid.seconds, self._rate)


def _by_end(spans: list[_Open]) -> list[_Open]:
    return sorted(spans, key=lambda span: (span.stop, span.index))


def finished(
    blocks: Sequence[np.ndarray], rate: int, sample_rate: int, channel: str
) -> tuple[np.ndarray, Mixed]:
    """The blocks (N, C) of a clip as int16 (N',), and what is to be said of their mean.

    Raises:
        BadClip: see `one_channel`.
    """
    wave, mixed = one_channel(blocks, channel)
    if rate != sample_rate:
        wave = resample(wave, rate, sample_rate)
    return to_int16(wave), mixed


def one_channel(blocks: Sequence[np.ndarray], channel: str) -> tuple[np.ndarray, Mixed]:
    """The blocks (N, C) of a clip as (N,), and what is to be said of their mean.

    Raises:
        BadClip: NaN or infinite samples, or such that are in other units than full scale.
    """
    wave, mixed = mono(blocks, channel)
    peak = np.abs(wave).max(initial=0.0)
    if not np.isfinite(peak):
        raise BadClip("NaN or infinite samples")
    if peak > LOUDEST:
        raise BadClip("not in [-1, 1]", f"samples reach {peak:.0f}, where 1 is full scale")
    return wave, mixed


def nothing(heard: Heard) -> BadClip:
    """Why a recording without samples cannot be used."""
    if heard.damage:
        return BadClip("truncated", heard.damage)
    return BadClip("empty", "there are no samples")
