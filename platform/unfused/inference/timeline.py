"""A long recording as windows that overlap, and windows as segments.

The rule of this file: it knows probabilities and moments, no audio and no model.

Axes: W windows of a recording, H steps of the grid on which they begin, N classes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from unfused.config import ConfigError


@dataclass(frozen=True)
class TimelineConfig:
    """How a recording becomes segments.

    Attributes:
        window: seconds of a window; none is the middle length of the training clips.
        overlap: share of a window that the next one covers again, in [0, .95].
        threshold: probability, in [0, 1], below which nothing is said.
        min_seconds: shorter segments are left out.
    """

    window: float | None = None
    overlap: float = 0.5
    threshold: float = 0.5
    min_seconds: float = 0.0

    def __post_init__(self) -> None:
        if self.window is not None and not 0.05 <= self.window <= 3600:
            raise ConfigError(f"A window is .05 to 3600 s long; got {self.window:g}.")
        if not 0 <= self.overlap <= 0.95:
            raise ConfigError(f"The overlap is a share in [0, .95]; got {self.overlap:g}.")
        if not 0 <= self.threshold <= 1:
            raise ConfigError(f"The threshold is a probability in [0, 1]; got {self.threshold:g}.")
        if not 0 <= self.min_seconds < math.inf:
            raise ConfigError(f"A minimum length is 0 or more; got {self.min_seconds:g}.")


@dataclass(frozen=True)
class Grid:
    """Where the windows of a recording begin.

    Attributes:
        window: samples of a window.
        hop: samples from one to the next.
    """

    window: int
    hop: int

    @classmethod
    def of(cls, rate: int, config: TimelineConfig, seconds: float) -> Grid:
        """The grid.

        Args:
            rate: Hz.
            config: what was asked for.
            seconds: of a window, where `config` has none.
        """
        window = max(1, round((config.window or seconds) * rate))
        return cls(window, max(1, round(window * (1 - config.overlap))))

    def windows(self, stretches: Iterable[np.ndarray]) -> Iterator[list[np.ndarray]]:
        """The windows of a recording, as it comes; of it is held what lies in windows to come.

        Args:
            stretches: (S,) each, one after the other.

        Yields:
            Those that end in each stretch. The last one of all may be shorter, cut by the
            recording's end.
        """
        held, first = np.zeros(0, np.int16), True
        for stretch in stretches:
            held = np.concatenate([held, stretch])
            count = max(0, (len(held) - self.window) // self.hop + 1)
            yield [held[i * self.hop : i * self.hop + self.window] for i in range(count)]
            held, first = held[count * self.hop :], first and not count
        if first or len(held) > self.window - self.hop:
            yield [held]

    def on_steps(self, probabilities: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
        """What is said of every step: the mean over the windows that lie over it.

        Args:
            probabilities: (W, N).
            length: samples of the recording.

        Returns:
            Samples at which steps begin and the last one ends (H + 1,), and (H, N).
        """
        over = -(-self.window // self.hop)
        steps = len(probabilities) + over - 1
        edges = np.minimum(np.arange(steps + 1) * self.hop, length)
        steps = int(np.searchsorted(edges, length))
        total = np.zeros((len(probabilities) + over - 1, probabilities.shape[1]))
        count = np.zeros((len(total), 1))
        for shift in range(over):
            total[shift : shift + len(probabilities)] += probabilities
            count[shift : shift + len(probabilities)] += 1
        return edges[: steps + 1], (total / count)[:steps]


def segments(
    edges: np.ndarray, probabilities: np.ndarray, threshold: float, least: float
) -> Iterator[tuple[int, int, int, np.ndarray]]:
    """Neighbouring steps of one label as one.

    Args:
        edges: (H + 1,) where steps begin and the last one ends.
        probabilities: (H, N).
        threshold: of the label's probability, below which a step has none.
        least: what a segment is long at least.

    Yields:
        Begin, end, class and mean probabilities (N,).
    """
    label = probabilities.argmax(1)
    label[probabilities.max(1) < threshold] = -1
    cuts = np.flatnonzero(np.diff(label)) + 1
    for low, high in zip([0, *cuts], [*cuts, len(label)], strict=True):
        begin, end = int(edges[low]), int(edges[high])
        if label[low] >= 0 and end > begin and end - begin >= least:
            weight = np.diff(edges[low : high + 1])
            mean = np.average(probabilities[low:high], axis=0, weights=weight)
            yield begin, end, int(label[low]), mean
